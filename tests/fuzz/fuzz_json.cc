// Any bytes: an error or a value, and what was read is written and read again as the same value.
#include <cstdlib>

#include "base/json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fd::StatusOr<fd::Json> value = fd::ParseJson({reinterpret_cast<const char*>(data), size});
  if (!value.ok()) return 0;
  fd::StatusOr<fd::Json> again = fd::ParseJson(fd::WriteJson(*value));
  if (!again.ok() || !(*again == *value)) std::abort();
  return 0;
}
