// str methods that keep the marks of user text.
#include "base/strings.h"

#include <algorithm>

#include "base/utf8.h"
#include "server/chat/jinja/interpreter.h"
#include "server/chat/jinja/unicode.h"

namespace fd::jinja {
namespace {

TextPtr Empty() { return MakeText("", false); }

// Runs convert(out, code_point, index) for each character; what it appends takes the character's mark.
template <typename F>
TextPtr MapChars(Interpreter& it, const Text& t, F convert) {
  if (!it.ChargeBytes(t.bytes.size())) return Empty();
  TextBuilder out;
  std::string_view s = t.bytes;
  size_t at = 0, range = 0;
  int64_t index = 0;
  std::string piece;
  bool piece_user = false;
  while (at < s.size()) {
    while (range < t.user.size() && t.user[range].end <= at) ++range;
    bool user = range < t.user.size() && t.user[range].begin <= at;
    if (user != piece_user) {
      out.Append(piece, piece_user);
      piece.clear();
      piece_user = user;
    }
    Utf8Char c = DecodeUtf8(s.substr(at));
    convert(piece, c.code_point, index++);
    at += static_cast<size_t>(c.length_bytes);
  }
  out.Append(piece, piece_user);
  return out.Take();
}

}  // namespace

TextPtr Upper(Interpreter& it, const Text& t) {
  return MapChars(it, t, [](std::string& out, char32_t c, int64_t) { AppendUpper(out, c); });
}
TextPtr Lower(Interpreter& it, const Text& t) {
  return MapChars(it, t, [](std::string& out, char32_t c, int64_t) { AppendLower(out, c); });
}
TextPtr CaseFold(Interpreter& it, const Text& t) {
  return MapChars(it, t, [](std::string& out, char32_t c, int64_t) { AppendFold(out, c); });
}
TextPtr Capitalize(Interpreter& it, const Text& t) {
  return MapChars(it, t, [](std::string& out, char32_t c, int64_t i) {
    i == 0 ? AppendTitle(out, c) : AppendLower(out, c);
  });
}

TextPtr Strip(Interpreter& it, const Text& t, const Text* chars, bool left, bool right) {
  if (!it.ChargeBytes(t.bytes.size())) return Empty();
  std::u32string set;
  if (chars != nullptr) {
    std::string_view s = chars->bytes;
    if (!it.ChargeBytes(s.size()) || !it.Charge(static_cast<int64_t>(s.size()))) return Empty();
    while (!s.empty()) {
      Utf8Char c = DecodeUtf8(s);
      set += c.code_point;
      s.remove_prefix(static_cast<size_t>(c.length_bytes));
    }
    std::sort(set.begin(), set.end());
  }
  auto drop = [&](char32_t c) {
    return chars == nullptr ? IsSpace(c) : std::binary_search(set.begin(), set.end(), c);
  };
  std::string_view s = t.bytes;
  size_t begin = 0, end = s.size();
  while (left && begin < end) {
    Utf8Char c = DecodeUtf8(s.substr(begin));
    if (!drop(c.code_point)) break;
    begin += static_cast<size_t>(c.length_bytes);
  }
  while (right && end > begin) {
    size_t start = end - 1;
    while (start > begin && (static_cast<unsigned char>(s[start]) & 0xC0) == 0x80) --start;
    if (!drop(DecodeUtf8(s.substr(start)).code_point)) break;
    end = start;
  }
  return SubText(t, begin, end);
}

TextPtr Replace(Interpreter& it, const Text& t, const Text& from, const Text& to, int64_t count) {
  if (!it.ChargeBytes(t.bytes.size())) return Empty();
  TextBuilder out;
  size_t at = 0;
  auto put = [&] {
    out.Append(to);
    return out.size() <= static_cast<size_t>(it.limits().max_output_bytes) &&
           it.Charge(static_cast<int64_t>(to.bytes.size() / 256));
  };
  if (from.bytes.empty()) {
    for (size_t next = 0; count != 0; --count) {
      if (!put()) break;
      if (at >= t.bytes.size()) break;
      next = at + static_cast<size_t>(DecodeUtf8(std::string_view(t.bytes).substr(at)).length_bytes);
      out.Append(t, at, next);
      at = next;
    }
  }
  for (; !from.bytes.empty() && count != 0; --count) {
    size_t hit = FindBytes(t.bytes, from.bytes, at);
    if (hit == std::string_view::npos) break;
    out.Append(t, at, hit);
    if (!put()) break;
    at = hit + from.bytes.size();
  }
  out.Append(t, at, t.bytes.size());
  if (!it.ChargeBytes(out.size())) return Empty();
  return out.Take();
}

TextPtr Pad(Interpreter& it, const Text& t, int64_t left, int64_t right, const Text* fill) {
  if (fill != nullptr && fill->chars != 1) {
    it.Fail("The fill character must be exactly one character long");
    return Empty();
  }
  left = std::max<int64_t>(left, 0);
  right = std::max<int64_t>(right, 0);
  Text space{" ", {}, 1};
  const Text& f = fill != nullptr ? *fill : space;
  int64_t width = std::min(left, INT64_MAX / 16) + std::min(right, INT64_MAX / 16);
  if (!it.ChargeBytes(t.bytes.size() + static_cast<size_t>(width) * f.bytes.size())) return Empty();
  TextBuilder out;
  for (int64_t i = 0; i < left; ++i) out.Append(f);
  out.Append(t);
  for (int64_t i = 0; i < right; ++i) out.Append(f);
  return out.Take();
}

TextPtr Center(Interpreter& it, const Text& t, int64_t width, const Text* fill) {
  int64_t margin = width <= t.chars ? 0 : width - t.chars;
  int64_t left = margin / 2 + (margin & width & 1);
  return Pad(it, t, left, margin - left, fill);
}

TextPtr JoinTexts(Interpreter& it, const Text& separator, const Values& items) {
  TextBuilder out;
  bool first = true;
  for (const Value& item : items) {
    if (!it.Charge(1 + static_cast<int64_t>(separator.bytes.size() / 256))) return Empty();
    if (!first) out.Append(separator);
    first = false;
    it.AppendStr(out, item);
    if (it.failed()) return Empty();
  }
  return out.Take();
}

Values SplitLines(Interpreter& it, const Text& t, bool keep_ends) {
  Values lines;
  if (!it.ChargeBytes(t.bytes.size())) return lines;
  std::string_view s = t.bytes;
  size_t start = 0, at = 0;
  while (at < s.size()) {
    Utf8Char c = DecodeUtf8(s.substr(at));
    size_t next = at + static_cast<size_t>(c.length_bytes);
    char32_t p = c.code_point;
    if (p == '\n' || p == '\r' || p == 0x0B || p == 0x0C || (p >= 0x1C && p <= 0x1E) || p == 0x85 ||
        p == 0x2028 || p == 0x2029) {
      if (p == '\r' && next < s.size() && s[next] == '\n') ++next;
      if (!it.Charge(1)) return lines;
      lines.push_back(Value::String(SubText(t, start, keep_ends ? next : at)));
      start = next;
    }
    at = next;
  }
  if (start < s.size()) lines.push_back(Value::String(SubText(t, start, s.size())));
  return lines;
}

Values SplitChars(Interpreter& it, const Text& t) {
  Values chars;
  if (!it.Charge(t.chars + 1)) return chars;
  size_t at = 0;
  while (at < t.bytes.size()) {
    auto n = static_cast<size_t>(DecodeUtf8(std::string_view(t.bytes).substr(at)).length_bytes);
    chars.push_back(Value::String(SubText(t, at, at + n)));
    at += n;
  }
  return chars;
}

namespace {
bool AllCased(const Text& t, bool upper) {
  bool cased = false;
  std::string_view s = t.bytes;
  while (!s.empty()) {
    Utf8Char c = DecodeUtf8(s);
    if (IsCased(c.code_point)) {
      if (!(upper ? IsUpper(c.code_point) : IsLower(c.code_point))) return false;
      cased = true;
    }
    s.remove_prefix(static_cast<size_t>(c.length_bytes));
  }
  return cased;
}
}  // namespace
bool TextIsUpper(const Text& t) { return AllCased(t, true); }
bool TextIsLower(const Text& t) { return AllCased(t, false); }

}  // namespace fd::jinja
