// json.dumps with transformers' settings, and Python's reading of numbers.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/strings.h"
#include "base/utf8.h"
#include "server/chat/jinja/interpreter.h"
#include "server/chat/jinja/unicode.h"

namespace fd::jinja {
namespace {

void AppendString(TextBuilder& out, const Text& t, bool ascii, bool user) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string_view s = t.bytes;
  size_t at = 0, range = 0;
  std::string piece = "\"";
  bool piece_user = user;
  auto u16 = [&](uint32_t unit) {
    piece += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) piece += kHex[(unit >> shift) & 15];
  };
  auto turn = [&](bool to) {
    if (to == piece_user) return;
    out.Append(piece, piece_user);
    piece.clear();
    piece_user = to;
  };
  while (at < s.size()) {
    while (range < t.user.size() && t.user[range].end <= at) ++range;
    turn(user || (range < t.user.size() && t.user[range].begin <= at));
    Utf8Char c = DecodeUtf8(s.substr(at));
    auto n = static_cast<size_t>(c.length_bytes);
    uint32_t p = c.code_point;
    static constexpr std::string_view kPlain = "\"\\\n\r\t\b\f", kLetters = "\"\\nrtbf";
    size_t i = p < 0x80 ? kPlain.find(static_cast<char>(p)) : std::string_view::npos;
    if (i != std::string_view::npos) {
      piece += '\\';
      piece += kLetters[i];
    } else if (p < 0x20 || (ascii && p > 0x7E && p < 0x10000)) {
      u16(p);
    } else if (ascii && p >= 0x10000) {
      u16(0xD800 + ((p - 0x10000) >> 10));
      u16(0xDC00 + ((p - 0x10000) & 0x3FF));
    } else {
      piece.append(s, at, n);
    }
    at += n;
  }
  turn(user);
  piece += '"';
  out.Append(piece, piece_user);
}

std::string NumberText(const Value& v) {
  if (v.none()) return "null";
  if (v.Is(Kind::kBool)) return v.i() ? "true" : "false";
  if (v.Is(Kind::kInt)) return StrCat(v.i());
  if (std::isnan(v.d())) return "NaN";
  if (std::isinf(v.d())) return v.d() < 0 ? "-Infinity" : "Infinity";
  return FloatRepr(v.d());
}

}  // namespace

void AppendPythonJson(Interpreter& it, TextBuilder& out, const Value& v, const JsonStyle& style, int level,
                      bool user) {
  Interpreter::Depth depth(&it);
  if (!it.Charge(1)) return;
  if (out.size() > static_cast<size_t>(it.limits().max_output_bytes)) {
    it.ChargeBytes(out.size());
    return;
  }
  user = user || v.user();
  if (v.string()) {
    if (it.ChargeBytes(v.bytes().size())) AppendString(out, v.text(), style.ensure_ascii, user);
    return;
  }
  if (v.none() || v.number()) return out.Append(NumberText(v), user);
  bool dict = v.Is(Kind::kDict);
  if (!dict && !v.sequence()) {
    it.Fail(StrCat("Object of type ", TypeName(v), " is not JSON serializable"));
    return;
  }
  auto line = [&](int at) {
    if (!style.indented) return;
    if (!it.ChargeBytes(style.indent.size() * static_cast<size_t>(at))) return;
    out.Append("\n", user);
    for (int i = 0; i < at; ++i) out.Append(style.indent, user);
  };
  std::vector<std::pair<Value, Value>> members;
  if (dict) {
    if (!it.ChargeItems(v.dict().items.size())) return;
    members = v.dict().items;
    if (style.sort_keys) {
      Values keys;
      for (const auto& m : members) keys.push_back(m.first);
      Values order;
      for (size_t i = 0; i < members.size(); ++i) order.push_back(Value::Int(static_cast<int64_t>(i)));
      it.SortBy(order, keys, false);
      if (it.failed()) return;
      std::vector<std::pair<Value, Value>> sorted;
      for (const Value& i : order) sorted.push_back(members[static_cast<size_t>(i.i())]);
      members = std::move(sorted);
    }
  }
  size_t count = dict ? members.size() : v.items().size();
  if (count == 0) return out.Append(dict ? "{}" : "[]", user);
  out.Append(dict ? "{" : "[", user);
  for (size_t i = 0; i < count && !it.failed(); ++i) {
    if (i > 0) out.Append(style.item_separator, user);
    line(level + 1);
    if (!dict) {
      AppendPythonJson(it, out, v.items()[i], style, level + 1, user);
      continue;
    }
    const auto& [key, value] = members[i];
    if (key.string()) {
      if (!it.ChargeBytes(key.bytes().size())) return;
      AppendString(out, key.text(), style.ensure_ascii, user);
    } else if (key.none() || key.number()) {
      out.Append("\"" + NumberText(key) + "\"", user || key.user());
    } else {
      it.Fail(StrCat("keys must be str, int, float, bool or None, not ", TypeName(key)));
      return;
    }
    out.Append(style.key_separator, user);
    AppendPythonJson(it, out, value, style, level + 1, user);
  }
  line(level);
  out.Append(dict ? "}" : "]", user);
}

