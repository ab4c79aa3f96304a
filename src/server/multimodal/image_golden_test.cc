// tests/golden/preprocess: what Pillow decoded, resized and cut, by checksum.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "server/multimodal/golden_for_tests.h"
#include "server/multimodal/image.h"
#include "server/multimodal/processor.h"

namespace fd {
namespace {

using golden::MustRead;
using golden::MustReadJson;
using golden::Sha256;

const char kImages[] = "tests/golden/preprocess/images/";

const Json& Expected() {
  static const Json json = MustReadJson("tests/golden/preprocess/expected.json");
  return json;
}

RgbImage MustDecode(const std::string& name, bool apply_exif = false) {
  StatusOr<RgbImage> image = DecodeImage(MustRead(kImages + name), ImageLimits(), apply_exif);
  FD_CHECK(image.ok(), name, ": ", image.status().message());
  return *std::move(image);
}

void ExpectCrop(const RgbImage& image, const Json& crop, int tolerance, const std::string& what) {
  const JsonArray& rows = crop.as_array();
  for (size_t y = 0; y < rows.size(); ++y) {
    for (size_t x = 0; x < rows[y].as_array().size(); ++x) {
      for (size_t c = 0; c < 3; ++c) {
        int expected = static_cast<int>(rows[y].as_array()[x].as_array()[c].as_int());
        int got = image.pixels[3 * (y * static_cast<size_t>(image.width) + x) + c];
        ASSERT_LE(std::abs(got - expected), tolerance) << what << " at row " << y << " column " << x;
      }
    }
  }
}

// Lossy decoders may round otherwise in another release: then levels are compared instead of checksums.
bool IsLossy(const std::string& name) { return name.ends_with(".jpg") || name.ends_with("lossy.webp"); }
constexpr int kLossyLevels = 2;

void CheckResized(const std::string& name, const RgbImage& image, const Json& resized, bool exact) {
  for (const auto& [tag, e] : resized.as_object()) {
    SCOPED_TRACE(name + " " + tag);
    if (const Json* error = e.Find("error")) {
      StatusOr<ImageSize> size = SmartResize(image.height, image.width, 28, 56 * 56, 6177 * 28 * 28);
      ASSERT_FALSE(size.ok());
      EXPECT_EQ(size.status().message(), error->as_string());
      continue;
    }
    StatusOr<ImageSize> size = SmartResize(image.height, image.width, 28, e.Find("min_pixels")->as_int(),
                                           e.Find("max_pixels")->as_int());
    ASSERT_TRUE(size.ok()) << size.status().message();
    ASSERT_EQ(size->height, e.Find("height")->as_int());
    ASSERT_EQ(size->width, e.Find("width")->as_int());
    RgbImage small = ResizeBicubic(image, *size);
    ExpectCrop(small, *e.Find("crop_rows_0_4_cols_0_8"), exact ? 0 : kLossyLevels, name);
    if (!exact) continue;
    EXPECT_EQ(Sha256(small.pixels), e.Find("rgb_sha256")->as_string());
    EXPECT_EQ(Sha256(PatchRows(small, 14, 2)), e.Find("patch_rows_sha256")->as_string());
    if (const Json* file = e.Find("file")) {
      EXPECT_EQ(MustDecode(file->as_string()).pixels, small.pixels);
    }
  }
}

TEST(ImageGolden, Sha256) {
  EXPECT_EQ(Sha256(std::string_view("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

// rule: "ernie" ignores EXIF orientation; "hf_file" applies it, and is the same otherwise where nothing is
// transparent and grey has 8 bits.
void CheckRule(const std::string& rule, bool apply_exif, int* checked) {
  for (const Json& row : Expected().Find("images")->as_array()) {
    const std::string& name = row.Find("file")->as_string();
    SCOPED_TRACE(name + " " + rule);
    if (apply_exif && !name.starts_with("exif_")) continue;
    const Json* e = row.Find("rules")->Find(rule);
    RgbImage image = MustDecode(name, apply_exif);
    ASSERT_EQ(image.width, e->Find("width")->as_int());
    ASSERT_EQ(image.height, e->Find("height")->as_int());
    bool exact = Sha256(image.pixels) == e->Find("rgb_sha256")->as_string();
    if (!exact) {
      EXPECT_TRUE(IsLossy(name)) << "a lossless picture decodes to other pixels";
      std::printf("%s: other pixels than Pillow's; comparing levels\n", name.c_str());
      ExpectCrop(image, Json(JsonArray{*e->Find("first_pixels")}), kLossyLevels, name);
      double sums[3] = {};
      for (size_t i = 0; i < image.pixels.size(); ++i) sums[i % 3] += image.pixels[i];
      for (size_t c = 0; c < 3; ++c) {
        double mean = sums[c] / static_cast<double>(image.width * image.height);
        EXPECT_NEAR(mean, e->Find("mean")->as_array()[c].as_double(), 0.5);
      }
    }
    CheckResized(name, image, *e->Find("resized"), exact);
    ++*checked;
  }
}

TEST(ImageGolden, DecodesAndResizesAllPictures) {
  int checked = 0;
  CheckRule("ernie", false, &checked);
  EXPECT_EQ(checked, 30);
}

TEST(ImageGolden, AppliesExifOrientation) {
  int checked = 0;
  CheckRule("hf_file", true, &checked);
  EXPECT_EQ(checked, 2);
}

TEST(ImageGolden, PicturesWithoutOrientationIgnoreTheSwitch) {
  for (const char* name : {"rgb.png", "rgba.png", "baseline_420.jpg", "lossy.webp", "two_frames.gif"}) {
    EXPECT_EQ(MustDecode(name, true).pixels, MustDecode(name, false).pixels) << name;
  }
}

TEST(ImageGolden, ResizesNoise) {
  const JsonArray& rows = Expected().Find("resize")->as_array();
  ASSERT_EQ(rows.size(), 13u);
  for (const Json& row : rows) {
    const std::string& name = row.Find("file")->as_string();
    RgbImage out =
        ResizeBicubic(MustDecode(name), {row.Find("height")->as_int(), row.Find("width")->as_int()});
    ExpectCrop(out, *row.Find("crop_rows_0_4_cols_0_8"), 0, name);
    EXPECT_EQ(Sha256(out.pixels), row.Find("rgb_sha256")->as_string()) << name;
  }
}

// tests/golden/pictures: formats and colour types beyond those of preprocess, with Pillow's checksums.
TEST(ImageGolden, OddPictures) {
  const std::string folder = "tests/golden/pictures/";
  int checked = 0;
  const Json expected = MustReadJson(folder + "expected.json");
  for (const Json& row : expected.as_array()) {
    const std::string& name = row.Find("file")->as_string();
    SCOPED_TRACE(name);
    StatusOr<RgbImage> image = DecodeImage(MustRead(folder + name), ImageLimits(), false);
    ++checked;
    if (row.Find("error") != nullptr) {
      EXPECT_FALSE(image.ok());
      continue;
    }
    ASSERT_TRUE(image.ok()) << image.status().message();
    EXPECT_EQ(image->width, row.Find("width")->as_int());
    EXPECT_EQ(image->height, row.Find("height")->as_int());
    EXPECT_EQ(Sha256(image->pixels), row.Find("sha256")->as_string());
  }
  EXPECT_GT(checked, 60);
}

// The header alone says what decoding says, and the walk by rows gives what the whole picture gives.
TEST(ImageGolden, SizesAndPatchesWithoutThePicture) {
  int checked = 0;
  for (const char* folder : {"tests/golden/preprocess/images/", "tests/golden/pictures/"}) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.path().extension() == ".json") continue;
      SCOPED_TRACE(entry.path().string());
      const std::string file = MustRead(entry.path());
      for (bool apply_exif : {false, true}) {
        const StatusOr<RgbImage> image = DecodeImage(file, ImageLimits(), apply_exif);
        const StatusOr<ImageSize> size = ReadImageSize(file, ImageLimits(), apply_exif);
        const StatusOr<PatchImage> patches = DecodePatchRows(file, ImageLimits(), apply_exif, PatchRule());
        if (!image.ok()) {
          EXPECT_TRUE(size.ok() || size.status().message() == image.status().message());
          EXPECT_FALSE(patches.ok());
          continue;
        }
        ++checked;
        ASSERT_TRUE(size.ok()) << size.status().message();
        EXPECT_EQ(size->width, image->width);
        EXPECT_EQ(size->height, image->height);
        // Both limits refuse by the same words.
        for (ImageLimits limits : {ImageLimits{1 << 20, image->width * image->height - 1, 16384},
                                   ImageLimits{1 << 20, 1 << 20, std::max(image->width, image->height) - 1},
                                   ImageLimits{static_cast<int64_t>(file.size()) - 1, 1 << 20, 16384}}) {
          const StatusOr<RgbImage> no_image = DecodeImage(file, limits, apply_exif);
          const StatusOr<ImageSize> no_size = ReadImageSize(file, limits, apply_exif);
          ASSERT_FALSE(no_image.ok());
          ASSERT_FALSE(no_size.ok());
          EXPECT_EQ(no_size.status().code(), no_image.status().code());
          EXPECT_EQ(no_size.status().message(), no_image.status().message());
        }
        const StatusOr<ImageSize> to = SmartResize(size->height, size->width, 28, 56 * 56, 28 * 28 * 6177);
        ASSERT_EQ(to.ok(), patches.ok());
        if (!to.ok()) continue;
        EXPECT_EQ(patches->size.width, to->width);
        EXPECT_EQ(patches->size.height, to->height);
        EXPECT_EQ(patches->rows, PatchRows(ResizeBicubic(*image, *to), 14, 2));
      }
    }
  }
  EXPECT_GT(checked, 200);
}

TEST(ImageGolden, VideoRows) {
  const JsonArray& rows = Expected().Find("video")->as_array();
  ASSERT_EQ(rows.size(), 2u);
  MediaConfig config;
  for (const Json& row : rows) {
    std::vector<RgbImage> frames;
    for (const Json& frame : row.Find("frames")->as_array()) {
      frames.push_back(MustDecode(frame.Find("drawn")->as_string()));
      EXPECT_EQ(Sha256(frames.back().pixels), frame.Find("drawn_sha256")->as_string());
    }
    VideoBuilder builder(config, config.video_min_pixels, config.video_max_pixels);
    for (const RgbImage& frame : frames) ASSERT_TRUE(builder.Add(frame).ok());
    StatusOr<PreparedVideo> video = builder.Finish();
    ASSERT_TRUE(video.ok()) << video.status().message();
    const JsonArray& grid = row.Find("grid_thw")->as_array();
    EXPECT_EQ(video->grid_t, grid[0].as_int());
    EXPECT_EQ(video->grid_h, grid[1].as_int());
    EXPECT_EQ(video->grid_w, grid[2].as_int());
    EXPECT_EQ(video->num_tokens(), row.Find("tokens")->as_int());
    std::vector<uint8_t> patch_rows;
    for (const auto& pair : video->pairs) {
      patch_rows.insert(patch_rows.end(), pair->patch_rows.begin(), pair->patch_rows.end());
    }
    EXPECT_EQ(Sha256(patch_rows), row.Find("patch_rows_sha256")->as_string());
  }
}

TEST(ImageGolden, SmartResize) {
  Json table = MustReadJson("tests/golden/preprocess/smart_resize.json");
  const JsonArray& rows = table.Find("rows")->as_array();
  ASSERT_EQ(rows.size(), 220u);
  for (const Json& json : rows) {
    const JsonArray& row = json.as_array();
    StatusOr<ImageSize> size =
        SmartResize(row[0].as_int(), row[1].as_int(), 28, row[2].as_int(), row[3].as_int());
    SCOPED_TRACE(WriteJson(json));
    if (row[4].is_string()) {
      ASSERT_FALSE(size.ok());
      EXPECT_EQ(size.status().message(), row[4].as_string());
    } else {
      ASSERT_TRUE(size.ok()) << size.status().message();
      EXPECT_EQ(size->height, row[4].as_int());
      EXPECT_EQ(size->width, row[5].as_int());
    }
  }
}

}  // namespace
}  // namespace fd
