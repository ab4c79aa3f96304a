// Reads tests/media (make.py says what their frames show) through ReadVideo and fastdeploy-media. Tests only.
#pragma once

#include <fstream>
#include <iterator>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "server/multimodal/video/video_reader.h"

namespace fd {

inline std::string ReadTestFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

inline VideoLimits TestLimits() {
  VideoLimits limits;
  limits.program = FASTDEPLOY_MEDIA_PROGRAM;
  return limits;
}

// All frames up to 180.
inline VideoSampling AllFrames() {
  VideoSampling sampling;
  sampling.fps = -1;
  sampling.target_frames = 180;
  return sampling;
}

// Frames one by one, so many of the file at most.
inline VideoSampling ByCountSampling(int64_t count) {
  VideoSampling sampling;
  sampling.fps = -1;
  sampling.min_frames = 1;
  sampling.target_frames = count;
  return sampling;
}

struct VideoResult {
  Status status;
  VideoInfo info;
  int infos = 0;
  std::vector<VideoFrame> frames;
};

inline VideoResult ReadForTest(std::string_view bytes, const VideoSampling& sampling,
                               const VideoLimits& limits = TestLimits(), std::stop_token stop = {}) {
  VideoResult result;
  result.status = ReadVideo(
      bytes, sampling, limits, std::move(stop),
      [&](const VideoInfo& info) {
        result.info = info;
        ++result.infos;
        return OkStatus();
      },
      [&](VideoFrame&& frame) {
        result.frames.push_back(std::move(frame));
        return OkStatus();
      });
  return result;
}

// The colour at (x, y).
inline const uint8_t* PixelAt(const RgbImage& image, int64_t x, int64_t y) {
  return image.pixels.data() + (y * image.width + x) * 3;
}

// The number that an upright frame of 64 x 48 shows.
inline int NumberShown(const RgbImage& image) {
  int number = 0;
  for (int block = 0; block < 8; ++block) {
    number = number << 1 | (PixelAt(image, block % 4 * 16 + 8, block / 4 * 16 + 8)[1] > 128 ? 1 : 0);
  }
  return number;
}

}  // namespace fd
