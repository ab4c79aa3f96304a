// Anthropic's messages and content blocks as chat messages. Internal to this folder. Pure functions.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace fd {

struct ChatMessages {
  JsonArray messages;
  // Where a picture stands among `messages`, and where it stood in the client's body.
  std::vector<std::pair<std::string, std::string>> places;
};

// system: null, a string or text blocks. messages: moved from. Errors name the client's place and have the
// param "system" or "messages".
StatusOr<ChatMessages> ToChatMessages(const Json& system, JsonArray& messages);

}  // namespace fd
