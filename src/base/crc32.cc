#include "base/crc32.h"

#include <array>
#include <cstring>

namespace fd {
namespace {

// Table k: what a byte becomes after k more bytes of zeros; eight bytes go at once.
using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables MakeTables() {
  Tables t{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c & 1) != 0 ? 0xedb88320u ^ (c >> 1) : c >> 1;
    t[0][i] = c;
  }
  for (size_t k = 1; k < 8; ++k) {
    for (size_t i = 0; i < 256; ++i) t[k][i] = t[0][t[k - 1][i] & 0xff] ^ (t[k - 1][i] >> 8);
  }
  return t;
}

constexpr Tables kTables = MakeTables();

}  // namespace

uint32_t Crc32(std::string_view bytes, uint32_t begun) {
  uint32_t c = ~begun;
  size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    uint64_t word;  // this program runs on little-endian machines alone
    std::memcpy(&word, bytes.data() + i, 8);
    word ^= c;
    c = 0;
    for (size_t k = 0; k < 8; ++k) c ^= kTables[7 - k][word >> (8 * k) & 0xff];
  }
  for (; i < bytes.size(); ++i) c = kTables[0][(c ^ static_cast<uint8_t>(bytes[i])) & 0xff] ^ (c >> 8);
  return ~c;
}

}  // namespace fd
