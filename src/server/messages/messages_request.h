// The body of Anthropic's Messages API as a chat request. Pure functions on a worker thread.
#pragma once

#include "base/json.h"
#include "base/status.h"
#include "server/openai/reply_writer.h"
#include "server/openai/service.h"

namespace fd {

enum class MessagesUse {
  kCreate,  // /v1/messages
  kCount,   // /v1/messages/count_tokens: max_tokens may be missing, an answer may be begun
};

// Errors have the client's own names of fields and places; those of fields that go through unchanged come
// later, from Generation::Parse; the writer restates their places.
StatusOr<TranslatedRequest> TranslateMessages(const Service& service, Json body,
                                              MessagesUse use = MessagesUse::kCreate);

}  // namespace fd
