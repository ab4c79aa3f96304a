// Methods of str, list, tuple and dict.
#include <algorithm>
#include <unordered_map>

#include "base/strings.h"
#include "base/utf8.h"
#include "server/chat/jinja/interpreter.h"
#include "server/chat/jinja/unicode.h"

namespace fd::jinja {
namespace {

using Method = Value (*)(Interpreter& it, const Value& self, Args& args);

// A range of characters, as in s.find(x, start, end), in bytes.
struct Window {
  size_t begin = 0, end = 0;
  bool empty = false;  // start beyond end
};
Window WindowOf(const Text& t, Params& p, size_t first) {
  auto clamp = [&](size_t i, int64_t otherwise) {
    if (p[i] == nullptr || p[i]->none()) return otherwise;
    int64_t v = p.Int(i, otherwise);
    return v < 0 ? std::max<int64_t>(0, v < -t.chars ? 0 : v + t.chars) : v;
  };
  int64_t begin = clamp(first, 0), end = std::min(clamp(first + 1, t.chars), t.chars);
  if (begin > end) return {0, 0, true};
  return {ByteOffset(t, begin), ByteOffset(t, end), false};
}

template <bool left, bool right>
Value StripMethod(Interpreter& it, const Value& self, Args& args) {
  Params p(it, "strip", args, {"chars"});
  const Text* chars = p[0] == nullptr || p[0]->none() ? nullptr : p.String(0);
  return it.failed() ? Value() : Value::String(Strip(it, self.text(), chars, left, right));
}

template <bool reverse, bool must>
Value FindMethodOf(Interpreter& it, const Value& self, Args& args) {
  Params p(it, "find", args, {"sub", "start", "end"}, 1);
  const Text* sub = p.ok() ? p.String(0) : nullptr;
  const Text& t = self.text();
  if (sub == nullptr || !it.ChargeBytes(t.bytes.size())) return {};
  Window w = WindowOf(t, p, 1);
  size_t hit = std::string_view::npos;
  std::string_view inside = std::string_view(t.bytes).substr(0, w.end);
  if (!w.empty) {
    if (reverse) {
      hit = RfindBytes(inside.substr(w.begin), sub->bytes, inside.size());
      if (hit != std::string_view::npos) hit += w.begin;
    } else {
      hit = FindBytes(inside, sub->bytes, w.begin);
    }
  }
  if (hit == std::string_view::npos) return must ? it.Fail("substring not found") : Value::Int(-1);
  return Value::Int(CharIndex(t, hit));
}

Value Count(Interpreter& it, const Value& self, Args& args) {
  Params p(it, "count", args, {"sub", "start", "end"}, 1);
  const Text* sub = p.ok() ? p.String(0) : nullptr;
  const Text& t = self.text();
  if (sub == nullptr || !it.ChargeBytes(t.bytes.size())) return {};
  Window w = WindowOf(t, p, 1);
  if (w.empty) return Value::Int(0);
  std::string_view inside = std::string_view(t.bytes).substr(0, w.end);
  if (sub->bytes.empty()) return Value::Int(CountUtf8Chars(inside.substr(w.begin)) + 1);
  int64_t n = 0;
  for (size_t at = w.begin; (at = FindBytes(inside, sub->bytes, at)) != std::string_view::npos;
       at += sub->bytes.size())
    ++n;
  return Value::Int(n);
}

template <bool at_end>
Value StartsWith(Interpreter& it, const Value& self, Args& args) {
  Params p(it, at_end ? "endswith" : "startswith", args, {"prefix", "start", "end"}, 1);
  if (!p.ok()) return {};
  const Text& t = self.text();
  if ((p[1] || p[2]) && !it.ChargeBytes(t.bytes.size())) return {};
  Window w = WindowOf(t, p, 1);
  std::string_view inside = std::string_view(t.bytes).substr(0, w.end).substr(w.begin);
  Values options = p[0]->Is(Kind::kTuple) ? p[0]->items() : Values{*p[0]};
  for (const Value& option : options) {
    if (!option.string())
      return it.Fail(StrCat("startswith first arg must be str or a tuple of str, not ", TypeName(option)));
    if (!w.empty && (at_end ? inside.ends_with(option.bytes()) : inside.starts_with(option.bytes())))
      return Value::Bool(true);
  }
  return Value::Bool(false);
}

// Whitespace runs separate; at most `limit` cuts.
Values SplitSpace(Interpreter& it, const Text& t, int64_t limit, bool reverse) {
  Values parts;
  std::string_view s = t.bytes;
  struct Span {
    size_t begin, end;
  };
  std::vector<Span> words;
  size_t at = 0;
  bool inside = false;
  while (at < s.size()) {
    Utf8Char c = DecodeUtf8(s.substr(at));
    if (IsSpace(c.code_point)) {
      inside = false;
    } else if (inside) {
      words.back().end = at + static_cast<size_t>(c.length_bytes);
    } else {
      if (!it.Charge(1)) return parts;
      words.push_back({at, at + static_cast<size_t>(c.length_bytes)});
      inside = true;
    }
    at += static_cast<size_t>(c.length_bytes);
  }
  size_t keep = limit < 0 ? words.size() : std::min(words.size(), static_cast<size_t>(limit));
  if (!reverse) {
    for (size_t i = 0; i < keep; ++i)
      parts.push_back(Value::String(SubText(t, words[i].begin, words[i].end)));
    if (keep < words.size()) {  // the rest keeps its trailing space
      parts.push_back(Value::String(SubText(t, words[keep].begin, s.size())));
    }
  } else {
    size_t rest = words.size() - keep;
    if (rest > 0) parts.push_back(Value::String(SubText(t, 0, words[rest - 1].end)));
    for (size_t i = rest; i < words.size(); ++i)
      parts.push_back(Value::String(SubText(t, words[i].begin, words[i].end)));
  }
  // str.rsplit keeps leading space in its first piece, str.split trailing space in its last.
  return parts;
}

template <bool reverse>
Value SplitMethod(Interpreter& it, const Value& self, Args& args) {
  Params p(it, "split", args, {"sep", "maxsplit"});
  const Text& t = self.text();
  if (!p.ok() || !it.ChargeBytes(t.bytes.size())) return {};
  int64_t limit = p.Int(1, -1);
  if (p[0] == nullptr || p[0]->none()) return Value::List(SplitSpace(it, t, limit, reverse));
  const Text* separator = p.String(0);
  if (separator == nullptr) return {};
  if (separator->bytes.empty()) return it.Fail("empty separator");
  Values parts;
  size_t n = separator->bytes.size();
  if (!reverse) {
    size_t at = 0, hit = 0;
    for (; limit != 0 && (hit = FindBytes(t.bytes, separator->bytes, at)) != std::string_view::npos;
         --limit) {
      if (!it.Charge(1)) return {};
      parts.push_back(Value::String(SubText(t, at, hit)));
      at = hit + n;
    }
    parts.push_back(Value::String(SubText(t, at, t.bytes.size())));
    return Value::List(std::move(parts));
  }
  std::string text(t.bytes.rbegin(), t.bytes.rend()),
      needle(separator->bytes.rbegin(), separator->bytes.rend());
  size_t at = 0, hit = 0, size = text.size();
  for (; limit != 0 && (hit = FindBytes(text, needle, at)) != std::string_view::npos; --limit) {
    if (!it.Charge(1)) return {};
    parts.push_back(Value::String(SubText(t, size - hit, size - at)));
    at = hit + n;
  }
  parts.push_back(Value::String(SubText(t, 0, size - at)));
  std::reverse(parts.begin(), parts.end());
  return Value::List(std::move(parts));
}

template <bool reverse>
Value PartitionMethod(Interpreter& it, const Value& self, Args& args) {
  Params p(it, "partition", args, {"sep"}, 1);
  const Text* separator = p.ok() ? p.String(0) : nullptr;
  const Text& t = self.text();
  if (separator == nullptr || !it.ChargeBytes(t.bytes.size())) return {};
  if (separator->bytes.empty()) return it.Fail("empty separator");
  size_t hit = reverse ? RfindBytes(t.bytes, separator->bytes, t.bytes.size())
                       : FindBytes(t.bytes, separator->bytes, 0);
  if (hit == std::string_view::npos) {
    return Value::Tuple(reverse ? Values{Value::String(""), Value::String(""), self}
                                : Values{self, Value::String(""), Value::String("")});
  }
  size_t after = hit + separator->bytes.size();
  return Value::Tuple(
      {Value::String(SubText(t, 0, hit)), *p[0], Value::String(SubText(t, after, t.bytes.size()))});
}

Value ReplaceMethod(Interpreter& it, const Value& self, Args& args) {
  Params p(it, "replace", args, {"old", "new", "count"}, 2);
  if (!p.ok()) return {};
  const Text* from = p.String(0);
  const Text* to = p.String(1);
  int64_t count = p.Int(2, -1);
  return it.failed() ? Value() : Value::String(Replace(it, self.text(), *from, *to, count));
}

Value JoinMethod(Interpreter& it, const Value& self, Args& args) {
  Params p(it, "join", args, {"iterable"}, 1);
  Values items;
  if (!p.ok() || !it.Iterate(*p[0], &items)) return {};
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].string())
      return it.Fail(StrCat("sequence item ", i, ": expected str instance, ", TypeName(items[i]), " found"));
  }
  return Value::String(JoinTexts(it, self.text(), items));
}

