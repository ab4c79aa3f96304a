#include "server/multimodal/source/media_source.h"

#include "server/multimodal/data_url.h"

namespace fd {

StatusOr<MediaBytes> ReadMedia(std::string_view url, const MediaPolicy&, int64_t max_bytes, std::string_view,
                               std::stop_token) {
  return ReadMediaUrl(url, max_bytes);
}

}  // namespace fd
