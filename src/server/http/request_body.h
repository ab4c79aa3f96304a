// Which API a route speaks: its body as a request of ours, who writes its reply, and how its errors look.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "server/http/http_message.h"
#include "server/http/routes.h"
#include "server/openai/reply_writer.h"

namespace fd {

// kind: one that Generates, or kCountMessagesTokens. Worker thread.
StatusOr<TranslatedRequest> ReadRequestBody(const Service& service, RouteKind kind, std::string_view body);

// The body of an error reply to `request`, in the shape that belongs to its path.
std::string ErrorBody(const HttpRequest& request, const ApiError& error);

}  // namespace fd
