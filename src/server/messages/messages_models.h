// /v1/models as clients of Anthropic's API read it. Pure functions.
#pragma once

#include <string>

#include "server/openai/service.h"

namespace fd {

// {"data":[...],"has_more":false,"first_id":...,"last_id":...}: all names at once.
std::string MessagesModelsJson(const Service& service);
// One of them. name: one of service.model_names.
std::string MessagesModelJson(const Service& service, const std::string& name);

}  // namespace fd