template <TextPtr (*convert)(Interpreter&, const Text&)>
Value Convert(Interpreter& it, const Value& self, Args& args) {
  Params p(it, "this method", args, {});
  return p.ok() ? Value::String(convert(it, self.text())) : Value();
}

TextPtr Titled(Interpreter& it, const Text& t, bool swap) {
  if (!it.ChargeBytes(t.bytes.size())) return MakeText("", false);
  TextBuilder out;
  bool after_cased = false;
  for (size_t at = 0; at < t.bytes.size();) {
    Utf8Char c = DecodeUtf8(std::string_view(t.bytes).substr(at));
    std::string piece;
    if (swap) {
      if (IsUpper(c.code_point)) {
        AppendLower(piece, c.code_point);
      } else if (IsLower(c.code_point)) {
        AppendUpper(piece, c.code_point);
      } else {
        AppendUtf8(piece, c.code_point);
      }
    } else {
      after_cased ? AppendLower(piece, c.code_point) : AppendTitle(piece, c.code_point);
      after_cased = IsCased(c.code_point);
    }
    out.Append(piece, IsUser(t, at));
    at += static_cast<size_t>(c.length_bytes);
  }
  return out.Take();
}
TextPtr Title(Interpreter& it, const Text& t) { return Titled(it, t, false); }
TextPtr SwapCase(Interpreter& it, const Text& t) { return Titled(it, t, true); }

