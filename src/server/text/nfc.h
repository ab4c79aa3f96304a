// Unicode normalisation form C (UAX 15).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace fd {

// text: well-formed UTF-8. Nothing when the text is seen at once to be in form C already. O(n log n), also
// for long runs of combining marks.
std::optional<std::string> NormalizeNfc(std::string_view text);

}  // namespace fd
