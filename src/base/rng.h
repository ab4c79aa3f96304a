// Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC11): counter-based, so a
// number depends on (key, counter) alone and not on the order of calls.
#pragma once

#include <array>
#include <cstdint>

namespace fd {

std::array<uint32_t, 4> Philox4x32(uint64_t key, uint64_t counter_low, uint64_t counter_high = 0);

// In [0, 1), 24 random bits; a function of (seed, position) alone.
float UniformFloat(uint64_t seed, uint64_t position);

// The finaliser of splitmix64: every bit of x reaches every bit of the result.
constexpr uint64_t MixBits(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// 32 bits for element `index` of the stream `key`, cheap enough to fill tens of gigabytes; constexpr, so that
// device code shares it. Not for sampling.
constexpr uint32_t FillBits(uint64_t key, uint64_t index) {
  const uint64_t seed = MixBits(key ^ MixBits(index / 1024));
  uint32_t bits = static_cast<uint32_t>(seed) + static_cast<uint32_t>(index % 1024) * 0x9e3779b9u;
  bits = (bits ^ (bits >> 16)) * 0x85ebca6bu;
  return (bits ^ (bits >> 13)) * 0xc2b2ae35u;
}

}  // namespace fd