template <bool (*test)(char32_t)>
Value AllChars(Interpreter& it, const Value& self, Args& args) {
  if (!it.ChargeBytes(self.bytes().size())) return {};
  std::string_view s = self.bytes();
  if (s.empty())
    return Value::Bool(test('\x41') && test('\x20'));  // only isprintable and isascii hold for ""
  while (!s.empty()) {
    Utf8Char c = DecodeUtf8(s);
    if (!test(c.code_point)) return Value::Bool(false);
    s.remove_prefix(static_cast<size_t>(c.length_bytes));
  }
  return Value::Bool(true);
}
bool IsAlnum(char32_t c) { return IsAlpha(c) || IsDecimal(c) || IsDigit(c) || IsNumeric(c); }
bool IsAscii(char32_t c) { return c < 0x80; }

Value IsUpperMethod(Interpreter& it, const Value& self, Args&) {
  return it.ChargeBytes(self.bytes().size()) ? Value::Bool(TextIsUpper(self.text())) : Value();
}
Value IsLowerMethod(Interpreter& it, const Value& self, Args&) {
  return it.ChargeBytes(self.bytes().size()) ? Value::Bool(TextIsLower(self.text())) : Value();
}
Value IsTitleMethod(Interpreter& it, const Value& self, Args&) {
  if (!it.ChargeBytes(self.bytes().size())) return {};
  bool cased = false, after = false;
  for (std::string_view s = self.bytes(); !s.empty();) {
    Utf8Char c = DecodeUtf8(s);
    bool lower = IsLower(c.code_point), upper = IsCased(c.code_point) && !lower;
    if ((upper && after) || (lower && !after)) return Value::Bool(false);
    after = lower || upper;
    cased |= after;
    s.remove_prefix(static_cast<size_t>(c.length_bytes));
  }
  return Value::Bool(cased);
}
Value IsIdentifier(Interpreter& it, const Value& self, Args&) {
  bool ok = !self.bytes().empty(), first = true;
  for (std::string_view s = self.bytes(); ok && !s.empty();) {
    Utf8Char c = DecodeUtf8(s);
    ok = c.code_point == '_' || IsAlpha(c.code_point) || (!first && IsDecimal(c.code_point));
    first = false;
    s.remove_prefix(static_cast<size_t>(c.length_bytes));
  }
  return it.ChargeBytes(self.bytes().size()) ? Value::Bool(ok) : Value();
}

