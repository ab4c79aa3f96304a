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
Utf8Char DecodeNonAscii(std::string_view text);
// The character at the start of `text`, which must not be empty.
inline Utf8Char DecodeUtf8(std::string_view text) {
  const unsigned char lead = static_cast<unsigned char>(text[0]);
  return lead < 0x80 ? Utf8Char{lead, 1, true, false} : DecodeNonAscii(text);
}

// Bytes of the first character of a text that is known to be well-formed, which must not be empty. Of other
// texts: at least 1 and at most their size.
inline size_t WellFormedLength(std::string_view text) {
  const unsigned char lead = static_cast<unsigned char>(text[0]);
  const size_t length = lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  return length < text.size() ? length : text.size();
}

void AppendUtf8(std::string& out, char32_t code_point);
bool IsValidUtf8(std::string_view text);
std::string ReplaceInvalidUtf8(std::string_view text);
int64_t CountUtf8Chars(std::string_view text);

}  // namespace fd
