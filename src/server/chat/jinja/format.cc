// "%s" % values, "{}".format(values) and strftime.
#include <algorithm>
#include <cmath>

#include "base/strings.h"
#include "base/utf8.h"
#include "server/chat/jinja/interpreter.h"

namespace fd::jinja {
namespace {

struct Spec {
  char align = 0, sign = 0, type = 0, group = 0;  // group: , or _ between digits
  bool alternate = false, zero = false;
  std::string fill = " ";
  int64_t width = 0, precision = -1;
};

constexpr int64_t kMaxPrecision = 300;

bool OneOf(char c, std::string_view set) { return c != 0 && set.find(c) != std::string_view::npos; }

std::string PrintFloat(const char* format, int64_t precision, double d) {
  char buffer[800];
  snprintf(buffer, sizeof(buffer), format, static_cast<int>(precision), d);
  return buffer;
}

// Digits of |v| without sign and prefix.
std::string Digits(const Value& v, const Spec& spec, char type) {
  if (OneOf(type, "eEfFgG")) {
    std::string format = StrCat("%", spec.alternate ? "#" : "", ".*", std::string(1, type));
    return PrintFloat(format.c_str(), spec.precision < 0 ? 6 : spec.precision, std::fabs(v.d()));
  }
  uint64_t n = v.i() < 0 ? ~static_cast<uint64_t>(v.i()) + 1 : static_cast<uint64_t>(v.i());
  uint64_t base = type == 'b' ? 2 : type == 'o' ? 8 : type == 'x' || type == 'X' ? 16 : 10;
  const char* letters = type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
  std::string digits;
  do digits.insert(digits.begin(), letters[n % base]);
  while ((n /= base) > 0);
  return digits;
}

// A precision without a type letter: as 'g', but with a digit after the point and an exponent one step
// sooner.
std::string ShortFloat(double d, int64_t precision) {
  precision = std::max<int64_t>(precision, 1);
  d = std::fabs(d);
  std::string text = PrintFloat("%.*g", precision, d);
  if (!std::isfinite(d)) return text;
  std::string scientific = PrintFloat("%.*e", precision - 1, d);
  size_t e = scientific.find('e');
  if (std::atoi(scientific.c_str() + e + 1) == precision - 1) {
    size_t keep =
        scientific.find('.') == std::string::npos ? e : scientific.find_last_not_of("0.", e - 1) + 1;
    return scientific.substr(0, std::max<size_t>(keep, 1)) + scientific.substr(e);
  }
  return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

// %c: one character, or the number of one.
TextPtr CharOf(Interpreter& it, const Value& v) {
  if (v.string() && v.text().chars == 1) return v.text_ptr();
  if (!v.integer() || v.i() < 0 || v.i() > 0x10FFFF || (v.i() >= 0xD800 && v.i() < 0xE000)) {
    it.Fail("%c needs one character or its number");
    return MakeText("", false);
  }
  std::string text;
  AppendUtf8(text, static_cast<char32_t>(v.i()));
  return MakeText(std::move(text), v.user());
}

void AppendPadded(Interpreter& it, TextBuilder& out, const Text& body, const Spec& spec, char align) {
  int64_t space = std::max<int64_t>(0, spec.width - body.chars);
  int64_t left = align == '>' ? space : align == '^' ? space / 2 : 0;
  TextPtr fill = MakeText(spec.fill, false);
  TextPtr padded = Pad(it, body, left, space - left, fill.get());
  if (it.ChargeBytes(out.size() + padded->bytes.size())) out.Append(*padded);
}

std::string Grouped(std::string digits, const Spec& spec, char type) {
  if (spec.group == 0) return digits;
  bool whole = OneOf(type, "xXob");
  size_t step = whole ? 4 : 3, end = whole ? std::string::npos : digits.find_first_not_of("0123456789");
  for (size_t at = end == std::string::npos ? digits.size() : end; at > step;)
    digits.insert(at -= step, 1, spec.group);
  return digits;
}

// Sign, prefix, grouping and padding around the digits of a number.
void AppendNumber(Interpreter& it, TextBuilder& out, const Value& v, Spec spec, char type,
                  std::string digits) {
  bool negative = v.Is(Kind::kFloat) ? std::signbit(v.d()) && !std::isnan(v.d()) : v.i() < 0;
  std::string head = negative ? "-" : spec.sign == '+' ? "+" : spec.sign == ' ' ? " " : "";
  if (spec.alternate && OneOf(type, "xXob")) head += {'0', type};
  if (spec.width > it.limits().max_output_bytes) return void(it.ChargeBytes(SIZE_MAX));
  std::string body = Grouped(digits, spec, type);
  auto size = [&] { return static_cast<int64_t>(head.size() + body.size()); };
  if (spec.align == '=') {
    int64_t missing = std::max<int64_t>(spec.width - size(), 0);
    if (spec.fill == "0" && spec.group != 0) {
      // Zeros are grouped like other digits.
      digits.insert(0, static_cast<size_t>(missing), '0');
      for (body = Grouped(digits, spec, type); size() > spec.width && digits[0] == '0' && missing > 0;
           --missing) {
        std::string shorter = Grouped(digits.substr(1), spec, type);
        if (static_cast<int64_t>(head.size() + shorter.size()) < spec.width) break;
        digits.erase(0, 1);
        body = std::move(shorter);
      }
    } else {
      std::string fill;
      for (int64_t i = 0; i < missing; ++i) fill += spec.fill;
      body.insert(0, fill);
    }
  }
  AppendPadded(it, out, *MakeText(head + body, v.user()), spec, OneOf(spec.align, "<^") ? spec.align : '>');
}

bool ReadNumber(std::string_view f, size_t* at, int64_t* out) {
  size_t start = *at;
  *out = 0;
  while (*at < f.size() && f[*at] >= '0' && f[*at] <= '9')
    *out = std::min<int64_t>(*out * 10 + (f[(*at)++] - '0'), INT64_MAX / 32);
  return *at > start;
}

// [[fill]align][sign][#][0][width][,][.precision][type]
bool ParseSpec(Interpreter& it, std::string_view f, Spec* spec) {
  size_t at = 0, fill = static_cast<size_t>(DecodeUtf8(f).length_bytes);
  bool filled = f.size() > fill && OneOf(f[fill], "<>^=");
  if (filled) {
    spec->fill = f.substr(0, fill);
    spec->align = f[fill];
    at = fill + 1;
  } else if (OneOf(f[0], "<>^=")) {
    spec->align = f[at++];
  }
  auto take = [&](std::string_view set) { return at < f.size() && OneOf(f[at], set) ? f[at++] : '\0'; };
  spec->sign = take("+- ");
  spec->alternate = take("#") != 0;
  spec->zero = take("0") != 0;
  if (spec->zero && !filled) spec->fill = "0";
  ReadNumber(f, &at, &spec->width);
  spec->group = take(",_");
  if (take(".") != 0 && !ReadNumber(f, &at, &spec->precision)) {
    it.Fail("Format specifier missing precision");
    return false;
  }
  if (at < f.size()) spec->type = f[at++];
  if (at != f.size()) it.Fail("Invalid format specifier");
  if (spec->precision > kMaxPrecision) it.Fail(StrCat("a precision above ", kMaxPrecision));
  return !it.failed();
}

void UnknownCode(Interpreter& it, const Spec& spec, const Value& v) {
  it.Fail(StrCat("Unknown or unfit format code '", std::string(1, spec.type), "' for object of type '",
                 TypeName(v), "'"));
}

void AppendFormattedNumber(Interpreter& it, TextBuilder& out, const Value& v, Spec spec) {
  if (spec.zero && spec.align == 0) spec.align = '=';
  char type = spec.type;
  bool real = v.Is(Kind::kFloat);
  if (type == '%') {
    if (spec.precision < 0) spec.precision = 6;
    Value percent = Value::Float(v.d() * 100, v.user());
    return AppendNumber(it, out, percent, spec, 'f', Digits(percent, spec, 'f') + "%");
  }
  if (type == 'n') {
    if (spec.group != 0) return UnknownCode(it, spec, v);
    type = real ? 'g' : 'd';
  }
  if (OneOf(type, "eEfFgG")) return AppendNumber(it, out, v, spec, type, Digits(v, spec, type));
  if (real) {
    if (type != 0) return UnknownCode(it, spec, v);
    std::string digits = spec.precision < 0 ? FloatRepr(std::fabs(v.d())) : ShortFloat(v.d(), spec.precision);
    return AppendNumber(it, out, v, spec, 'g', std::move(digits));
  }
  if (type == 0) type = 'd';
  if (!OneOf(type, "dxXobc") || (type != 'd' && spec.group == ',')) return UnknownCode(it, spec, v);
  if (spec.precision >= 0) return void(it.Fail("Precision not allowed in integer format specifier"));
  if (type != 'c') return AppendNumber(it, out, v, spec, type, Digits(v, spec, type));
  if (spec.sign != 0 || spec.alternate || spec.group != 0) return UnknownCode(it, spec, v);
  TextPtr text = CharOf(it, v);
  if (!it.failed()) AppendPadded(it, out, *text, spec, OneOf(spec.align, "<^") ? spec.align : '>');
}

void AppendFormatted(Interpreter& it, TextBuilder& out, const Value& v, std::string_view f) {
  if (f.empty()) return it.AppendStr(out, v);
  Spec spec;
  if (!v.number() && !v.string())
    return void(it.Fail(StrCat("unsupported format string passed to ", TypeName(v), ".__format__")));
  if (!ParseSpec(it, f, &spec)) return;
  if (v.number()) return AppendFormattedNumber(it, out, v, std::move(spec));
  if ((spec.type != 0 && spec.type != 's') || spec.group != 0) return UnknownCode(it, spec, v);
  if (spec.sign != 0 || spec.alternate || spec.align == '=')
    return void(it.Fail("sign, '#' and '=' are not allowed in string format specifier"));
  TextPtr text = v.text_ptr();
  if (spec.precision >= 0 && spec.precision < text->chars)
    text = SubText(*text, 0, ByteOffset(*text, spec.precision));
  AppendPadded(it, out, *text, spec, spec.align ? spec.align : '<');
}

// The values that the % operator takes from its right side in turn.
struct PercentArgs {
  const Value& values;
  size_t next = 0;
  bool tuple() const { return values.Is(Kind::kTuple); }
  size_t count() const { return tuple() ? values.items().size() : 1; }
  Value Take(Interpreter& it) {
    if (next >= count()) return it.Fail("not enough arguments for format string");
    ++next;
    return tuple() ? values.items()[next - 1] : values;
  }
  // A width or precision: digits, or * and an argument.
  bool Number(Interpreter& it, std::string_view f, size_t* at, int64_t* out) {
    if (*at >= f.size() || f[*at] != '*') return ReadNumber(f, at, out);
    ++*at;
    Value v = Take(it);
    if (!it.failed() && !v.integer()) it.Fail("* wants int");
    *out = it.failed() ? 0 : std::clamp<int64_t>(v.i(), -INT64_MAX / 32, INT64_MAX / 32);
    return true;
  }
};

// What stands after "%(": up to its ")", brackets counted.
size_t KeyEnd(std::string_view f, size_t at) {
  for (int depth = 1; at < f.size(); ++at) {
    depth += f[at] == '(' ? 1 : f[at] == ')' ? -1 : 0;
    if (depth == 0) return at;
  }
  return std::string_view::npos;
}

void AppendConverted(Interpreter& it, TextBuilder& out, Value v, Spec spec, char type) {
  char side = spec.align == '<' ? '<' : '>';
  if (type == 's' || type == 'r') {
    TextBuilder body;
    type == 's' ? it.AppendStr(body, v) : it.AppendRepr(body, v);
    TextPtr text = body.Take();
    if (spec.precision >= 0 && spec.precision < text->chars)
      text = SubText(*text, 0, ByteOffset(*text, spec.precision));
    return AppendPadded(it, out, *text, spec, side);
  }
  if (type == 'c') {
    TextPtr text = CharOf(it, v);
    return it.failed() ? void() : AppendPadded(it, out, *text, spec, side);
  }
  if (!OneOf(type, "diuxXoeEfFgG"))
    return void(it.Fail(StrCat("unsupported format character '", std::string(1, type), "'")));
  if (!v.number())
    return void(
        it.Fail(StrCat("%", std::string(1, type), " format: a real number is required, not ", TypeName(v))));
  if (spec.precision > kMaxPrecision) return void(it.Fail(StrCat("a precision above ", kMaxPrecision)));
  if (spec.zero && spec.align != '<') {
    spec.align = '=';
    spec.fill = "0";
  }
  bool integer = OneOf(type, "diuxXo");
  if (integer && v.Is(Kind::kFloat)) {
    if (!OneOf(type, "diu"))
      return void(it.Fail(StrCat("%", std::string(1, type), " format: an integer is required, not float")));
    if (!(std::fabs(v.d()) < 9.2e18)) return void(it.Fail("an integer beyond 64 bits"));
    v = Value::Int(static_cast<int64_t>(v.d()), v.user());
  }
  if (type == 'i' || type == 'u') type = 'd';
  std::string digits = Digits(v, spec, type);
  if (integer && spec.precision > static_cast<int64_t>(digits.size()))
    digits.insert(0, static_cast<size_t>(spec.precision) - digits.size(), '0');
  AppendNumber(it, out, v, spec, type, std::move(digits));
}

}  // namespace

Value FormatPercent(Interpreter& it, const Text& format, const Value& values) {
  std::string_view f = format.bytes;
  TextBuilder out;
  PercentArgs args{values};
  size_t run = 0;
  if (!it.ChargeBytes(f.size())) return {};
  for (size_t at = 0; (at = f.find('%', at)) != std::string_view::npos && !it.failed();) {
    if (!it.Charge(1)) return {};
    out.Append(format, run, at++);
    Spec spec;
    Value v;
    bool named = at < f.size() && f[at] == '(';
    if (named) {
      size_t close = KeyEnd(f, at + 1);
      if (close == std::string_view::npos) return it.Fail("incomplete format key");
      if (!values.Is(Kind::kDict)) return it.Fail("format requires a mapping");
      const Value* found = values.dict().FindString(f.substr(at + 1, close - at - 1));
      if (found == nullptr)
        return it.Fail(StrCat("no key '", f.substr(at + 1, close - at - 1), "' for the format"));
      v = *found;
      args.next = 1;
      at = close + 1;
    }
    for (; at < f.size() && OneOf(f[at], "-+ #0"); ++at) {
      if (f[at] == '-') spec.align = '<';
      if (f[at] == '+') spec.sign = '+';
      if (f[at] == ' ' && spec.sign == 0) spec.sign = ' ';
      if (f[at] == '#') spec.alternate = true;
      if (f[at] == '0') spec.zero = true;
    }
    args.Number(it, f, &at, &spec.width);
    if (spec.width < 0) {
      spec.align = '<';
      spec.width = -spec.width;
    }
    if (at < f.size() && f[at] == '.') {
      args.Number(it, f, &++at, &spec.precision);
      spec.precision = std::max<int64_t>(spec.precision, 0);
    }
    if (at < f.size() && OneOf(f[at], "hlL")) ++at;
    if (it.failed()) return {};
    if (at >= f.size()) return it.Fail("incomplete format");
    char type = f[at++];
    run = at;
    if (type == '%' && f[at - 2] == '%') {
      out.Append("%", false);
      continue;
    }
    if (!named) v = args.Take(it);
    if (it.failed()) return {};
    AppendConverted(it, out, std::move(v), std::move(spec), type);
  }
  if (it.failed()) return {};
  out.Append(format, run, f.size());
  // Python lets everything with [] stand unused, tuples and strings excepted.
  bool mapping = values.Is(Kind::kDict) || values.Is(Kind::kList) || values.undefined() ||
                 (values.Is(Kind::kView) && values.list().label.starts_with("range"));
  if (args.next < args.count() && !mapping)
    return it.Fail("not all arguments converted during string formatting");
  return it.ChargeBytes(out.size()) ? Value::String(out.Take()) : Value();
}

namespace {

// str.format over arguments. Numbered and unnumbered fields do not mix.
class BraceFormatter {
 public:
  BraceFormatter(Interpreter& it, Args& args) : it_(it), args_(args) {}

