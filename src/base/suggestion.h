// "Did you mean": the name that was probably meant. Pure function.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fd {

// The candidate nearest to `text`, or empty when none is near.
std::string DidYouMean(std::string_view text, const std::vector<std::string>& candidates);

}  // namespace fd
