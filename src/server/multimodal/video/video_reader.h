// An encoded video -> its sampled frames, decoded by the separate program fastdeploy-media. Any thread;
// blocks.
#pragma once

#include <functional>
#include <stop_token>
#include <string>
#include <string_view>

#include "base/status.h"
#include "server/multimodal/image.h"
#include "server/multimodal/video/sampling.h"

namespace fd {

struct VideoLimits {
  int64_t max_file_bytes = 256 << 20;      // --max-video-bytes
  int64_t max_frame_pixels = 3840 * 2160;  // --max-video-pixels: of one frame
  int64_t max_side_pixels = 8192;
  int64_t max_sampled_frames = 768;         // --max-video-frames: what a request may ask for
  double timeout_s = 120;                   // --video-timeout: wall clock, of one video
  int64_t memory_bytes = int64_t{2} << 30;  // --video-memory: address space of fastdeploy-media
  std::string program;  // path of fastdeploy-media; empty: beside this program, else in PATH
};

struct VideoInfo {
  int64_t width = 0, height = 0;  // of a frame as shown: rotation metadata applied
  int64_t total_frames = 0;
  double duration_s = 0;
  int64_t num_frames = 0;  // how many will come
};
struct VideoFrame {
  RgbImage image;     // upright
  int64_t index = 0;  // of total_frames
  double time_s = 0;  // index * duration_s / total_frames
};

// Calls on_info once and then on_frame for every sampled frame in ascending order, on the caller's thread; an
// error they return ends the program and is returned. What is wrong with the video, a limit (with both
// numbers and the flag), a time-out, a killed or crashed program and a missing one (with what to install) are
// errors of this call alone. stop: the program is killed soon after a stop is requested.
// No frame that was not sampled crosses the pipe; no more than one frame is held.
Status ReadVideo(std::string_view encoded, const VideoSampling& sampling, const VideoLimits& limits,
                 std::stop_token stop, const std::function<Status(const VideoInfo&)>& on_info,
                 const std::function<Status(VideoFrame&&)>& on_frame);

}  // namespace fd
