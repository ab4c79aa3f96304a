// MediaConfig, media items and prompt expansion; the vision-language golden cases exactly.
#include "server/multimodal/processor.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "base/strings.h"
#include "server/multimodal/golden_for_tests.h"

namespace fd {
namespace {

using golden::MustRead;
using golden::MustReadJson;

const char kModel[] = "tests/golden/models/ernie4_5_vl_moe";
const char kMedia[] = "tests/golden/cases/vl_media/";

const Tokenizer& GoldenTokenizer() {
  static const std::unique_ptr<Tokenizer> tokenizer = [] {
    auto loaded = Tokenizer::Load(kModel);
    FD_CHECK(loaded.ok(), loaded.status().message());
    return std::move(*loaded);
  }();
  return *tokenizer;
}

MediaConfig GoldenConfig() {
  auto config = LoadMediaConfig(kModel, GoldenTokenizer());
  FD_CHECK(config.ok(), config.status().message());
  return *config;
}

// The rendered prompt with every text part of the messages marked as the user's.
std::vector<PromptPiece> PiecesOf(const Json& one_case) {
  const std::string& prompt = one_case.Find("prompt")->as_string();
  std::vector<PromptPiece> pieces;
  size_t at = 0;
  auto mark = [&](const std::string& text) {
    size_t found = prompt.find(text, at);
    FD_CHECK(found != std::string::npos, text);
    pieces.push_back({prompt.substr(at, found - at), false});
    pieces.push_back({text, true});
    at = found + text.size();
  };
  for (const Json& message : one_case.Find("messages")->as_array()) {
    const Json& content = *message.Find("content");
    if (content.is_string()) {
      mark(content.as_string());
      continue;
    }
    for (const Json& part : content.as_array()) {
      if (const Json* text = part.Find("text")) mark(text->as_string());
    }
  }
  pieces.push_back({prompt.substr(at), false});
  return pieces;
}

void ExpectGrid(const MediaItem& item, const Json& expected) {
  const JsonArray& grid = expected.Find("grid_thw")->as_array();
  EXPECT_EQ(item.grid_t, grid[0].as_int());
  EXPECT_EQ(item.grid_h, grid[1].as_int());
  EXPECT_EQ(item.grid_w, grid[2].as_int());
  EXPECT_EQ(item.num_tokens, expected.Find("tokens")->as_int());
}

// Frames are stored without their timestamp, so a video's rows come from the file (made by the reference);
// video_single has its only frame drawn and goes through VideoBuilder, which doubles it.
PreparedVideo VideoOf(const Json& video, const std::vector<uint8_t>& rows) {
  const JsonArray& grid = video.Find("grid_thw")->as_array();
  PreparedVideo made;
  made.grid_t = static_cast<int32_t>(grid[0].as_int());
  made.grid_h = static_cast<int32_t>(grid[1].as_int());
  made.grid_w = static_cast<int32_t>(grid[2].as_int());
  const auto pairs = made.grid_t / 2;
  const auto bytes = std::ssize(rows) / pairs;
  for (int32_t i = 0; i < pairs; ++i) {
    auto item = std::make_shared<MediaItem>();
    item->grid_t = 2;
    item->grid_h = made.grid_h;
    item->grid_w = made.grid_w;
    item->num_tokens = video.Find("tokens")->as_int() / pairs;
    item->patch_rows = std::vector<uint8_t>(rows.begin() + i * bytes, rows.begin() + (i + 1) * bytes);
    made.pairs.push_back(item);
  }
  return made;
}

StatusOr<PreparedVideo> MakeVideo(const std::vector<RgbImage>& frames, const MediaConfig& config,
                                  int64_t min_pixels, int64_t max_pixels) {
  VideoBuilder builder(config, min_pixels, max_pixels);
  for (const RgbImage& frame : frames) FD_RETURN_IF_ERROR(builder.Add(frame));
  return builder.Finish();
}

std::vector<uint8_t> RowsOf(const PreparedVideo& video) {
  std::vector<uint8_t> rows;
  for (const auto& pair : video.pairs)
    rows.insert(rows.end(), pair->patch_rows.begin(), pair->patch_rows.end());
  return rows;
}

std::vector<int32_t> Widen(const std::vector<uint8_t>& values) { return {values.begin(), values.end()}; }

TEST(ExpandPromptGolden, AllVisionLanguageCases) {
  Json file = MustReadJson("tests/golden/cases/ernie4_5_vl_moe.json");
  golden::Tensors tensors("tests/golden/cases/ernie4_5_vl_moe.safetensors");
  MediaConfig config = GoldenConfig();
  EXPECT_EQ(config.image_min_pixels, file.Find("image_limits")->as_array()[0].as_int());
  EXPECT_EQ(config.image_max_pixels, file.Find("image_limits")->as_array()[1].as_int());
  EXPECT_EQ(config.video_min_pixels, file.Find("video_limits")->as_array()[0].as_int());
  EXPECT_EQ(config.video_max_pixels, file.Find("video_limits")->as_array()[1].as_int());
  ASSERT_EQ(file.Find("cases")->as_array().size(), 11u);
  for (const Json& c : file.Find("cases")->as_array()) {
    const std::string& name = c.Find("name")->as_string();
    SCOPED_TRACE(name);
    std::vector<std::shared_ptr<const MediaItem>> images;
    std::vector<PreparedVideo> videos;
    for (const Json& image : c.Find("images")->as_array()) {
      auto item = MakeImageItem(MustRead(kMedia + image.Find("file")->as_string()), config);
      ASSERT_TRUE(item.ok()) << item.status().message();
      ExpectGrid(**item, image);
      EXPECT_TRUE((*item)->patch_rows ==
                  tensors.Get<uint8_t>(StrCat(name, ".image", images.size(), ".rows")));
      images.push_back(*item);
    }
    for (const Json& video : c.Find("videos")->as_array()) {
      std::vector<uint8_t> rows = tensors.Get<uint8_t>(StrCat(name, ".video", videos.size(), ".rows"));
      if (name == "video_single") {
        auto frame =
            DecodeImage(MustRead(kMedia + video.Find("last_frame_with_timestamp")->as_string()), {}, true);
        ASSERT_TRUE(frame.ok()) << frame.status().message();
        auto made = MakeVideo({*frame}, config, config.video_min_pixels, config.video_max_pixels);
        ASSERT_TRUE(made.ok()) << made.status().message();
        ASSERT_EQ(made->pairs.size(), 1u);
        ExpectGrid(*made->pairs[0], video);
        EXPECT_EQ(RowsOf(*made), rows);
      }
      videos.push_back(VideoOf(video, rows));
    }
    auto expanded = ExpandPrompt(PiecesOf(c), GoldenTokenizer(), config, images, videos);
    ASSERT_TRUE(expanded.ok()) << expanded.status().message();
    EXPECT_EQ(expanded->token_ids, tensors.Get<int32_t>(name + ".input_ids"));
    EXPECT_EQ(expanded->position_delta, c.Find("delta")->as_int());
    size_t items = images.size();
    for (const PreparedVideo& video : videos) items += video.pairs.size();
    ASSERT_EQ(expanded->media.size(), items);
    EXPECT_EQ(expanded->image_tokens,
              std::count(expanded->media_type.begin(), expanded->media_type.end(), 1));
    EXPECT_EQ(expanded->video_tokens,
              std::count(expanded->media_type.begin(), expanded->media_type.end(), 2));
    if (expanded->media.empty()) {
      EXPECT_TRUE(expanded->positions.empty());
      EXPECT_TRUE(expanded->vision_expert.empty());
      EXPECT_TRUE(expanded->media_type.empty());
      continue;
    }
    EXPECT_EQ(expanded->positions, tensors.Get<int32_t>(name + ".position_ids"));
    EXPECT_EQ(Widen(expanded->media_type), tensors.Get<int32_t>(name + ".mm_token_type_ids"));
    std::vector<int32_t> vision;
    for (int32_t type : tensors.Get<int32_t>(name + ".moe_mm_token_type_ids")) vision.push_back(type != 0);
    EXPECT_EQ(Widen(expanded->vision_expert), vision);
    int64_t end = 0;
    for (const auto& item : expanded->media) {
      EXPECT_GE(item->first_token, end);
      end = item->first_token + item->num_tokens;
      EXPECT_NE(expanded->media_type[static_cast<size_t>(item->first_token)], 0);
      // Pairs of one video follow each other; everything else has text around it.
      if (item->grid_t == 1) {
        EXPECT_EQ(expanded->media_type[static_cast<size_t>(item->first_token - 1)], 0);
        EXPECT_EQ(expanded->media_type[static_cast<size_t>(end)], 0);
      }
    }
  }
}

std::shared_ptr<MediaItem> OneImage() {
  auto item = MakeImageItem(MustRead(std::string(kMedia) + "one_image.image0.png"), GoldenConfig());
  FD_CHECK(item.ok(), item.status().message());
  return *item;
}

TEST(ExpandPrompt, PlaceholdersOfAUserStayText) {
  const std::string literal =
      "see <|image@placeholder|> <|IMAGE_PLACEHOLDER|><|IMAGE_START|> <|video@placeholder|>";
  std::vector<PromptPiece> pieces = {{"User: <|IMAGE_START|><|image@placeholder|><|IMAGE_END|>", false},
                                     {literal, true},
                                     {"\nAssistant: ", false}};
  MediaConfig config = GoldenConfig();
  auto expanded = ExpandPrompt(pieces, GoldenTokenizer(), config, {OneImage()}, {});
  ASSERT_TRUE(expanded.ok()) << expanded.status().message();
  EXPECT_EQ(std::count(expanded->token_ids.begin(), expanded->token_ids.end(), config.image_placeholder_id),
            4);
  EXPECT_EQ(std::count(expanded->token_ids.begin(), expanded->token_ids.end(), config.image_start_id), 1);
  EXPECT_EQ(std::count(expanded->vision_expert.begin(), expanded->vision_expert.end(), 1), 6);
  std::string text = GoldenTokenizer().Decode(expanded->token_ids, true);
  EXPECT_NE(text.find(literal), std::string::npos) << text;

  // A placeholder made of a template's half and a user's half is none either.
  pieces = {{"User: <|image@place", false}, {"holder|>", true}};
  expanded = ExpandPrompt(pieces, GoldenTokenizer(), config, {}, {});
  ASSERT_TRUE(expanded.ok()) << expanded.status().message();
  EXPECT_TRUE(expanded->media.empty());
}

TEST(ExpandPrompt, BothSpellingsOfAPlaceholder) {
  MediaConfig config = GoldenConfig();
  std::vector<std::vector<int32_t>> ids;
  for (const char* spelling : {"<|image@placeholder|>", "<|IMAGE_PLACEHOLDER|>"}) {
    auto expanded = ExpandPrompt({{StrCat("a<|IMAGE_START|>", spelling, "<|IMAGE_END|>b"), false}},
                                 GoldenTokenizer(), config, {OneImage()}, {});
    ASSERT_TRUE(expanded.ok()) << expanded.status().message();
    ids.push_back(expanded->token_ids);
  }
  EXPECT_EQ(ids[0], ids[1]);
}

TEST(ExpandPrompt, CountsMustAgree) {
  MediaConfig config = GoldenConfig();
  auto expand = [&](const char* text, size_t images, size_t videos) {
    auto r = ExpandPrompt({{text, false}}, GoldenTokenizer(), config,
                          std::vector<std::shared_ptr<const MediaItem>>(images, OneImage()),
                          std::vector<PreparedVideo>(videos));
    return r.ok() ? std::string("ok") : r.status().message();
  };
  EXPECT_EQ(expand("hello", 0, 0), "ok");
  EXPECT_EQ(
      expand("hello", 1, 0),
      "the chat template made room for 0 pictures and the request has 1; send each as a content part of a "
      "user message");
  EXPECT_EQ(expand("<|image@placeholder|>", 2, 0),
            "the chat template made room for 1 picture and the request has 2; send each as a content part of "
            "a user "
            "message");
  EXPECT_NE(expand("<|image@placeholder|>", 0, 0), "ok");
  EXPECT_NE(expand("<|video@placeholder|>", 1, 0), "ok");
  config = MediaConfig();
  EXPECT_EQ(expand("hello", 1, 0), "this model takes no pictures: the request has 1, the limit is 0");
  EXPECT_EQ(expand("hello", 0, 2), "this model takes no videos: the request has 2, the limit is 0");
}

TEST(ExpandPrompt, OneItemTwiceHasTwoPlaces) {
  auto image = OneImage();
  auto expanded = ExpandPrompt({{"<|image@placeholder|>,<|image@placeholder|>", false}}, GoldenTokenizer(),
                               GoldenConfig(), {image, image}, {});
  ASSERT_TRUE(expanded.ok()) << expanded.status().message();
  ASSERT_EQ(expanded->media.size(), 2u);
  EXPECT_EQ(expanded->media[0]->first_token, 0);
  EXPECT_GE(expanded->media[1]->first_token, 5);
  EXPECT_EQ(expanded->media[0]->content_hash, expanded->media[1]->content_hash);
}

// The worked example of ernie45-architecture 4.3: 5 text tokens, start, 4 x 6 merged patches, end, 3 text.
TEST(ExpandPrompt, PositionsOfTheWorkedExample) {
  auto item = std::make_shared<MediaItem>();
  item->grid_h = 8, item->grid_w = 12, item->num_tokens = 24;
  auto expanded = ExpandPrompt({{"00000<|IMAGE_START|><|image@placeholder|><|IMAGE_END|>000", false}},
                               GoldenTokenizer(), GoldenConfig(), {item}, {});
  ASSERT_TRUE(expanded.ok()) << expanded.status().message();
  ASSERT_EQ(expanded->token_ids.size(), 34u);
  auto at = [&](size_t axis, size_t i) { return expanded->positions[axis * 34 + i]; };
  EXPECT_EQ(at(0, 5), 5);
  EXPECT_EQ(at(0, 29), 6);
  EXPECT_EQ(at(1, 29), 9);
  EXPECT_EQ(at(2, 29), 11);
  EXPECT_EQ(at(0, 30), 12);
  EXPECT_EQ(at(2, 33), 15);
  EXPECT_EQ(expanded->position_delta, -18);
}

TEST(MediaItem, HashSeesPixelsAndShape) {
  MediaConfig config;
  auto make = [&](int64_t height, int64_t width, uint8_t level) {
    RgbImage frame{height, width, std::vector<uint8_t>(static_cast<size_t>(3 * height * width), level)};
    auto video = MakeVideo({frame, frame}, config, 1, 1 << 20);
    FD_CHECK(video.ok(), video.status().message());
    return video->pairs.at(0)->content_hash;
  };
  EXPECT_EQ(make(56, 28, 7), make(56, 28, 7));
  EXPECT_NE(make(56, 28, 7), make(28, 56, 7));
  EXPECT_NE(make(56, 28, 7), make(56, 28, 8));
  RgbImage frame{28, 28, std::vector<uint8_t>(3 * 28 * 28)}, other{56, 28, std::vector<uint8_t>(3 * 56 * 28)};
  EXPECT_FALSE(MakeVideo({}, config, 1, 1 << 20).ok());
  EXPECT_FALSE(MakeVideo({frame, other}, config, 1, 1 << 20).ok());
}

TEST(MediaItem, AVideoIsOneItemForEachPairAndItsLastFrameIsDoubled) {
  MediaConfig config;
  std::vector<RgbImage> frames;
  for (uint8_t level : {10, 20, 10, 20, 30}) {
    frames.push_back({28, 56, std::vector<uint8_t>(3 * 28 * 56, level)});
  }
  auto video = MakeVideo(frames, config, 1, 1 << 20);
  ASSERT_TRUE(video.ok()) << video.status().message();
  EXPECT_EQ(video->grid_t, 6);
  ASSERT_EQ(video->pairs.size(), 3u);
  EXPECT_EQ(video->num_tokens(), 3 * 2);
  // Equal pairs are encoded once.
  EXPECT_EQ(video->pairs[0]->content_hash, video->pairs[1]->content_hash);
  EXPECT_NE(video->pairs[0]->content_hash, video->pairs[2]->content_hash);
  const auto& last = video->pairs[2]->patch_rows;
  EXPECT_EQ(last.size(), size_t{2 * 2 * 4 * 588});
  EXPECT_TRUE(std::all_of(last.begin(), last.end(), [](uint8_t v) { return v == 30; }));
}

// Whole-video positions: t counts pairs, and what follows begins after the largest of all three axes.
TEST(ExpandPrompt, PositionsAfterAVideoFollowAllAxes) {
  MediaConfig config = GoldenConfig();
  std::vector<RgbImage> frames(9, RgbImage{28, 56, std::vector<uint8_t>(3 * 28 * 56, 9)});
  auto video = MakeVideo(frames, config, 1, 12544);
  ASSERT_TRUE(video.ok()) << video.status().message();
  auto expanded = ExpandPrompt({{"0<|VIDEO_START|><|video@placeholder|><|VIDEO_END|>0", false}},
                               GoldenTokenizer(), config, {}, {*video});
  ASSERT_TRUE(expanded.ok()) << expanded.status().message();
  const size_t n = expanded->token_ids.size();
  ASSERT_EQ(expanded->video_tokens, 5 * 2);
  ASSERT_EQ(expanded->media.size(), 5u);
  const auto first = static_cast<size_t>(expanded->media[0]->first_token);
  const int32_t start = expanded->positions[first];
  for (size_t pair = 0; pair < 5; ++pair) {
    EXPECT_EQ(expanded->media[pair]->first_token,
              expanded->media[0]->first_token + static_cast<int64_t>(2 * pair));
    for (size_t column = 0; column < 2; ++column) {
      const size_t at = first + 2 * pair + column;
      EXPECT_EQ(expanded->positions[at], start + static_cast<int32_t>(pair));
      EXPECT_EQ(expanded->positions[n + at], start);
      EXPECT_EQ(expanded->positions[2 * n + at], start + static_cast<int32_t>(column));
    }
  }
  EXPECT_EQ(expanded->positions[first + 10], start + 5);  // five pairs in time are more than two columns
}

TEST(MediaItem, ErrorsOfAPicture) {
  MediaConfig config = GoldenConfig();
  EXPECT_EQ(MakeImageItem("garbage!", config).status().code(), StatusCode::kUnsupportedMedia);
  EXPECT_EQ(
      MakeImageItem(MustRead("tests/golden/preprocess/images/ratio_201.png"), config).status().message(),
      "absolute aspect ratio must be smaller than 200, got 201.0");
}

TEST(MediaConfig, BundledModel) {
  auto tokenizer = Tokenizer::Load("models/ernie-4.5-vl-tiny");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  auto config = LoadMediaConfig("models/ernie-4.5-vl-tiny", **tokenizer);
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->image_max_pixels, 200704);
  EXPECT_EQ(config->video_min_pixels, 7056);
  EXPECT_EQ(config->video_max_pixels, 28224);
  EXPECT_EQ(config->sampling.fps, 2);
  EXPECT_EQ(config->sampling.min_frames, 1);
  EXPECT_EQ(config->sampling.max_frames, 180);
  EXPECT_TRUE(config->draw_on_frames);
  EXPECT_EQ(config->font_path, "models/ernie-4.5-vl-tiny/Roboto-Regular.ttf");
  EXPECT_EQ(config->image_placeholder_id, 2560);
  EXPECT_EQ(config->image_start_id, 2562);
  EXPECT_EQ(config->image_end_id, 2563);
  EXPECT_EQ(config->video_start_id, 2564);
  EXPECT_EQ(config->video_end_id, 2565);
  EXPECT_EQ(config->video_placeholder_id, 2566);
}

class MediaConfigFiles : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/fd-media-config-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    dir_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  void Write(const std::string& name, const std::string& text) {
    std::ofstream(JoinPath(dir_, name)) << text;
  }
  StatusOr<MediaConfig> Load() { return LoadMediaConfig(dir_, GoldenTokenizer()); }
  // The message without the folder.
  std::string Error() {
    StatusOr<MediaConfig> config = Load();
    if (config.ok()) return "ok";
    std::string text = config.status().message();
    size_t at = text.find(dir_ + "/");
    return at == std::string::npos ? text : text.erase(at, dir_.size() + 1);
  }
  std::string dir_;
};