namespace {
std::string_view StripSpace(std::string_view s) {
  while (!s.empty()) {
    Utf8Char c = DecodeUtf8(s);
    if (!IsSpace(c.code_point)) break;
    s.remove_prefix(static_cast<size_t>(c.length_bytes));
  }
  while (!s.empty()) {
    size_t start = s.size() - 1;
    while (start > 0 && (static_cast<unsigned char>(s[start]) & 0xC0) == 0x80) --start;
    if (!IsSpace(DecodeUtf8(s.substr(start)).code_point)) break;
    s = s.substr(0, start);
  }
  return s;
}
// Decimal digits of any script become 0 to 9.
std::string AsciiDigits(std::string_view s) {
  std::string out;
  while (!s.empty()) {
    Utf8Char c = DecodeUtf8(s);
    int value = c.code_point < 0x80 ? -1 : DecimalValue(c.code_point);
    value < 0 ? out.append(s.substr(0, static_cast<size_t>(c.length_bytes)))
              : out.append(1, static_cast<char>('0' + value));
    s.remove_prefix(static_cast<size_t>(c.length_bytes));
  }
  return out;
}
// Single underscores between digits go; false when one stands elsewhere.
bool DropUnderscores(std::string_view s, std::string* out) {
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] != '_') {
      *out += s[i];
    } else if (i == 0 || i + 1 == s.size() || !isxdigit(static_cast<unsigned char>(s[i - 1])) ||
               !isxdigit(static_cast<unsigned char>(s[i + 1]))) {
      return false;
    }
  }
  return true;
}
}  // namespace

bool ParsePythonInt(std::string_view given, int base, int64_t* out) {
  std::string plain = AsciiDigits(StripSpace(given));
  std::string_view text = plain;
  bool negative = text.starts_with("-");
  if (negative || text.starts_with("+")) text.remove_prefix(1);
  std::string digits;
  if (text.size() > 2 && text[0] == '0' && !isdigit(static_cast<unsigned char>(text[1]))) {
    char x = static_cast<char>(text[1] | 0x20);
    int prefix = x == 'x' ? 16 : x == 'o' ? 8 : x == 'b' ? 2 : 0;
    if (prefix > 0 && (base == prefix || base == 0)) {
      base = prefix;
      text.remove_prefix(text[2] == '_' ? 3 : 2);
    }
  }
  if (base == 0) base = 10;
  if (base < 2 || base > 36 || text.empty() || !DropUnderscores(text, &digits)) return false;
  uint64_t value = 0;
  auto r = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (r.ec != std::errc() || r.ptr != digits.data() + digits.size()) return false;
  if (value > static_cast<uint64_t>(INT64_MAX) + (negative ? 1 : 0)) return false;
  *out = negative ? static_cast<int64_t>(~value + 1) : static_cast<int64_t>(value);
  return true;
}

bool ParsePythonFloat(std::string_view given, double* out) {
  std::string plain = AsciiDigits(StripSpace(given));
  std::string_view text = plain;
  bool negative = text.starts_with("-");
  if (negative || text.starts_with("+")) text.remove_prefix(1);
  std::string digits, lower;
  if (text.empty() || text[0] == '-' || !DropUnderscores(text, &digits)) return false;
  for (char c : digits) lower += static_cast<char>(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
  if (lower == "inf" || lower == "infinity") {
    *out = INFINITY;
  } else if (lower == "nan") {
    *out = NAN;
  } else {
    if (!isdigit(static_cast<unsigned char>(lower[0])) && lower[0] != '.') return false;
    auto r = std::from_chars(lower.data(), lower.data() + lower.size(), *out);
    if (r.ptr != lower.data() + lower.size() || r.ec == std::errc::invalid_argument) return false;
    if (r.ec == std::errc::result_out_of_range) *out = lower.find("e-") != std::string::npos ? 0 : INFINITY;
  }
  if (negative) *out = -*out;
  return true;
}

}  // namespace fd::jinja
