#include "server/messages/messages_errors.h"

#include "base/json.h"

namespace fd {
namespace {

const char* TypeOf(int http_status) {
  switch (http_status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 408:
      return "timeout_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    default:
      return http_status >= 500 ? "api_error" : "invalid_request_error";
  }
}

}  // namespace

std::string MessagesErrorJson(const ApiError& error, std::string_view request_id) {
  JsonObject body{{"type", "error"},
                  {"error", JsonObject{{"type", TypeOf(error.http_status)}, {"message", error.message}}}};
  if (!request_id.empty()) body.Set("request_id", request_id);
  return WriteJson(std::move(body));
}

}  // namespace fd
