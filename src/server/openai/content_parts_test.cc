// Parts of messages in every spelling, their counts, and whole requests with pictures and videos.
#include "server/openai/content_parts.h"

#include <gtest/gtest.h>

#include "base/strings.h"
#include "server/openai/errors.h"
#include "server/openai/fakes_for_tests.h"
#include "server/openai/generation.h"
#include "server/openai/openai_writer.h"

namespace fd {
namespace {

constexpr char kNumbering[] =
    "{%- set seen = namespace(p=0, v=0) -%}"
    "{%- for m in messages -%}{%- if m.content is string -%}{{ m.content }}{%- else -%}{%- for part in "
    "m.content -%}"
    "{%- if part.type == 'image_url' -%}{%- set seen.p = seen.p + 1 -%}Picture {{ seen.p "
    "}}:<|image@placeholder|>"
    "{%- elif part.type == 'video_url' -%}{%- set seen.v = seen.v + 1 -%}Video {{ seen.v "
    "}}:<|video@placeholder|>"
    "{%- else -%}{{ part.text }}{%- endif -%}{%- endfor -%}{%- endif -%};{%- endfor -%}";
constexpr int32_t kImageToken = 'I', kVideoToken = 'V';

class ContentPartsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    MediaConfig config;
    config.image_min_pixels = config.video_min_pixels = 784;
    config.image_placeholder_id = kImageToken;
    config.video_placeholder_id = kVideoToken;
    service_->media = config;
    service_->limits.images_per_prompt = service_->limits.videos_per_prompt = 4;
    auto chat_template = ChatTemplate::FromSource(kNumbering, JsonObject{});
    FD_CHECK(chat_template.ok(), chat_template.status().message());
    service_->chat_template = std::move(chat_template).value();
    MediaReaders readers;
    readers.read_media = [this](std::string_view url, int64_t, std::string_view, std::stop_token) {
      ++reads_;
      return StatusOr<MediaBytes>(MediaBytes{"", std::string(url)});
    };
    readers.image_size = [](std::string_view) { return StatusOr<ImageSize>(ImageSize{28, 56}); };
    readers.make_image = [this](std::string_view, const MediaOptions& options) {
      seen_.push_back(options);
      auto item = std::make_shared<MediaItem>();
      item->grid_h = 2, item->grid_w = 4, item->num_tokens = 2;
      item->patch_rows = std::vector<uint8_t>(8 * 588);
      return StatusOr<std::shared_ptr<MediaItem>>(item);
    };
    readers.read_video = [this](std::string_view, const VideoSampling& sampling, std::stop_token,
                                const std::function<Status(const VideoInfo&)>& on_info,
                                const std::function<Status(VideoFrame&&)>& on_frame) -> Status {
      sampling_.push_back(sampling);
      FD_RETURN_IF_ERROR(on_info({28, 28, 5, 5, 5}));
      for (int i = 0; i < 5; ++i) {
        FD_RETURN_IF_ERROR(
            on_frame({{28, 28, std::vector<uint8_t>(3 * 784, static_cast<uint8_t>(i))}, i, 1.0 * i}));
      }
      return OkStatus();
    };
    service_->media_loader = std::make_shared<MediaLoader>(
        config, readers, MediaLoaderOptions{.fetch_threads = 1, .prepare_threads = 1}, MediaEvents{});
  }

  StatusOr<std::unique_ptr<Generation>> Send(const std::string& body) {
    return Generation::Prepare(*service_, ApiEndpoint::kChat, std::string_view(body));
  }
  static std::string Message(const std::string& parts) {
    return R"({"role":"user","content":[)" + parts + "]}";
  }
  static std::string Body(const std::string& parts, const std::string& more = "") {
    return "{\"messages\":[" + Message(parts) + "]" + more + "}";
  }
  // What one part becomes: its spec, and the part as the template sees it.
  StatusOr<MediaSpec> Spec(const std::string& part, const MediaOptions& options) {
    auto json = ParseJson(part);
    FD_CHECK(json.ok(), part);
    std::vector<MediaSpec> media;
    FD_RETURN_IF_ERROR(ReadContentPart(*service_, options, *json, "messages[0].content[0]", &media));
    left_ = WriteJson(*json);
    FD_CHECK_EQ(media.size(), 1u);
    return media[0];
  }
  StatusOr<MediaSpec> Spec(const std::string& part) { return Spec(part, *service_->media); }
  ApiError Refused(const std::string& body) {
    auto r = Send(body);
    EXPECT_FALSE(r.ok()) << body;
    return r.ok() ? ApiError{} : ToApiError(r.status());
  }

