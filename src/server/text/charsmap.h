// The character replacements that a SentencePiece model carries (precompiled_charsmap): a size, a
// double-array trie in the layout of darts-clone (32-bit units, little-endian), then the replacements, each
// ended by a zero byte.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace fd {

class Charsmap {
 public:
  struct Match {
    size_t length = 0;  // bytes of the text; 0: nothing to replace here
    std::string_view replacement;
  };
  Charsmap() = default;
  static StatusOr<Charsmap> Parse(std::string_view blob);

  bool empty() const { return units_.empty(); }
  // The longest key that the text begins with.
  Match Longest(std::string_view text) const;

 private:
  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace fd
