// Base64 for who makes data URLs (the command line, tests). Pure; any thread.
#pragma once

#include <string>
#include <string_view>

namespace fd {

// RFC 4648 with padding, on one line.
std::string EncodeBase64(std::string_view bytes);

}  // namespace fd
