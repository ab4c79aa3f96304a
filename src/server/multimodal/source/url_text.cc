#include "server/multimodal/source/url_text.h"

#include <cstdint>

#include "base/strings.h"

namespace fd {
namespace {

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = LowerAscii(c);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

}  // namespace

std::string_view TrimUrlSpace(std::string_view text) {
  while (!text.empty() && IsUrlSpace(text.front())) text.remove_prefix(1);
  while (!text.empty() && IsUrlSpace(text.back())) text.remove_suffix(1);
  return text;
}

std::string SchemeOf(std::string_view url) {
  constexpr size_t kMaxSchemeBytes = 16;
  size_t colon = url.substr(0, kMaxSchemeBytes + 1).find(':');
  if (colon == std::string_view::npos || colon == 0) return {};
  std::string scheme = LowerAscii(url.substr(0, colon));
  for (size_t i = 0; i < scheme.size(); ++i) {
    char c = scheme[i];
    bool letter = c >= 'a' && c <= 'z';
    bool other = (c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.';
    if (!letter && !(i > 0 && other)) return {};
  }
  return scheme;
}

std::string PrintableByte(char c) {
  if (c > ' ' && c < 0x7f) return StrCat("'", c, "'");
  constexpr char kHex[] = "0123456789abcdef";
  auto byte = static_cast<uint8_t>(c);
  return StrCat("byte 0x", kHex[byte >> 4], kHex[byte & 15]);
}

std::optional<char> Unescaper::Next() {
  if (next_ >= text_.size()) return std::nullopt;
  position_ = next_;
  char c = text_[next_++];
  if (c != '%') return c;
  int high = next_ + 1 < text_.size() ? HexValue(text_[next_]) : -1;
  int low = high >= 0 ? HexValue(text_[next_ + 1]) : -1;
  if (low < 0) {
    bad_escape_ = true;
    return std::nullopt;
  }
  next_ += 2;
  return static_cast<char>(high * 16 + low);
}

}  // namespace fd
