#include "server/chat/jinja/lexer.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "base/strings.h"
#include "base/utf8.h"
#include "server/chat/jinja/unicode.h"

namespace fd::jinja {
namespace {

size_t SpaceLength(std::string_view s) {
  size_t n = 0;
  while (n < s.size()) {
    Utf8Char c = DecodeUtf8(s.substr(n));
    if (!IsSpace(c.code_point)) break;
    n += static_cast<size_t>(c.length_bytes);
  }
  return n;
}

size_t TrailingSpaceStart(std::string_view s) {
  size_t end = s.size();
  while (end > 0) {
    size_t start = end - 1;
    while (start > 0 && (static_cast<unsigned char>(s[start]) & 0xC0) == 0x80) --start;
    if (!IsSpace(DecodeUtf8(s.substr(start)).code_point)) break;
    end = start;
  }
  return end;
}

std::string NormaliseNewlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

bool Word(char32_t c) {
  return c == '_' || c >= 0x80 ? c == '_' || IsAlpha(c) || IsNumeric(c) : isalnum(static_cast<int>(c)) != 0;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : owned_(std::move(source)), s_(owned_) {}

  StatusOr<std::vector<Lexeme>> Run() {
    while (error_.ok() && pos_ < s_.size()) Root();
    if (!error_.ok()) return error_;
    out_.push_back({Token::kEnd, line_, "end of template"});
    return std::move(out_);
  }

 private:
  void Fail(std::string message) {
    if (error_.ok()) error_ = InvalidArgument(StrCat("line ", line_, ": ", message));
  }
  bool At(std::string_view what) const { return s_.substr(pos_, what.size()) == what; }
  void Advance(size_t n) {
    line_ += static_cast<int>(
        std::count(s_.begin() + static_cast<long>(pos_), s_.begin() + static_cast<long>(pos_ + n), '\n'));
    pos_ += n;
  }
  void SkipSpace() { Advance(SpaceLength(s_.substr(pos_))); }
  void Push(Token token, std::string text) { out_.push_back({token, line_, std::move(text)}); }

  // Does "{%- raw -%}" (or "endraw") stand at `at`? Its length, 0 when not; the sign after "{%", and where
  // its closing "%}" (with sign) begins.
  size_t MatchRaw(size_t at, std::string_view word, char* sign, size_t* close) const {
    size_t p = at + 2;
    *sign = p < s_.size() && (s_[p] == '-' || s_[p] == '+') ? s_[p] : ' ';
    if (*sign != ' ') ++p;
    p += SpaceLength(s_.substr(std::min(p, s_.size())));
    if (p > s_.size() || s_.substr(p, word.size()) != word) return 0;
    p += word.size();
    p += SpaceLength(s_.substr(p));
    *close = p;
    if (s_.substr(p, 3) == "-%}") return p + 3 + SpaceLength(s_.substr(p + 3)) - at;
    if (word == "endraw" && s_.substr(p, 3) == "+%}") return p + 3 - at;
    if (s_.substr(p, 2) != "%}") return 0;
    return p + 2 + (word == "endraw" && s_.substr(p + 2, 1) == "\n" ? 1 : 0) - at;
  }

  // Text before a tag that begins at `end`, cut by the tag's sign.
  void EmitData(size_t end, char sign, bool lstrip) {
    std::string_view text = s_.substr(pos_, end - pos_);
    size_t keep = text.size();
    if (sign == '-') {
      keep = TrailingSpaceStart(text);
    } else if (sign != '+' && lstrip) {
      size_t line_start = text.rfind('\n') == std::string_view::npos ? 0 : text.rfind('\n') + 1;
      if ((line_start > 0 || line_starting_) &&
          SpaceLength(text.substr(line_start)) == text.size() - line_start) {
        keep = line_start;
      }
    }
    if (keep > 0) Push(Token::kData, std::string(text.substr(0, keep)));
    Advance(text.size());
  }
  void NoteLineStart() { line_starting_ = pos_ > 0 && s_[pos_ - 1] == '\n'; }

  // After "%}" or "#}": trim_blocks eats one newline.
  void CloseTag(std::string_view mark) {
    if (At("-")) {
      Advance(1 + mark.size());
      SkipSpace();
    } else if (At("+")) {
      Advance(1 + mark.size());
    } else {
      Advance(mark.size());
      if (At("\n")) Advance(1);
    }
    NoteLineStart();
  }

  void Root() {
    size_t at = pos_;
    for (;;) {
      at = s_.find('{', at);
      if (at == std::string_view::npos) {
        Push(Token::kData, std::string(s_.substr(pos_)));
        Advance(s_.size() - pos_);
        return;
      }
      char next = at + 1 < s_.size() ? s_[at + 1] : ' ';
      if (next == '{' || next == '%' || next == '#') break;
      ++at;
    }
    char kind = s_[at + 1];
    char sign = at + 2 < s_.size() && (s_[at + 2] == '-' || s_[at + 2] == '+') ? s_[at + 2] : ' ';
    size_t close = 0;
    size_t raw = kind == '%' ? MatchRaw(at, "raw", &sign, &close) : 0;
    EmitData(at, sign, kind != '{');
    if (raw > 0) {
      Advance(raw);
      NoteLineStart();
      return Raw();
    }
    Advance(sign == ' ' ? 2 : 3);
    line_starting_ = false;
    if (kind == '#') {
      size_t end = s_.find("#}", pos_);
      if (end == std::string_view::npos) return Fail("Missing end of comment tag");
      if (end > pos_ && (s_[end - 1] == '-' || s_[end - 1] == '+')) --end;
      Advance(end - pos_);
      return CloseTag("#}");
    }
    Push(kind == '{' ? Token::kVariableBegin : Token::kBlockBegin, std::string(1, kind));
    Inside(kind == '{');
  }

  void Raw() {
    char sign = ' ';
    size_t close = 0, length = 0, at = pos_;
    for (;; ++at) {
      at = s_.find("{%", at);
      if (at == std::string_view::npos) return Fail("Missing end of raw directive");
      length = MatchRaw(at, "endraw", &sign, &close);
      if (length > 0) break;
    }
    EmitData(at, sign, true);
    Advance(length);
    NoteLineStart();
  }

  void Inside(bool variable) {
    std::vector<char> open;
    while (error_.ok()) {
      if (open.empty()) {
        if (variable && (At("}}") || At("-}}"))) {
          bool trim = At("-");
          Advance(trim ? 3 : 2);
          Push(Token::kVariableEnd, "}}");
          if (trim) SkipSpace();
          return NoteLineStart();
        }
        if (!variable && (At("%}") || At("-%}") || At("+%}"))) {
          Push(Token::kBlockEnd, "%}");
          return CloseTag("%}");
        }
      }
      if (pos_ >= s_.size())
        return Fail(variable ? "unexpected end of template in {{" : "unexpected end of template in {%");
      size_t space = SpaceLength(s_.substr(pos_));
      if (space > 0) {
        Advance(space);
        continue;
      }
      char c = s_[pos_];
      if (c == '"' || c == '\'') {
        QuotedString(c);
      } else if (isdigit(static_cast<unsigned char>(c))) {
        Number();
      } else if (Word(DecodeUtf8(s_.substr(pos_)).code_point)) {
        size_t end = pos_;
        while (end < s_.size()) {
          Utf8Char w = DecodeUtf8(s_.substr(end));
          if (!w.well_formed || !Word(w.code_point)) break;
          end += static_cast<size_t>(w.length_bytes);
        }
        if (end == pos_) return Fail("ill-formed UTF-8");
        Push(Token::kName, std::string(s_.substr(pos_, end - pos_)));
        pos_ = end;
      } else {
        Operator(open);
      }
    }
  }

  void Operator(std::vector<char>& open) {
    static constexpr std::string_view kTwo[] = {"==", "!=", ">=", "<=", "//", "**"};
    for (std::string_view op : kTwo) {
      if (!At(op)) continue;
      Push(Token::kOperator, std::string(op));
      pos_ += 2;
      return;
    }
    char c = s_[pos_];
    if (std::string_view("+-/*%~[](){}><=.:|,;").find(c) == std::string_view::npos) {
      return Fail(StrCat("unexpected char '", std::string(1, c), "'"));
    }
    if (c == '(') open.push_back(')');
    if (c == '[') open.push_back(']');
    if (c == '{') open.push_back('}');
    if (c == ')' || c == ']' || c == '}') {
      if (open.empty()) return Fail(StrCat("unexpected '", std::string(1, c), "'"));
      if (open.back() != c)
        return Fail(
            StrCat("unexpected '", std::string(1, c), "', expected '", std::string(1, open.back()), "'"));
      open.pop_back();
    }
    Push(Token::kOperator, std::string(1, c));
    ++pos_;
  }

  void Number() {
    size_t p = pos_;
    auto digits = [&](size_t at) {  // end of \d(_?\d)*
      while (at < s_.size() &&
             (isdigit(static_cast<unsigned char>(s_[at])) ||
              (s_[at] == '_' && at + 1 < s_.size() && isdigit(static_cast<unsigned char>(s_[at + 1]))))) {
        ++at;
      }
      return at;
    };
    auto plain = [&](size_t from, size_t to) {
      std::string text(s_.substr(from, to - from));
      std::erase(text, '_');
      return text;
    };
    int base = 10;
    if (s_[p] == '0' && p + 2 < s_.size()) {
      char x = static_cast<char>(s_[p + 1] | 0x20);
      base = x == 'x' ? 16 : x == 'o' ? 8 : x == 'b' ? 2 : 10;
    }
    std::string text;
    bool real = false;
    if (base != 10) {
      size_t end = p + 2;
      while (end < s_.size() && (isxdigit(static_cast<unsigned char>(s_[end])) || s_[end] == '_')) ++end;
      text = plain(p + 2, end);
      pos_ = end;
    } else {
      size_t end = digits(p);
      bool member = p > 0 && s_[p - 1] == '.';  // a.0.1 has no number 0.1
      if (!member && end + 1 < s_.size() && s_[end] == '.' &&
          isdigit(static_cast<unsigned char>(s_[end + 1]))) {
        end = digits(end + 1);
        real = true;
      }
      if (!member && end < s_.size() && (s_[end] | 0x20) == 'e') {
        size_t e = end + 1;
        if (e < s_.size() && (s_[e] == '+' || s_[e] == '-')) ++e;
        if (e < s_.size() && isdigit(static_cast<unsigned char>(s_[e]))) {
          end = digits(e);
          real = true;
        }
      }
      text = plain(p, end);
      pos_ = end;
    }
    Lexeme lexeme{real ? Token::kFloat : Token::kInteger, line_, text};
    const char* first = text.data();
    const char* last = first + text.size();
    std::from_chars_result r =
        real ? std::from_chars(first, last, lexeme.real) : std::from_chars(first, last, lexeme.integer, base);
    if (real && r.ec == std::errc::result_out_of_range) {
      lexeme.real = std::strtod(text.c_str(), nullptr);  // infinity or 0
      r.ec = std::errc();
    }
    if (r.ec != std::errc() || r.ptr != last)
      return Fail(StrCat("the number ", text, " is not within 64 bits"));
    out_.push_back(std::move(lexeme));
  }

  void QuotedString(char quote) {
    size_t p = pos_ + 1;
    std::string text;
    for (;; ++p) {
      if (p >= s_.size()) return Fail("a string without its closing quote");
      if (s_[p] == quote) break;
      if (s_[p] != '\\') {
        text += s_[p];
        continue;
      }
      if (++p >= s_.size()) return Fail("a string without its closing quote");
      if (!Escape(&p, text)) return;
    }
    int line = line_;
    Advance(p + 1 - pos_);
    out_.push_back({Token::kString, line, std::move(text)});
  }

  // s_[*p] follows the backslash; leaves *p at the last character of the escape.
  bool Escape(size_t* p, std::string& text) {
    static constexpr std::string_view kNames = "\\'\"abfnrtv\n", kValues = "\\'\"\a\b\f\n\r\t\v";
    char c = s_[*p];
    if (c == '\n') return true;
    if (size_t i = kNames.find(c); i != std::string_view::npos) {
      text += kValues[i];
      return true;
    }
    size_t length = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (length > 0) {
      std::string_view hex = s_.substr(*p + 1, length);
      uint32_t code = 0;
      auto r = std::from_chars(hex.data(), hex.data() + hex.size(), code, 16);
      if (hex.size() != length || r.ptr != hex.data() + length || code > 0x10FFFF ||
          (code >= 0xD800 && code < 0xE000)) {
        Fail(StrCat("a bad \\", std::string(1, c), " escape in a string; write \\", std::string(1, c),
                    " and ", length, " hex digits of a character"));
        return false;
      }
      AppendUtf8(text, code);
      *p += length;
      return true;
    }
    if (c >= '0' && c <= '7') {
      uint32_t code = 0;
      size_t end = *p;
      while (end < s_.size() && end < *p + 3 && s_[end] >= '0' && s_[end] <= '7')
        code = code * 8 + static_cast<uint32_t>(s_[end++] - '0');
      AppendUtf8(text, code);
      *p = end - 1;
      return true;
    }
    text += '\\';
    text += c;
    return true;
  }

  std::string owned_;
  std::string_view s_;
  size_t pos_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  Status error_;
  std::vector<Lexeme> out_;
};

}  // namespace

StatusOr<std::vector<Lexeme>> Tokenize(std::string_view source) {
  if (!IsValidUtf8(source)) return InvalidArgument("the template is not UTF-8");
  return Lexer(NormaliseNewlines(source)).Run();
}

}  // namespace fd::jinja
