// --mm-processor-kwargs, mm_processor_kwargs and the options of a part, laid over each other.
#include "server/openai/media_options.h"

#include <gtest/gtest.h>

namespace fd {
namespace {

const OptionPlace kFlag{"", "--mm-processor-kwargs"};
const OptionPlace kRequest{"mm_processor_kwargs.", "mm_processor_kwargs"};
const OptionPlace kPart{"messages[0].content[0].image_url.", "messages"};

JsonObject Object(const std::string& text) {
  auto json = ParseJson(text);
  FD_CHECK(json.ok(), text);
  return json->as_object();
}

StatusOr<MediaConfig> Server(const std::string& text) {
  MediaConfig config;
  FD_ASSIGN_OR_RETURN(const MediaOverrides overrides, ReadProcessorKwargs(Object(text), kFlag, config));
  FD_RETURN_IF_ERROR(SetServerOptions(overrides, &config));
  return config;
}

StatusOr<MediaOptions> Request(const MediaConfig& server, const std::string& text) {
  MediaOptions options = server;
  FD_ASSIGN_OR_RETURN(const MediaOverrides overrides, ReadProcessorKwargs(Object(text), kRequest, server));
  FD_RETURN_IF_ERROR(SetRequestOptions(overrides, server, kRequest, &options));
  return options;
}

TEST(MediaOptionsTest, TheTableOfTheServer) {
  auto config = Server(R"({"spatial_conv_size": 2, "temporal_conv_size": 2, "image_min_pixels": 4000,
      "image_max_pixels": 50000, "video_min_pixels": 3000, "video_max_pixels": 40000, "video_target_frames": 24,
      "video_frames_sample": "middle", "video_max_frames": 64, "video_min_frames": 4, "video_fps": -1})");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->image_min_pixels, 4000);
  EXPECT_EQ(config->image_max_pixels, 50000);
  EXPECT_EQ(config->video_min_pixels, 3000);
  EXPECT_EQ(config->video_max_pixels, 40000);
  EXPECT_EQ(config->sampling.target_frames, 24);
  EXPECT_EQ(config->sampling.frames_sample, FramesSample::kMiddle);
  EXPECT_EQ(config->sampling.max_frames, 64);
  EXPECT_EQ(config->sampling.min_frames, 4);
  EXPECT_EQ(config->sampling.fps, -1);
  config = Server("{}");
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(config->image_max_pixels, 4842768);
  EXPECT_EQ(config->sampling.fps, 2);
  // The server itself may raise the areas.
  EXPECT_EQ(Server(R"({"image_max_pixels": 9000000})")->image_max_pixels, 9000000);
}

TEST(MediaOptionsTest, ErrorsOfTheServerNameKeyValueAndWhatIsAllowed) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"image_max_pixel": 5})", "\"image_max_pixel\" is not known; known are image_min_pixels"},
      {R"({"image_max_pixels": "5"})", "image_max_pixels must be an integer from 1 to 2147483648; got \"5\""},
      {R"({"image_max_pixels": 0})", "image_max_pixels"},
      {R"({"image_max_pixels": -4})", "image_max_pixels"},
      {R"({"image_max_pixels": 2.5})", "image_max_pixels"},
      {R"({"image_min_pixels": 9000, "image_max_pixels": 8000})", "image_min_pixels is 9000"},
      {R"({"spatial_conv_size": 3})", "spatial_conv_size must be 2"},
      {R"({"temporal_conv_size": 1})", "temporal_conv_size must be 2"},
      {R"({"video_fps": 0})", "video_fps"},
      {R"({"video_fps": true})", "video_fps"},
      {R"({"video_fps": 1e9})", "video_fps"},
      {R"({"video_target_frames": 0})", "video_target_frames"},
      {R"({"video_target_frames": 8})", "\"video_fps\": -1"},
      {R"({"video_min_frames": 200})", "video_min_frames is 200 and video_max_frames 180"},
      {R"({"video_frames_sample": "first"})", "\"leading\", \"middle\" or \"rand\"; got \"first\""},
      {R"({"video_frames_sample": 1})", "video_frames_sample"},
  };
  for (const auto& [text, message] : cases) {
    auto config = Server(text);
    ASSERT_FALSE(config.ok()) << text;
    EXPECT_NE(config.status().message().find(message), std::string::npos) << text << "\n"
                                                                          << config.status().message();
    EXPECT_EQ(config.status().param(), "--mm-processor-kwargs") << text;
  }
}

