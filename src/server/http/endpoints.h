// Replies of the endpoints that need no generation. Any thread; none of them waits.
#pragma once

#include <string>

#include "server/http/http_message.h"
#include "server/http/routes.h"
#include "server/http/server_state.h"

namespace fd {

// kModels, kModel, kLoad, kVersion, kConfigInfo, kOpenApi, kMetrics, kAbort, kPause, kResume, kIsPaused.
HttpResponse AnswerEndpoint(ServerState& state, RouteKind kind, const HttpRequest& request);
// kTokenize with a text, kDetokenize: on a worker thread.
HttpResponse TokensResponse(const std::string& json, const std::vector<std::string>& ignored_fields);

}  // namespace fd
