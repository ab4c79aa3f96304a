// Any bytes as a safetensors file: an error, or tensors that lie inside the file without touching each other.
#include <cstdlib>

#include "model/weights/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto header =
      fd::ParseSafetensorsHeader({reinterpret_cast<const char*>(data), size}, static_cast<int64_t>(size));
  if (!header.ok()) return 0;
  int64_t at = 8 + header->header_bytes;
  for (const fd::TensorInfo& t : header->tensors) {
    if (t.offset != at || t.size_bytes < 0 || t.NumElements() < 0) std::abort();
    at += t.size_bytes;
  }
  if (at != static_cast<int64_t>(size)) std::abort();
  return 0;
}