  ScriptedEngine engine_{"hello"};
  std::shared_ptr<Service> service_ = TestService(engine_);
  std::vector<MediaOptions> seen_;
  std::vector<VideoSampling> sampling_;
  std::string left_;
  std::atomic<int> reads_{0};
};

TEST_F(ContentPartsTest, EverySpelling) {
  for (const char* part :
       {R"({"type":"image_url","image_url":{"url":"data:x"}})",
        R"({"type":"image_url","image_url":"data:x"})", R"({"type":"image","image":"data:x"})",
        R"({"type":"image","image":{"url":"data:x"}})", R"({"type":"image","image_url":"data:x"})",
        R"({"type":"input_image","image_url":"data:x"})"}) {
    auto spec = Spec(part);
    ASSERT_TRUE(spec.ok()) << part << spec.status().message();
    EXPECT_EQ(spec->kind, MediaKind::kImage);
    EXPECT_EQ(spec->url, "data:x");
    EXPECT_NE(left_.find(R"("type":"image_url")"), std::string::npos) << left_;
    EXPECT_EQ(left_.find("data:x"), std::string::npos) << left_;
    EXPECT_TRUE(spec->where.starts_with("messages[0].content[0].image")) << spec->where;
  }
  for (const char* part :
       {R"({"type":"video_url","video_url":{"url":"data:x"}})",
        R"({"type":"video_url","video_url":"data:x"})", R"({"type":"video","video":"data:x"})",
        R"({"type":"video","video":{"url":"data:x"}})"}) {
    auto spec = Spec(part);
    ASSERT_TRUE(spec.ok()) << part << spec.status().message();
    EXPECT_EQ(spec->kind, MediaKind::kVideo);
    EXPECT_EQ(spec->url, "data:x");
    EXPECT_NE(left_.find(R"("type":"video_url")"), std::string::npos) << left_;
  }
  for (const char* part :
       {R"({"type":"image_url","image_url":{"url":null,"uuid":"cat"}})",
        R"({"type":"image_url","uuid":"cat"})", R"({"type":"image_url","image_url":null,"uuid":"cat"})",
        R"({"type":"image_url","image_url":{},"uuid":"cat"})"}) {
    auto spec = Spec(part);
    ASSERT_TRUE(spec.ok()) << part << spec.status().message();
    EXPECT_EQ(spec->url, "");
    EXPECT_EQ(spec->uuid, "cat");
  }
  EXPECT_EQ(Spec(R"({"type":"image_url","image_url":{"url":"data:x"},"uuid":"dog"})")->uuid, "dog");
}

TEST_F(ContentPartsTest, OptionsInsideAndBesideTheUrl) {
  auto spec = Spec(R"({"type":"video_url","video_url":{"url":"data:x"},"fps":1,"min_frames":2,"max_frames":9,
                       "frames_sample":"middle"})");
  ASSERT_TRUE(spec.ok()) << spec.status().message();
  EXPECT_EQ(spec->options.sampling.fps, 1);
  EXPECT_EQ(spec->options.sampling.min_frames, 2);
  EXPECT_EQ(spec->options.sampling.max_frames, 9);
  EXPECT_EQ(spec->options.sampling.frames_sample, FramesSample::kMiddle);
  spec =
      Spec(R"({"type":"video_url","video_url":{"url":"data:x","fps":-1,"target_frames":7,"max_pixels":5000},
                  "fps":1,"min_pixels":900})");
  ASSERT_TRUE(spec.ok()) << spec.status().message();
  EXPECT_EQ(spec->options.sampling.fps, -1);  // inside goes first
  EXPECT_EQ(spec->options.sampling.target_frames, 7);
  EXPECT_EQ(spec->options.video_max_pixels, 5000);
  EXPECT_EQ(spec->options.video_min_pixels, 900);
  spec = Spec(R"({"type":"image_url","image_url":{"url":"data:x","max_pixels":5000},"min_pixels":900})");
  ASSERT_TRUE(spec.ok()) << spec.status().message();
  EXPECT_EQ(spec->options.image_max_pixels, 5000);
  EXPECT_EQ(spec->options.image_min_pixels, 900);
}

