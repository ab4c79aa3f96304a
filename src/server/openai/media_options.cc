#include "server/openai/media_options.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "base/strings.h"
#include "server/openai/fields.h"

namespace fd {
namespace {

constexpr int64_t kMaxPixels = int64_t{1} << 31;
constexpr int64_t kMaxFrames = 1'000'000;
constexpr double kMaxFps = 1000;

constexpr std::array<std::string_view, 18> kKwargs = {"spatial_conv_size",   "temporal_conv_size",
                                                      "image_min_pixels",    "image_max_pixels",
                                                      "video_min_pixels",    "video_max_pixels",
                                                      "video_target_frames", "video_min_frames",
                                                      "video_max_frames",    "video_frames_sample",
                                                      "video_fps",           "min_pixels",
                                                      "max_pixels",          "fps",
                                                      "min_frames",          "max_frames",
                                                      "target_frames",       "frames_sample"};

// An error of fields.h, which names the key alone, with the place before it.
Status At(const OptionPlace& place, const Status& status) {
  return {status.code(), place.prefix + status.message(), place.param};
}

class Reader {
 public:
  Reader(const JsonObject& object, const OptionPlace& place) : object_(object), place_(place) {}

  void Integer(const char* key, int64_t min, int64_t max, std::optional<int64_t>* out) {
    auto value = ReadInteger(object_, key, min, max);
    if (!value.ok()) return Fail(value.status());
    if (*value) *out = *value;
  }
  void Pixels(const char* key, std::optional<int64_t>* out) { Integer(key, 1, kMaxPixels, out); }
  void Fps(const char* key, std::optional<double>* out) {
    auto value = ReadNumber(object_, key, -kMaxFps, kMaxFps);
    if (!value.ok()) return Fail(value.status());
    if (*value && **value == 0) return Fail(BadField(key, "above 0, or -1 for none", *object_.Find(key)));
    if (*value) *out = *value;
  }
  void TargetFrames(const char* key, std::optional<int64_t>* out) {
    Integer(key, -1, kMaxFrames, out);
    if (*out && **out == 0)
      Fail(BadField(key, "an integer of at least 1, or -1 for none", *object_.Find(key)));
  }
  void Sample(const char* key, std::optional<FramesSample>* out) {
    const Json* value = object_.Find(key);
    if (value == nullptr || value->is_null()) return;
    if (value->is_string()) {
      const std::string& name = value->as_string();
      if (name == "leading") return void(*out = FramesSample::kLeading);
      if (name == "middle") return void(*out = FramesSample::kMiddle);
      if (name == "rand" || name == "random") return void(*out = FramesSample::kRandom);
    }
    Fail(BadField(key, "\"leading\", \"middle\" or \"rand\"", *value));
  }
  void Conv(const char* key, int64_t expected) {
    std::optional<int64_t> value;
    Integer(key, 1, 256, &value);
    if (value && *value != expected) {
      Fail(BadField(key, StrCat(expected, ", as the model was made"), *object_.Find(key)));
    }
  }
  const Status& status() const { return status_; }

