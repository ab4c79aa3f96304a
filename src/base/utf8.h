// UTF-8, by the WHATWG and Unicode rules: one U+FFFD per maximal ill-formed subpart.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace fd {

inline constexpr char32_t kReplacementCharacter = 0xFFFD;

struct Utf8Char {
  char32_t code_point;  // kReplacementCharacter when ill-formed
  int length_bytes;     // bytes consumed, at least 1
  bool well_formed;
  bool truncated;  // ill-formed only because the text ends inside a sequence that is right so far
};
// The character at the start of `text`, which must not be empty.
Utf8Char DecodeUtf8(std::string_view text);

void AppendUtf8(std::string& out, char32_t code_point);
bool IsValidUtf8(std::string_view text);
std::string ReplaceInvalidUtf8(std::string_view text);
int64_t CountUtf8Chars(std::string_view text);

}  // namespace fd