TEST_F(ContentPartsTest, DetailIsACapOnTheArea) {
  const auto area = [&](const std::string& fields) {
    auto spec = Spec(R"({"type":"image_url","image_url":{"url":"data:x")" + fields + "}}");
    return spec.ok() ? spec->options.image_max_pixels : -1;
  };
  const int64_t server = service_->media->image_max_pixels;
  EXPECT_EQ(area(R"(,"detail":"low")"), 512 * 512);
  EXPECT_EQ(area(R"(,"detail":"high")"), server);
  EXPECT_EQ(area(R"(,"detail":"auto")"), server);
  EXPECT_EQ(area(R"(,"detail":null)"), server);
  EXPECT_EQ(area(R"(,"detail":"low","max_pixels":4000)"), 4000);
  EXPECT_EQ(area(R"(,"detail":"medium")"), -1);
  EXPECT_EQ(area(R"(,"detail":1)"), -1);
  service_->media->image_max_pixels = 10000;  // a smaller server stays smaller
  EXPECT_EQ(area(R"(,"detail":"low")"), 10000);
}

TEST_F(ContentPartsTest, RefusalsNameTheField) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"type":"image_url"})", "messages[0].content[0].image_url needs a URL"},
      {R"({"type":"image_url","image_url":{"url":""}})", "needs a URL"},
      {R"({"type":"image_url","image_url":{"url":7}})", "needs a URL"},
      {R"({"type":"image_url","image_url":["data:x"]})", "needs a URL"},
      {R"({"type":"image_url","image_url":{"url":null}})", "needs a URL"},
      {R"({"type":"image_url","image_url":"data:x","uuid":7})",
       "messages[0].content[0].uuid must be a string"},
      {R"({"type":"image_url","image_url":{"url":"data:x","uuid":""}})", "image_url.uuid is empty"},
      {R"({"type":"image_url","image_url":{"url":"data:x","detail":"tiny"}})",
       "messages[0].content[0].image_url.detail must be \"low\", \"high\" or \"auto\"; got \"tiny\""},
      {R"({"type":"image_url","image_url":{"url":"data:x","max_pixels":-1}})",
       "messages[0].content[0].image_url.max_pixels must be an integer"},
      {R"({"type":"image_url","image_url":{"url":"data:x","max_pixels":99999999}})",
       "messages[0].content[0].image_url.max_pixels is 99999999; this server allows at most 4842768"},
      {R"({"type":"image_url","image_url":{"url":"data:x","min_pixels":2000,"max_pixels":1000}})",
       "messages[0].content[0].image_url.min_pixels is 2000"},
      {R"({"type":"video_url","video_url":{"url":"data:x"},"fps":"two"})",
       "messages[0].content[0].fps must be"},
      {R"({"type":"video_url","video_url":{"url":"data:x","frames_sample":"all"}})",
       "video_url.frames_sample"},
      {R"({"type":"video_url"})", "messages[0].content[0].video_url needs a URL"},
      {R"({"type":"input_audio","input_audio":{}})", "does not take audio"},
      {R"({"type":"audio_url","audio_url":{}})", "does not take audio"},
      {R"({"type":"smell"})", "must be one of text, image_url"},
      {R"({"type":7})", "type is missing"},
      {R"({"type":"input_text"})", "text must be a string"},
  };
  for (const auto& [part, message] : cases) {
    const ApiError e = Refused(Body(part));
    EXPECT_EQ(e.http_status, 400) << part;
    EXPECT_EQ(e.param, "messages") << part;
    EXPECT_NE(e.message.find(message), std::string::npos) << part << "\n" << e.message;
  }
  EXPECT_EQ(
      Refused(Body(R"({"type":"text","text":"a"})", R"(,"mm_processor_kwargs":{"image_max_pixels":true})"))
          .param,
      "mm_processor_kwargs");
  EXPECT_EQ(Refused(Body(R"({"type":"text","text":"a"})", R"(,"mm_processor_kwargs":7)")).http_status, 400);
  EXPECT_EQ(reads_, 0);
}

