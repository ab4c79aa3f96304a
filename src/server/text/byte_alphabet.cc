#include "server/text/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "base/utf8.h"

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
  while (!text.empty()) {
    const Utf8Char c = DecodeUtf8(text);
    if (!c.well_formed || c.code_point >= kByteOf.size() || kByteOf[c.code_point] < 0) return false;
    bytes.push_back(static_cast<char>(kByteOf[c.code_point]));
    text.remove_prefix(static_cast<size_t>(c.length_bytes));
  }
  return true;
}

}  // namespace fd
