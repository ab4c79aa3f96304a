// What every fuzzer of invariants needs.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace fd::fuzz {

inline void Require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "violated: %s\n", what);
  std::abort();
}

}  // namespace fd::fuzz
