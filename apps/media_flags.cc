#include "media_flags.h"

#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "base/log.h"
#include "base/strings.h"
#include "server/multimodal/source/http_url.h"

namespace fd {
namespace {

Status AddDomains(const std::string& text, std::vector<std::string>* domains) {
  domains->clear();
  for (const std::string& part : Split(text, ',')) {
    FD_ASSIGN_OR_RETURN(std::string pattern, ParseDomainPattern(part));
    domains->push_back(std::move(pattern));
  }
  return OkStatus();
}

// Absolute, as the operator names it: clients name files by the same path.
Status SetLocalPath(const std::string& text, std::string* local_path) {
  constexpr const char* kExample = ", for example --allowed-local-media-path /data/pictures";
  std::error_code error;
  if (text.empty() || !std::filesystem::is_directory(text, error)) {
    return InvalidArgument(StrCat("must be a folder that exists", kExample));
  }
  if (std::filesystem::canonical(text, error) == "/" || error) {
    return InvalidArgument(
        StrCat("would give every file of this machine to clients; name a folder of media", kExample));
  }
  std::string path = std::filesystem::absolute(text).lexically_normal().string();
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  *local_path = std::move(path);
  return OkStatus();
}

}  // namespace

void AddMediaPolicyFlags(FlagSet& flags, MediaPolicy* policy) {
  flags.Group("Media of requests");
  flags.OnSwitch("no-media-fetch", "Fetch no http(s) URLs; without it, those of public addresses are fetched",
                 [policy] { policy->fetch = false; });
  flags.Custom("allowed-media-domains", "a.com,*.b.org",
               "Hosts that media are fetched from, redirects included", "any",
               [policy](const std::string& text) { return AddDomains(text, &policy->allowed_domains); });
  flags.Custom("allowed-local-media-path", "DIR", "Folder whose files requests may name by file: URLs",
               "none", [policy](const std::string& text) { return SetLocalPath(text, &policy->local_path); });
  flags.Integer("media-max-redirects", &policy->max_redirects, {0, 20, 3}, "Redirects of a media URL");
  flags.Real("media-connect-timeout", &policy->connect_timeout_s, {0.01, 600, 5},
             "Seconds to connect to a media URL's host");
  flags.Real("media-fetch-timeout", &policy->total_timeout_s, {0.01, 3600, 30},
             "Seconds for a media URL in all, redirects and attempts included");
  if (const char* endpoints = std::getenv("FASTDEPLOY_TEST_PUBLIC_ENDPOINTS");
      endpoints != nullptr && *endpoints != '\0') {
    policy->public_endpoints_for_tests = Split(endpoints, ',');
    LogWarning("FASTDEPLOY_TEST_PUBLIC_ENDPOINTS is set: media are fetched from ", endpoints,
               " as if it were public; for tests alone");
  }
}

}  // namespace fd
