#include "server/multimodal/video/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/rng.h"
#include "base/strings.h"

namespace fd {
namespace {

// A number in [low, high], by the seed and the place in the result alone.
int64_t RandomBetween(int64_t low, int64_t high, uint64_t seed, int64_t place) {
  const auto bits = Philox4x32(seed, static_cast<uint64_t>(place));
  const uint64_t word = (uint64_t{bits[0]} << 32) | bits[1];
  return low + static_cast<int64_t>(word % static_cast<uint64_t>(high - low + 1));
}

// One frame of each of `count` spans, whose borders are numpy's linspace(0, total, count + 1) cut to
// integers.
std::vector<int64_t> ByCount(int64_t total, int64_t count, const VideoSampling& sampling) {
  std::vector<int64_t> indices;
  indices.reserve(static_cast<size_t>(count));
  const double step = static_cast<double>(total) / static_cast<double>(count);
  auto border = [&](int64_t i) {
    return i == count ? total : static_cast<int64_t>(static_cast<double>(i) * step);
  };
  for (int64_t i = 0; i < count; ++i) {
    const int64_t first = border(i);
    const int64_t last = std::max(first, border(i + 1) - 1);
    switch (sampling.frames_sample) {
      case FramesSample::kLeading:
        indices.push_back(first);
        break;
      case FramesSample::kMiddle:
        indices.push_back((first + last) / 2);
        break;
      case FramesSample::kRandom:
        indices.push_back(RandomBetween(first, last, sampling.seed, i));
        break;
    }
  }
  return indices;
}

// One frame of each step of 1 / fps seconds.
std::vector<int64_t> ByTime(int64_t total, double duration_s, const VideoSampling& sampling) {
  const double source_fps = static_cast<double>(total) / duration_s;
  const double step_s = 1.0 / sampling.fps;
  std::vector<int64_t> indices;
  for (int64_t i = 0;; ++i) {
    const double start_s = static_cast<double>(i) * step_s;
    if (start_s >= duration_s) break;
    double within = 0;  // share of the step
    if (sampling.frames_sample == FramesSample::kMiddle) within = 0.5;
    if (sampling.frames_sample == FramesSample::kRandom) {
      within = UniformFloat(sampling.seed, static_cast<uint64_t>(i));
    }
    // nearbyint: halves go to the even neighbour, as numpy's around does.
    const auto index = static_cast<int64_t>(std::nearbyint((start_s + within * step_s) * source_fps));
    if (index >= total) break;
    if (indices.empty() || index > indices.back()) indices.push_back(index);
  }
  return indices;
}

}  // namespace

Status CheckVideoSampling(const VideoSampling& sampling, int64_t max_allowed_frames) {
  if (!std::isfinite(sampling.fps)) {
    return InvalidArgument("fps is not a finite number; an example is \"fps\": 2", "fps");
  }
  if (sampling.min_frames < 1) {
    return InvalidArgument(
        StrCat("min_frames is ", sampling.min_frames, "; the least is 1, an example is \"min_frames\": 16"),
        "min_frames");
  }
  if (sampling.max_frames > max_allowed_frames) {
    return InvalidArgument(StrCat("max_frames is ", sampling.max_frames, "; the limit is ",
                                  max_allowed_frames, " (--max-video-frames)"),
                           "max_frames");
  }
  if (sampling.min_frames > sampling.max_frames) {
    return InvalidArgument(
        StrCat("min_frames is ", sampling.min_frames, ", above max_frames, which is ", sampling.max_frames),
        "min_frames");
  }
  if (sampling.target_frames > 0) {
    if (sampling.fps >= 0) {
      return InvalidArgument(StrCat("target_frames is ", sampling.target_frames, " and fps is ", sampling.fps,
                                    ": only one of the two can rule; send \"fps\": -1 with target_frames"),
                             "fps");
    }
    if (sampling.target_frames < sampling.min_frames || sampling.target_frames > sampling.max_frames) {
      return InvalidArgument(
          StrCat("target_frames is ", sampling.target_frames, "; it must lie between min_frames ",
                 sampling.min_frames, " and max_frames ", sampling.max_frames),
          "target_frames");
    }
    return OkStatus();
  }
  if (sampling.fps < 0) {
    return InvalidArgument(StrCat("fps is ", sampling.fps,
                                  " and target_frames is not set: send \"fps\": 2, or \"fps\": -1 with "
                                  "\"target_frames\": 32"),
                           "fps");
  }
  return OkStatus();
}

std::vector<int64_t> SampleFrames(int64_t total_frames, double duration_s, const VideoSampling& sampling) {
  if (total_frames < 1) return {};
  int64_t count = sampling.target_frames;
  bool by_time = false;
  if (count <= 0) {
    const double wanted = duration_s > 0 ? std::trunc(duration_s * sampling.fps) : 0;
    by_time = wanted >= static_cast<double>(sampling.min_frames) &&
              wanted <= static_cast<double>(sampling.max_frames);
    count = wanted < static_cast<double>(sampling.min_frames) ? sampling.min_frames : sampling.max_frames;
    if (by_time) count = static_cast<int64_t>(wanted);
  }
  if (count >= total_frames) {
    std::vector<int64_t> all(static_cast<size_t>(total_frames));
    std::iota(all.begin(), all.end(), 0);
    return all;
  }
  return by_time ? ByTime(total_frames, duration_s, sampling) : ByCount(total_frames, count, sampling);
}

}  // namespace fd
