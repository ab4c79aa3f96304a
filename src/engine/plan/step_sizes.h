// How many tokens the steps had, as a histogram that grows. A plain value.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace fd {

struct StepSizes {
  static constexpr std::array<int64_t, 15> kBounds = {1,    8,    16,   32,   64,    128,   256,  512,
                                                      1024, 2048, 4096, 8192, 16384, 32768, 65536};
  std::array<int64_t, kBounds.size() + 1> steps{};  // [i]: above kBounds[i - 1], up to kBounds[i]
  int64_t num_steps = 0;
  int64_t num_tokens = 0;

  void Add(int64_t tokens) {
    ++steps[static_cast<size_t>(std::lower_bound(kBounds.begin(), kBounds.end(), tokens) - kBounds.begin())];
    ++num_steps;
    num_tokens += tokens;
  }
};

}  // namespace fd
