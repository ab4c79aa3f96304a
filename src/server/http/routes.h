// The route table, and who may call what. Pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "base/status.h"
#include "server/http/http_message.h"
#include "server/http/http_server.h"

namespace fd {

enum class RouteKind { kChat, kCompletions, kModels, kModel, kHealth, kMetrics, kRoutes };

struct Route {
  RouteKind kind;
  const char* path;     // the label in the metrics; kModel matches every path below it
  const char* allowed;  // the Allow header; HEAD and OPTIONS are answered by the session
  bool is_public;       // needs no API key
};

enum class Listener { kMain, kMetrics };

// Null: 404. has_metrics: this listener serves /metrics.
const Route* FindRoute(Listener listener, bool has_metrics, std::string_view path);
bool MethodAllowed(const Route& route, std::string_view method);
// {"routes": [...]} as FastDeploy's /load.
std::string RoutesJson();

// API keys, kept as keyed hashes: comparing them takes the same time whatever a wrong key has in common with
// the right one.
class Gate {
 public:
  explicit Gate(const HttpOptions& options);
  // Who may not call: 401 for a missing or wrong key, 403 for a foreign Host or Origin.
  std::optional<HttpResponse> Refuse(const HttpRequest& request, bool is_public) const;
  // Whose names for media (uuid) a request may use: its API key's. Empty, one for all, without API keys. The
  // request was let through by Refuse.
  std::string Scope(const HttpRequest& request) const;

 private:
  bool HostAllowed(std::string_view host) const;
  std::vector<Hash128> key_hashes_;
  std::vector<std::string> allowed_hosts_;
  bool any_host_ = false;
};

}  // namespace fd
