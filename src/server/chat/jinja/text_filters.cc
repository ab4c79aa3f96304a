// Filters of text.
#include <algorithm>

#include "base/strings.h"
#include "base/utf8.h"
#include "server/chat/jinja/filters.h"
#include "server/chat/jinja/unicode.h"

namespace fd::jinja {
namespace {

template <TextPtr (*convert)(Interpreter&, const Text&)>
Value Convert(Interpreter& it, const Value& v, Args& args) {
  Params p(it, "this filter", args, {});
  return p.ok() ? Value::String(convert(it, *it.Str(v))) : Value();
}
TextPtr Same(Interpreter&, const Text& t) { return SubText(t, 0, t.bytes.size()); }

TextPtr TitleWords(Interpreter& it, const Text& t) {
  if (!it.ChargeBytes(t.bytes.size())) return MakeText("", false);
  TextBuilder out;
  bool start = true;
  for (size_t at = 0; at < t.bytes.size();) {
    Utf8Char c = DecodeUtf8(std::string_view(t.bytes).substr(at));
    std::string piece;
    start ? AppendUpper(piece, c.code_point) : AppendLower(piece, c.code_point);
    out.Append(piece, IsUser(t, at));
    start = IsSpace(c.code_point) ||
            (c.code_point < 0x80 &&
             std::string_view("-({[<").find(static_cast<char>(c.code_point)) != std::string_view::npos);
    at += static_cast<size_t>(c.length_bytes);
  }
  return out.Take();
}

// Each byte through a table of replacements, marks kept.
template <typename F>
TextPtr MapBytes(Interpreter& it, const Text& t, F replace) {
  TextBuilder out;
  size_t run = 0;
  for (size_t at = 0; at < t.bytes.size(); ++at) {
    std::string r;
    if (!replace(static_cast<unsigned char>(t.bytes[at]), &r)) continue;
    out.Append(t, run, at);
    out.Append(r, IsUser(t, at));
    run = at + 1;
  }
  out.Append(t, run, t.bytes.size());
  return it.ChargeBytes(out.size()) ? out.Take() : MakeText("", false);
}
TextPtr Escape(Interpreter& it, const Text& t) {
  return MapBytes(it, t, [](unsigned char c, std::string* out) {
    *out = c == '&'    ? "&amp;"
           : c == '<'  ? "&lt;"
           : c == '>'  ? "&gt;"
           : c == '\'' ? "&#39;"
           : c == '"'  ? "&#34;"
                       : "";
    return !out->empty();
  });
}
TextPtr UrlEncodeText(Interpreter& it, const Text& t) {
  return MapBytes(it, t, [](unsigned char c, std::string* out) {
    static constexpr char kHex[] = "0123456789ABCDEF";
    if (isalnum(c) || std::string_view("_.-~/").find(static_cast<char>(c)) != std::string_view::npos)
      return false;
    *out = {'%', kHex[c >> 4], kHex[c & 15]};
    return true;
  });
}

Value Trim(Interpreter& it, const Value& v, Args& args) {
  Params p(it, "trim", args, {"chars"});
  const Text* chars = p[0] == nullptr || p[0]->none() ? nullptr : p.String(0);
  if (it.failed()) return {};
  TextPtr text = it.Str(v);
  return Value::String(Strip(it, *text, chars, true, true));
}
Value ReplaceFilter(Interpreter& it, const Value& v, Args& args) {
  Params p(it, "replace", args, {"old", "new", "count"}, 2);
  if (!p.ok()) return {};
  int64_t count = p[2] == nullptr || p[2]->none() ? -1 : p.Int(2, -1);
  TextPtr text = it.Str(v), from = it.Str(*p[0]), to = it.Str(*p[1]);
  return it.failed() ? Value() : Value::String(Replace(it, *text, *from, *to, count));
}
Value Indent(Interpreter& it, const Value& v, Args& args) {
  Params p(it, "indent", args, {"width", "first", "blank"});
  if (!p.ok()) return {};
  if (!v.string())
    return it.Fail(v.undefined() ? UndefinedMessage(v) : StrCat("indent needs a string, not ", TypeName(v)));
  TextPtr pad;
  if (p[0] != nullptr && p[0]->string()) {
    pad = p[0]->text_ptr();
  } else {
    int64_t width = std::max<int64_t>(p.Int(0, 4), 0);
    if (it.failed() || !it.ChargeBytes(static_cast<size_t>(width))) return {};
    pad = MakeText(std::string(static_cast<size_t>(width), ' '), false);
  }
  bool first = p.Truth(1, false), blank = p.Truth(2, false);
  TextBuilder with_newline, out;
  with_newline.Append(v.text());
  with_newline.Append("\n", false);
  Values lines = SplitLines(it, *with_newline.Take(), false);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (!it.ChargeBytes(out.size() + pad->bytes.size() > static_cast<size_t>(it.limits().max_output_bytes)
                            ? SIZE_MAX
                            : pad->bytes.size()))
      return {};
    if (i > 0) out.Append("\n", false);
    if (i == 0 ? first : blank || !lines[i].bytes().empty()) out.Append(*pad);
    out.Append(lines[i].text());
  }
  return Value::String(out.Take());
}
Value WordCount(Interpreter& it, const Value& v, Args& args) {
  TextPtr t = it.Str(v);
  if (!it.ChargeBytes(t->bytes.size())) return {};
  int64_t n = 0;
  bool inside = false;
  for (std::string_view s = t->bytes; !s.empty();) {
    Utf8Char c = DecodeUtf8(s);
    bool word = c.code_point == '_' || IsAlpha(c.code_point) || IsNumeric(c.code_point);
    n += word && !inside;
    inside = word;
    s.remove_prefix(static_cast<size_t>(c.length_bytes));
  }
  return Value::Int(n);
}
Value CenterFilter(Interpreter& it, const Value& v, Args& args) {
  Params p(it, "center", args, {"width"});
  int64_t width = p.ok() ? p.Int(0, 80) : 0;
  TextPtr t = it.Str(v);
  return it.failed() ? Value() : Value::String(Center(it, *t, width, nullptr));
}
Value Truncate(Interpreter& it, const Value& v, Args& args) {
  Params p(it, "truncate", args, {"length", "killwords", "end", "leeway"});
  if (!p.ok()) return {};
  int64_t length = p.Int(0, 255), leeway = p[3] == nullptr || p[3]->none() ? 5 : p.Int(3, 5);
  bool kill = p.Truth(1, false);
  const Text* given = p.String(2);
  if (it.failed()) return {};
  Text dots{"...", {}, 3};
  const Text& end = given ? *given : dots;
  if (!v.string())
    return it.Fail(v.undefined() ? UndefinedMessage(v)
                                 : StrCat("object of type '", TypeName(v), "' has no len()"));
  const Text& t = v.text();
  if (length < end.chars) return it.Fail(StrCat("expected length >= ", end.chars, ", got ", length));
  if (leeway < 0) return it.Fail(StrCat("expected leeway >= 0, got ", leeway));
  if (t.chars <= length || t.chars - length <= leeway) return v;
  if (!it.ChargeBytes(t.bytes.size())) return {};
  size_t cut = ByteOffset(t, length - end.chars);
  if (!kill) {
    size_t space = std::string_view(t.bytes).substr(0, cut).rfind(' ');
    if (space != std::string_view::npos) cut = space;
  }
  TextBuilder out;
  out.Append(t, 0, cut);
  out.Append(end);
  return Value::String(out.Take());
}
Value FormatFilter(Interpreter& it, const Value& v, Args& args) {
  TextPtr format = it.Str(v);
  if (it.failed()) return {};
  if (!args.positional.empty() && !args.named.empty())
    return it.Fail("can't handle positional and keyword arguments at the same time");
  return FormatPercent(it, *format,
                       args.named.empty() ? Value::Tuple(args.positional) : it.MakeDict(args.named));
}
Value UrlEncode(Interpreter& it, const Value& v, Args& args) {
  if (v.string() || !it.IsIterable(v)) return Value::String(UrlEncodeText(it, *it.Str(v)));
  Values pairs;
  if (v.Is(Kind::kDict)) {
    for (const auto& [key, value] : v.dict().items) pairs.push_back(Value::Tuple({key, value}));
  } else if (!it.Iterate(v, &pairs)) {
    return {};
  }
  TextBuilder out;
  for (const Value& pair : pairs) {
    Values both;
    if (!it.Charge(1) || !it.Iterate(pair, &both)) return {};
    if (both.size() != 2) return it.Fail("urlencode needs pairs");
    if (out.size() > 0) out.Append("&", false);
    Text slash{"/", {}, 1}, coded{"%2F", {}, 3}, space{"%20", {}, 3}, plus{"+", {}, 1};
    for (size_t i = 0; i < 2; ++i) {
      if (i == 1) out.Append("=", false);
      TextPtr text = Replace(it, *UrlEncodeText(it, *it.Str(both[i])), slash, coded, -1);
      out.Append(*Replace(it, *text, space, plus, -1));
    }
  }
  return Value::String(out.Take());
}
Value FileSizeFormat(Interpreter& it, const Value& v, Args& args) {
  Params p(it, "filesizeformat", args, {"binary"});
  if (!p.ok()) return {};
  double bytes = v.d();
  if (v.string() ? !ParsePythonFloat(v.bytes(), &bytes) : !v.number())
    return it.Fail("filesizeformat needs a number");
  bool binary = p.Truth(0, false), user = v.user() || (v.string() && AnyUser(v.text()));
  double base = binary ? 1024 : 1000;
  if (bytes == 1) return Value::String("1 Byte", user);
  if (bytes < base)
    return Value::String(StrCat(static_cast<int64_t>(std::max(bytes, -9e18)), " Bytes"), user);
  double unit = base;
  std::string_view letters = binary ? "KMGTPEZY" : "kMGTPEZY";
  size_t i = 0;
  while (i + 1 < letters.size() && bytes >= unit * base) {
    unit *= base;
    ++i;
  }
  return Value::String(StrCat(Fixed(bytes / unit, 1), " ", letters.substr(i, 1), binary ? "iB" : "B"), user);
}
Value StringFilter(Interpreter& it, const Value& v, Args& args) { return Value::String(it.Str(v)); }

TextPtr StripTags(Interpreter& it, const Text& t) {
  if (!it.ChargeBytes(t.bytes.size())) return MakeText("", false);
  TextBuilder out;
  std::string_view s = t.bytes;
  size_t at = 0;
  // Comments first, then tags, as markupsafe does; a "<" without ">" stays.
  TextPtr without = nullptr;
  for (;;) {
    size_t open = s.find("<!--", at), close = open == std::string_view::npos ? open : s.find("-->", open);
    if (close == std::string_view::npos) break;
    out.Append(t, at, open);
    at = close + 3;
  }
  out.Append(t, at, s.size());
  without = out.Take();
  s = without->bytes;
  at = 0;
  TextBuilder plain;
  for (;;) {
    size_t open = s.find('<', at), close = open == std::string_view::npos ? open : s.find('>', open);
    if (close == std::string_view::npos) break;
    plain.Append(*without, at, open);
    at = close + 1;
  }
  plain.Append(*without, at, s.size());
  // Runs of white space become one space.
  TextPtr stripped = plain.Take();
  TextBuilder words;
  bool space = false;
  for (at = 0; at < stripped->bytes.size();) {
    Utf8Char c = DecodeUtf8(std::string_view(stripped->bytes).substr(at));
    size_t n = static_cast<size_t>(c.length_bytes);
    if (IsSpace(c.code_point)) {
      space = words.size() > 0;
    } else {
      if (space) words.Append(" ", IsUser(*stripped, at));
      space = false;
      words.Append(*stripped, at, at + n);
    }
    at += n;
  }
  return words.Take();
}

}  // namespace

Filter FindTextFilter(std::string_view name) {
  static constexpr std::pair<std::string_view, Filter> kTable[] = {
      {"upper", Convert<Upper>},
      {"lower", Convert<Lower>},
      {"capitalize", Convert<Capitalize>},
      {"title", Convert<TitleWords>},
      {"escape", Convert<Escape>},
      {"e", Convert<Escape>},
      {"forceescape", Convert<Escape>},
      {"safe", Convert<Same>},
      {"string", StringFilter},
      {"trim", Trim},
      {"replace", ReplaceFilter},
      {"indent", Indent},
      {"wordcount", WordCount},
      {"center", CenterFilter},
      {"truncate", Truncate},
      {"format", FormatFilter},
      {"urlencode", UrlEncode},
      {"filesizeformat", FileSizeFormat},
      {"striptags", Convert<StripTags>},
  };
  for (const auto& [key, filter] : kTable) {
    if (key == name) return filter;
  }
  return nullptr;
}

}  // namespace fd::jinja
