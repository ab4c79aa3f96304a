#include "base/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "base/files.h"
#include "base/utf8.h"

namespace fd {

namespace {
constexpr size_t kIndexAbove = 16;  // members; below it a linear search is faster
constexpr size_t kNotFound = static_cast<size_t>(-1);
}  // namespace

JsonObject::JsonObject(std::initializer_list<JsonMember> members) {
  for (const JsonMember& m : members) Set(m.first, m.second);
}

size_t JsonObject::size() const { return members_.size(); }

size_t JsonObject::Locate(std::string_view key) const {
  if (sorted_.empty()) {
    for (size_t i = 0; i < members_.size(); ++i) {
      if (members_[i].first == key) return i;
    }
    return kNotFound;
  }
  auto it = std::lower_bound(sorted_.begin(), sorted_.end(), key,
                             [&](uint32_t i, std::string_view k) { return members_[i].first < k; });
  return it != sorted_.end() && members_[*it].first == key ? *it : kNotFound;
}

const Json* JsonObject::Find(std::string_view key) const {
  size_t i = Locate(key);
  return i == kNotFound ? nullptr : &members_[i].second;
}
Json* JsonObject::Find(std::string_view key) {
  size_t i = Locate(key);
  return i == kNotFound ? nullptr : &members_[i].second;
}

Json& JsonObject::Set(std::string key, Json value) {
  if (size_t i = Locate(key); i != kNotFound) return members_[i].second = std::move(value);
  members_.emplace_back(std::move(key), std::move(value));
  auto by_key = [&](uint32_t a, uint32_t b) { return members_[a].first < members_[b].first; };
  uint32_t added = static_cast<uint32_t>(members_.size() - 1);
  if (!sorted_.empty()) {
    sorted_.insert(std::lower_bound(sorted_.begin(), sorted_.end(), added, by_key), added);
  } else if (members_.size() > kIndexAbove) {
    for (uint32_t i = 0; i <= added; ++i) sorted_.push_back(i);
    std::sort(sorted_.begin(), sorted_.end(), by_key);
  }
  return members_.back().second;
}

bool JsonObject::Erase(std::string_view key) {
  size_t i = Locate(key);
  if (i == kNotFound) return false;
  members_.erase(members_.begin() + static_cast<std::ptrdiff_t>(i));
  std::erase(sorted_, static_cast<uint32_t>(i));
  for (uint32_t& s : sorted_) s -= s > i;
  return true;
}

Json::Json(uint64_t u) {
  if (u <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    value_ = static_cast<int64_t>(u);
  } else {
    value_ = static_cast<double>(u);
  }
}

const char* Json::TypeName() const {
  static constexpr const char* kNames[] = {"null",     "a boolean", "an integer", "a number",
                                           "a string", "an array",  "an object"};
  return kNames[value_.index()];
}

bool Json::as_bool() const {
  FD_CHECK(is_bool(), TypeName());
  return std::get<bool>(value_);
}
int64_t Json::as_int() const {
  FD_CHECK(is_int(), TypeName());
  return std::get<int64_t>(value_);
}
double Json::as_double() const {
  FD_CHECK(is_number(), TypeName());
  return is_int() ? static_cast<double>(std::get<int64_t>(value_)) : std::get<double>(value_);
}
const std::string& Json::as_string() const {
  FD_CHECK(is_string(), TypeName());
  return std::get<std::string>(value_);
}
const JsonArray& Json::as_array() const {
  FD_CHECK(is_array(), TypeName());
  return std::get<JsonArray>(value_);
}
JsonArray& Json::as_array() {
  FD_CHECK(is_array(), TypeName());
  return std::get<JsonArray>(value_);
}
const JsonObject& Json::as_object() const {
  FD_CHECK(is_object(), TypeName());
  return std::get<JsonObject>(value_);
}
JsonObject& Json::as_object() {
  FD_CHECK(is_object(), TypeName());
  return std::get<JsonObject>(value_);
}

const Json* Json::Find(std::string_view key) const { return is_object() ? as_object().Find(key) : nullptr; }

bool Json::operator==(const Json& other) const {
  if (is_number() && other.is_number() && is_int() != other.is_int()) return as_double() == other.as_double();
  if (value_.index() != other.value_.index()) return false;
  if (is_object()) {  // order does not matter
    const JsonObject& a = as_object();
    const JsonObject& b = other.as_object();
    if (a.size() != b.size()) return false;
    return std::all_of(a.begin(), a.end(), [&](const JsonMember& m) {
      const Json* v = b.Find(m.first);
      return v != nullptr && *v == m.second;
    });
  }
  if (is_array()) return as_array() == other.as_array();
  if (is_string()) return as_string() == other.as_string();
  if (is_double()) return as_double() == other.as_double();
  if (is_int()) return as_int() == other.as_int();
  if (is_bool()) return as_bool() == other.as_bool();
  return true;
}

namespace {

class Parser {
 public:
  Parser(std::string_view text, const JsonLimits& limits) : text_(text), limits_(limits) {}

