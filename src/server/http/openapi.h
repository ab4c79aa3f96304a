// /openapi.json, made from the route table, the table of request fields and the shapes of both. Pure
// function.
#pragma once

#include <string>

#include "server/http/openapi_requests.h"

namespace fd {

std::string OpenApiJson(const std::string& version, const ApiBounds& bounds);

}  // namespace fd
