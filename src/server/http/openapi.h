// /openapi.json, made from the route table and the table of request fields. Pure function.
#pragma once

#include <string>

namespace fd {

std::string OpenApiJson(const std::string& version);

}  // namespace fd
