// The fields of requests as JSON Schemas, for /openapi.json: their names and types come from the table of
// request fields, their ranges and inner shapes from the tables here. Pure functions.
#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"
#include "server/openai/request_schema.h"

namespace fd {

// The limits of this server that stand in the schemas.
struct ApiBounds {
  int64_t max_model_len = 4096;
  int64_t vocab_size = 1024;
  int64_t max_choices = 128;
  int64_t max_logprobs = 20;
  int64_t max_messages = 4096;
  int64_t max_tools = 128;
  int64_t max_stop_strings = 16;
  int64_t max_stop_token_ids = 128;
};

// The schema of a request's body. References lead to RequestParts().
Json RequestSchema(RequestKind kind, const ApiBounds& bounds);
// Schemas that those of requests refer to, by name.
JsonObject RequestParts(const ApiBounds& bounds);

// Fragments of schemas are written as JSON text with two abbreviations: {"$ref": "#Name"} is a schema of the
// components, and a text such as "$max_model_len" stands for the bound of that name.
Json ParseFragment(const std::string& text, const ApiBounds& bounds);

}  // namespace fd
