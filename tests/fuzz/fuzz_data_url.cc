// Any bytes: an error, or at most as many bytes as were allowed.
#include <cstdlib>

#include "server/multimodal/source/data_url.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr int64_t kMaxBytes = 300;
  fd::StatusOr<fd::MediaBytes> media =
      fd::ReadDataUrl({reinterpret_cast<const char*>(data), size}, kMaxBytes, "--max-image-bytes");
  if (media.ok() && (media->bytes.empty() || static_cast<int64_t>(media->bytes.size()) > kMaxBytes))
    std::abort();
  return 0;
}