  // level: 0, or 1 for a format specifier that has fields itself.
  void Run(const Text& format, TextBuilder& out, int level) {
    if (level > 1) return void(it_.Fail("Max string recursion exceeded"));
    std::string_view f = format.bytes;
    if (!it_.ChargeBytes(f.size())) return;
    size_t run = 0;
    for (size_t at = 0; at < f.size() && !it_.failed();) {
      if (f[at] != '{' && f[at] != '}') {
        ++at;
        continue;
      }
      if (!it_.Charge(1)) return;
      out.Append(format, run, at);
      if (at + 1 < f.size() && f[at + 1] == f[at]) {
        out.Append(format, at, at + 1);
        run = at += 2;
        continue;
      }
      size_t close = at + 1;
      for (int depth = 1; close < f.size(); ++close) {
        depth += f[close] == '{' ? 1 : f[close] == '}' ? -1 : 0;
        if (depth == 0) break;
      }
      if (f[at] == '}' || close >= f.size())
        return void(it_.Fail("Single '{' or '}' encountered in format string"));
      Field(*SubText(format, at + 1, close), out, level);
      run = at = close + 1;
    }
    out.Append(format, run, f.size());
  }

 private:
  // name[!conversion][:spec]
  void Field(const Text& field, TextBuilder& out, int level) {
    std::string_view f = field.bytes;
    size_t end = 0;
    for (bool bracket = false; end < f.size() && (bracket || !OneOf(f[end], ":!")); ++end)
      bracket = f[end] == '[' || (bracket && f[end] != ']');
    std::string_view name = f.substr(0, end);
    if (name.find('{') != std::string_view::npos) return void(it_.Fail("unexpected '{' in field name"));
    char conversion = 0;
    if (end < f.size() && f[end] == '!') {
      if (end + 1 >= f.size()) return void(it_.Fail("a conversion specifier is missing after '!'"));
      conversion = f[end + 1];
      end += 2;
      if (end < f.size() && f[end] != ':') return void(it_.Fail("expected ':' after conversion specifier"));
    }
    Value v = Find(name);
    if (it_.failed()) return;
    if (conversion == 'r') {
      TextBuilder repr;
      it_.AppendRepr(repr, v);
      v = Value::String(repr.Take());
    } else if (conversion == 's') {
      v = Value::String(it_.Str(v));
    } else if (conversion != 0) {
      return void(it_.Fail("Unknown conversion specifier"));
    }
    TextBuilder spec;
    if (end < f.size()) Run(*SubText(field, end + 1, f.size()), spec, level + 1);
    if (!it_.failed()) AppendFormatted(it_, out, v, spec.bytes());
  }