  StatusOr<Json> Parse() {
    Json value;
    if (!Value(value, 0)) return Error();
    SkipSpace();
    if (pos_ != text_.size()) {
      Fail("the end of the text");
      return Error();
    }
    return value;
  }

 private:
  Status Error() const {
    if (!problem_.empty()) return InvalidArgument(StrCat("JSON: ", problem_, " at byte ", pos_));
    std::string found = pos_ >= text_.size() ? std::string("the text ends") : FoundHere();
    return InvalidArgument(StrCat("JSON: expected ", expected_, " at byte ", pos_, ", but ", found));
  }
  std::string FoundHere() const {
    unsigned char c = static_cast<unsigned char>(text_[pos_]);
    if (c >= 0x20 && c < 0x7f) return StrCat("found '", static_cast<char>(c), "'");
    static constexpr char kHex[] = "0123456789abcdef";
    return StrCat("found byte 0x", kHex[c >> 4], kHex[c & 15]);
  }
  bool Fail(const char* expected) {
    expected_ = expected;
    return false;
  }
  bool Problem(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }

  void SkipSpace() {
    while (pos_ < text_.size()) {
      char c = text_[pos_];
      if (c != ' ' && c != '\n' && c != '\t' && c != '\r') return;
      ++pos_;
    }
  }
  bool Take(char c) {
    SkipSpace();
    if (pos_ >= text_.size() || text_[pos_] != c) return false;
    ++pos_;
    return true;
  }
  bool Word(std::string_view word) {
    if (text_.substr(pos_, word.size()) != word) return Fail("a value");
    pos_ += word.size();
    return true;
  }

  bool Value(Json& out, int depth) {
    if (++values_ > limits_.max_values) return Problem(StrCat("more than ", limits_.max_values, " values"));
    SkipSpace();
    if (pos_ >= text_.size()) return Fail("a value");
    switch (text_[pos_]) {
      case '{':
        return Object(out, depth + 1);
      case '[':
        return Array(out, depth + 1);
      case '"': {
        std::string s;
        if (!String(s)) return false;
        out = Json(std::move(s));
        return true;
      }
      case 't':
        out = Json(true);
        return Word("true");
      case 'f':
        out = Json(false);
        return Word("false");
      case 'n':
        out = Json();
        return Word("null");
      default:
        return Number(out);
    }
  }

  bool TooDeep(int depth) {
    return depth > limits_.max_depth && !Problem(StrCat("nested deeper than ", limits_.max_depth, " levels"));
  }

  bool Array(Json& out, int depth) {
    if (TooDeep(depth)) return false;
    ++pos_;
    JsonArray items;
    if (!Take(']')) {
      do {
        SkipSpace();
        if (int64_t integer; ShortInteger(integer)) {
          items.emplace_back(integer);
        } else if (!Value(items.emplace_back(), depth)) {
          return false;
        }
      } while (Take(','));
      if (!Take(']')) return Fail("',' or ']'");
    }
    out = Json(std::move(items));
    return true;
  }

  bool Object(Json& out, int depth) {
    if (TooDeep(depth)) return false;
    ++pos_;
    JsonObject object;
    if (!Take('}')) {
      do {
        SkipSpace();
        if (pos_ >= text_.size() || text_[pos_] != '"') return Fail("a key in quotes");
        std::string key;
        if (!String(key)) return false;
        if (object.Find(key) != nullptr)
          return Problem(StrCat("the key \"", key.substr(0, 64), "\" stands twice"));
        if (!Take(':')) return Fail("':'");
        Json value;
        if (!Value(value, depth)) return false;
        object.Set(std::move(key), std::move(value));
      } while (Take(','));
      if (!Take('}')) return Fail("',' or '}'");
    }
    out = Json(std::move(object));
    return true;
  }

