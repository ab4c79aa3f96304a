// Whole videos through fastdeploy-media: the right frames in the right colours.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <map>
#include <string>

#include "media/video_for_tests.h"

namespace fd {
namespace {

std::string Media(const std::string& name) { return ReadTestFile("tests/media/" + name); }

struct Expected {
  const char* file;
  int64_t frames;
  double duration_s;
};

class EveryFormat : public testing::TestWithParam<Expected> {};

TEST_P(EveryFormat, EachFrameIsTheOneThatItSaysToBe) {
  const Expected& expected = GetParam();
  const VideoResult result = ReadForTest(Media(expected.file), AllFrames());
  ASSERT_TRUE(result.status.ok()) << result.status.message();
  EXPECT_EQ(result.infos, 1);
  EXPECT_EQ(result.info.width, 64);
  EXPECT_EQ(result.info.height, 48);
  EXPECT_EQ(result.info.total_frames, expected.frames);
  EXPECT_NEAR(result.info.duration_s, expected.duration_s, 1e-9);
  ASSERT_EQ(static_cast<int64_t>(result.frames.size()), expected.frames);
  for (size_t i = 0; i < result.frames.size(); ++i) {
    const VideoFrame& frame = result.frames[i];
    EXPECT_EQ(frame.index, static_cast<int64_t>(i));
    EXPECT_NEAR(frame.time_s,
                static_cast<double>(i) * expected.duration_s / static_cast<double>(expected.frames), 1e-9);
    EXPECT_EQ(NumberShown(frame.image), static_cast<int>(i));
  }
}

// What decoding skips (frames that no wanted one needs, whole groups) must not change what comes out.
TEST_P(EveryFormat, FewFramesEqualTheSameFramesAmongAll) {
  const std::string file = Media(GetParam().file);
  const VideoResult all = ReadForTest(file, AllFrames());
  ASSERT_TRUE(all.status.ok()) << all.status.message();
  for (int64_t count : {1, 2, 3, 5, 7, 11}) {
    if (count >= GetParam().frames) continue;
    for (FramesSample sample : {FramesSample::kLeading, FramesSample::kMiddle, FramesSample::kRandom}) {
      VideoSampling sampling = ByCountSampling(count);
      sampling.frames_sample = sample;
      const VideoResult few = ReadForTest(file, sampling);
      ASSERT_TRUE(few.status.ok()) << few.status.message();
      ASSERT_EQ(static_cast<int64_t>(few.frames.size()), count);
      const std::vector<int64_t> indices = SampleFrames(GetParam().frames, GetParam().duration_s, sampling);
      for (size_t i = 0; i < few.frames.size(); ++i) {
        EXPECT_EQ(few.frames[i].index, indices[i]);
        EXPECT_EQ(few.frames[i].image.pixels, all.frames[static_cast<size_t>(indices[i])].image.pixels)
            << "frame " << indices[i] << " of " << count;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Files, EveryFormat,
    // The stamps of the variable rate end at 7 s; the mean frame is added for the last one.
    testing::Values(Expected{"h264.mp4", 100, 4.0}, Expected{"h264_audio.mp4", 50, 2.0},
                    Expected{"h264_bt709.mp4", 10, 0.4}, Expected{"h264_full_range.mp4", 10, 0.4},
                    Expected{"h264_open_gop.mkv", 100, 4.0}, Expected{"h264_fragmented.mp4", 60, 2.4},
                    Expected{"h264_variable_rate.mp4", 60, 7.0 * 60 / 59}, Expected{"hevc.mp4", 40, 1.6},
                    Expected{"hevc_10bit.mkv", 40, 1.6}, Expected{"vp8.webm", 60, 2.4},
                    Expected{"vp9.webm", 60, 2.0}, Expected{"av1.webm", 30, 1.2},
                    Expected{"mpeg4.avi", 60, 2.4}, Expected{"mjpeg.avi", 20, 0.8},
                    Expected{"animated.gif", 30, 3.0}, Expected{"animated.webp", 30, 3.0}),
    [](const testing::TestParamInfo<Expected>& info) {
      std::string name = info.param.file;
      for (char& c : name) {
        if (c == '.') c = '_';
      }
      return name;
    });

// Matrix and range as flagged: what was put in comes out.
TEST(MediaColours, AreThoseThatWereEncoded) {
  const int colours[4][3] = {{200, 30, 30}, {30, 160, 30}, {30, 30, 200}, {128, 128, 128}};
  for (const auto& [file, tolerance] : std::map<std::string, int>{{"h264.mp4", 4},
                                                                  {"h264_bt709.mp4", 4},
                                                                  {"h264_full_range.mp4", 4},
                                                                  {"hevc_10bit.mkv", 4},
                                                                  {"vp9.webm", 4},
                                                                  {"mjpeg.avi", 6},
                                                                  {"animated.webp", 0}}) {
    const VideoResult result = ReadForTest(Media(file), ByCountSampling(1));
    ASSERT_TRUE(result.status.ok()) << file << ": " << result.status.message();
    for (int block = 0; block < 4; ++block) {
      const uint8_t* pixel = PixelAt(result.frames[0].image, block * 16 + 8, 40);
      for (int c = 0; c < 3; ++c) {
        EXPECT_LE(std::abs(pixel[c] - colours[block][c]), tolerance)
            << file << " block " << block << " channel " << c;
      }
    }
  }
}

// In the file the red block lies at the lower left.
TEST(MediaRotation, IsApplied) {
  struct Turned {
    const char* file;
    int64_t width, height, red_x, red_y;
  };
  for (const Turned& turned :
       {Turned{"h264_rotate180.mov", 64, 48, 56, 8}, Turned{"h264_rotate90.mov", 48, 64, 40, 56},
        Turned{"h264_rotate270.mov", 48, 64, 8, 8}}) {
    const VideoResult result = ReadForTest(Media(turned.file), ByCountSampling(3));
    ASSERT_TRUE(result.status.ok()) << result.status.message();
    EXPECT_EQ(result.info.width, turned.width) << turned.file;
    EXPECT_EQ(result.info.height, turned.height) << turned.file;
    for (const VideoFrame& frame : result.frames) {
      ASSERT_EQ(frame.image.width, turned.width);
      const uint8_t* pixel = PixelAt(frame.image, turned.red_x, turned.red_y);
      EXPECT_GT(pixel[0], 180) << turned.file;
      EXPECT_LT(pixel[1], 60) << turned.file;
    }
  }
}

TEST(MediaStill, OneFrameIsAVideoOfOneFrame) {
  for (const char* file : {"still.gif", "still.webp"}) {
    const VideoResult result = ReadForTest(Media(file), VideoSampling{});
    ASSERT_TRUE(result.status.ok()) << file << ": " << result.status.message();
    EXPECT_EQ(result.info.total_frames, 1) << file;
    ASSERT_EQ(result.frames.size(), 1u) << file;
    EXPECT_EQ(NumberShown(result.frames[0].image), 0);
  }
}

TEST(MediaSampling, ByTimeAndDefaults) {
  VideoSampling sampling;
  sampling.min_frames = 4;
  const VideoResult by_time = ReadForTest(Media("h264.mp4"), sampling);  // 4 s at 2 a second
  ASSERT_TRUE(by_time.status.ok()) << by_time.status.message();
  std::vector<int64_t> shown;
  for (const VideoFrame& frame : by_time.frames) shown.push_back(NumberShown(frame.image));
  EXPECT_EQ(shown, (std::vector<int64_t>{0, 12, 25, 38, 50, 62, 75, 88}));
  const VideoResult defaults = ReadForTest(Media("h264.mp4"), VideoSampling{});
  ASSERT_TRUE(defaults.status.ok());
  EXPECT_EQ(defaults.frames.size(), 16u);
}

// A frame whose bytes are destroyed is replaced by a neighbour; the others stay what they are.
TEST(MediaDamage, ANeighbourStandsInForAnUnreadableFrame) {
  std::string file = Media("mjpeg.avi");
  constexpr int64_t kDestroyed = 7;
  size_t at = file.find("movi");
  for (int64_t n = 0; n <= kDestroyed; ++n) at = file.find("00dc", at + 1);
  ASSERT_NE(at, std::string::npos);
  for (size_t i = at + 8; i < at + 108; ++i) file[i] = 0;
  const VideoResult result = ReadForTest(file, AllFrames());
  ASSERT_TRUE(result.status.ok()) << result.status.message();
  ASSERT_EQ(result.frames.size(), 20u);
  for (int64_t i = 0; i < 20; ++i) {
    const int64_t shown = NumberShown(result.frames[static_cast<size_t>(i)].image);
    if (i == kDestroyed) {
      EXPECT_TRUE(shown == i - 1 || shown == i + 1) << shown;
    } else {
      EXPECT_EQ(shown, i);
    }
  }
}

TEST(MediaDamage, WhatCannotBeReadSaysWhy) {
  const std::map<std::string, std::string> reasons = {
      {"jpeg2000.mov", "coded as jpeg2000, which is not read; H.264"}, {"prores.mov", "coded as prores"}};
  for (const auto& [file, reason] : reasons) {
    const VideoResult result = ReadForTest(Media(file), VideoSampling{});
    EXPECT_EQ(result.status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(result.status.message().find(reason), std::string::npos) << result.status.message();
  }
}

}  // namespace
}  // namespace fd
