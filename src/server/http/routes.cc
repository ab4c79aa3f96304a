#include "server/http/routes.h"

#include <algorithm>

#include "base/json.h"
#include "base/strings.h"

namespace fd {
namespace {

constexpr Route kRoutes[] = {
    {RouteKind::kChat, "/v1/chat/completions", "POST, OPTIONS", false},
    {RouteKind::kCompletions, "/v1/completions", "POST, OPTIONS", false},
    {RouteKind::kModels, "/v1/models", "GET, HEAD, OPTIONS", false},
    {RouteKind::kModel, "/v1/models/{model}", "GET, HEAD, OPTIONS", false},
    {RouteKind::kHealth, "/health", "GET, HEAD, OPTIONS", true},
    {RouteKind::kHealth, "/ping", "GET, HEAD, POST, OPTIONS", true},
    {RouteKind::kRoutes, "/load", "GET, HEAD, OPTIONS", false},
    {RouteKind::kMetrics, "/metrics", "GET, HEAD, OPTIONS", true},
};
constexpr std::string_view kModelPrefix = "/v1/models/";

bool IsLoopbackName(std::string_view name) {
  return name == "localhost" || name == "[::1]" || name == "::1" || name.starts_with("127.");
}

// "example.org:8080" -> "example.org", "[::1]:80" -> "[::1]".
std::string_view WithoutPort(std::string_view host) {
  const size_t bracket = host.rfind(']');
  const size_t colon = host.rfind(':');
  if (colon == std::string_view::npos || (bracket != std::string_view::npos && colon < bracket)) return host;
  return host.substr(0, colon);
}

// Of "Authorization: Bearer KEY"; empty when there is none.
std::string_view BearerKey(const HttpRequest& request) {
  constexpr std::string_view kBearer = "bearer ";
  const std::string_view given = request.authorization;
  return LowerAscii(given.substr(0, kBearer.size())) == kBearer ? Trim(given.substr(kBearer.size())) : "";
}

}  // namespace

const Route* FindRoute(Listener listener, bool has_metrics, std::string_view path) {
  for (const Route& route : kRoutes) {
    const bool matches = route.kind == RouteKind::kModel
                             ? path.size() > kModelPrefix.size() && path.starts_with(kModelPrefix)
                             : path == route.path;
    if (!matches) continue;
    if (route.kind == RouteKind::kMetrics && !has_metrics) return nullptr;
    if (listener == Listener::kMetrics && route.kind != RouteKind::kMetrics &&
        route.kind != RouteKind::kHealth) {
      return nullptr;
    }
    return &route;
  }
  return nullptr;
}

bool MethodAllowed(const Route& route, std::string_view method) {
  const std::vector<std::string> allowed = Split(route.allowed, ',');
  return std::any_of(allowed.begin(), allowed.end(),
                     [&](const std::string& name) { return Trim(name) == method; });
}

std::string RoutesJson() {
  JsonArray routes;
  for (const Route& route : kRoutes) {
    JsonArray methods;
    for (const std::string& method : Split(route.allowed, ',')) methods.push_back(Json(Trim(method)));
    routes.push_back(
        JsonObject{{"path", route.path}, {"methods", std::move(methods)}, {"tags", JsonArray{}}});
  }
  return WriteJson(JsonObject{{"routes", std::move(routes)}});
}

Gate::Gate(const HttpOptions& options) : allowed_hosts_(options.allowed_hosts) {
  for (const std::string& key : options.api_keys) key_hashes_.push_back(KeyedHash(key));
  for (std::string& host : allowed_hosts_) host = LowerAscii(host);
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

std::string Gate::Scope(const HttpRequest& request) const {
  return key_hashes_.empty() ? std::string() : std::string(BearerKey(request));
}

std::optional<HttpResponse> Gate::Refuse(const HttpRequest& request, bool is_public) const {
  if (!any_host_) {
    if (!request.host.empty() && !HostAllowed(request.host)) {
      return ErrorResponse(403, "host_not_allowed",
                           "the Host header names a host that this server does not answer to; add it with "
                           "--allowed-hosts");
    }
    if (!request.origin.empty()) {
      const size_t scheme = request.origin.find("://");
      if (scheme == std::string::npos || !HostAllowed(std::string_view(request.origin).substr(scheme + 3))) {
        return ErrorResponse(403, "origin_not_allowed",
                             "the Origin header names a host that may not use this server; add it with "
                             "--allowed-hosts");
      }
    }
  }
  if (key_hashes_.empty() || is_public) return std::nullopt;
  const std::string_view key = BearerKey(request);
  const Hash128 hash = KeyedHash(key);
  bool found = false;
  for (const Hash128& known : key_hashes_) found |= hash == known;
  if (found && !key.empty()) return std::nullopt;
  return ErrorResponse(Status(StatusCode::kUnauthenticated,
                              key.empty() ? "an API key is needed: send the header Authorization: Bearer KEY"
                                          : "this API key is not known"));
}

}  // namespace fd
