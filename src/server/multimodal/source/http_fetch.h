// http and https URLs -> bytes, under a policy. Any thread; blocks, at most policy.total_timeout_s. The one
// file that knows libcurl's functions is http_fetch.cc; curl_library.h loads them.
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "server/multimodal/source/media_source.h"

namespace fd {

// Stand-ins for the world outside; tests alone.
struct FetchHooks {
  // Names resolved here instead of by the system, for hop 0, 1, ...: {"a.example:80:192.0.2.1,192.0.2.2"}.
  std::function<std::vector<std::string>(int hop)> resolve;
  std::string ca_file;  // trusted in place of the system's certificates
};

// Each hop is parsed by http_url.h, held against allowed_domains, and dialled only if address_policy.h calls
// the very address public. Nothing of the environment (proxy, .netrc) and no cookie, credential or
// compression is used. Three attempts, after 0.2 and 0.4 s, where a connection fails or breaks or a server
// answers 500, 502, 503 or 504; all of it within the total time. A transfer below 1000 bytes a second for
// 10 s is given up. The program must ignore SIGPIPE (apps/stop_signal.h does).
StatusOr<MediaBytes> FetchHttp(std::string_view url, const MediaPolicy& policy, int64_t max_bytes,
                               std::string_view limit_flag, std::stop_token stop,
                               const FetchHooks& hooks = {});

}  // namespace fd