  bool Hex4(uint32_t& out) {
    out = 0;
    if (text_.size() - pos_ < 4) return Fail("four hexadecimal digits");
    for (int i = 0; i < 4; ++i) {
      char c = text_[pos_];
      uint32_t digit = c >= '0' && c <= '9'   ? c - '0'
                       : c >= 'a' && c <= 'f' ? c - 'a' + 10
                       : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                              : 16;
      if (digit == 16) return Fail("a hexadecimal digit");
      out = out * 16 + digit;
      ++pos_;
    }
    return true;
  }

  bool Escape(std::string& out) {
    ++pos_;  // the backslash
    if (pos_ >= text_.size()) return Fail("an escape");
    char c = text_[pos_++];
    switch (c) {
      case '"':
      case '\\':
      case '/':
        out.push_back(c);
        return true;
      case 'b':
        out.push_back('\b');
        return true;
      case 'f':
        out.push_back('\f');
        return true;
      case 'n':
        out.push_back('\n');
        return true;
      case 'r':
        out.push_back('\r');
        return true;
      case 't':
        out.push_back('\t');
        return true;
      case 'u':
        break;
      default:
        --pos_;
        return Fail("an escape letter (one of \"\\/bfnrtu)");
    }
    uint32_t unit;
    if (!Hex4(unit)) return false;
    if (unit >= 0xDC00 && unit < 0xE000) return Problem("a low surrogate without a high one");
    if (unit >= 0xD800 && unit < 0xDC00) {
      uint32_t low;
      if (text_.substr(pos_, 2) != "\\u") return Problem("a high surrogate without a low one");
      pos_ += 2;
      if (!Hex4(low)) return false;
      if (low < 0xDC00 || low >= 0xE000) return Problem("a high surrogate without a low one");
      unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
    }
    AppendUtf8(out, unit);
    return true;
  }

  bool String(std::string& out) {
    ++pos_;  // the quote
    while (true) {
      size_t begin = pos_;
      // Plain ASCII runs, the bulk of base64 pictures, are copied whole.
      while (pos_ < text_.size()) {
        unsigned char c = static_cast<unsigned char>(text_[pos_]);
        if (c < 0x20 || c == '"' || c == '\\' || c >= 0x80) break;
        ++pos_;
      }
      out.append(text_, begin, pos_ - begin);
      if (pos_ >= text_.size()) return Fail("a closing quote");
      unsigned char c = static_cast<unsigned char>(text_[pos_]);
      if (c == '"') {
        ++pos_;
        return true;
      }
      if (c == '\\') {
        if (!Escape(out)) return false;
      } else if (c >= 0x80) {
        Utf8Char u = DecodeUtf8(text_.substr(pos_));
        if (!u.well_formed) return Problem("ill-formed UTF-8");
        out.append(text_, pos_, u.length_bytes);
        pos_ += u.length_bytes;
      } else {
        return Problem("a control character in a string (write it as an escape)");
      }
    }
  }

  bool Digits() {
    size_t begin = pos_;
    while (pos_ < text_.size() && text_[pos_] >= '0' && text_[pos_] <= '9') ++pos_;
    return pos_ > begin || Fail("a digit");
  }

  // Takes the integer of at most 18 digits and no sign that stands here, if nothing else does; Value has the
  // rest and the errors. Token ids of a prompt come by the thousand.
  bool ShortInteger(int64_t& out) {
    size_t end = pos_;
    out = 0;
    while (end < text_.size() && text_[end] >= '0' && text_[end] <= '9' && end - pos_ < 18)
      out = out * 10 + (text_[end++] - '0');
    if (end == pos_ || end == text_.size() || (text_[pos_] == '0' && end - pos_ > 1)) return false;
    const char next = text_[end];
    if (next != ',' && next != ']' && next != ' ') return false;
    if (values_ >= limits_.max_values) return false;
    ++values_;
    pos_ = end;
    return true;
  }

