#include "server/openai/content_parts.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "base/strings.h"
#include "server/openai/fields.h"
#include "server/openai/media_options.h"

namespace fd {
namespace {

constexpr int64_t kMaxUuidBytes = 512;

bool IsOneOf(std::string_view value, std::initializer_list<std::string_view> allowed) {
  return std::find(allowed.begin(), allowed.end(), value) != allowed.end();
}

bool IsTextPart(std::string_view type) { return IsOneOf(type, {"text", "input_text"}); }
bool IsAudioPart(std::string_view type) { return IsOneOf(type, {"audio", "audio_url", "input_audio"}); }

std::optional<MediaKind> KindOf(std::string_view type) {
  if (IsOneOf(type, {"image_url", "image", "input_image"})) return MediaKind::kImage;
  if (IsOneOf(type, {"video_url", "video", "input_video"})) return MediaKind::kVideo;
  return std::nullopt;
}

Status Wrong(std::string message) { return InvalidArgument(std::move(message), "messages"); }

Status TooMany(int64_t count, int64_t limit, const char* kind, const char* plural) {
  return Wrong(StrCat("messages hold ", count, " ", plural, "; at most ", limit,
                      " are allowed in a prompt (--limit-mm-per-prompt '{\"", kind, "\": ", limit, "}')"));
}

// "uuid" of the holder or beside it.
Status ReadUuid(const JsonObject& object, const std::string& where, std::string* uuid) {
  auto value = ReadString(object, "uuid", kMaxUuidBytes);
  if (!value.ok()) return Wrong(StrCat(where, ".", value.status().message()));
  if (!*value) return OkStatus();
  if ((*value)->empty()) return Wrong(StrCat(where, ".uuid is empty; leave it out or give a name"));
  *uuid = **value;
  return OkStatus();
}

Status ReadDetail(const JsonObject& object, const std::string& where, bool* low) {
  const Json* detail = object.Find("detail");
  if (detail == nullptr || detail->is_null()) return OkStatus();
  if (!detail->is_string() || !IsOneOf(detail->as_string(), {"low", "high", "auto"})) {
    return Wrong(StrCat(where, ".detail must be \"low\", \"high\" or \"auto\"; got ", Shown(*detail)));
  }
  *low = detail->as_string() == "low";
  return OkStatus();
}

// A part of a picture or video, whose URL is "image_url", "image", ... of the part: a string or an object.
Status ReadMediaPart(const Service& service, const MediaOptions& options, MediaKind kind, JsonObject& part,
                     const std::string& part_where, std::vector<MediaSpec>* media) {
  const bool image = kind == MediaKind::kImage;
  const char* const long_name = image ? "image_url" : "video_url";
  const char* const short_name = image ? "image" : "video";
  Json* holder = part.Find(long_name);
  const bool has_short = (holder == nullptr || holder->is_null()) && part.Find(short_name) != nullptr;
  if (has_short) holder = part.Find(short_name);
  const std::string where = StrCat(part_where, ".", has_short ? short_name : long_name);
  if (!service.media || (!image && service.media->video_placeholder_id < 0)) {
    return Wrong(StrCat(where, ": the model ", service.model_names.front(), " takes no ",
                        image ? "pictures" : "videos"));
  }

  MediaSpec spec{.kind = kind, .where = where, .url = {}, .uuid = {}, .options = options};
  MediaOverrides overrides;
  bool low = false;
  FD_RETURN_IF_ERROR(ReadUuid(part, part_where, &spec.uuid));
  FD_RETURN_IF_ERROR(ReadPartOptions(part, kind, {part_where + ".", "messages"}, &overrides));
  if (image) FD_RETURN_IF_ERROR(ReadDetail(part, part_where, &low));
  Json* url = holder;
  if (holder != nullptr && holder->is_object()) {
    // What stands inside goes before what stands beside.
    JsonObject& inside = holder->as_object();
    FD_RETURN_IF_ERROR(ReadUuid(inside, where, &spec.uuid));
    FD_RETURN_IF_ERROR(ReadPartOptions(inside, kind, {where + ".", "messages"}, &overrides));
    if (image) FD_RETURN_IF_ERROR(ReadDetail(inside, where, &low));
    url = inside.Find("url");
  }
  const bool no_url = url == nullptr || url->is_null();
  if (no_url ? spec.uuid.empty() : !url->is_string() || url->as_string().empty()) {
    return Wrong(StrCat(where, " needs a URL; example: {\"type\": \"", long_name, "\", \"", long_name,
                        "\": {\"url\": \"data:", image ? "image/png" : "video/mp4", ";base64,iVBORw0...\"}}",
                        no_url ? "" : StrCat("; got ", Shown(*url))));
  }
  if (!no_url) spec.url = url->as_string();
  if (low) {
    spec.options.image_max_pixels = std::min(spec.options.image_max_pixels, kLowDetailPixels);
    spec.options.image_min_pixels = std::min(spec.options.image_min_pixels, spec.options.image_max_pixels);
  }
  const bool inside = holder != nullptr && holder->is_object();
  FD_RETURN_IF_ERROR(SetRequestOptions(
      overrides, *service.media, {StrCat(inside ? where : part_where, "."), "messages"}, &spec.options));
  part.Erase("image");
  part.Erase("video");
  part.Set("type", Json(long_name));
  part.Set(long_name, JsonObject{{"url", ""}});
  media->push_back(std::move(spec));
  return OkStatus();
}

}  // namespace

Status CheckMediaCounts(const Service& service, const JsonArray& messages) {
  if (!service.media) return OkStatus();
  int64_t images = 0, videos = 0;
  for (const Json& message : messages) {
    const Json* content = message.Find("content");
    if (content == nullptr || !content->is_array()) continue;
    for (const Json& part : content->as_array()) {
      const Json* type = part.Find("type");
      if (type == nullptr || !type->is_string()) continue;
      if (const auto kind = KindOf(type->as_string())) ++(*kind == MediaKind::kImage ? images : videos);
    }
  }
  const RequestLimits& limits = service.limits;
  if (images > limits.images_per_prompt)
    return TooMany(images, limits.images_per_prompt, "image", "pictures");
  if (videos > limits.videos_per_prompt) return TooMany(videos, limits.videos_per_prompt, "video", "videos");
  return OkStatus();
}

Status ReadContentPart(const Service& service, const MediaOptions& options, Json& part,
                       const std::string& where, std::vector<MediaSpec>* media) {
  if (!part.is_object()) return Wrong(StrCat(where, " must be an object; got ", Shown(part)));
  JsonObject& object = part.as_object();
  const Json* type = object.Find("type");
  constexpr const char* kKnown = "text, image_url (or image, input_image), video_url (or video)";
  if (type == nullptr || !type->is_string()) {
    return Wrong(StrCat(where, ".type is missing; allowed are ", kKnown));
  }
  const std::string name = type->as_string();
  if (IsTextPart(name)) {
    const Json* text = object.Find("text");
    if (text == nullptr || !text->is_string()) {
      return Wrong(StrCat(where, ".text must be a string", text ? StrCat("; got ", Shown(*text)) : ""));
    }
    object.Set("type", Json("text"));
    return OkStatus();
  }
  if (const auto kind = KindOf(name)) return ReadMediaPart(service, options, *kind, object, where, media);
  if (IsAudioPart(name)) {
    return Unimplemented(StrCat(where, ": ", name, ": this server does not take audio; send ", kKnown),
                         "messages");
  }
  return Wrong(StrCat(where, ".type must be one of ", kKnown, "; got ", Shown(*type)));
}

}  // namespace fd