template <bool suffix>
Value RemoveAffix(Interpreter& it, const Value& self, Args& args) {
  Params p(it, suffix ? "removesuffix" : "removeprefix", args, {"affix"}, 1);
  const Text* affix = p.ok() ? p.String(0) : nullptr;
  if (affix == nullptr || !it.ChargeBytes(self.bytes().size())) return {};
  size_t n = affix->bytes.size(), size = self.bytes().size();
  if (suffix)
    return self.bytes().ends_with(affix->bytes) ? Value::String(SubText(self.text(), 0, size - n)) : self;
  return self.bytes().starts_with(affix->bytes) ? Value::String(SubText(self.text(), n, size)) : self;
}

Value SplitLinesMethod(Interpreter& it, const Value& self, Args& args) {
  Params p(it, "splitlines", args, {"keepends"});
  return p.ok() ? Value::List(SplitLines(it, self.text(), p.Truth(0, false))) : Value();
}

template <int mode>  // -1 ljust, 0 center, 1 rjust
Value Justify(Interpreter& it, const Value& self, Args& args) {
  Params p(it, "justify", args, {"width", "fillchar"}, 1);
  if (!p.ok()) return {};
  int64_t width = p.Int(0, 0);
  const Text* fill = p.String(1);
  if (it.failed()) return {};
  const Text& t = self.text();
  if (mode == 0) return Value::String(Center(it, t, width, fill));
  int64_t margin = width <= t.chars ? 0 : width - t.chars;
  return Value::String(Pad(it, t, mode > 0 ? margin : 0, mode < 0 ? margin : 0, fill));
}
Value ZFill(Interpreter& it, const Value& self, Args& args) {
  Params p(it, "zfill", args, {"width"}, 1);
  if (!p.ok()) return {};
  int64_t width = p.Int(0, 0);
  const Text& t = self.text();
  if (it.failed() || width <= t.chars) return self;
  Text zero{"0", {}, 1};
  bool sign = !t.bytes.empty() && (t.bytes[0] == '-' || t.bytes[0] == '+');
  TextPtr digits = Pad(it, *SubText(t, sign ? 1 : 0, t.bytes.size()), width - t.chars, 0, &zero);
  TextBuilder out;
  out.Append(t, 0, sign ? 1 : 0);
  out.Append(*digits);
  return Value::String(out.Take());
}
Value ExpandTabs(Interpreter& it, const Value& self, Args& args) {
  Params p(it, "expandtabs", args, {"tabsize"});
  int64_t size = p.ok() ? p.Int(0, 8) : 8, column = 0;
  const Text& t = self.text();
  if (it.failed() || !it.ChargeBytes(t.bytes.size())) return {};
  TextBuilder out;
  for (size_t at = 0; at < t.bytes.size();) {
    auto n = static_cast<size_t>(DecodeUtf8(std::string_view(t.bytes).substr(at)).length_bytes);
    char c = t.bytes[at];
    if (c == '\t') {
      int64_t spaces = size > 0 ? size - column % size : 0;
      if (!it.ChargeBytes(out.size() + static_cast<size_t>(spaces))) return {};
      out.Append(std::string(static_cast<size_t>(spaces), ' '), IsUser(t, at));
      column += spaces;
    } else {
      out.Append(t, at, at + n);
      column = c == '\n' || c == '\r' ? 0 : column + 1;
    }
    at += n;
  }
  return Value::String(out.Take());
}
Value FormatMethod(Interpreter& it, const Value& self, Args& args) {
  return FormatBraces(it, self.text(), args);
}
Value FormatMapMethod(Interpreter& it, const Value& self, Args& args) {
  if (args.positional.size() != 1 || !args.positional[0].Is(Kind::kDict))
    return it.Fail("format_map() takes exactly one mapping");
  Args inner;
  for (const auto& member : args.positional[0].dict().items) {
    if (member.first.string()) inner.named.push_back(member);
  }
  return FormatBraces(it, self.text(), inner);
}

