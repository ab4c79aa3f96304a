#include "server/text/prefix_matcher.h"

#include <algorithm>

namespace fd {

PrefixMatcher::PrefixMatcher(std::vector<std::pair<std::string, int32_t>> entries)
    : entries_(std::move(entries)) {
  std::erase_if(entries_, [](const auto& e) { return e.first.empty(); });
  std::stable_sort(entries_.begin(), entries_.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  entries_.erase(std::unique(entries_.begin(), entries_.end(),
                             [](const auto& a, const auto& b) { return a.first == b.first; }),
                 entries_.end());
  for (const auto& e : entries_) first_bytes_.set(static_cast<uint8_t>(e.first[0]));
}

PrefixMatcher::Match PrefixMatcher::Longest(std::string_view text) const {
  Match best;  // std::string orders bytes as unsigned char, which the partitions below rely on
  if (text.empty() || !first_bytes_.test(static_cast<uint8_t>(text[0]))) return best;
  auto low = entries_.begin();
  auto high = entries_.end();
  // [low, high) are the entries that agree with the first `depth` bytes of the text.
  for (size_t depth = 0; low != high; ++depth) {
    if (low->first.size() == depth) {
      best = {depth, low->second};
      ++low;
    }
    if (depth == text.size()) break;
    const uint8_t byte = static_cast<uint8_t>(text[depth]);
    low = std::partition_point(low, high,
                               [&](const auto& e) { return static_cast<uint8_t>(e.first[depth]) < byte; });
    high = std::partition_point(low, high,
                                [&](const auto& e) { return static_cast<uint8_t>(e.first[depth]) == byte; });
  }
  return best;
}

int32_t PrefixMatcher::Find(std::string_view key) const {
  auto it = std::lower_bound(entries_.begin(), entries_.end(), key,
                             [](const auto& e, std::string_view k) { return e.first < k; });
  return it != entries_.end() && it->first == key ? it->second : -1;
}

}  // namespace fd
