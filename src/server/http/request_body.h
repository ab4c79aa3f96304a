// Which API a route speaks: its body as a request of ours, and who writes its reply. Worker thread.
#pragma once

#include <string_view>

#include "base/status.h"
#include "server/http/routes.h"
#include "server/openai/reply_writer.h"

namespace fd {

// kind: one that Generates.
StatusOr<TranslatedRequest> ReadRequestBody(const Service& service, RouteKind kind, std::string_view body);

}  // namespace fd
