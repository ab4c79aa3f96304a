// Any text: no file is opened, nothing is fetched, and a URL that passes is read by libcurl as we read it.
#include <curl/curl.h>

#include <cstdlib>
#include <cstring>

#include "base/strings.h"
#include "server/multimodal/source/http_url.h"
#include "server/multimodal/source/local_file.h"

namespace {

bool HasPart(CURLU* url, CURLUPart part, const std::string& expected) {
  char* text = nullptr;
  const bool same = curl_url_get(url, part, &text, 0) == CURLUE_OK && expected == text;
  curl_free(text);
  return same;
}

void CheckHttp(std::string_view text) {
  fd::StatusOr<fd::HttpUrl> url = fd::ParseHttpUrl(text);
  if (!url.ok()) return;
  const std::string canonical = url->ToString();
  fd::StatusOr<fd::HttpUrl> again = fd::ParseHttpUrl(canonical);
  if (!again.ok() || again->ToString() != canonical) std::abort();
  CURLU* handle = curl_url();
  if (curl_url_set(handle, CURLUPART_URL, canonical.c_str(), CURLU_PATH_AS_IS) == CURLUE_OK) {
    const std::string host = url->is_ipv6 ? "[" + url->host + "]" : url->host;
    const bool same_host =
        url->is_ipv6 || HasPart(handle, CURLUPART_HOST, host);  // libcurl shortens IPv6 addresses
    char* user = nullptr;
    if (!same_host || !HasPart(handle, CURLUPART_PORT, fd::StrCat(url->port)) ||
        !HasPart(handle, CURLUPART_SCHEME, url->https ? "https" : "http") ||
        curl_url_get(handle, CURLUPART_USER, &user, 0) == CURLUE_OK) {
      std::abort();
    }
  }
  curl_url_cleanup(handle);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  CheckHttp(text);
  if (fd::StatusOr<fd::HttpUrl> base = fd::ParseHttpUrl("https://a.example:8443/x/y?q"); base.ok()) {
    CheckHttp(fd::ResolveReference(*base, text));
  }
  if (fd::StatusOr<std::vector<std::string>> parts = fd::PathOfFileUrl(text); parts.ok()) {
    for (const std::string& part : *parts) {
      if (part.empty() || part == "." || part == ".." || part.find('/') != std::string::npos ||
          std::memchr(part.data(), 0, part.size()) != nullptr) {
        std::abort();
      }
    }
  }
  return 0;
}
