// How media are to be prepared: the keys of --mm-processor-kwargs, of a request's mm_processor_kwargs and of
// a content part, laid over each other. Pure functions.
#pragma once

#include <optional>
#include <string>

#include "base/json.h"
#include "base/status.h"
#include "server/multimodal/processor.h"

namespace fd {

// What one of the three places says; absent: it says nothing.
struct MediaOverrides {
  std::optional<int64_t> image_min_pixels, image_max_pixels;
  std::optional<int64_t> video_min_pixels, video_max_pixels;
  std::optional<double> fps;
  std::optional<int64_t> min_frames, max_frames, target_frames;
  std::optional<FramesSample> frames_sample;
};

// prefix stands before a key in messages: "mm_processor_kwargs.", "messages[0].content[1].video_url.", or
// nothing for the flag. param: of the errors.
struct OptionPlace {
  std::string prefix;
  std::string param;
};

// FastDeploy's keys (image_min_pixels, ..., video_frames_sample, spatial_conv_size, temporal_conv_size),
// those of videos also without "video_", and min_pixels and max_pixels for pictures. An unknown key is an
// error. The conv sizes can only be the model's.
StatusOr<MediaOverrides> ReadProcessorKwargs(const JsonObject& kwargs, const OptionPlace& place,
                                             const MediaConfig& model);
// Keys of an image part: min_pixels, max_pixels; of a video part also fps, min_frames, max_frames,
// target_frames, frames_sample. Other keys are not looked at. What `out` has already stays where `object`
// says nothing.
Status ReadPartOptions(const JsonObject& object, MediaKind kind, const OptionPlace& place,
                       MediaOverrides* out);

// --mm-processor-kwargs over the checkpoint's own values.
Status SetServerOptions(const MediaOverrides& overrides, MediaConfig* config);
// A request's values over `options`; they may only lie inside the server's limits of pixels. How frames are
// sampled is checked by CheckVideoSampling, later.
Status SetRequestOptions(const MediaOverrides& overrides, const MediaConfig& server, const OptionPlace& place,
                         MediaOptions* options);

// OpenAI's "detail": "low" caps a picture's area at 512 x 512 pixels, "high" and "auto" leave the server's.
inline constexpr int64_t kLowDetailPixels = 512 * 512;

}  // namespace fd
