#include "server/multimodal/source/media_source.h"

#include "base/strings.h"
#include "server/multimodal/source/data_url.h"
#include "server/multimodal/source/http_fetch.h"
#include "server/multimodal/source/local_file.h"
#include "server/multimodal/source/media_type.h"
#include "server/multimodal/source/url_text.h"

namespace fd {
namespace {

constexpr std::string_view kDataExample = "data:image/png;base64,iVBORw0...";

// What may be sent instead.
std::string Allowed(const MediaPolicy& policy) {
  return StrCat("; allowed ", policy.fetch || !policy.local_path.empty() ? "are " : "is ", kDataExample,
                policy.fetch ? ", https://example.com/picture.png" : "",
                policy.local_path.empty() ? "" : ", file:///folder/picture.png");
}

}  // namespace

StatusOr<MediaBytes> ReadMedia(std::string_view text, const MediaPolicy& policy, int64_t max_bytes,
                               std::string_view limit_flag, std::stop_token stop) {
  const std::string_view url = TrimUrlSpace(text);
  if (url.empty()) return InvalidArgument(StrCat("the media URL is empty", Allowed(policy)));
  const std::string scheme = SchemeOf(url);
  if (scheme == "data") {
    FD_ASSIGN_OR_RETURN(MediaBytes media, ReadDataUrl(text, max_bytes, limit_flag));
    FD_RETURN_IF_ERROR(CheckMediaType(media.media_type, "the data URL"));
    return media;
  }
  if (scheme == "http" || scheme == "https") {
    if (!policy.fetch) {
      return InvalidArgument(StrCat("this server fetches no URLs (--no-media-fetch)", Allowed(policy)));
    }
    return FetchHttp(url, policy, max_bytes, limit_flag, stop);
  }
  if (scheme == "file") {
    if (policy.local_path.empty()) {
      return InvalidArgument(
          StrCat("this server reads no files for clients (--allowed-local-media-path)", Allowed(policy)));
    }
    FD_ASSIGN_OR_RETURN(std::string bytes,
                        ReadLocalFile(url, policy.local_path, max_bytes, limit_flag, stop));
    return MediaBytes{{}, std::move(bytes)};
  }
  if (!scheme.empty()) {
    return InvalidArgument(StrCat("the media URL's scheme ", scheme, ": is not read", Allowed(policy)));
  }
  return InvalidArgument(StrCat("the media URL has no scheme", Allowed(policy)));
}

}  // namespace fd