const std::unordered_map<std::string_view, Method>& StringMethods() {
  static const auto* table = new std::unordered_map<std::string_view, Method>{
      {"strip", StripMethod<true, true>},
      {"lstrip", StripMethod<true, false>},
      {"rstrip", StripMethod<false, true>},
      {"find", FindMethodOf<false, false>},
      {"rfind", FindMethodOf<true, false>},
      {"index", FindMethodOf<false, true>},
      {"rindex", FindMethodOf<true, true>},
      {"count", Count},
      {"startswith", StartsWith<false>},
      {"endswith", StartsWith<true>},
      {"split", SplitMethod<false>},
      {"rsplit", SplitMethod<true>},
      {"partition", PartitionMethod<false>},
      {"rpartition", PartitionMethod<true>},
      {"replace", ReplaceMethod},
      {"join", JoinMethod},
      {"upper", Convert<Upper>},
      {"lower", Convert<Lower>},
      {"casefold", Convert<CaseFold>},
      {"capitalize", Convert<Capitalize>},
      {"title", Convert<Title>},
      {"swapcase", Convert<SwapCase>},
      {"isspace", AllChars<IsSpace>},
      {"isalpha", AllChars<IsAlpha>},
      {"isalnum", AllChars<IsAlnum>},
      {"isdigit", AllChars<IsDigit>},
      {"isdecimal", AllChars<IsDecimal>},
      {"isnumeric", AllChars<IsNumeric>},
      {"isprintable", AllChars<IsPrintable>},
      {"isascii", AllChars<IsAscii>},
      {"isupper", IsUpperMethod},
      {"islower", IsLowerMethod},
      {"istitle", IsTitleMethod},
      {"isidentifier", IsIdentifier},
      {"removeprefix", RemoveAffix<false>},
      {"removesuffix", RemoveAffix<true>},
      {"splitlines", SplitLinesMethod},
      {"ljust", Justify<-1>},
      {"center", Justify<0>},
      {"rjust", Justify<1>},
      {"zfill", ZFill},
      {"expandtabs", ExpandTabs},
      {"format", FormatMethod},
      {"format_map", FormatMapMethod},
  };
  return *table;
}

Value ListMethod(Interpreter& it, const Value& self, std::string_view name, Args& args) {
  if (name == "copy") return self;
  Params p(it, name, args, {"value"}, 1);
  if (!p.ok()) return {};
  int64_t count = 0;
  for (size_t i = 0; i < self.items().size(); ++i) {
    if (!it.Charge(1)) return {};
    if (!it.Equal(self.items()[i], *p[0])) continue;
    if (name == "index") return Value::Int(static_cast<int64_t>(i));
    ++count;
  }
  return name == "index" ? it.Fail("the value is not in list") : Value::Int(count);
}

Value DictMethod(Interpreter& it, const Value& self, std::string_view name, Args& args) {
  if (name == "get") {
    Params p(it, name, args, {"key", "default"}, 1);
    if (!p.ok()) return {};
    if (!it.Hashable(*p[0])) return it.Fail(StrCat("unhashable type: '", TypeName(*p[0]), "'"));
    const Value* v = it.DictFind(self, *p[0]);
    return v != nullptr ? *v : p[1] != nullptr ? *p[1] : Value::None();
  }
  Params p(it, name, args, {});
  if (!p.ok() || !it.ChargeItems(self.dict().items.size())) return {};
  if (name == "copy") return self;
  Values items;
  for (const auto& [key, value] : self.dict().items) {
    items.push_back(name == "keys" ? key : name == "values" ? value : Value::Tuple({key, value}));
  }
  return Value::Sequence(Kind::kView, std::move(items), StrCat("dict_", name));
}

}  // namespace

MethodKind FindMethod(const Value& self, std::string_view name) {
  auto among = [&](std::initializer_list<std::string_view> names) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  switch (self.kind()) {
    case Kind::kString:
      return StringMethods().count(name) > 0 ? MethodKind::kSafe : MethodKind::kAbsent;
    case Kind::kList:
      if (among({"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"}))
        return MethodKind::kUnsafe;
      return among({"count", "index", "copy"}) ? MethodKind::kSafe : MethodKind::kAbsent;
    case Kind::kTuple:
      return among({"count", "index"}) ? MethodKind::kSafe : MethodKind::kAbsent;
    case Kind::kDict:
      if (among({"clear", "pop", "popitem", "setdefault", "update"})) return MethodKind::kUnsafe;
      return among({"get", "items", "keys", "values", "copy"}) ? MethodKind::kSafe : MethodKind::kAbsent;
    default:
      return MethodKind::kAbsent;
  }
}

Value CallMethod(Interpreter& it, const Value& self, std::string_view name, Args& args) {
  static constexpr std::string_view kNamed[] = {"split", "rsplit", "splitlines", "expandtabs", "format"};
  if (!args.named.empty() && std::find(std::begin(kNamed), std::end(kNamed), name) == std::end(kNamed))
    return it.Fail(StrCat(TypeName(self), ".", name, "() takes no keyword arguments"));
  if (self.string()) {
    Value v = StringMethods().at(name)(it, self, args);
    return it.failed() ? Value() : v;
  }
  return self.Is(Kind::kDict) ? DictMethod(it, self, name, args) : ListMethod(it, self, name, args);
}

}  // namespace fd::jinja
