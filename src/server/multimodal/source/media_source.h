// A media URL of a request -> bytes, under the server's policy. Any thread; blocks while it fetches.
#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace fd {

struct MediaPolicy {
  bool fetch = true;  // --no-media-fetch
  std::vector<std::string>
      allowed_domains;           // --allowed-media-domains; empty: any that resolves to public addresses
  std::string local_path;        // --allowed-local-media-path; empty: no file: URLs
  int64_t max_redirects = 3;     // --media-max-redirects
  double connect_timeout_s = 5;  // --media-connect-timeout
  double total_timeout_s = 30;   // --media-fetch-timeout
  bool allow_private_addresses = false;  // for tests alone; no flag
};

struct MediaBytes {
  std::string media_type;  // as the source says, lower case, without parameters; empty when it says nothing
  std::string bytes;
};

// data:, http:, https: and file: URLs. More than max_bytes are refused while reading, with the limit and
// `limit_flag`. Errors are user errors; they never repeat the payload of a data URL, a resolved address or a
// local path.
StatusOr<MediaBytes> ReadMedia(std::string_view url, const MediaPolicy& policy, int64_t max_bytes,
                               std::string_view limit_flag, std::stop_token stop);

}  // namespace fd
