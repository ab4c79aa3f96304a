#include "attachment.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/files.h"
#include "base/strings.h"

namespace fd {
Status CheckAttachment(const Attachment& attachment) {
  const std::string& path = attachment.path;
  const bool image = attachment.kind == Attachment::Kind::kImage;
  if (IsDirectory(path)) {
    return InvalidArgument(StrCat(path, ": is a directory; give a ",
                                  image ? "PNG, JPEG, WebP or GIF file" : "video file, for example an MP4"));
  }
  if (access(path.c_str(), R_OK) != 0) return NotFound(StrCat(path, ": ", std::strerror(errno)));
  return OkStatus();
}

std::string FileUrl(std::string_view absolute_path) {
  constexpr std::string_view kPlain =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/!$&'()*+,;=:@";
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string out = "file://";
  for (const char c : absolute_path) {
    const auto byte = static_cast<unsigned char>(c);
    if (kPlain.find(c) != std::string_view::npos) {
      out.push_back(c);
    } else {
      out += {'%', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return out;
}

StatusOr<std::string> MediaUrl(const Attachment& attachment) {
  FD_RETURN_IF_ERROR(CheckAttachment(attachment));
  std::error_code error;
  const std::filesystem::path whole = std::filesystem::canonical(attachment.path, error);
  if (error) return InvalidArgument(StrCat(attachment.path, ": ", error.message()));
  return FileUrl(whole.string());
}

StatusOr<Json> UserMessage(const std::string& text, const std::vector<Attachment>& attachments,
                           const VideoOptions& video) {
  if (attachments.empty()) return Json(JsonObject{{"role", "user"}, {"content", text}});
  JsonArray parts;
  for (const Attachment& attachment : attachments) {
    FD_ASSIGN_OR_RETURN(std::string url, MediaUrl(attachment));
    const char* type = attachment.kind == Attachment::Kind::kImage ? "image_url" : "video_url";
    JsonObject part{{"type", type}, {type, JsonObject{{"url", std::move(url)}}}};
    if (attachment.kind == Attachment::Kind::kVideo && video.fps) part.Set("fps", *video.fps);
    if (attachment.kind == Attachment::Kind::kVideo && video.frames) {
      part.Set("fps", -1);  // a number of frames is taken without a rate
      for (const char* key : {"target_frames", "min_frames", "max_frames"}) part.Set(key, *video.frames);
    }
    parts.push_back(std::move(part));
  }
  parts.push_back(JsonObject{{"type", "text"}, {"text", text}});
  return Json(JsonObject{{"role", "user"}, {"content", std::move(parts)}});
}

}  // namespace fd
