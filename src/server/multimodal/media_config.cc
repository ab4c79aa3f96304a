#include <cmath>
#include <optional>

#include "base/files.h"
#include "base/json.h"
#include "base/strings.h"
#include "server/multimodal/processor.h"

namespace fd {
namespace {

// What the vision tower subtracts and divides by (CLIP's statistics).
constexpr double kImageMean[] = {0.48145466, 0.4578275, 0.40821073};
constexpr double kImageStd[] = {0.26862954, 0.26130258, 0.27577711};
constexpr int64_t kMaxPixels = int64_t{1} << 31;
constexpr double kMaxFps = 1000;
constexpr int64_t kMaxFrames = 1'000'000;

// One processor object and the name that errors give it: a file, or a file and the key it stands under.
struct Source {
  std::string name;
  Json object;

  Status Bad(const std::string& key, const Json& value, const std::string& expected) const {
    return InvalidArgument(
        StrCat(name, ": ", key, " is ", WriteJson(value).substr(0, 80), "; expected ", expected));
  }
  // A member that is absent or null counts as not given.
  const Json* Given(std::string_view key) const {
    const Json* value = object.Find(key);
    return value != nullptr && !value->is_null() ? value : nullptr;
  }
};

Status ReadInt(const Source& source, const std::string& path, const Json* value, int64_t min, int64_t max,
               int64_t* out) {
  if (value == nullptr || value->is_null()) return OkStatus();
  std::optional<int64_t> number;
  if (value->is_int()) number = value->as_int();
  if (value->is_double() && value->as_double() == std::floor(value->as_double()) &&
      std::fabs(value->as_double()) < 1e15) {
    number = static_cast<int64_t>(value->as_double());
  }
  if (!number || *number < min || *number > max) {
    return source.Bad(path, *value, StrCat("an integer between ", min, " and ", max));
  }
  *out = *number;
  return OkStatus();
}

// size.{shortest_edge, longest_edge} hold areas; min_pixels and max_pixels stand over them, inside or beside.
Status ReadPixelLimits(const Source& source, int64_t* min_pixels, int64_t* max_pixels) {
  if (const Json* size = source.Given("size")) {
    if (!size->is_object()) return source.Bad("size", *size, "an object with shortest_edge and longest_edge");
    for (auto [min_key, max_key] :
         {std::pair("shortest_edge", "longest_edge"), std::pair("min_pixels", "max_pixels")}) {
      FD_RETURN_IF_ERROR(
          ReadInt(source, StrCat("size.", min_key), size->Find(min_key), 1, kMaxPixels, min_pixels));
      FD_RETURN_IF_ERROR(
          ReadInt(source, StrCat("size.", max_key), size->Find(max_key), 1, kMaxPixels, max_pixels));
    }
  }
  FD_RETURN_IF_ERROR(ReadInt(source, "min_pixels", source.Given("min_pixels"), 1, kMaxPixels, min_pixels));
  FD_RETURN_IF_ERROR(ReadInt(source, "max_pixels", source.Given("max_pixels"), 1, kMaxPixels, max_pixels));
  if (*min_pixels > *max_pixels) {
    return InvalidArgument(StrCat(source.name, ": the smallest area is ", *min_pixels,
                                  " pixels and the largest ", *max_pixels,
                                  "; expected the smallest to be at most the largest"));
  }
  return OkStatus();
}

Status ExpectNumber(const Source& source, const std::string& key, double expected) {
  const Json* value = source.Given(key);
  if (value == nullptr) return OkStatus();
  if (!value->is_number() || std::fabs(value->as_double() - expected) > 1e-6) {
    return source.Bad(key, *value, StrCat(expected, ", which is what this program computes"));
  }
  return OkStatus();
}

Status ExpectTriple(const Source& source, const std::string& key, const double (&expected)[3]) {
  const Json* value = source.Given(key);
  if (value == nullptr) return OkStatus();
  bool same = value->is_array() && value->as_array().size() == 3;
  for (size_t i = 0; same && i < 3; ++i) {
    const Json& v = value->as_array()[i];
    same = v.is_number() && std::fabs(v.as_double() - expected[i]) <= 1e-6;
  }
  if (same) return OkStatus();
  return source.Bad(key, *value,
                    StrCat("[", expected[0], ", ", expected[1], ", ", expected[2],
                           "], which is what this program computes"));
}

// Everything that the code here and in the vision tower does in one fixed way.
Status CheckFixedSteps(const Source& source) {
  for (const char* key : {"do_convert_rgb", "do_resize", "do_rescale", "do_normalize"}) {
    const Json* value = source.Given(key);
    if (value != nullptr && !(value->is_bool() && value->as_bool())) {
      return source.Bad(key, *value, "true, which is what this program does");
    }
  }
  FD_RETURN_IF_ERROR(ExpectNumber(source, "resample", 3));  // PIL's number of bicubic
  FD_RETURN_IF_ERROR(ExpectNumber(source, "rescale_factor", 1.0 / 255.0));
  FD_RETURN_IF_ERROR(ExpectTriple(source, "image_mean", kImageMean));
  return ExpectTriple(source, "image_std", kImageStd);
}

Status ReadProcessor(const Source& source, MediaConfig* config, int64_t* min_pixels, int64_t* max_pixels) {
  FD_RETURN_IF_ERROR(CheckFixedSteps(source));
  FD_RETURN_IF_ERROR(ReadInt(source, "patch_size", source.Given("patch_size"), 1, 256, &config->patch_size));
  for (const char* key : {"spatial_conv_size", "merge_size"}) {  // the original name, then transformers'
    FD_RETURN_IF_ERROR(ReadInt(source, key, source.Given(key), 1, 16, &config->merge_size));
  }
  return ReadPixelLimits(source, min_pixels, max_pixels);
}

Status ReadBool(const Source& source, const char* key, bool* out) {
  const Json* value = source.Given(key);
  if (value == nullptr) return OkStatus();
  if (!value->is_bool()) return source.Bad(key, *value, "true or false");
  *out = value->as_bool();
  return OkStatus();
}

// What a video processor says beyond a picture's: which frames, and the time drawn on them.
Status ReadVideoProcessor(const Source& source, const std::string& model_dir, MediaConfig* config) {
  VideoSampling& sampling = config->sampling;
  if (const Json* fps = source.Given("fps")) {
    if (!fps->is_number() || !(fps->as_double() > 0 && fps->as_double() <= kMaxFps)) {
      return source.Bad("fps", *fps, StrCat("a number above 0, at most ", kMaxFps));
    }
    sampling.fps = fps->as_double();
  }
  FD_RETURN_IF_ERROR(
      ReadInt(source, "min_frames", source.Given("min_frames"), 1, kMaxFrames, &sampling.min_frames));
  FD_RETURN_IF_ERROR(
      ReadInt(source, "max_frames", source.Given("max_frames"), 1, kMaxFrames, &sampling.max_frames));
  if (sampling.min_frames > sampling.max_frames) {
    return InvalidArgument(StrCat(source.name, ": min_frames is ", sampling.min_frames, " and max_frames ",
                                  sampling.max_frames, "; expected the former to be at most the latter"));
  }
  bool sample = true;
  FD_RETURN_IF_ERROR(ReadBool(source, "do_sample_frames", &sample));
  if (!sample) {
    return source.Bad("do_sample_frames", Json(false), "true, which is what this program does");
  }
  FD_RETURN_IF_ERROR(ReadBool(source, "draw_on_frames", &config->draw_on_frames));
  std::string font = "Roboto-Regular.ttf";
  if (const Json* name = source.Given("font")) {
    if (!name->is_string() || name->as_string().empty() || name->as_string().find('/') != std::string::npos) {
      return source.Bad("font", *name, "the name of a file in the checkpoint's folder");
    }
    font = name->as_string();
  }
  config->font_path = JoinPath(model_dir, font);
  return OkStatus();
}

// The object under `key` of processor_config.json, else the whole of `file`; nothing when neither is there.
StatusOr<std::optional<Source>> FindSource(const std::string& model_dir, const char* key, const char* file) {
  std::string path = JoinPath(model_dir, "processor_config.json");
  if (FileExists(path)) {
    FD_ASSIGN_OR_RETURN(Json json, ReadJsonFile(path));
    if (!json.is_object())
      return InvalidArgument(StrCat(path, ": expected an object, found ", json.TypeName()));
    if (const Json* nested = json.Find(key); nested != nullptr && !nested->is_null()) {
      Source source{StrCat(path, ": ", key), *nested};
      if (!nested->is_object()) return Source{path, json}.Bad(key, *nested, "an object");
      return std::optional<Source>(std::move(source));
    }
  }
  path = JoinPath(model_dir, file);
  if (!FileExists(path)) return std::optional<Source>();
  FD_ASSIGN_OR_RETURN(Json json, ReadJsonFile(path));
  if (!json.is_object())
    return InvalidArgument(StrCat(path, ": expected an object, found ", json.TypeName()));
  return std::optional<Source>(Source{path, std::move(json)});
}

}  // namespace

StatusOr<MediaConfig> LoadMediaConfig(const std::string& model_dir, const Tokenizer& tokenizer) {
  MediaConfig config;
  FD_ASSIGN_OR_RETURN(std::optional<Source> image,
                      FindSource(model_dir, "image_processor", "preprocessor_config.json"));
  FD_ASSIGN_OR_RETURN(std::optional<Source> video,
                      FindSource(model_dir, "video_processor", "video_preprocessor_config.json"));
  if (!image && !video) return config;
  config.font_path = JoinPath(model_dir, "Roboto-Regular.ttf");
  if (image) {
    FD_RETURN_IF_ERROR(ReadProcessor(*image, &config, &config.image_min_pixels, &config.image_max_pixels));
  }
  if (video) {
    MediaConfig frames = config;
    FD_RETURN_IF_ERROR(ReadProcessor(*video, &frames, &config.video_min_pixels, &config.video_max_pixels));
    if (image && (frames.patch_size != config.patch_size || frames.merge_size != config.merge_size)) {
      return InvalidArgument(StrCat(video->name, ": patch_size and merge_size are ", frames.patch_size,
                                    " and ", frames.merge_size, "; expected ", config.patch_size, " and ",
                                    config.merge_size, " as in ", image->name));
    }
    FD_RETURN_IF_ERROR(ReadVideoProcessor(*video, model_dir, &config));
    config.patch_size = frames.patch_size;
    config.merge_size = frames.merge_size;
  }
  auto id = [&](std::string_view token) { return tokenizer.TokenId(token).value_or(-1); };
  config.image_placeholder_id = id("<|IMAGE_PLACEHOLDER|>");
  if (config.image_placeholder_id < 0) return config;
  config.image_start_id = id("<|IMAGE_START|>");
  config.image_end_id = id("<|IMAGE_END|>");
  config.video_start_id = id("<|VIDEO_START|>");
  config.video_end_id = id("<|VIDEO_END|>");
  // transformers' conversion adds a token of its own for video patches; the original has one for both.
  config.video_placeholder_id = id("<|VIDEO_PLACEHOLDER|>");
  if (config.video_placeholder_id < 0 && config.video_start_id >= 0) {
    config.video_placeholder_id = config.image_placeholder_id;
  }
  return config;
}

}  // namespace fd