TEST_F(ContentPartsTest, LimitsCountEveryTurnBeforeAnythingIsRead) {
  const std::string image = R"({"type":"image_url","image_url":{"url":"data:x"}})";
  const std::string broken = R"({"type":"image","image":7})";  // counted by its type all the same
  const std::string video = R"({"type":"video_url","video_url":{"url":"data:x"}})";
  std::string turns;
  for (int i = 0; i < 6; ++i) turns += Message(i == 0 ? broken : image) + ",";
  ApiError e = Refused("{\"messages\":[" + turns + Message(video) + "]}");
  EXPECT_EQ(e.http_status, 400);
  EXPECT_EQ(
      e.message,
      "messages hold 6 pictures; at most 4 are allowed in a prompt (--limit-mm-per-prompt '{\"image\": 4}')");
  service_->limits.videos_per_prompt = 1;
  e = Refused("{\"messages\":[" + Message(video) + "," + Message(image + "," + video) + "]}");
  EXPECT_EQ(
      e.message,
      "messages hold 2 videos; at most 1 are allowed in a prompt (--limit-mm-per-prompt '{\"video\": 1}')");
  EXPECT_EQ(reads_, 0);
}

TEST_F(ContentPartsTest, NumbersRunOverTheConversationAndUsageKnowsBothKinds) {
  const std::string image = R"({"type":"image_url","image_url":{"url":"data:x"}})";
  const std::string image2 = R"({"type":"image_url","image_url":{"url":"data:y"}})";
  const std::string video = R"({"type":"video_url","video_url":{"url":"data:x"}})";
  auto g =
      Send("{\"messages\":[" + Message(image + "," + video) + R"(,{"role":"assistant","content":"ok"},)" +
           Message(video + R"(,{"type":"input_text","text":"and"},)" + image2) + "]}");
  ASSERT_TRUE(g.ok()) << g.status().message();
  ASSERT_TRUE((*g)->Submit([](int, TokenEvent&&) {}).ok());
  const GenerateRequest request = engine_.seen().back();
  std::string text;
  for (int32_t id : request.token_ids) text += static_cast<char>(id);
  EXPECT_EQ(text, "Picture 1:IIVideo 1:VVV;ok;Video 2:VVVandPicture 2:II;");
  const Usage usage = (*g)->usage();
  EXPECT_EQ(usage.prompt_tokens, std::ssize(request.token_ids));
  EXPECT_EQ(usage.image_tokens, 4);
  EXPECT_EQ(usage.video_tokens, 6);
  EXPECT_NE(UsageChunkJson(**g).find("\"image_tokens\":4,\"video_tokens\":6}"), std::string::npos);
  // Each pair of frames is an item; the two equal videos were read once.
  ASSERT_EQ(request.media.size(), 2u + 6u);
  EXPECT_EQ(request.media[1]->grid_t, 2);
  EXPECT_EQ(request.media[1]->content_hash, request.media[4]->content_hash);
  EXPECT_EQ(sampling_.size(), 1u);
  int64_t end = 0;
  for (const auto& item : request.media) {
    EXPECT_GE(item->first_token, end);
    end = item->first_token + item->num_tokens;
  }
}

TEST_F(ContentPartsTest, RequestOptionsReachThePreparation) {
  auto g =
      Send(Body(R"({"type":"image_url","image_url":{"url":"data:x"}},
                        {"type":"image_url","image_url":{"url":"data:y","max_pixels":3000}},
                        {"type":"video_url","video_url":{"url":"data:z"},"fps":3})",
                R"(,"mm_processor_kwargs":{"image_max_pixels":2000,"video_fps":1,"video_max_frames":11})"));
  ASSERT_TRUE(g.ok()) << g.status().message();
  ASSERT_EQ(seen_.size(), 2u);
  EXPECT_EQ(seen_[0].image_max_pixels, 2000);
  EXPECT_EQ(seen_[1].image_max_pixels, 3000);
  ASSERT_EQ(sampling_.size(), 1u);
  EXPECT_EQ(sampling_[0].fps, 3);
  EXPECT_EQ(sampling_[0].max_frames, 11);
}

TEST_F(ContentPartsTest, TooManyTokensAreRefusedBeforePixels) {
  service_->max_model_len = 31;  // what the text needs with at least one token a picture fits
  const std::string image = R"({"type":"image_url","image_url":{"url":"data:x"}})";
  const ApiError e = Refused(Body(image + R"(,{"type":"text","text":"123456789012345678"})"));
  EXPECT_EQ(e.code, "context_length_exceeded");
  EXPECT_NE(e.message.find("31 tokens ("), std::string::npos) << e.message;
  EXPECT_NE(e.message.find("prompt has 31 tokens"), std::string::npos)
      << e.message;  // "Picture 1:" + 2 + 18 + ";"
  EXPECT_TRUE(seen_.empty());
  EXPECT_TRUE(Send(Body(image)).ok());
}

}  // namespace
}  // namespace fd