  bool Number(Json& out) {
    size_t begin = pos_;
    bool negative = text_[pos_] == '-';
    if (negative) ++pos_;
    if (pos_ >= text_.size() || text_[pos_] < '0' || text_[pos_] > '9')
      return Fail(negative ? "a digit" : "a value");
    if (text_[pos_] == '0') {
      ++pos_;
    } else if (!Digits()) {
      return false;
    }
    bool integer = true;
    if (pos_ < text_.size() && text_[pos_] == '.') {
      integer = false;
      ++pos_;
      if (!Digits()) return false;
    }
    if (pos_ < text_.size() && (text_[pos_] == 'e' || text_[pos_] == 'E')) {
      integer = false;
      ++pos_;
      if (pos_ < text_.size() && (text_[pos_] == '+' || text_[pos_] == '-')) ++pos_;
      if (!Digits()) return false;
    }
    const char* first = text_.data() + begin;
    const char* last = text_.data() + pos_;
    if (integer) {
      int64_t i;
      if (std::from_chars(first, last, i).ec == std::errc()) {
        out = Json(i);
        return true;
      }
    }
    double d = 0;
    std::from_chars_result r = std::from_chars(first, last, d);
    if (r.ec == std::errc::result_out_of_range) {
      // Underflow is a zero; overflow is an error. GCC's from_chars reports both alike and leaves d alone.
      d = std::strtod(std::string(first, last).c_str(), nullptr);
      if (std::isinf(d)) {
        pos_ = begin;
        return Problem("a number beyond the range of a double");
      }
    }
    out = Json(d);
    return true;
  }

  std::string_view text_;
  JsonLimits limits_;
  size_t pos_ = 0;
  int64_t values_ = 0;
  const char* expected_ = "a value";
  std::string problem_;
};

void AppendDouble(std::string& out, double d) {
  if (!std::isfinite(d)) {  // JSON has no word for it
    out.append("null");
    return;
  }
  char buffer[40];
  auto r = std::to_chars(buffer, buffer + sizeof(buffer), d);
  std::string_view text(buffer, static_cast<size_t>(r.ptr - buffer));
  out.append(text);
  if (text.find_first_of(".e") == std::string_view::npos) out.append(".0");  // stays a double when read again
}

}  // namespace

StatusOr<Json> ParseJson(std::string_view text, const JsonLimits& limits) {
  return Parser(text, limits).Parse();
}

void AppendJsonString(std::string& out, std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  out.push_back('"');
  for (size_t i = 0; i < text.size();) {
    unsigned char c = static_cast<unsigned char>(text[i]);
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(static_cast<char>(c));
      ++i;
    } else if (c < 0x20 || c == 0x7f) {
      switch (c) {
        case '\n':
          out.append("\\n");
          break;
        case '\t':
          out.append("\\t");
          break;
        case '\r':
          out.append("\\r");
          break;
        default:
          out.append("\\u00");
          out.push_back(kHex[c >> 4]);
          out.push_back(kHex[c & 15]);
      }
      ++i;
    } else if (c < 0x80) {
      out.push_back(static_cast<char>(c));
      ++i;
    } else {
      Utf8Char u = DecodeUtf8(text.substr(i));
      AppendUtf8(out, u.code_point);
      i += static_cast<size_t>(u.length_bytes);
    }
  }
  out.push_back('"');
}

void AppendJson(std::string& out, const Json& value) {
  if (value.is_null()) {
    out.append("null");
  } else if (value.is_bool()) {
    out.append(value.as_bool() ? "true" : "false");
  } else if (value.is_int()) {
    out.append(StrCat(value.as_int()));
  } else if (value.is_double()) {
    AppendDouble(out, value.as_double());
  } else if (value.is_string()) {
    AppendJsonString(out, value.as_string());
  } else if (value.is_array()) {
    char separator = '[';
    for (const Json& item : value.as_array()) {
      out.push_back(separator);
      AppendJson(out, item);
      separator = ',';
    }
    out.append(separator == '[' ? "[]" : "]");
  } else {
    char separator = '{';
    for (const JsonMember& member : value.as_object()) {
      out.push_back(separator);
      AppendJsonString(out, member.first);
      out.push_back(':');
      AppendJson(out, member.second);
      separator = ',';
    }
    out.append(separator == '{' ? "{}" : "}");
  }
}

std::string WriteJson(const Json& value) {
  std::string out;
  AppendJson(out, value);
  return out;
}

StatusOr<Json> ReadJsonFile(const std::string& path, const JsonLimits& limits) {
  FD_ASSIGN_OR_RETURN(std::string text, ReadFile(path));
  StatusOr<Json> json = ParseJson(text, limits);
  if (!json.ok()) return json.status().WithContext(path);
  return json;
}

}  // namespace fd
