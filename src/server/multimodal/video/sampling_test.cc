#include "server/multimodal/video/sampling.h"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>

namespace fd {
namespace {

using Indices = std::vector<int64_t>;

VideoSampling Target(int64_t count, FramesSample sample = FramesSample::kLeading) {
  VideoSampling sampling;
  sampling.fps = -1;
  sampling.min_frames = 1;
  sampling.target_frames = count;
  sampling.frames_sample = sample;
  return sampling;
}

// numpy: linspace(0, 100, 9).astype(int) = 0 12 25 37 50 62 75 87 100.
TEST(SampleFrames, ByCountCutsEvenSpans) {
  EXPECT_EQ(SampleFrames(100, 4, Target(8)), (Indices{0, 12, 25, 37, 50, 62, 75, 87}));
  EXPECT_EQ(SampleFrames(100, 4, Target(8, FramesSample::kMiddle)), (Indices{5, 18, 30, 43, 55, 68, 80, 93}));
  EXPECT_EQ(SampleFrames(10, 4, Target(3)), (Indices{0, 3, 6}));
  EXPECT_EQ(SampleFrames(10, 4, Target(3, FramesSample::kMiddle)), (Indices{1, 4, 7}));
  EXPECT_EQ(SampleFrames(10, 4, Target(1)), (Indices{0}));
}

TEST(SampleFrames, RandomStaysInItsSpanAndFollowsTheSeed) {
  VideoSampling sampling = Target(8, FramesSample::kRandom);
  const Indices borders = {0, 12, 25, 37, 50, 62, 75, 87, 100};
  Indices first;
  bool differs = false;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    sampling.seed = seed;
    const Indices indices = SampleFrames(100, 4, sampling);
    ASSERT_EQ(indices.size(), 8u);
    for (size_t i = 0; i < indices.size(); ++i) {
      EXPECT_GE(indices[i], borders[i]);
      EXPECT_LT(indices[i], borders[i + 1]);
    }
    EXPECT_EQ(indices, SampleFrames(100, 4, sampling));
    if (seed == 0) first = indices;
    differs = differs || indices != first;
  }
  EXPECT_TRUE(differs);
}

// 25 frames a second at 2 a second: halves go to the even number (12.5 -> 12, 37.5 -> 38).
TEST(SampleFrames, ByTimeRoundsHalvesToEven) {
  VideoSampling sampling;
  const Indices indices = SampleFrames(250, 10, sampling);
  EXPECT_EQ(indices, (Indices{0,   12,  25,  38,  50,  62,  75,  88,  100, 112,
                              125, 138, 150, 162, 175, 188, 200, 212, 225, 238}));
  sampling.frames_sample = FramesSample::kMiddle;  // a quarter of a second later: 6.25, 18.75, 31.25, ...
  EXPECT_EQ(SampleFrames(250, 10, sampling), (Indices{6,   19,  31,  44,  56,  69,  81,  94,  106, 119,
                                                      131, 144, 156, 169, 181, 194, 206, 219, 231, 244}));
}

TEST(SampleFrames, TooFewTakeTheMinimumAndTooManyTheMaximum) {
  VideoSampling sampling;                                                       // 16 to 180
  EXPECT_EQ(SampleFrames(100, 4, sampling), SampleFrames(100, 4, Target(16)));  // 8 by time
  EXPECT_EQ(SampleFrames(100, 8, sampling).size(), 16u);  // exactly the minimum, by time
  EXPECT_EQ(SampleFrames(100, 8, sampling)[1], 6);        // 0.5 s at 12.5 a second: 6.25
  EXPECT_EQ(SampleFrames(15000, 600, sampling), SampleFrames(15000, 600, Target(180)));
  EXPECT_EQ(SampleFrames(2250, 90, sampling).size(), 180u);
}

TEST(SampleFrames, FewerThanWantedAreAllTaken) {
  Indices all(7);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(SampleFrames(7, 1, VideoSampling{}), all);
  EXPECT_EQ(SampleFrames(7, 1, Target(8, FramesSample::kMiddle)), all);
  EXPECT_EQ(SampleFrames(7, 100, VideoSampling{}), all);  // one frame in 14 s, two a second wanted
  EXPECT_EQ(SampleFrames(1, 0, VideoSampling{}), (Indices{0}));
}

TEST(SampleFrames, AlwaysAscendingAndInside) {
  for (FramesSample sample : {FramesSample::kLeading, FramesSample::kMiddle, FramesSample::kRandom}) {
    for (int64_t total = 1; total < 400; total += 7) {
      for (double duration_s : {0.0, 0.01, 1.0, 9.99, 60.0, 1e6}) {
        VideoSampling sampling;
        sampling.min_frames = 2;
        sampling.frames_sample = sample;
        const Indices indices = SampleFrames(total, duration_s, sampling);
        ASSERT_FALSE(indices.empty());
        for (size_t i = 0; i < indices.size(); ++i) {
          ASSERT_LT(indices[i], total);
          ASSERT_GE(indices[i], i == 0 ? 0 : indices[i - 1] + 1);
        }
        ASSERT_LE(indices.size(), 181u);
      }
    }
  }
}

TEST(CheckVideoSampling, AcceptsTheDefaults) {
  EXPECT_TRUE(CheckVideoSampling(VideoSampling{}, 768).ok());
  EXPECT_TRUE(CheckVideoSampling(Target(32), 768).ok());
}

TEST(CheckVideoSampling, NamesTheFieldAndBothNumbers) {
  struct Case {
    VideoSampling sampling;
    std::string param, text;
  };
  auto with = [](double fps, int64_t min, int64_t max, int64_t target) {
    VideoSampling sampling;
    sampling.fps = fps;
    sampling.min_frames = min;
    sampling.max_frames = max;
    sampling.target_frames = target;
    return sampling;
  };
  const Case cases[] = {
      {with(2, 16, 180, 32), "fps", "send \"fps\": -1 with target_frames"},
      {with(-1, 16, 180, 8), "target_frames",
       "target_frames is 8; it must lie between min_frames 16 and max_frames 180"},
      {with(-1, 16, 180, 181), "target_frames", "target_frames is 181"},
      {with(2, 200, 180, -1), "min_frames", "min_frames is 200, above max_frames, which is 180"},
      {with(-1, 16, 180, -1), "fps", "fps is -1 and target_frames is not set"},
      {with(2, 0, 180, -1), "min_frames", "min_frames is 0; the least is 1"},
      {with(2, 16, 1000, -1), "max_frames", "max_frames is 1000; the limit is 768 (--max-video-frames)"},
      {with(std::numeric_limits<double>::quiet_NaN(), 16, 180, -1), "fps", "not a finite number"},
  };
  for (const Case& c : cases) {
    const Status status = CheckVideoSampling(c.sampling, 768);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(status.param(), c.param);
    EXPECT_NE(status.message().find(c.text), std::string::npos) << status.message();
  }
}

}  // namespace
}  // namespace fd
