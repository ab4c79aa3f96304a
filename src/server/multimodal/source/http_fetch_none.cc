// A build without libcurl: the portable program.
#include "server/multimodal/source/http_fetch.h"

namespace fd {

StatusOr<MediaBytes> FetchHttp(std::string_view, const MediaPolicy&, int64_t, std::string_view,
                               std::stop_token, const FetchHooks&) {
  return Unimplemented(
      "this program was built without libcurl and fetches no URLs; send the bytes, for example "
      "data:image/png;base64,iVBORw0...");
}

}  // namespace fd
