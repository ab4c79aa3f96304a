// The longest of a set of strings that a text begins with: added tokens, user-defined pieces.
#pragma once

#include <bitset>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fd {

class PrefixMatcher {
 public:
  struct Match {
    size_t length = 0;  // 0: none
    int32_t value = -1;
  };
  PrefixMatcher() = default;
  // Empty strings are left out; of equal strings the first counts.
  explicit PrefixMatcher(std::vector<std::pair<std::string, int32_t>> entries);

  bool empty() const { return entries_.empty(); }
  Match Longest(std::string_view text) const;
  // The value of the entry spelled exactly so, or -1.
  int32_t Find(std::string_view key) const;
  const std::vector<std::pair<std::string, int32_t>>& entries() const { return entries_; }

 private:
  std::vector<std::pair<std::string, int32_t>> entries_;  // sorted
  std::bitset<256> first_bytes_;
};

}  // namespace fd
