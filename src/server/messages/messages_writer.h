// A Generation as Anthropic's message: one object, or its events. Thread: the connection's.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/openai/reply_writer.h"

namespace fd {

struct MessagesReplyOptions {
  // Where something stands in the translated body, and where in the client's.
  std::vector<std::pair<std::string, std::string>> places;
  int64_t max_tokens = 0;     // as asked for: fewer at "length" means that the context was full
  bool show_thinking = true;  // false: a thought's block comes empty
};

// Of one choice. Blocks: thinking, text, tool_use; each where there is something in it.
std::unique_ptr<ReplyWriter> MakeMessagesWriter(MessagesReplyOptions options);

}  // namespace fd
