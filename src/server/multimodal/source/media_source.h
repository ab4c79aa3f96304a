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
  // "127.0.0.1:8000": addresses that count as public. For tests alone; no flag.
  std::vector<std::string> public_endpoints_for_tests;
};

struct MediaBytes {
  std::string media_type;  // as the source says, lower case, without parameters; empty when it says nothing
  std::string bytes;
};

// data:, http:, https: and file: URLs. More than max_bytes are refused while reading, with the limit and
// `limit_flag` ("--max-image-bytes", printed as it is). A stop ends a transfer within 0.1 s.
// Errors are user errors (400, 413, 415; 503 after a stop); they never repeat the payload of a data URL, a
// resolved address or a local path, and do not tell whether a file outside local_path exists. Whether the
// bytes are a picture or a video is for the decoders to say; types that can be neither are refused here.
StatusOr<MediaBytes> ReadMedia(std::string_view url, const MediaPolicy& policy, int64_t max_bytes,
                               std::string_view limit_flag, std::stop_token stop);

}  // namespace fd
