// Characters of URLs: case, spaces, percent-escapes. Pure; any thread.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace fd {

// What a URL's text may carry around it: space, tab, line feed, carriage return, form feed.
inline bool IsUrlSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f'; }
std::string_view TrimUrlSpace(std::string_view text);
// "https" of "HTTPS://x", "data" of "data:,a"; empty where no scheme of at most 16 characters begins the
// text.
std::string SchemeOf(std::string_view url);
// The byte as an error may show it: 'a', or byte 0xc3.
std::string PrintableByte(char c);

// Walks a text, resolving percent-escapes: one plain byte a call, nothing at the end or at a '%' without two
// hexadecimal digits.
class Unescaper {
 public:
  explicit Unescaper(std::string_view text) : text_(text) {}
  std::optional<char> Next();
  // Where the last byte stood in the text.
  size_t position() const { return position_; }
  bool bad_escape() const { return bad_escape_; }

 private:
  std::string_view text_;
  size_t next_ = 0;
  size_t position_ = 0;
  bool bad_escape_ = false;
};

}  // namespace fd
