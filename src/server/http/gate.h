// Who may call what: API keys, names of hosts, origins of web pages. Immutable after start; any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "server/http/http_message.h"
#include "server/http/http_server.h"
#include "server/http/routes.h"

namespace fd {

// API keys are kept as keyed hashes, and a given key is compared with all of them: that takes the same time
// whatever a wrong key has in common with a right one.
class Gate {
 public:
  explicit Gate(const HttpOptions& options);
  // Who may not call: 401 for a missing or wrong key, 403 for a foreign Host or Origin, and for an admin
  // endpoint of a server without an admin key.
  std::optional<HttpResponse> Refuse(const HttpRequest& request, Access access) const;
  // The answer to a browser that asks whether a page may call; nothing if this is no such question or the
  // page's origin is not allowed.
  std::optional<HttpResponse> Preflight(const HttpRequest& request, const char* allowed_methods) const;
  // What a reply to a page of an allowed origin carries.
  std::vector<std::pair<std::string, std::string>> OriginHeaders(const HttpRequest& request) const;
  // Whose names for media (uuid) a request may use: its API key's. Empty, one for all, without API keys. The
  // request was let through by Refuse.
  std::string Scope(const HttpRequest& request) const;
  // Which key a request came with, for the limit of each; -1 without one.
  int KeyIndex(const HttpRequest& request) const;
  int num_keys() const { return static_cast<int>(keys_.size()); }

 private:
  bool HostAllowed(std::string_view host) const;
  bool OriginAllowed(const HttpRequest& request) const;
  static int Find(const std::vector<Hash128>& keys, std::string_view key);

  std::vector<Hash128> keys_;
  std::vector<Hash128> admin_keys_;
  std::vector<std::string> allowed_hosts_;
  std::vector<std::string> allowed_origins_;
  bool any_host_ = false;
  bool any_origin_ = false;
  bool credentials_ = false;
};

}  // namespace fd
