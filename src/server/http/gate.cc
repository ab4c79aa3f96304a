#include "server/http/gate.h"

#include <algorithm>

#include "base/strings.h"
#include "server/openai/errors.h"

namespace fd {
namespace {

constexpr size_t kMaxAskedHeaderBytes = 1024;

bool IsLoopbackName(std::string_view name) {
  // "127.0.0.1.example.org" is a name that anybody may own.
  const bool is_number = name.find_first_not_of("0123456789.") == std::string_view::npos;
  return name == "localhost" || name == "[::1]" || name == "::1" || (is_number && name.starts_with("127."));
}

// "example.org:8080" -> "example.org", "[::1]:80" -> "[::1]".
std::string_view WithoutPort(std::string_view host) {
  const size_t bracket = host.rfind(']');
  const size_t colon = host.rfind(':');
  if (colon == std::string_view::npos || (bracket != std::string_view::npos && colon < bracket)) return host;
  return host.substr(0, colon);
}

// Of "Authorization: Bearer KEY", or of "X-Api-Key: KEY" where there is no Authorization; empty without any.
std::string_view GivenKey(const HttpRequest& request) {
  constexpr std::string_view kBearer = "bearer ";
  if (request.authorization.empty()) return Trim(request.x_api_key);
  const std::string_view given = request.authorization;
  return LowerAscii(given.substr(0, kBearer.size())) == kBearer ? Trim(given.substr(kBearer.size())) : "";
}

bool IsHeaderList(std::string_view text) {
  return !text.empty() && text.size() <= kMaxAskedHeaderBytes &&
         std::all_of(text.begin(), text.end(), [](char c) {
           const char lower = LowerAscii(c);
           return (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
                  c == ',' || c == ' ';
         });
}

}  // namespace

Gate::Gate(const HttpOptions& options)
    : allowed_hosts_(options.allowed_hosts),
      allowed_origins_(options.allowed_origins),
      credentials_(options.allow_credentials) {
  for (const std::string& key : options.api_keys) keys_.push_back(KeyedHash(key));
  for (const std::string& key : options.admin_keys) admin_keys_.push_back(KeyedHash(key));
  for (std::string& host : allowed_hosts_) host = LowerAscii(host);
  for (std::string& origin : allowed_origins_) {
    origin = LowerAscii(origin);
    if (origin == "*") any_origin_ = true;
    while (origin.ends_with('/')) origin.pop_back();
  }
  const bool guards_loopback = IsLoopbackName(options.host) && options.api_keys.empty();
  any_host_ = allowed_hosts_.empty()
                  ? !guards_loopback
                  : std::find(allowed_hosts_.begin(), allowed_hosts_.end(), "*") != allowed_hosts_.end();
}

bool Gate::HostAllowed(std::string_view host) const {
  const std::string name = LowerAscii(WithoutPort(host));
  if (allowed_hosts_.empty()) return IsLoopbackName(name);
  return std::find(allowed_hosts_.begin(), allowed_hosts_.end(), name) != allowed_hosts_.end();
}

bool Gate::OriginAllowed(const HttpRequest& request) const {
  if (request.origin.empty()) return false;
  return any_origin_ || std::find(allowed_origins_.begin(), allowed_origins_.end(),
                                  LowerAscii(request.origin)) != allowed_origins_.end();
}

int Gate::Find(const std::vector<Hash128>& keys, std::string_view key) {
  const Hash128 hash = KeyedHash(key);
  int found = -1;
  for (size_t i = 0; i < keys.size(); ++i) {
    if (hash == keys[i]) found = static_cast<int>(i);
  }
  return key.empty() ? -1 : found;
}

std::string Gate::Scope(const HttpRequest& request) const {
  return keys_.empty() ? std::string() : std::string(GivenKey(request));
}

int Gate::KeyIndex(const HttpRequest& request) const {
  return keys_.empty() ? -1 : Find(keys_, GivenKey(request));
}

std::optional<HttpResponse> Gate::Refuse(const HttpRequest& request, Access access) const {
  if (!any_host_) {
    if (!request.host.empty() && !HostAllowed(request.host)) {
      return ErrorResponse(403, "host_not_allowed",
                           "the Host header names a host that this server does not answer to; add it with "
                           "--allowed-hosts");
    }
    if (!request.origin.empty() && !OriginAllowed(request)) {
      const size_t scheme = request.origin.find("://");
      if (scheme == std::string::npos || !HostAllowed(std::string_view(request.origin).substr(scheme + 3))) {
        return ErrorResponse(403, "origin_not_allowed",
                             "the Origin header names a page that may not use this server; add it with "
                             "--allowed-origins, for example --allowed-origins https://chat.example.org");
      }
    }
  }
  if (access == Access::kPublic) return std::nullopt;
  const std::string_view key = GivenKey(request);
  if (access == Access::kAdmin) {
    if (admin_keys_.empty()) {
      return ErrorResponse(
          403, "admin_disabled",
          "this endpoint needs an admin key, and the server was started without --admin-key");
    }
    if (Find(admin_keys_, key) >= 0) return std::nullopt;
  } else {
    const bool is_user = Find(keys_, key) >= 0;
    const bool is_admin = Find(admin_keys_, key) >= 0;
    if (keys_.empty() || is_user || is_admin) return std::nullopt;
  }
  const bool admin = access == Access::kAdmin;
  const char* how = "send the header Authorization: Bearer KEY or X-Api-Key: KEY";
  return ErrorResponse(Status(
      StatusCode::kUnauthenticated,
      key.empty() ? StrCat(admin ? "the admin key (--admin-key)"
                                 : "one of the server's API keys (--api-key, --api-key-file, FD_API_KEY)",
                           " is needed: ", how)
      : admin ? StrCat("the key of this request is not the server's admin key (--admin-key): ", how)
              : StrCat("the key of this request is none of the server's API keys (--api-key, "
                       "--api-key-file, FD_API_KEY): ",
                       how)));
}

std::vector<std::pair<std::string, std::string>> Gate::OriginHeaders(const HttpRequest& request) const {
  std::vector<std::pair<std::string, std::string>> headers;
  if (allowed_origins_.empty()) return headers;
  if (!any_origin_) headers.push_back({"Vary", "Origin"});
  if (!OriginAllowed(request)) return headers;
  headers.push_back({"Access-Control-Allow-Origin", any_origin_ ? "*" : request.origin});
  if (credentials_) headers.push_back({"Access-Control-Allow-Credentials", "true"});
  headers.push_back({"Access-Control-Expose-Headers", "x-request-id, x-fastdeploy-ignored, retry-after"});
  return headers;
}

std::optional<HttpResponse> Gate::Preflight(const HttpRequest& request, const char* allowed_methods) const {
  if (request.method != "OPTIONS" || request.asked_method.empty() || !OriginAllowed(request))
    return std::nullopt;
  HttpResponse response{.status = 204};
  response.headers.push_back({"Allow", allowed_methods});
  response.headers.push_back({"Access-Control-Allow-Methods", allowed_methods});
  response.headers.push_back({"Access-Control-Allow-Headers", IsHeaderList(request.asked_headers)
                                                                  ? request.asked_headers
                                                                  : "authorization, content-type"});
  response.headers.push_back({"Access-Control-Max-Age", "600"});
  return response;
}

}  // namespace fd
