// Where a marker such as "</think>" stands in text that is still growing. Pure functions.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <string_view>

namespace fd {

inline constexpr std::string_view kThinkOpen = "<think>";
inline constexpr std::string_view kThinkClose = "</think>";
inline constexpr std::string_view kResponseOpen = "<response>";
inline constexpr std::string_view kResponseClose = "</response>";
inline constexpr std::string_view kToolCallOpen = "<tool_call>";
inline constexpr std::string_view kToolCallClose = "</tool_call>";

enum class MarkerMatch { kNo, kPartial, kYes };

// Does `text` begin with the marker, or may it once more text has come?
inline MarkerMatch MatchMarker(std::string_view text, std::string_view marker) {
  if (text.starts_with(marker)) return MarkerMatch::kYes;
  return marker.starts_with(text) ? MarkerMatch::kPartial : MarkerMatch::kNo;
}

struct FoundMarker {
  size_t position = 0;      // of the first marker, whole or partial; text.size() when there is none
  std::string_view marker;  // empty: none, or one that is not complete yet
};

// Partial ones at the end of the text count unless nothing follows any more (at_end). Every marker begins
// with '<'. Linear.
inline FoundMarker FindMarker(std::string_view text, std::initializer_list<std::string_view> markers,
                              bool at_end) {
  for (size_t i = text.find('<'); i != std::string_view::npos; i = text.find('<', i + 1)) {
    for (std::string_view marker : markers) {
      const MarkerMatch match = MatchMarker(text.substr(i), marker);
      if (match == MarkerMatch::kYes) return {i, marker};
      if (match == MarkerMatch::kPartial && !at_end) return {i, {}};
    }
  }
  return {text.size(), {}};
}

}  // namespace fd
