// The data URL of a request -> bytes. Pure; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "server/multimodal/source/media_source.h"

namespace fd {

// Decodes "data:image/png;base64,iVBORw0..." (RFC 2397). Scheme, type and "base64" in any case; parameters
// are skipped; white space and percent-escapes inside the payload and missing padding are accepted, as
// browsers do; without ";base64" the payload is percent-encoded bytes. More than max_bytes of result is
// refused before anything is decoded, with limit_flag. Errors never repeat the payload.
StatusOr<MediaBytes> ReadDataUrl(std::string_view url, int64_t max_bytes, std::string_view limit_flag);

}  // namespace fd
