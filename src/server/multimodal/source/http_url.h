// http and https URLs, read strictly: what two parsers could read in two ways is refused. Pure; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace fd {

struct HttpUrl {
  bool https = false;
  std::string host;  // a name in lower case without a final dot, or an address; IPv6 without brackets
  bool is_ipv6 = false;
  int port = 0;        // 80, 443, or 1024 and above
  std::string target;  // path and query, "/" at least, printable ASCII

  // The canonical form, the only one that the transfer library sees.
  std::string ToString() const;
};

// Errors say what is wrong and never repeat the URL. Refused: user names, backslashes, control characters,
// hosts with escapes or letters beyond ASCII, numeric hosts other than four decimal numbers, ports below 1024
// other than 80 and 443 (mail, name and file services that a crafted path could speak to). A fragment is
// dropped; letters beyond ASCII in the path are escaped.
StatusOr<HttpUrl> ParseHttpUrl(std::string_view url);

// The URL that a Location header names, seen from `base`; not yet parsed. Keeps dot segments.
std::string ResolveReference(const HttpUrl& base, std::string_view location);

// "cdn.example.com" or "*.example.com" (any name below it, not itself) as a pattern in lower case, or an
// error with an example.
StatusOr<std::string> ParseDomainPattern(std::string_view text);
// Whether a pattern admits the host. No pattern admits every host.
bool DomainIsAllowed(const HttpUrl& url, const std::vector<std::string>& patterns);

}  // namespace fd