TEST(MediaOptionsTest, ARequestStaysInsideTheServer) {
  const MediaConfig server = *Server(R"({"image_max_pixels": 50000, "video_max_pixels": 300000})");
  auto options = Request(server, R"({"image_max_pixels": 20000, "video_min_pixels": 800, "fps": 0.5,
                                     "min_frames": 2, "max_frames": 6, "frames_sample": "rand"})");
  ASSERT_TRUE(options.ok()) << options.status().message();
  EXPECT_EQ(options->image_max_pixels, 20000);
  EXPECT_EQ(options->image_min_pixels, 3136);
  EXPECT_EQ(options->video_min_pixels, 800);
  EXPECT_EQ(options->sampling.fps, 0.5);
  EXPECT_EQ(options->sampling.max_frames, 6);
  EXPECT_EQ(options->sampling.frames_sample, FramesSample::kRandom);
  // A small largest area brings the smallest along, unless that is given too.
  options = Request(server, R"({"image_max_pixels": 1000})");
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->image_min_pixels, 1000);
  const std::pair<const char*, const char*> cases[] = {
      {R"({"image_max_pixels": 50001})",
       "mm_processor_kwargs.image_max_pixels is 50001; this server allows at most 50000 for a picture "
       "(--mm-processor-kwargs '{\"image_max_pixels\": 50000}')"},
      {R"({"video_max_pixels": 300001})", "at most 300000 for a frame of a video"},
      {R"({"image_min_pixels": 60000})", "mm_processor_kwargs.image_min_pixels is 60000"},
      {R"({"image_min_pixels": 2000, "image_max_pixels": 1000})", "is 2000"},
      {R"({"pixels": 1})", "mm_processor_kwargs: the key \"pixels\" is not known"},
      {R"({"image_max_pixels": null, "video_fps": "2"})", "mm_processor_kwargs.video_fps must be"},
  };
  for (const auto& [text, message] : cases) {
    auto refused = Request(server, text);
    ASSERT_FALSE(refused.ok()) << text;
    EXPECT_NE(refused.status().message().find(message), std::string::npos) << refused.status().message();
    EXPECT_EQ(refused.status().param(), "mm_processor_kwargs");
  }
}

TEST(MediaOptionsTest, APartStandsOverTheRequest) {
  MediaConfig server;
  MediaOptions options = *Request(server, R"({"image_max_pixels": 20000, "video_fps": 1})");
  MediaOverrides overrides;
  ASSERT_TRUE(ReadPartOptions(Object(R"({"min_pixels": 800, "max_pixels": 30000, "fps": "x"})"),
                              MediaKind::kImage, kPart, &overrides)
                  .ok());  // what a picture does not know is not looked at
  ASSERT_TRUE(SetRequestOptions(overrides, server, kPart, &options).ok());
  EXPECT_EQ(options.image_min_pixels, 800);
  EXPECT_EQ(options.image_max_pixels, 30000);
  EXPECT_EQ(options.video_max_pixels, 937664);
  overrides = {};
  ASSERT_TRUE(ReadPartOptions(Object(R"({"max_pixels": 500000, "fps": -1, "target_frames": 12})"),
                              MediaKind::kVideo, kPart, &overrides)
                  .ok());
  ASSERT_TRUE(SetRequestOptions(overrides, server, kPart, &options).ok());
  EXPECT_EQ(options.video_max_pixels, 500000);
  EXPECT_EQ(options.sampling.fps, -1);
  EXPECT_EQ(options.sampling.target_frames, 12);
  EXPECT_EQ(options.image_max_pixels, 30000);
  const Status wrong =
      ReadPartOptions(Object(R"({"min_frames": 1.5})"), MediaKind::kVideo, kPart, &overrides);
  EXPECT_NE(wrong.message().find("messages[0].content[0].image_url.min_frames must be an integer"),
            std::string::npos)
      << wrong.message();
  EXPECT_EQ(wrong.param(), "messages");
}

}  // namespace
}  // namespace fd
