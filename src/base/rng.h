// Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC11): counter-based, so a
// number depends on (key, counter) alone and not on the order of calls.
#pragma once

#include <array>
#include <cstdint>

namespace fd {

std::array<uint32_t, 4> Philox4x32(uint64_t key, uint64_t counter_low, uint64_t counter_high = 0);

// In [0, 1), 24 random bits; a function of (seed, position) alone.
float UniformFloat(uint64_t seed, uint64_t position);

}  // namespace fd
