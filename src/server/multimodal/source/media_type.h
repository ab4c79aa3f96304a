// What a source says that its bytes are. Pure; any thread.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace fd {

// "Image/PNG; charset=x" -> "image/png".
std::string MediaTypeOf(std::string_view content_type);

// Whether bytes of this type may be a picture or a video; the bytes themselves decide later. Pictures,
// videos, unnamed and octet-stream types pass. Pages, playlists, drawings and data are refused with what to
// send instead. `source` begins the message: "the data URL".
Status CheckMediaType(std::string_view media_type, std::string_view source);

}  // namespace fd