TEST_F(MediaConfigFiles, NoFilesMeansNoMedia) {
  auto config = Load();
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(config->image_placeholder_id, -1);
  EXPECT_EQ(config->video_start_id, -1);
}

TEST_F(MediaConfigFiles, NamesInUse) {
  Write("preprocessor_config.json",
        R"({"min_pixels": 3136, "max_pixels": 12544, "size": null, "patch_size": 14,
      "spatial_conv_size": 2, "temporal_conv_size": 2, "resample": 3})");
  auto config = Load();
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->image_max_pixels, 12544);
  EXPECT_EQ(config->video_max_pixels, 28 * 28 * 1196);
  EXPECT_EQ(config->image_placeholder_id, 1500);

  Write("processor_config.json",
        R"({"image_processor": {"size": {"shortest_edge": 784, "longest_edge": 20000}}})");
  config = Load();
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->image_min_pixels, 784);
  EXPECT_EQ(config->image_max_pixels, 20000);

  Write("video_preprocessor_config.json", R"({"size": {"shortest_edge": 784, "longest_edge": 30000}})");
  config = Load();
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->video_max_pixels, 30000);
}

TEST_F(MediaConfigFiles, ErrorsNameFileKeyAndValue) {
  auto error = [&](const std::string& text) {
    Write("preprocessor_config.json", text);
    return Error();
  };
  EXPECT_EQ(error(R"({"patch_size": "14"})"),
            R"(preprocessor_config.json: patch_size is "14"; expected an integer between 1 and 256)");
  EXPECT_EQ(error(R"({"patch_size": 0})"),
            "preprocessor_config.json: patch_size is 0; expected an integer between 1 and 256");
  EXPECT_EQ(
      error(R"({"size": {"shortest_edge": -1}})"),
      "preprocessor_config.json: size.shortest_edge is -1; expected an integer between 1 and 2147483648");
  EXPECT_EQ(error(R"({"size": 3})"),
            "preprocessor_config.json: size is 3; expected an object with shortest_edge and longest_edge");
  EXPECT_EQ(error(R"({"min_pixels": 5000, "max_pixels": 4000})"),
            "preprocessor_config.json: the smallest area is 5000 pixels and the largest 4000; expected the "
            "smallest "
            "to be at most the largest");
  EXPECT_EQ(error(R"({"resample": 2})"),
            "preprocessor_config.json: resample is 2; expected 3, which is what this program computes");
  EXPECT_EQ(
      error(R"({"image_mean": [0.5, 0.5, 0.5]})"),
      "preprocessor_config.json: image_mean is [0.5,0.5,0.5]; expected [0.48145466, 0.4578275, 0.40821073], "
      "which is what this program computes");
  EXPECT_EQ(error(R"({"do_resize": false})"),
            "preprocessor_config.json: do_resize is false; expected true, which is what this program does");
  EXPECT_EQ(error("[]"), "preprocessor_config.json: expected an object, found an array");
  EXPECT_NE(error("{"), "ok");
  auto video_error = [&](const std::string& text) {
    Write("preprocessor_config.json", "{}");
    Write("video_preprocessor_config.json", text);
    return Error();
  };
  EXPECT_EQ(video_error(R"({"fps": 0})"),
            "video_preprocessor_config.json: fps is 0; expected a number above 0, at most 1000");
  EXPECT_NE(video_error(R"({"min_frames": 9, "max_frames": 8})").find("min_frames is 9 and max_frames 8"),
            std::string::npos);
  EXPECT_NE(video_error(R"({"font": "../x.ttf"})").find("the name of a file"), std::string::npos);
  EXPECT_NE(video_error(R"({"draw_on_frames": 1})").find("true or false"), std::string::npos);
  EXPECT_NE(video_error(R"({"do_sample_frames": false})").find("do_sample_frames is false"),
            std::string::npos);
  Write("video_preprocessor_config.json", "{}");
  Write("processor_config.json", R"({"image_processor": {"merge_size": 99}})");
  EXPECT_EQ(Error(),
            "processor_config.json: image_processor: merge_size is 99; expected an integer between 1 and 16");
  Write("processor_config.json", R"({"image_processor": 7})");
  EXPECT_EQ(Error(), "processor_config.json: image_processor is 7; expected an object");
  Write("processor_config.json",
        R"({"image_processor": {"patch_size": 14}, "video_processor": {"patch_size": 16}})");
  EXPECT_NE(Error().find("patch_size and merge_size are 16 and 2; expected 14 and 2"), std::string::npos);
}

}  // namespace
}  // namespace fd
