// Which frames of a video are looked at. Pure functions; any thread. Names and defaults are FastDeploy's
// (reference/fastdeploy-serving 3.3 and 3.4, reference/ernie45-architecture 6.3).
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"

namespace fd {

enum class FramesSample { kLeading, kMiddle, kRandom };  // of each span: its first, its centre, any

struct VideoSampling {
  double fps = 2;  // negative: by target_frames alone
  int64_t min_frames = 16;
  int64_t max_frames = 180;
  int64_t target_frames = -1;  // above 0: so many, whatever the duration; fps must then be negative
  FramesSample frames_sample = FramesSample::kLeading;
  uint64_t seed = 0;  // of kRandom
};

// The options among themselves; errors name the field, its value and the limit. `max_allowed_frames` bounds
// max_frames and target_frames.
Status CheckVideoSampling(const VideoSampling& sampling, int64_t max_allowed_frames);

// Ascending indices below total_frames (at least 1); duration_s is that of total_frames frames.
// CheckVideoSampling holds.
std::vector<int64_t> SampleFrames(int64_t total_frames, double duration_s, const VideoSampling& sampling);

}  // namespace fd
