// 128-bit keyed hash (SipHash-2-4-128, Aumasson and Bernstein) for content ids that an attacker may choose:
// pictures, prompt prefixes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace fd {

struct Hash128 {
  uint64_t low = 0;
  uint64_t high = 0;
  bool operator==(const Hash128&) const = default;
};

// SipHash-2-4-128 with an explicit key.
Hash128 SipHash128(uint64_t k0, uint64_t k1, std::string_view bytes);

// The key of this process, drawn at start from the kernel.
Hash128 KeyedHash(std::string_view bytes);

struct Hash128Hasher {
  size_t operator()(const Hash128& h) const { return h.low ^ h.high; }
};

}  // namespace fd
