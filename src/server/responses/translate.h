// A request of OpenAI's Responses API (POST /v1/responses) as a chat request. Stateless: every request
// carries its whole conversation, and nothing is kept.
#pragma once

#include "base/json.h"
#include "base/status.h"
#include "server/openai/reply_writer.h"
#include "server/openai/service.h"

namespace fd {

// Worker thread. Errors name the client's own fields.
StatusOr<TranslatedRequest> TranslateResponses(const Service& service, Json body);

}  // namespace fd
