#include "server/text/charsmap.h"

#include "base/strings.h"

namespace fd {
namespace {

// A unit is either a value (bit 31 set) or a node: label in bits 0-7 (bit 31 makes values unequal to any
// label), bit 8: the node has a value, bits 10-30: distance to the children, times 256 when bit 9 is set.
bool HasValue(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t Label(uint32_t unit) { return unit & (uint32_t{1} << 31 | 0xFF); }
uint32_t Offset(uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }

}  // namespace

StatusOr<Charsmap> Charsmap::Parse(std::string_view blob) {
  Charsmap map;
  auto word = [&](size_t at) {
    uint32_t value = 0;
    for (size_t i = 0; i < 4; ++i) value |= uint32_t{static_cast<uint8_t>(blob[at + i])} << (8 * i);
    return value;
  };
  if (blob.empty()) return map;
  if (blob.size() < 4)
    return InvalidArgument(StrCat("precompiled_charsmap: ", blob.size(), " bytes are too few"));
  const size_t trie_bytes = word(0);
  if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes > blob.size() - 4) {
    return InvalidArgument(
        StrCat("precompiled_charsmap: a trie of ", trie_bytes, " bytes in ", blob.size() - 4));
  }
  map.units_.resize(trie_bytes / 4);
  for (size_t i = 0; i < map.units_.size(); ++i) map.units_[i] = word(4 + 4 * i);
  map.replacements_ = blob.substr(4 + trie_bytes);
  return map;
}

Charsmap::Match Charsmap::Longest(std::string_view text) const {
  Match best;
  if (units_.empty()) return best;
  // Every index is checked, because the trie comes from the file.
  size_t node = Offset(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const uint8_t byte = static_cast<uint8_t>(text[i]);
    node ^= byte;
    if (node >= units_.size() || Label(units_[node]) != byte) break;
    const uint32_t unit = units_[node];
    node ^= Offset(unit);
    if (!HasValue(unit)) continue;
    if (node >= units_.size()) break;
    const size_t at = units_[node] & 0x7FFFFFFF;
    if (at >= replacements_.size()) continue;
    const std::string_view rest = std::string_view(replacements_).substr(at);
    best = {i + 1, rest.substr(0, rest.find('\0'))};
  }
  return best;
}

}  // namespace fd
