#include "server/multimodal/source/media_type.h"

#include "base/strings.h"
#include "server/multimodal/source/url_text.h"

namespace fd {
namespace {

bool IsPlaylist(std::string_view type) {
  return type.find("mpegurl") != std::string_view::npos || type == "application/dash+xml" ||
         type == "audio/x-scpls" || type == "video/x-ms-asf-plugin" || type == "application/vnd.ms-sstr+xml";
}

// Containers that older servers send under application/.
bool IsContainer(std::string_view type) {
  return type == "application/mp4" || type == "application/x-matroska" || type == "application/ogg" ||
         type == "application/vnd.rn-realmedia";
}

bool IsUnknown(std::string_view type) {
  return type.empty() || type == "application/octet-stream" || type == "binary/octet-stream" ||
         type == "application/x-binary" || type == "unknown/unknown" || type == "application/unknown";
}

// Types come from strangers: what is no token is not repeated.
bool IsPrintable(std::string_view type) {
  if (type.size() > 80) return false;
  for (char c : type) {
    bool known = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '/' || c == '+' || c == '-' ||
                 c == '.' || c == '_';
    if (!known) return false;
  }
  return true;
}

}  // namespace

std::string MediaTypeOf(std::string_view content_type) {
  return LowerAscii(TrimUrlSpace(content_type.substr(0, content_type.find(';'))));
}

Status CheckMediaType(std::string_view type, std::string_view source) {
  const auto refuse = [&](std::string_view advice) {
    return Status(
        StatusCode::kUnsupportedMedia,
        StrCat(source,
               IsPrintable(type) ? StrCat(" holds ", type) : std::string(" names a broken media type"),
               advice));
  };
  if (IsUnknown(type)) return OkStatus();
  if (type == "image/svg+xml" || type == "image/svg") {
    return refuse(", a drawing that is not rendered here; send PNG, JPEG, WebP or GIF");
  }
  if (IsPlaylist(type))
    return refuse(", a playlist that is not followed; send the video's own file, for example video/mp4");
  if (type.starts_with("image/") || type.starts_with("video/") || IsContainer(type)) {
    return IsPrintable(type) ? OkStatus() : refuse("; example: image/png");
  }
  if (type == "text/html" || type == "application/xhtml+xml") {
    return refuse(", a web page and no picture or video; use the address of the file itself");
  }
  return refuse(", no picture or video; example: image/png");
}

}  // namespace fd
