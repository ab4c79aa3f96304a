// Status -> OpenAI error object and HTTP status: the one place where that is decided. Pure functions.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"

namespace fd {

struct ApiError {
  int http_status = 500;
  std::string type;   // "invalid_request_error", ...
  std::string code;   // "" is written as null
  std::string param;  // "" is written as null
  std::string message;
};

ApiError ToApiError(const Status& status);
// {"error":{"message":...,"type":...,"param":...,"code":...}}
std::string ErrorJson(const ApiError& error);
inline std::string ErrorJson(const Status& status) { return ErrorJson(ToApiError(status)); }

// Code "context_length_exceeded"; the message has both numbers. param: "messages" or "prompt".
Status ContextLengthExceeded(int64_t prompt_tokens, int64_t max_model_len, std::string param);
// The body of a request could not be read; why: ParseJson's error.
Status BodyIsNoJson(const Status& why);
// Code "model_not_found".
Status ModelNotFound(const std::string& name, const std::string& served_name);

}  // namespace fd
