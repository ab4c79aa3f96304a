// data: URLs and base64. Pure functions; any thread.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace fd {

// RFC 4648 with padding; line breaks and spaces are skipped. Errors name the byte offset.
StatusOr<std::string> DecodeBase64(std::string_view text);
std::string EncodeBase64(std::string_view bytes);

// The bytes of "data:image/png;base64,....". Every other scheme is refused with a sentence.
StatusOr<std::string> FetchMedia(std::string_view url);

}  // namespace fd
