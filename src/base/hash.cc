#include "base/hash.h"

#include <sys/random.h>

#include <cstring>

#include "base/check.h"

namespace fd {
namespace {

struct SipState {
  uint64_t v0, v1, v2, v3;
  static uint64_t Rotate(uint64_t x, int bits) { return (x << bits) | (x >> (64 - bits)); }
  void Rounds(int count) {
    for (int i = 0; i < count; ++i) {
      v0 += v1;
      v1 = Rotate(v1, 13) ^ v0;
      v0 = Rotate(v0, 32);
      v2 += v3;
      v3 = Rotate(v3, 16) ^ v2;
      v0 += v3;
      v3 = Rotate(v3, 21) ^ v0;
      v2 += v1;
      v1 = Rotate(v1, 17) ^ v2;
      v2 = Rotate(v2, 32);
    }
  }
  void Absorb(uint64_t word) {
    v3 ^= word;
    Rounds(2);
    v0 ^= word;
  }
};

struct Key {
  uint64_t k0, k1;
};

Key DrawKey() {
  Key key{};
  FD_CHECK_EQ(getrandom(&key, sizeof(key), 0), static_cast<ssize_t>(sizeof(key)));
  return key;
}

}  // namespace

Hash128 SipHash128(uint64_t k0, uint64_t k1, std::string_view bytes) {
  SipState s{k0 ^ 0x736f6d6570736575u, k1 ^ 0x646f72616e646f6du ^ 0xee, k0 ^ 0x6c7967656e657261u,
             k1 ^ 0x7465646279746573u};
  size_t whole = bytes.size() / 8;
  for (size_t i = 0; i < whole; ++i) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + i * 8, 8);
    s.Absorb(word);
  }
  uint64_t last = static_cast<uint64_t>(bytes.size() & 0xff) << 56;
  for (size_t i = whole * 8; i < bytes.size(); ++i) {
    last |= static_cast<uint64_t>(static_cast<unsigned char>(bytes[i])) << (8 * (i - whole * 8));
  }
  s.Absorb(last);
  Hash128 h;
  s.v2 ^= 0xee;
  s.Rounds(4);
  h.low = s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
  s.v1 ^= 0xdd;
  s.Rounds(4);
  h.high = s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
  return h;
}

Hash128 KeyedHash(std::string_view bytes) {
  static const Key key = DrawKey();
  return SipHash128(key.k0, key.k1, bytes);
}

}  // namespace fd
