// Drawn times against the frames that Pillow drew (tests/golden), and what may go wrong with a font.
#include "server/multimodal/timestamp.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <thread>

#include "base/strings.h"
#include "server/multimodal/golden_for_tests.h"
#include "server/multimodal/image.h"

namespace fd {
namespace {

using golden::MustRead;
using golden::MustReadJson;

const char kFont[] = "tests/golden/models/ernie4_5_vl_moe/Roboto-Regular.ttf";
const char kImages[] = "tests/golden/preprocess/images/";
const char kCases[] = "tests/golden/cases/";

RgbImage MustDecode(const std::string& path) {
  StatusOr<RgbImage> image = DecodeImage(MustRead(path), ImageLimits(), false);
  FD_CHECK(image.ok(), path, ": ", image.status().message());
  return *std::move(image);
}

std::unique_ptr<TimestampFont> MustLoad() {
  StatusOr<std::unique_ptr<TimestampFont>> font = TimestampFont::Load(kFont);
  FD_CHECK(font.ok(), font.status().message());
  return std::move(*font);
}

// How far `got` is from `want` inside the box that holds every pixel that either changed of `plain`.
struct Difference {
  double mean = 0;
  int max = 0;
  int64_t pixels = 0;
};
Difference InTextBox(const RgbImage& plain, const RgbImage& got, const RgbImage& want) {
  int64_t x0 = plain.width, x1 = -1, y0 = plain.height, y1 = -1;
  for (int64_t y = 0; y < plain.height; ++y) {
    for (int64_t x = 0; x < plain.width; ++x) {
      const size_t at = static_cast<size_t>(3 * (y * plain.width + x));
      bool changed = false;
      for (size_t c = at; c < at + 3; ++c) {
        changed = changed || plain.pixels[c] != got.pixels[c] || plain.pixels[c] != want.pixels[c];
      }
      if (!changed) continue;
      x0 = std::min(x0, x), x1 = std::max(x1, x), y0 = std::min(y0, y), y1 = std::max(y1, y);
    }
  }
  Difference d;
  int64_t sum = 0;
  for (int64_t y = y0; y <= y1; ++y) {
    for (int64_t i = 3 * (y * plain.width + x0); i < 3 * (y * plain.width + x1 + 1); ++i) {
      const int off = std::abs(got.pixels[static_cast<size_t>(i)] - want.pixels[static_cast<size_t>(i)]);
      sum += off;
      d.max = std::max(d.max, off);
      ++d.pixels;
    }
  }
  if (d.pixels > 0) d.mean = static_cast<double>(sum) / static_cast<double>(d.pixels);
  return d;
}

void ExpectDrawn(const TimestampFont& font, double seconds, const std::string& plain_path,
                 const std::string& drawn_path) {
  const RgbImage plain = MustDecode(plain_path), want = MustDecode(drawn_path);
  RgbImage got = plain;
  font.Draw(seconds, &got);
  const Difference d = InTextBox(plain, got, want);
  std::printf("%-48s mean %.3f max %d of %lld values\n", std::filesystem::path(drawn_path).filename().c_str(),
              d.mean, d.max, static_cast<long long>(d.pixels));
  EXPECT_GT(d.pixels, 0) << drawn_path;
  // Other releases of FreeType may round a coverage by a level; a glyph one pixel off is at once above 10.
  EXPECT_LT(d.mean, 0.5) << drawn_path;
  EXPECT_LE(d.max, 40) << drawn_path;
}

double Seconds(const std::string& text) {  // "time: 01:02:05.10"
  int hours = 0, minutes = 0;
  double seconds = 0;
  FD_CHECK(std::sscanf(text.c_str(), "time: %d:%d:%lf", &hours, &minutes, &seconds) == 3);
  return hours * 3600 + minutes * 60 + seconds;
}

TEST(Timestamp, TextAsInPython) {
  const Json expected = MustReadJson("tests/golden/preprocess/expected.json");
  const JsonArray& rows = expected.Find("timestamps")->as_array();
  ASSERT_GT(rows.size(), 10u);
  for (const Json& row : rows) {
    EXPECT_EQ(TimestampText(row.as_array()[0].as_double()), row.as_array()[1].as_string());
  }
  EXPECT_EQ(TimestampText(-1), "time: 00:00:00.00");
  EXPECT_EQ(TimestampText(std::nan("")), "time: 00:00:00.00");
  EXPECT_EQ(TimestampText(std::numeric_limits<double>::infinity()), "time: 00:00:00.00");
  EXPECT_EQ(TimestampText(1e300), TimestampText(1e12));
}

TEST(Timestamp, DrawnFramesOfPreprocess) {
  const auto font = MustLoad();
  const Json expected = MustReadJson("tests/golden/preprocess/expected.json");
  int frames = 0;
  for (const Json& video : expected.Find("video")->as_array()) {
    for (const Json& frame : video.Find("frames")->as_array()) {
      ExpectDrawn(*font, Seconds(frame.Find("text")->as_string()), kImages + frame.Find("file")->as_string(),
                  kImages + frame.Find("drawn")->as_string());
      ++frames;
    }
  }
  EXPECT_EQ(frames, 5);
}

TEST(Timestamp, DrawnFramesOfTheVideoCases) {
  const auto font = MustLoad();
  const Json cases = MustReadJson(std::string(kCases) + "ernie4_5_vl_moe.json");
  int frames = 0;
  std::string folder = std::string(kCases) + "vl_media/";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string drawn = entry.path().filename();
    const size_t end = drawn.find(".last_drawn.png");
    if (end == std::string::npos) continue;
    const std::string name = drawn.substr(0, drawn.find('.'));
    const Json* found = nullptr;
    for (const Json& row : cases.Find("cases")->as_array()) {
      if (row.Find("name")->as_string() == name) found = &row;
    }
    ASSERT_NE(found, nullptr) << name;
    const Json& video = found->Find("videos")->as_array()[0];
    const std::string last = video.Find("timestamps")->as_array().back().as_string();
    ExpectDrawn(
        *font, Seconds(last),
        std::string(kCases) + "vl_media/" +
            std::filesystem::path(video.Find("frames")->as_array().back().as_string()).filename().string(),
        entry.path());
    ++frames;
  }
  EXPECT_EQ(frames, 5);
}

TEST(Timestamp, ManyThreadsAndSizesDrawTheSame) {
  const auto font = MustLoad();
  auto draw = [&](int64_t side) {
    RgbImage frame{side, 2 * side, std::vector<uint8_t>(static_cast<size_t>(6 * side * side), 90)};
    font->Draw(61.25, &frame);
    return frame.pixels;
  };
  std::vector<std::vector<uint8_t>> alone;
  for (int64_t side = 90; side < 190; side += 10) alone.push_back(draw(side));  // more sizes than are kept
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < 40; ++i) {
        const size_t k = (i * (t + 1)) % alone.size();
        if (draw(90 + 10 * static_cast<int64_t>(k)) != alone[k]) ++wrong[t];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

TEST(Timestamp, SmallAndNarrowFrames) {
  const auto font = MustLoad();
  RgbImage tiny{9, 400, std::vector<uint8_t>(9 * 400 * 3, 7)};
  const std::vector<uint8_t> before = tiny.pixels;
  font->Draw(1, &tiny);
  EXPECT_EQ(tiny.pixels, before);             // a font of 0 pixels
  for (int64_t width : {10, 30, 100, 150}) {  // the text is wider than the frame and is cut
    RgbImage frame{2000, width, std::vector<uint8_t>(static_cast<size_t>(2000 * width * 3), 200)};
    font->Draw(3725.1, &frame);
    EXPECT_NE(frame.pixels, std::vector<uint8_t>(frame.pixels.size(), 200)) << width;
  }
}

TEST(Timestamp, FontsThatAreNone) {
  const std::string folder = testing::TempDir();
  const std::string path = folder + "/hostile.ttf";
  auto load = [&](const std::string& bytes) {
    FILE* file = std::fopen(path.c_str(), "wb");
    FD_CHECK(file != nullptr);
    std::fwrite(bytes.data(), 1, bytes.size(), file);
    std::fclose(file);
    auto font = TimestampFont::Load(path);
    return font.ok() ? OkStatus() : font.status();
  };
  EXPECT_FALSE(TimestampFont::Load(folder + "/absent.ttf").ok());
  EXPECT_NE(load("").message().find("is no font"), std::string::npos);
  EXPECT_NE(load("hello").message().find(path), std::string::npos);
  const std::string good = MustRead(kFont);
  EXPECT_TRUE(load(good).ok());
  EXPECT_FALSE(load(good.substr(0, 1000)).ok());
  // Every table damaged in turn: an error, or a font that can still draw.
  RgbImage frame{300, 300, std::vector<uint8_t>(300 * 300 * 3, 128)};
  uint32_t state = 1;
  for (int round = 0; round < 60; ++round) {
    std::string bad = good;
    for (int i = 0; i < 200; ++i) {
      state = state * 1664525 + 1013904223;
      bad[round % 3 == 0 ? state % 400 : state % bad.size()] = static_cast<char>(state >> 24);
    }
    if (round % 4 == 0) bad.resize(state % bad.size());
    (void)load(bad);
    if (auto font = TimestampFont::Load(path); font.ok()) (*font)->Draw(12.5, &frame);
  }
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace fd