 private:
  void Fail(const Status& status) {
    if (status_.ok()) status_ = At(place_, status);
  }
  const JsonObject& object_;
  const OptionPlace& place_;
  Status status_;
};

void SetSampling(const MediaOverrides& o, VideoSampling* sampling) {
  if (o.fps) sampling->fps = *o.fps;
  if (o.min_frames) sampling->min_frames = *o.min_frames;
  if (o.max_frames) sampling->max_frames = *o.max_frames;
  if (o.target_frames) sampling->target_frames = *o.target_frames;
  if (o.frames_sample) sampling->frames_sample = *o.frames_sample;
}

struct PixelRange {
  const std::optional<int64_t>& given_min;
  const std::optional<int64_t>& given_max;
  const char* kind;  // "image", "video"
  int64_t* min_pixels;
  int64_t* max_pixels;
};

// limit: what the largest area may be; 0: anything.
Status SetPixels(const PixelRange& range, int64_t limit, const OptionPlace& place) {
  if (range.given_max) {
    if (limit > 0 && *range.given_max > limit) {
      return InvalidArgument(
          StrCat(place.prefix, "max_pixels is ", *range.given_max, "; this server allows at most ", limit,
                 " for ", std::string_view(range.kind) == "image" ? "a picture" : "a frame of a video",
                 " (--mm-processor-kwargs '{\"", range.kind, "_max_pixels\": ", limit, "}')"),
          place.param);
    }
    *range.max_pixels = *range.given_max;
    if (!range.given_min) *range.min_pixels = std::min(*range.min_pixels, *range.max_pixels);
  }
  if (range.given_min) *range.min_pixels = *range.given_min;
  if (*range.min_pixels > *range.max_pixels) {
    return InvalidArgument(
        StrCat(place.prefix, "min_pixels is ", *range.min_pixels, " for ", range.kind,
               "s and the largest area is ", *range.max_pixels, "; min_pixels must be at most max_pixels"),
        place.param);
  }
  return OkStatus();
}

}  // namespace

StatusOr<MediaOverrides> ReadProcessorKwargs(const JsonObject& kwargs, const OptionPlace& place,
                                             const MediaConfig& model) {
  for (const auto& [key, value] : kwargs) {
    if (std::find(kKwargs.begin(), kKwargs.end(), key) == kKwargs.end()) {
      std::string shown;
      AppendJsonString(shown, key.substr(0, 60));
      return InvalidArgument(
          StrCat(place.prefix.empty() ? "" : place.param + ": ", "the key ", shown,
                 " is not known; known are image_min_pixels, image_max_pixels, video_min_pixels, "
                 "video_max_pixels, video_fps, video_min_frames, video_max_frames, video_target_frames, "
                 "video_frames_sample, spatial_conv_size and temporal_conv_size"),
          place.param);
    }
  }
  MediaOverrides out;
  Reader reader(kwargs, place);
  reader.Conv("spatial_conv_size", model.merge_size);
  reader.Conv("temporal_conv_size", 2);
  reader.Pixels("min_pixels", &out.image_min_pixels);
  reader.Pixels("max_pixels", &out.image_max_pixels);
  reader.Pixels("image_min_pixels", &out.image_min_pixels);
  reader.Pixels("image_max_pixels", &out.image_max_pixels);
  reader.Pixels("video_min_pixels", &out.video_min_pixels);
  reader.Pixels("video_max_pixels", &out.video_max_pixels);
  for (const bool full : {false, true}) {  // the full name stands over the short one
    reader.Fps(full ? "video_fps" : "fps", &out.fps);
    reader.Integer(full ? "video_min_frames" : "min_frames", 1, kMaxFrames, &out.min_frames);
    reader.Integer(full ? "video_max_frames" : "max_frames", 1, kMaxFrames, &out.max_frames);
    reader.TargetFrames(full ? "video_target_frames" : "target_frames", &out.target_frames);
    reader.Sample(full ? "video_frames_sample" : "frames_sample", &out.frames_sample);
  }
  FD_RETURN_IF_ERROR(reader.status());
  return out;
}

Status ReadPartOptions(const JsonObject& object, MediaKind kind, const OptionPlace& place,
                       MediaOverrides* out) {
  Reader reader(object, place);
  if (kind == MediaKind::kImage) {
    reader.Pixels("min_pixels", &out->image_min_pixels);
    reader.Pixels("max_pixels", &out->image_max_pixels);
    return reader.status();
  }
  reader.Pixels("min_pixels", &out->video_min_pixels);
  reader.Pixels("max_pixels", &out->video_max_pixels);
  reader.Fps("fps", &out->fps);
  reader.Integer("min_frames", 1, kMaxFrames, &out->min_frames);
  reader.Integer("max_frames", 1, kMaxFrames, &out->max_frames);
  reader.TargetFrames("target_frames", &out->target_frames);
  reader.Sample("frames_sample", &out->frames_sample);
  return reader.status();
}

Status SetServerOptions(const MediaOverrides& o, MediaConfig* config) {
  const auto set = [](const char* kind, const auto& min, const auto& max, int64_t* min_pixels,
                      int64_t* max_pixels) {
    const OptionPlace place{StrCat(kind, "_"), "--mm-processor-kwargs"};
    return SetPixels({min, max, kind, min_pixels, max_pixels}, 0, place);
  };
  FD_RETURN_IF_ERROR(set("image", o.image_min_pixels, o.image_max_pixels, &config->image_min_pixels,
                         &config->image_max_pixels));
  FD_RETURN_IF_ERROR(set("video", o.video_min_pixels, o.video_max_pixels, &config->video_min_pixels,
                         &config->video_max_pixels));
  SetSampling(o, &config->sampling);
  const VideoSampling& s = config->sampling;
  if (s.min_frames > s.max_frames) {
    return InvalidArgument(StrCat("video_min_frames is ", s.min_frames, " and video_max_frames ",
                                  s.max_frames, "; the former must be at most the latter"),
                           "--mm-processor-kwargs");
  }
  if (s.target_frames > 0 && s.fps > 0) {
    return InvalidArgument(StrCat("video_target_frames is ", s.target_frames, " and video_fps ", s.fps,
                                  "; with a target of frames set \"video_fps\": -1"),
                           "--mm-processor-kwargs");
  }
  return OkStatus();
}

Status SetRequestOptions(const MediaOverrides& o, const MediaConfig& server, const OptionPlace& place,
                         MediaOptions* options) {
  // The keys of kwargs say of what they are; those of a part need not.
  const auto set = [&](const char* kind, const auto& min, const auto& max, int64_t limit, int64_t* min_pixels,
                       int64_t* max_pixels) {
    const bool kwargs = place.param == "mm_processor_kwargs";
    const OptionPlace at{StrCat(place.prefix, kwargs ? StrCat(kind, "_") : ""), place.param};
    return SetPixels({min, max, kind, min_pixels, max_pixels}, limit, at);
  };
  FD_RETURN_IF_ERROR(set("image", o.image_min_pixels, o.image_max_pixels, server.image_max_pixels,
                         &options->image_min_pixels, &options->image_max_pixels));
  FD_RETURN_IF_ERROR(set("video", o.video_min_pixels, o.video_max_pixels, server.video_max_pixels,
                         &options->video_min_pixels, &options->video_max_pixels));
  SetSampling(o, &options->sampling);
  return OkStatus();
}

}  // namespace fd