  Value Find(std::string_view field) {
    bool digits = !field.empty() && field.find_first_not_of("0123456789") == std::string_view::npos;
    if (field.empty() ? numbered_ : digits && next_ > 0)
      return it_.Fail("cannot mix numbered and automatically numbered fields");
    numbered_ |= digits;
    size_t end = std::min(field.find_first_of(".["), field.size());
    std::string_view name = field.substr(0, end);
    int64_t index = static_cast<int64_t>(next_);
    Value v;
    if (field.empty() || ParsePythonInt(name, 10, &index)) {
      if (field.empty()) ++next_;
      if (index < 0 || index >= static_cast<int64_t>(args_.positional.size()))
        return it_.Fail(StrCat("Replacement index ", index, " out of range for positional args tuple"));
      v = args_.positional[static_cast<size_t>(index)];
    } else {
      auto found = std::find_if(args_.named.begin(), args_.named.end(),
                                [&](const auto& n) { return n.first.bytes() == name; });
      if (found == args_.named.end()) return it_.Fail(StrCat("no argument '", name, "' for the format"));
      v = found->second;
    }
    for (field.remove_prefix(end); !field.empty() && !it_.failed();) {
      bool item = field[0] == '[';
      size_t stop = item ? field.find(']') : std::min(field.find_first_of(".[", 1), field.size());
      if (stop == std::string_view::npos) return it_.Fail("Missing ']' in format string");
      std::string_view key = field.substr(1, stop - 1);
      if (key.empty()) return it_.Fail("Empty attribute in format string");
      v = !item                             ? it_.GetAttr(v, key)
          : ParsePythonInt(key, 10, &index) ? it_.GetItem(v, Value::Int(index))
                                            : it_.GetItem(v, Value::String(std::string(key)));
      field.remove_prefix(item ? stop + 1 : stop);
      if (!field.empty() && field[0] != '.' && field[0] != '[')
        return it_.Fail("Only '.' or '[' may follow ']' in format field specifier");
    }
    return v;
  }

  Interpreter& it_;
  Args& args_;
  size_t next_ = 0;
  bool numbered_ = false;
};

}  // namespace

Value FormatBraces(Interpreter& it, const Text& format, Args& args) {
  TextBuilder out;
  BraceFormatter(it, args).Run(format, out, 0);
  return !it.failed() && it.ChargeBytes(out.size()) ? Value::String(out.Take()) : Value();
}

Value FormatTime(Interpreter& it, const Text& format) {
  // A width such as %999999d would let strftime write without bound into its buffer; it returns 0 instead.
  if (format.bytes.size() > 256) return it.Fail("strftime_now: a format of more than 256 bytes");
  if (format.bytes.empty()) return Value::String("");
  char buffer[4096];
  size_t n = strftime(buffer, sizeof(buffer), format.bytes.c_str(), &it.now());
  return Value::String(std::string(buffer, n), AnyUser(format));
}

}  // namespace fd::jinja
