#include "server/http/http_message.h"

#include <atomic>

#include "base/hash.h"
#include "base/strings.h"

namespace fd {

HttpResponse ErrorResponse(const Status& status) { return ErrorResponse(ToApiError(status)); }

HttpResponse ErrorResponse(int http_status, const std::string& code, const std::string& message) {
  return ErrorResponse(ApiError{.http_status = http_status,
                                .type = http_status >= 500 ? "server_error" : "invalid_request_error",
                                .code = code,
                                .param = "",
                                .message = message});
}

HttpResponse ErrorResponse(const ApiError& error) {
  HttpResponse response{.status = error.http_status};
  response.error = error;
  if (error.http_status == 429 || error.http_status == 503) response.headers.push_back({"Retry-After", "1"});
  if (error.http_status == 401) response.headers.push_back({"WWW-Authenticate", "Bearer"});
  return response;
}

const char* ReasonPhrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 411:
      return "Length Required";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    default:
      return "Unknown";
  }
}

bool IsSafeRequestId(std::string_view id) {
  constexpr size_t kMaxBytes = 128;
  if (id.empty() || id.size() > kMaxBytes) return false;
  for (const char c : id) {
    const char lower = LowerAscii(c);
    if (!((lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.' ||
          c == ':'))
      return false;
  }
  return true;
}

std::string FreshRequestId() {
  static std::atomic<uint64_t> count{0};
  const Hash128 hash = KeyedHash(StrCat("request ", count.fetch_add(1)));
  std::string id = "req-";
  for (int shift = 60; shift >= 0; shift -= 4) id.push_back("0123456789abcdef"[hash.low >> shift & 15]);
  return id;
}

std::string ResponseHead(const HttpRequest& request, const HttpResponse& response, bool keep_alive) {
  std::string out = StrCat("HTTP/1.1 ", response.status, " ", ReasonPhrase(response.status), "\r\n");
  if (response.status != 204) {
    if (!response.body.empty()) out += StrCat("Content-Type: ", response.content_type, "\r\n");
    out += StrCat("Content-Length: ", response.body.size(), "\r\n");
  }
  for (const auto& [name, value] : request.reply_headers) out += StrCat(name, ": ", value, "\r\n");
  for (const auto& [name, value] : response.headers) out += StrCat(name, ": ", value, "\r\n");
  out += keep_alive ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
  return out;
}

std::string StreamHead(const HttpRequest& request) {
  // X-Accel-Buffering: nginx would otherwise collect the stream before it passes it on.
  std::string more;
  for (const auto& [name, value] : request.reply_headers) more += StrCat(name, ": ", value, "\r\n");
  return StrCat(
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
      "X-Accel-Buffering: no\r\n",
      more, request.is_http11 ? "Transfer-Encoding: chunked\r\n" : "",
      request.keep_alive && request.is_http11 ? "Connection: keep-alive\r\n\r\n"
                                              : "Connection: close\r\n\r\n");
}

void AppendChunk(std::string& out, std::string_view bytes, bool chunked) {
  if (bytes.empty()) return;
  if (chunked) {
    char hex[20];
    auto r = std::to_chars(hex, hex + sizeof(hex), bytes.size(), 16);
    out.append(hex, r.ptr).append("\r\n");
  }
  out.append(bytes);
  if (chunked) out.append("\r\n");
}

}  // namespace fd
