#include "base/suggestion.h"

#include <algorithm>

#include "base/strings.h"

namespace fd {

std::string DidYouMean(std::string_view text, const std::vector<std::string>& candidates) {
  std::string best;
  int best_distance = std::max<int>(2, static_cast<int>(text.size()) / 4) + 1;
  for (const std::string& candidate : candidates) {
    int distance = EditDistance(text, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace fd
