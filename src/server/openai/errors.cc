#include "server/openai/errors.h"

#include "base/json.h"
#include "base/strings.h"

namespace fd {
namespace {

// OpenAI's own beginning of this message; clients look for it.
constexpr std::string_view kContextLength = "This model's maximum context length is ";
constexpr std::string_view kModelNotFound = "The model `";

}  // namespace

ApiError ToApiError(const Status& status) {
  ApiError e;
  e.message = status.message();
  e.param = status.param();
  switch (status.code()) {
    case StatusCode::kOk:
    case StatusCode::kInternal:
      e.http_status = 500;
      e.type = "server_error";
      e.code = "internal_error";
      break;
    case StatusCode::kInvalidArgument:
      e.http_status = 400;
      e.type = "invalid_request_error";
      e.code = e.message.starts_with(kContextLength) ? "context_length_exceeded" : "invalid_value";
      break;
    case StatusCode::kUnauthenticated:
      e.http_status = 401;
      e.type = "authentication_error";
      e.code = "invalid_api_key";
      break;
    case StatusCode::kNotFound:
      e.http_status = 404;
      e.type = "invalid_request_error";
      e.code = e.message.starts_with(kModelNotFound) ? "model_not_found" : "not_found";
      break;
    case StatusCode::kDeadlineExceeded:
      e.http_status = 408;
      e.type = "timeout_error";
      e.code = "timeout";
      break;
    case StatusCode::kPayloadTooLarge:
      e.http_status = 413;
      e.type = "invalid_request_error";
      e.code = "payload_too_large";
      break;
    case StatusCode::kUnsupportedMedia:
      e.http_status = 415;
      e.type = "invalid_request_error";
      e.code = "unsupported_media_type";
      break;
    case StatusCode::kResourceExhausted:
      e.http_status = 429;
      e.type = "rate_limit_error";
      e.code = "rate_limit_exceeded";
      break;
    case StatusCode::kUnimplemented:
      // The client asked for something that this server cannot do: its request must change, so 400 as OpenAI
      // answers it. A 5xx would make clients retry.
      e.http_status = 400;
      e.type = "invalid_request_error";
      e.code = "unsupported_parameter";
      break;
    case StatusCode::kUnavailable:
      e.http_status = 503;
      e.type = "server_error";
      e.code = "service_unavailable";
      break;
  }
  return e;
}

std::string ErrorJson(const ApiError& e) {
  const auto or_null = [](const std::string& s) { return s.empty() ? Json() : Json(s); };
  return WriteJson(JsonObject{{"error", JsonObject{{"message", e.message},
                                                   {"type", e.type},
                                                   {"param", or_null(e.param)},
                                                   {"code", or_null(e.code)}}}});
}

Status ContextLengthExceeded(int64_t prompt_tokens, int64_t max_model_len, std::string param) {
  std::string message =
      StrCat(kContextLength, max_model_len, " tokens (--max-model-len), but the prompt has ", prompt_tokens,
             " tokens and at least 1 is needed for the answer. Shorten the ", param, ".");
  return InvalidArgument(std::move(message), std::move(param));
}

Status BodyIsNoJson(const Status& why) {
  std::string_view reason = why.message();
  constexpr std::string_view kPrefix = "JSON: ";
  if (reason.starts_with(kPrefix)) reason.remove_prefix(kPrefix.size());
  return InvalidArgument(StrCat("the request body is no JSON: ", reason,
                                "; this is JSON, for example: {\"prompt\": \"Hello\", \"max_tokens\": 16}"));
}

Status ModelNotFound(const std::string& name, const std::string& served_name) {
  return NotFound(StrCat(kModelNotFound, name.substr(0, 200), "` does not exist; this server has `",
                         served_name, "` (--served-model-name)"),
                  "model");
}

}  // namespace fd
