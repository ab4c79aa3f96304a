// Requests and responses as plain values, and the bytes of a response. Knows no sockets.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "engine/plan/request.h"
#include "server/openai/errors.h"

namespace fd {

// One request as read from a connection.
struct HttpRequest {
  std::string method;  // "GET"
  std::string path;    // without the query, not percent-decoded
  std::string host;    // Host header; empty when absent
  std::string origin;
  std::string authorization;
  std::string x_api_key;
  bool anthropic_client = false;  // sent anthropic-version
  std::string asked_method;       // Access-Control-Request-Method
  std::string asked_headers;      // Access-Control-Request-Headers
  std::string id;                 // X-Request-Id if it is a safe one, else made here; stands in log and reply
  std::string content_encoding;
  std::string content_type;
  std::string expect;
  std::string framing_fault;  // why another reader might see other borders of this request; empty: none
  bool has_body = false;
  bool has_length = false;     // Content-Length, be it 0, or chunks
  int64_t content_length = 0;  // 0 for chunks
  bool is_http11 = true;
  bool keep_alive = true;
  std::string body;
  Clock::time_point arrived_at{};
  std::vector<std::string> reply_ignores;  // fields of the body that its API does not know
  std::vector<std::pair<std::string, std::string>> reply_headers;  // of every reply to this request
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  // besides length, type and connection
  std::optional<ApiError> error;  // the body is made of it, in the shape of the request's API (ErrorBody)
};

HttpResponse ErrorResponse(const Status& status);
HttpResponse ErrorResponse(const ApiError& error);
HttpResponse ErrorResponse(int http_status, const std::string& code, const std::string& message);

const char* ReasonPhrase(int status);
// Status line and headers of a response with a length. HEAD gets the length and no body.
std::string ResponseHead(const HttpRequest& request, const HttpResponse& response, bool keep_alive);
// Status line and headers of an event stream; chunked in HTTP/1.1, until the connection closes in 1.0.
std::string StreamHead(const HttpRequest& request);
// In a chunk of its own (chunked), or bare. Nothing for an empty text, which would end the reply.
void AppendChunk(std::string& out, std::string_view bytes, bool chunked);
// What a client may choose as X-Request-Id: 1 to 128 of A-Z a-z 0-9 - _ . : and nothing that could forge a
// header or a log line.
bool IsSafeRequestId(std::string_view id);
std::string FreshRequestId();

inline constexpr std::string_view kLastChunk = "0\r\n\r\n";
inline constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";

}  // namespace fd
