// What each route replies with, as JSON Schemas and HTTP statuses, for /openapi.json. Pure functions.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "server/http/openapi_requests.h"
#include "server/http/routes.h"

namespace fd {

struct ReplyShape {
  const char* schema;        // of the components; "" has no JSON body
  const char* content_type;  // "" without a body
  const char* event;  // of the components: an event where the request says "stream": true; "": no streams
};

// Null: the route has no successful reply.
const ReplyShape* ReplyShapeOf(RouteKind kind);
// Schemas of replies, by name.
JsonObject ReplyParts(const ApiBounds& bounds);
// Ascending.
std::vector<int> ErrorStatuses(const Route& route, const std::string& method);

}  // namespace fd
