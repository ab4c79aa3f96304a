// Pictures and videos on this machine as parts of a chat message. Pure but for reading the file system; any
// thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace fd {

struct Attachment {
  enum class Kind { kImage, kVideo };
  Kind kind = Kind::kImage;
  std::string path;  // as the user gave it
};

// How many frames of a video are looked at; absent: the server's defaults. At most one of them is set.
struct VideoOptions {
  std::optional<double> fps;
  std::optional<int64_t> frames;
};

// OK when the file is there and can be read. Errors name the path.
Status CheckAttachment(const Attachment& attachment);

// file:///... with everything escaped that RFC 3986 does not allow in a path.
std::string FileUrl(std::string_view absolute_path);

// The URL under which the service gets the file: the one place that decides how.
StatusOr<std::string> MediaUrl(const Attachment& attachment);

// {"role": "user", ...}: the text alone, or attachments and then the text.
StatusOr<Json> UserMessage(const std::string& text, const std::vector<Attachment>& attachments,
                           const VideoOptions& video);

}  // namespace fd
