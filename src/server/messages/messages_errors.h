// An error as clients of Anthropic's API read it. Pure function.
#pragma once

#include <string>
#include <string_view>

#include "server/openai/errors.h"

namespace fd {

// {"type":"error","error":{"type":...,"message":...},"request_id":...}; the inner type follows from the HTTP
// status. request_id: left out where it is empty.
std::string MessagesErrorJson(const ApiError& error, std::string_view request_id);

}  // namespace fd
