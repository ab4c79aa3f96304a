// "%s" % values, "{}".format(values) and strftime.
#include <algorithm>
#include <cmath>

#include "base/strings.h"
#include "server/chat/jinja/interpreter.h"

namespace fd::jinja {
namespace {

struct Spec {
  char align = 0, sign = 0, type = 0;
  bool alternate = false, zero = false, comma = false;
  std::string fill = " ";
  int64_t width = 0, precision = -1;
};

constexpr int64_t kMaxPrecision = 300;

// Digits of a number without its sign; empty when the type letter is not for numbers.
std::string Digits(const Value& v, const Spec& spec, char type) {
  char buffer[800];
  if (std::string_view("eEfFgG").find(type) != std::string_view::npos) {
    std::string format = StrCat("%", spec.alternate ? "#" : "", ".*", std::string(1, type));
    snprintf(buffer, sizeof(buffer), format.c_str(),
             static_cast<int>(spec.precision < 0 ? 6 : spec.precision), std::fabs(v.d()));
    return buffer;
  }
  uint64_t n = v.i() < 0 ? ~static_cast<uint64_t>(v.i()) + 1 : static_cast<uint64_t>(v.i());
  if (type == 'b') {
    std::string bits;
    do bits.insert(bits.begin(), static_cast<char>('0' + (n & 1)));
    while (n >>= 1);
    return (spec.alternate ? "0b" : "") + bits;
  }
  const char* format = type == 'x' ? "%lx" : type == 'X' ? "%lX" : type == 'o' ? "%lo" : "%lu";
  snprintf(buffer, sizeof(buffer), format, n);
  std::string_view prefix = !spec.alternate ? ""
                            : type == 'x'   ? "0x"
                            : type == 'X'   ? "0X"
                            : type == 'o'   ? "0o"
                                            : "";
  return StrCat(prefix, std::string_view(buffer));
}

void AppendPadded(Interpreter& it, TextBuilder& out, const Text& body, const Spec& spec, char align) {
  int64_t space = std::max<int64_t>(0, spec.width - body.chars);
  int64_t left = align == '>' ? space : align == '^' ? space / 2 : 0;
  TextPtr fill = MakeText(spec.fill, false);
  TextPtr padded = Pad(it, body, left, space - left, fill.get());
  if (it.ChargeBytes(out.size() + padded->bytes.size())) out.Append(*padded);
}

// A number with sign, grouping and zero padding.
void AppendNumber(Interpreter& it, TextBuilder& out, const Value& v, Spec spec, char type,
                  bool percent = false) {
  bool user = v.user();
  std::string digits = Digits(v, spec, type) + (percent ? "%" : "");
  if (spec.comma) {
    size_t end = digits.find_first_not_of("0123456789");
    for (size_t at = end == std::string::npos ? digits.size() : end; at > 3;) digits.insert(at -= 3, ",");
  }
  bool negative = v.Is(Kind::kFloat) ? std::signbit(v.d()) : v.i() < 0;
  std::string sign = negative ? "-" : spec.sign == '+' ? "+" : spec.sign == ' ' ? " " : "";
  int64_t zeros = spec.zero ? spec.width - static_cast<int64_t>(sign.size() + digits.size()) : 0;
  if (zeros > 0) {
    if (!it.ChargeBytes(static_cast<size_t>(zeros))) return;
    digits.insert(0, static_cast<size_t>(zeros), '0');
  }
  AppendPadded(it, out, *MakeText(sign + digits, user), spec, spec.align ? spec.align : '>');
}

bool ReadNumber(std::string_view f, size_t* at, int64_t* out) {
  size_t start = *at;
  *out = 0;
  while (*at < f.size() && f[*at] >= '0' && f[*at] <= '9')
    *out = std::min<int64_t>(*out * 10 + (f[(*at)++] - '0'), INT64_MAX / 32);
  return *at > start;
}

// [[fill]align][sign][#][0][width][,][.precision][type]
void AppendFormatted(Interpreter& it, TextBuilder& out, const Value& v, std::string_view f) {
  Spec spec;
  size_t at = 0;
  if (f.size() > 1 && std::string_view("<>^").find(f[1]) != std::string_view::npos &&
      static_cast<unsigned char>(f[0]) < 0x80) {
    spec.fill = f.substr(0, 1);
    spec.align = f[1];
    at = 2;
  } else if (!f.empty() && std::string_view("<>^").find(f[0]) != std::string_view::npos) {
    spec.align = f[at++];
  }
  if (at < f.size() && std::string_view("+- ").find(f[at]) != std::string_view::npos) spec.sign = f[at++];
  if (at < f.size() && f[at] == '#') spec.alternate = true, ++at;
  if (at < f.size() && f[at] == '0') spec.zero = spec.align == 0, ++at;
  ReadNumber(f, &at, &spec.width);
  if (at < f.size() && f[at] == ',') spec.comma = true, ++at;
  bool precise = at < f.size() && f[at] == '.';
  if (precise && !ReadNumber(f, &++at, &spec.precision))
    return void(it.Fail("Format specifier missing precision"));
  if (at < f.size()) spec.type = f[at++];
  if (at != f.size()) return void(it.Fail("Invalid format specifier"));
  bool number = v.number() && !(v.Is(Kind::kBool) && spec.type == 0);
  if (number && spec.type != 's') {
    if (spec.precision > kMaxPrecision) return void(it.Fail(StrCat("a precision above ", kMaxPrecision)));
    char type = spec.type == 'n' ? 0 : spec.type;
    if (type == '%') {
      if (spec.precision < 0) spec.precision = 6;
      return AppendNumber(it, out, Value::Float(v.d() * 100, v.user()), spec, 'f', true);
    }
    bool real = std::string_view("eEfFgG").find(type) != std::string_view::npos && type != 0;
    if (v.Is(Kind::kFloat) && type == 0 && spec.precision < 0) {
      TextPtr text =
          MakeText((spec.sign == '+' && !std::signbit(v.d()) ? "+" : "") + FloatRepr(v.d()), v.user());
      return AppendPadded(it, out, *text, spec, spec.align ? spec.align : '>');
    }
    if (type == 0) type = v.Is(Kind::kFloat) ? 'g' : 'd';
    if (!real && v.integer() && std::string_view("dxXob").find(type) == std::string_view::npos)
      return void(it.Fail("Unknown format code"));
    if (!real && v.Is(Kind::kFloat) && type != 'g')
      return void(it.Fail("Unknown format code for object of type 'float'"));
    return AppendNumber(it, out, v, spec, type);
  }
  if (spec.type != 0 && spec.type != 's')
    return void(it.Fail(StrCat("Unknown format code '", std::string(1, spec.type), "' for object of type '",
                               TypeName(v), "'")));
  if (!v.string() && !f.empty() && !v.Is(Kind::kBool))
    return void(it.Fail(StrCat("unsupported format string passed to ", TypeName(v), ".__format__")));
  TextPtr text = it.Str(v);
  if (spec.precision >= 0 && spec.precision < text->chars)
    text = SubText(*text, 0, ByteOffset(*text, spec.precision));
  AppendPadded(it, out, *text, spec, spec.align ? spec.align : '<');
}

}  // namespace

Value FormatPercent(Interpreter& it, const Text& format, const Value& values) {
  std::string_view f = format.bytes;
  TextBuilder out;
  size_t next = 0, run = 0;
  bool tuple = values.Is(Kind::kTuple);
  auto take = [&]() -> Value {
    if (next >= (tuple ? values.items().size() : 1)) return it.Fail("not enough arguments for format string");
    ++next;
    return tuple ? values.items()[next - 1] : values;
  };
  if (!it.ChargeBytes(f.size())) return {};
  for (size_t at = 0; (at = f.find('%', at)) != std::string_view::npos && !it.failed();) {
    if (!it.Charge(1)) return {};
    out.Append(format, run, at++);
    Spec spec;
    Value v;
    bool named = at < f.size() && f[at] == '(';
    if (named) {
      size_t close = f.find(')', at);
      if (close == std::string_view::npos) return it.Fail("incomplete format key");
      if (!values.Is(Kind::kDict)) return it.Fail("format requires a mapping");
      const Value* found = values.dict().FindString(f.substr(at + 1, close - at - 1));
      if (found == nullptr)
        return it.Fail(StrCat("no key '", f.substr(at + 1, close - at - 1), "' for the format"));
      v = *found;
      next = 1;
      at = close + 1;
    }
    for (; at < f.size() && std::string_view("-+ #0").find(f[at]) != std::string_view::npos; ++at) {
      if (f[at] == '-') spec.align = '<';
      if (f[at] == '+') spec.sign = '+';
      if (f[at] == ' ' && spec.sign == 0) spec.sign = ' ';
      if (f[at] == '#') spec.alternate = true;
      if (f[at] == '0') spec.zero = true;
    }
    ReadNumber(f, &at, &spec.width);
    if (at < f.size() && f[at] == '.') ReadNumber(f, &++at, &spec.precision);
    if (at >= f.size()) return it.Fail("incomplete format");
    char type = f[at++];
    run = at;
    if (type == '%') {
      out.Append("%", false);
      continue;
    }
    if (!named) v = take();
    if (it.failed()) return {};
    if (spec.align == '<') spec.zero = false;
    if (type == 's' || type == 'r') {
      TextBuilder body;
      type == 's' ? it.AppendStr(body, v) : it.AppendRepr(body, v);
      TextPtr text = body.Take();
      if (spec.precision >= 0 && spec.precision < text->chars)
        text = SubText(*text, 0, ByteOffset(*text, spec.precision));
      AppendPadded(it, out, *text, spec, spec.align ? spec.align : '>');
      continue;
    }
    if (std::string_view("diuxXoeEfFgG").find(type) == std::string_view::npos)
      return it.Fail(StrCat("unsupported format character '", std::string(1, type), "'"));
    if (!v.number())
      return it.Fail(
          StrCat("%", std::string(1, type), " format: a real number is required, not ", TypeName(v)));
    if (spec.precision > kMaxPrecision) return it.Fail(StrCat("a precision above ", kMaxPrecision));
    if (std::string_view("diuxXo").find(type) != std::string_view::npos) {
      if (v.Is(Kind::kFloat)) {
        if (std::string_view("diu").find(type) == std::string_view::npos)
          return it.Fail(StrCat("%", std::string(1, type), " format: an integer is required, not float"));
        if (!(std::fabs(v.d()) < 9.2e18)) return it.Fail("an integer beyond 64 bits");
        v = Value::Int(static_cast<int64_t>(v.d()), v.user());
      }
      if (type == 'i' || type == 'u') type = 'd';
    }
    AppendNumber(it, out, v, spec, type);
  }
  if (it.failed()) return {};
  out.Append(format, run, f.size());
  size_t given = tuple ? values.items().size() : 1;
  if (next < given && !values.Is(Kind::kDict))
    return it.Fail("not all arguments converted during string formatting");
  return it.ChargeBytes(out.size()) ? Value::String(out.Take()) : Value();
}

Value FormatBraces(Interpreter& it, const Text& format, Args& args) {
  std::string_view f = format.bytes;
  if (!it.ChargeBytes(f.size())) return {};
  TextBuilder out;
  size_t run = 0, next = 0;
  for (size_t at = 0; at < f.size() && !it.failed();) {
    if (f[at] != '{' && f[at] != '}') {
      ++at;
      continue;
    }
    if (!it.Charge(1)) return {};
    out.Append(format, run, at);
    if (at + 1 < f.size() && f[at + 1] == f[at]) {
      out.Append(format, at, at + 1);
      run = at += 2;
      continue;
    }
    size_t close = f.find('}', at);
    if (f[at] == '}' || close == std::string_view::npos)
      return it.Fail("Single '{' or '}' encountered in format string");
    std::string_view field = f.substr(at + 1, close - at - 1), spec, conversion;
    if (field.find('{') != std::string_view::npos)
      return it.Fail("format fields inside format specifiers are not supported");
    if (size_t colon = field.find(':'); colon != std::string_view::npos) {
      spec = field.substr(colon + 1);
      field = field.substr(0, colon);
    }
    if (size_t bang = field.find('!'); bang != std::string_view::npos) {
      conversion = field.substr(bang + 1);
      field = field.substr(0, bang);
    }
    size_t end = std::min(field.find_first_of(".["), field.size());
    std::string_view name = field.substr(0, end);
    field.remove_prefix(end);
    int64_t index = static_cast<int64_t>(next);
    Value v;
    if (name.empty() || ParsePythonInt(name, 10, &index)) {
      if (name.empty()) ++next;
      if (index < 0 || index >= static_cast<int64_t>(args.positional.size()))
        return it.Fail(StrCat("Replacement index ", index, " out of range for positional args tuple"));
      v = args.positional[static_cast<size_t>(index)];
    } else {
      auto found = std::find_if(args.named.begin(), args.named.end(),
                                [&](const auto& n) { return n.first.bytes() == name; });
      if (found == args.named.end()) return it.Fail(StrCat("no argument '", name, "' for the format"));
      v = found->second;
    }
    while (!field.empty() && !it.failed()) {
      bool item = field[0] == '[';
      size_t stop = item ? field.find(']') : std::min(field.find_first_of(".[", 1), field.size());
      if (stop == std::string_view::npos) return it.Fail("Missing ']' in format string");
      std::string_view key = field.substr(1, stop - 1);
      v = !item                             ? it.GetAttr(v, key)
          : ParsePythonInt(key, 10, &index) ? it.GetItem(v, Value::Int(index))
                                            : it.GetItem(v, Value::String(std::string(key)));
      field.remove_prefix(item ? stop + 1 : stop);
      if (!field.empty() && field[0] != '.' && field[0] != '[')
        return it.Fail("Only '.' or '[' may follow ']' in format field specifier");
    }
    if (it.failed()) return {};
    if (conversion == "r") {
      TextBuilder repr;
      it.AppendRepr(repr, v);
      v = Value::String(repr.Take());
    } else if (conversion == "s") {
      v = Value::String(it.Str(v));
    } else if (!conversion.empty()) {
      return it.Fail("Unknown conversion specifier");
    }
    AppendFormatted(it, out, v, spec);
    run = at = close + 1;
  }
  if (it.failed()) return {};
  out.Append(format, run, f.size());
  return it.ChargeBytes(out.size()) ? Value::String(out.Take()) : Value();
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
