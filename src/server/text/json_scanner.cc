#include "server/text/json_scanner.h"

#include <charconv>

#include "base/strings.h"
#include "base/utf8.h"

namespace fd {
namespace {

bool IsJsonSpace(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

// The four hex digits at `at`, or -1.
int32_t Hex4(std::string_view text, size_t at) {
  if (text.size() < 4 || at > text.size() - 4) return -1;
  uint32_t value = 0;
  auto [end, error] = std::from_chars(text.data() + at, text.data() + at + 4, value, 16);
  return error == std::errc() && end == text.data() + at + 4 ? static_cast<int32_t>(value) : -1;
}

}  // namespace

Status JsonScanner::Error(std::string_view what) const {
  return InvalidArgument(StrCat("JSON at byte ", base_ + at_, ": ", what));
}

char JsonScanner::Peek() {
  while (at_ < text_.size() && IsJsonSpace(text_[at_])) ++at_;
  return at_ < text_.size() ? text_[at_] : '\0';
}

Status JsonScanner::Expect(char c) {
  if (Peek() != c) return Error(StrCat("expected '", c, "'"));
  ++at_;
  return OkStatus();
}

StatusOr<bool> JsonScanner::More(char close, bool first) {
  const char c = Peek();
  if (c == close) {
    ++at_;
    return false;
  }
  if (first) return true;
  if (c != ',') return Error(StrCat("expected ',' or '", close, "'"));
  ++at_;
  return true;
}

Status JsonScanner::String(std::string& out) {
  out.clear();
  FD_RETURN_IF_ERROR(Expect('"'));
  while (true) {
    size_t end = at_;
    while (end < text_.size() && text_[end] != '"' && text_[end] != '\\' &&
           static_cast<uint8_t>(text_[end]) >= 0x20)
      ++end;
    out.append(text_.substr(at_, end - at_));
    at_ = end;
    if (at_ == text_.size()) return Error("the text ends inside a string");
    const char c = text_[at_];
    if (c == '"') {
      ++at_;
      return OkStatus();
    }
    if (c != '\\') return Error("a control character inside a string");
    if (at_ + 1 == text_.size()) return Error("the text ends inside a string");
    const char escape = text_[at_ + 1];
    constexpr std::string_view kFrom = "\"\\/bfnrt";
    constexpr std::string_view kTo = "\"\\/\b\f\n\r\t";
    if (const size_t simple = kFrom.find(escape); simple != kFrom.npos) {
      out.push_back(kTo[simple]);
      at_ += 2;
      continue;
    }
    if (escape != 'u') return Error("an unknown escape");
    int32_t unit = Hex4(text_, at_ + 2);
    if (unit < 0) return Error("\\u needs four hex digits");
    char32_t code_point = static_cast<char32_t>(unit);
    size_t length = 6;
    if (unit >= 0xD800 && unit < 0xDC00 && text_.substr(at_ + 6, 2) == "\\u") {
      const int32_t low = Hex4(text_, at_ + 8);
      if (low >= 0xDC00 && low < 0xE000) {
        code_point =
            0x10000 + ((static_cast<char32_t>(unit) - 0xD800) << 10) + (static_cast<char32_t>(low) - 0xDC00);
        length = 12;
      }
    }
    if (code_point >= 0xD800 && code_point < 0xE000) return Error("a lone surrogate");
    AppendUtf8(out, code_point);
    at_ += length;
  }
}

StatusOr<int64_t> JsonScanner::Int() {
  Peek();
  int64_t value = 0;
  auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
  if (error != std::errc()) return Error("expected an integer");
  at_ = static_cast<size_t>(end - text_.data());
  return value;
}

Status JsonScanner::SkipString() {
  const size_t begin = at_ + 1;
  for (size_t quote = text_.find('"', begin); quote != text_.npos; quote = text_.find('"', quote + 1)) {
    size_t backslashes = 0;
    while (quote - backslashes > begin && text_[quote - backslashes - 1] == '\\') ++backslashes;
    if (backslashes % 2 != 0) continue;
    at_ = quote + 1;
    return OkStatus();
  }
  at_ = text_.size();
  return Error("the text ends inside a string");
}

StatusOr<std::string_view> JsonScanner::Raw() {
  Peek();
  const size_t begin = at_;
  size_t depth = 0;
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c == '"') {
      FD_RETURN_IF_ERROR(SkipString());
    } else if (c == '{' || c == '[') {
      ++depth;
      ++at_;
      continue;
    } else if (c == '}' || c == ']') {
      if (depth == 0) break;
      --depth;
      ++at_;
    } else if (depth == 0) {
      if (c == ',' || IsJsonSpace(c)) break;
      ++at_;
      continue;
    } else {
      ++at_;
      continue;
    }
    if (depth == 0) break;
  }
  if (depth > 0) return Error("the text ends inside a value");
  if (at_ == begin) return Error("expected a value");
  return text_.substr(begin, at_ - begin);
}

}  // namespace fd
