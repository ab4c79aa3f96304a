#include "server/text/byte_alphabet.h"

#include <array>
#include <cstdint>

namespace fd {
namespace {

// Printable Latin-1 characters stand for themselves; the other bytes, in order, for U+0100 and on.
constexpr std::array<int16_t, 0x144> MakeTable() {
  std::array<int16_t, 0x144> table = {};
  for (int16_t& entry : table) entry = -1;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    table[printable ? byte : next++] = static_cast<int16_t>(byte);
  }
  return table;
}
constexpr std::array<int16_t, 0x144> kByteOf = MakeTable();

}  // namespace

bool AlphabetToBytes(std::string_view text, std::string& bytes) {
  bytes.clear();
  for (size_t i = 0; i < text.size(); ++i) {
    // The alphabet's characters have one or two bytes.
    uint32_t c = static_cast<uint8_t>(text[i]);
    if (c >= 0xC2 && c <= 0xC5 && i + 1 < text.size() && (static_cast<uint8_t>(text[i + 1]) & 0xC0) == 0x80) {
      c = (c & 0x1F) << 6 | (static_cast<uint8_t>(text[++i]) & 0x3Fu);
    } else if (c >= 0x80) {
      return false;
    }
    if (c >= kByteOf.size() || kByteOf[c] < 0) return false;
    bytes.push_back(static_cast<char>(kByteOf[c]));
  }
  return true;
}

}  // namespace fd
