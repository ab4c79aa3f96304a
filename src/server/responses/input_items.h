// The input of /v1/responses as the messages of /v1/chat/completions. Pure functions; worker thread. Internal
// to this folder.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "server/openai/service.h"

namespace fd {

// Where a message came from, for errors.
struct Place {
  std::string item;     // "input[3]"; "input" for a text; "instructions"
  std::string content;  // "input[3].content", "input[3].output"; as item for a text
};

struct ChatInput {
  JsonArray messages;
  std::vector<Place> places;  // of each message
};

// input: a text, or an array of message, function_call, function_call_output and reasoning items. Moved from
// where it is large. instructions: the first system message; empty: none. Errors name input.
StatusOr<ChatInput> ReadInput(const Service& service, Json* input, const std::string& instructions);

// "messages[1].content[0].image_url ..." -> "input[4].content[0].image_url ...", and param messages -> input.
Status InInputTerms(const std::vector<Place>& places, const Status& status);

}  // namespace fd
