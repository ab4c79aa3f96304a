// Truth, text, equality, order and arithmetic, as Python has them.
#include <algorithm>
#include <cmath>

#include "base/strings.h"
#include "base/utf8.h"
#include "server/chat/jinja/interpreter.h"
#include "server/chat/jinja/unicode.h"

namespace fd::jinja {

bool Interpreter::Truth(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return v.i() != 0;
    case Kind::kFloat:
      return v.d() != 0;
    case Kind::kString:
      return !v.bytes().empty();
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kView:
      return !v.items().empty();
    case Kind::kDict:
      return !v.dict().items.empty();
    default:
      return true;
  }
}

void Interpreter::AppendStr(TextBuilder& out, const Value& v) {
  if (v.string()) {
    if (!ChargeBytes(v.bytes().size())) return;
    out.Append(v.text());
  } else if (!v.undefined()) {
    AppendRepr(out, v);
  }
  if (out.size() > static_cast<size_t>(limits_.max_output_bytes))
    Fail(StrCat("a text of more than ", limits_.max_output_bytes, " bytes"));
}

TextPtr Interpreter::Str(const Value& v) {
  if (v.string()) return v.text_ptr();
  TextBuilder out;
  AppendStr(out, v);
  return out.Take();
}

namespace {

void AppendStringRepr(TextBuilder& out, const Text& t) {
  char quote = t.bytes.find('\'') != std::string::npos && t.bytes.find('"') == std::string::npos ? '"' : '\'';
  out.Append(std::string(1, quote), false);
  std::string_view s = t.bytes;
  size_t run = 0, at = 0;
  auto flush = [&](size_t end) { out.Append(t, run, end); };
  while (at < s.size()) {
    Utf8Char c = DecodeUtf8(s.substr(at));
    auto n = static_cast<size_t>(c.length_bytes);
    std::string escape;
    char32_t p = c.code_point;
    if (p == static_cast<char32_t>(quote) || p == '\\') {
      escape = {'\\', static_cast<char>(p)};
    } else if (p == '\n') {
      escape = "\\n";
    } else if (p == '\r') {
      escape = "\\r";
    } else if (p == '\t') {
      escape = "\\t";
    } else if (!IsPrintable(p)) {
      static constexpr char kHex[] = "0123456789abcdef";
      int digits = p < 0x100 ? 2 : p < 0x10000 ? 4 : 8;
      escape = digits == 2 ? "\\x" : digits == 4 ? "\\u" : "\\U";
      for (int d = digits - 1; d >= 0; --d) escape += kHex[(p >> (4 * d)) & 15];
    }
    if (!escape.empty()) {
      flush(at);
      out.Append(escape, IsUser(t, at));
      run = at + n;
    }
    at += n;
  }
  flush(s.size());
  out.Append(std::string(1, quote), false);
}

}  // namespace

void Interpreter::AppendRepr(TextBuilder& out, const Value& v) {
  Depth depth(this);
  if (!Charge(1)) return;
  if (out.size() > static_cast<size_t>(limits_.max_output_bytes)) {
    Fail(StrCat("a text of more than ", limits_.max_output_bytes, " bytes"));
    return;
  }
  switch (v.kind()) {
    case Kind::kUndefined:
      out.Append("Undefined", false);
      return;
    case Kind::kNone:
      out.Append("None", v.user());
      return;
    case Kind::kBool:
      out.Append(v.i() ? "True" : "False", v.user());
      return;
    case Kind::kInt:
      out.Append(StrCat(v.i()), v.user());
      return;
    case Kind::kFloat:
      out.Append(FloatRepr(v.d()), v.user());
      return;
    case Kind::kString:
      if (ChargeBytes(v.bytes().size())) AppendStringRepr(out, v.text());
      return;
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kView:
      return AppendItemsRepr(out, v);
    case Kind::kDict:
    case Kind::kNamespace:
      return AppendMembersRepr(out, v);
    default:
      return out.Append(OpaqueRepr(v), false);
  }
}

void Interpreter::AppendItemsRepr(TextBuilder& out, const Value& v) {
  const std::string& label = v.list().label;
  bool tuple = v.Is(Kind::kTuple), view = v.Is(Kind::kView);
  if (view && label.starts_with("range")) return out.Append(label, true);
  if (view) out.Append(label, v.user());
  out.Append(view ? "([" : tuple ? "(" : "[", v.user());
  bool first = true;
  for (const Value& item : v.items()) {
    if (!first) out.Append(", ", v.user());
    first = false;
    AppendRepr(out, item);
    if (failed()) return;
  }
  out.Append(view ? "])" : tuple ? (v.items().size() == 1 ? ",)" : ")") : "]", v.user());
}

void Interpreter::AppendMembersRepr(TextBuilder& out, const Value& v) {
  bool ns = v.Is(Kind::kNamespace), first = true;
  out.Append(ns ? "<Namespace {" : "{", v.user());
  auto member = [&](const Value& key, const Value& value) {
    if (!first) out.Append(", ", v.user());
    first = false;
    AppendRepr(out, key);
    out.Append(": ", v.user());
    AppendRepr(out, value);
  };
  if (ns) {
    for (const auto& [key, value] : v.box<NamespaceData>().attributes) {
      if (!failed()) member(Value::String(key), value);
    }
  } else {
    for (const auto& [key, value] : v.dict().items) {
      if (!failed()) member(key, value);
    }
  }
  out.Append(ns ? "}>" : "}", v.user());
}

std::string Interpreter::OpaqueRepr(const Value& v) {
  switch (v.kind()) {
    case Kind::kMacro: {
      const Stmt& s = *v.box<MacroData>().node;
      return s.kind == StmtKind::kMacro ? StrCat("<Macro '", s.name, "'>") : "<Macro anonymous>";
    }
    case Kind::kLoop:
      return StrCat("<LoopContext ", v.box<LoopData>().index0 + 1, "/", v.box<LoopData>().items.size(), ">");
    case Kind::kFunction:
    case Kind::kMethod:
      return StrCat("<function ", v.box<FunctionData>().name, ">");
    default:
      return StrCat("<", TypeName(v), " object>");
  }
}

bool Interpreter::Equal(const Value& a, const Value& b) {
  Depth depth(this);
  if (failed()) return false;
  if (a.number() && b.number()) {
    if (a.integer() && b.integer()) return a.i() == b.i();
    return a.d() == b.d();
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kString:
      if (a.identity() == b.identity()) return true;
      if (a.bytes().size() != b.bytes().size()) return false;
      return ChargeBytes(a.bytes().size()) && a.bytes() == b.bytes();
    case Kind::kList:
    case Kind::kTuple:
      if (a.items().size() != b.items().size() || !ChargeItems(a.items().size())) return false;
      for (size_t i = 0; i < a.items().size(); ++i) {
        if (!Equal(a.items()[i], b.items()[i])) return false;
      }
      return true;
    case Kind::kDict:
      if (a.dict().items.size() != b.dict().items.size() || !ChargeItems(a.dict().items.size())) return false;
      for (const auto& [key, value] : a.dict().items) {
        const Value* other = DictFind(b, key);
        if (other == nullptr || !Equal(value, *other)) return false;
      }
      return true;
    case Kind::kView:
      if (a.list().label.starts_with("range") != b.list().label.starts_with("range")) return false;
      return Equal(Value::List(a.items()), Value::List(b.items()));
    default:
      return a.identity() == b.identity();
  }
}

int Interpreter::Order(const Value& a, const Value& b, const char* op) {
  Depth depth(this);
  if (failed()) return 0;
  if (a.number() && b.number()) {
    if (a.integer() && b.integer()) return a.i() < b.i() ? -1 : a.i() > b.i();
    return a.d() < b.d() ? -1 : a.d() > b.d();
  }
  if (a.string() && b.string()) {
    if (!ChargeBytes(std::min(a.bytes().size(), b.bytes().size()))) return 0;
    int order = a.bytes().compare(b.bytes());
    return order < 0 ? -1 : order > 0;
  }
  if (a.sequence() && a.kind() == b.kind()) {
    if (!ChargeItems(std::min(a.items().size(), b.items().size()))) return 0;
    for (size_t i = 0; i < a.items().size() && i < b.items().size(); ++i) {
      if (Equal(a.items()[i], b.items()[i])) continue;
      return Order(a.items()[i], b.items()[i], op);
    }
    return a.items().size() < b.items().size() ? -1 : a.items().size() > b.items().size();
  }
  if (a.undefined() || b.undefined()) {
    Fail(UndefinedMessage(a.undefined() ? a : b));
  } else {
    Fail(StrCat("'", op, "' not supported between instances of '", TypeName(a), "' and '", TypeName(b), "'"));
  }
  return 0;
}

bool Interpreter::Contains(const Value& container, const Value& item) {
  if (container.string()) {
    if (!item.string()) {
      Fail(StrCat("'in <string>' requires string as left operand, not ", TypeName(item)));
      return false;
    }
    return ChargeBytes(container.bytes().size()) &&
           FindBytes(container.bytes(), item.bytes(), 0) != std::string_view::npos;
  }
  if (container.Is(Kind::kDict)) {
    if (!Hashable(item)) {
      Fail(StrCat("unhashable type: '", TypeName(item), "'"));
      return false;
    }
    return DictFind(container, item) != nullptr;
  }
  Values items;
  if (container.has_items()) {
    for (const Value& v : container.items()) {
      if (!Charge(1)) return false;
      if (Equal(v, item)) return true;
    }
    return false;
  }
  if (!IsIterable(container)) {
    Fail(StrCat("argument of type '", TypeName(container), "' is not iterable"));
    return false;
  }
  if (!Iterate(container, &items)) return false;
  return std::any_of(items.begin(), items.end(), [&](const Value& v) { return Charge(1) && Equal(v, item); });
}

bool Interpreter::IsIterable(const Value& v) const {
  return v.undefined() || v.string() || v.has_items() || v.Is(Kind::kDict) || v.Is(Kind::kIterator) ||
         v.Is(Kind::kLoop);
}

bool Interpreter::Iterate(const Value& v, Values* out) {
  if (!IsIterable(v)) {
    Fail(StrCat("'", TypeName(v), "' object is not iterable"));
    return false;
  }
  if (v.undefined()) {
    out->clear();
  } else if (v.string()) {
    *out = SplitChars(*this, v.text());
  } else if (v.has_items()) {
    if (ChargeItems(v.items().size())) *out = v.items();
  } else if (v.Is(Kind::kDict)) {
    if (!ChargeItems(v.dict().items.size())) return false;
    for (const auto& member : v.dict().items) out->push_back(member.first);
  } else if (v.Is(Kind::kIterator)) {
    auto& state = v.box<IteratorData>();
    if (!ChargeItems(state.items.size() - state.next)) return false;
    out->assign(state.items.begin() + static_cast<long>(state.next), state.items.end());
    state.next = state.items.size();
  } else {
    Fail("a loop cannot be iterated");
  }
  return !failed();
}

bool Interpreter::Length(const Value& v, int64_t* length) {
  if (v.undefined()) {
    *length = 0;
  } else if (v.string()) {
    *length = v.text().chars;
  } else if (v.has_items()) {
    *length = static_cast<int64_t>(v.items().size());
  } else if (v.Is(Kind::kDict)) {
    *length = static_cast<int64_t>(v.dict().items.size());
  } else if (v.Is(Kind::kLoop)) {
    *length = static_cast<int64_t>(v.box<LoopData>().items.size());
  } else {
    return false;
  }
  return true;
}

bool Interpreter::Hashable(const Value& v) const {
  if (v.Is(Kind::kTuple))
    return std::all_of(v.items().begin(), v.items().end(), [&](const Value& i) { return Hashable(i); });
  return !v.Is(Kind::kList) && !v.Is(Kind::kDict);
}

const Value* Interpreter::DictFind(const Value& dict, const Value& key) {
  if (key.string()) return dict.dict().FindString(key.bytes());
  if (!ChargeItems(dict.dict().items.size())) return nullptr;
  for (const auto& [k, v] : dict.dict().items) {
    if (!k.string() && Equal(k, key)) return &v;
  }
  return nullptr;
}

namespace {

Value Multiply(Interpreter& it, const Value& sequence, int64_t times) {
  bool string = sequence.string();
  size_t size = string ? sequence.bytes().size() : sequence.items().size();
  if (times <= 0 || size == 0) return string ? Value::String("") : Value::Sequence(sequence.kind(), {});
  int64_t total = 0;
  if (__builtin_mul_overflow(static_cast<int64_t>(size), times, &total)) total = INT64_MAX;
  if (string ? !it.ChargeBytes(static_cast<size_t>(total)) : !it.Charge(total / 4 + 1)) return {};
  if (string) {
    if (!it.Charge(times / 16)) return {};
    TextBuilder out;
    for (int64_t i = 0; i < times; ++i) out.Append(sequence.text());
    return Value::String(out.Take());
  }
  Values items;
  for (int64_t i = 0; i < times; ++i)
    items.insert(items.end(), sequence.items().begin(), sequence.items().end());
  return Value::Sequence(sequence.kind(), std::move(items));
}

Value Power(Interpreter& it, const Value& a, const Value& b, bool user) {
  if (a.integer() && b.integer() && b.i() >= 0) {
    int64_t result = 1, base = a.i(), exponent = b.i();
    while (exponent > 0) {
      if ((exponent & 1) && __builtin_mul_overflow(result, base, &result))
        return it.Fail("an integer beyond 64 bits");
      exponent >>= 1;
      if (exponent > 0 && __builtin_mul_overflow(base, base, &base))
        return it.Fail("an integer beyond 64 bits");
    }
    return Value::Int(result, user);
  }
  if (a.d() == 0 && b.d() < 0) return it.Fail("0.0 cannot be raised to a negative power");
  double result = std::pow(a.d(), b.d());
  if (std::isinf(result) && std::isfinite(a.d()) && std::isfinite(b.d()))
    return it.Fail("(34, 'Numerical result out of range')");
  if (std::isnan(result) && a.d() < 0) return it.Fail("a complex number");
  return Value::Float(result, user);
}

}  // namespace

Value Interpreter::Binary(std::string_view op, const Value& a, const Value& b) {
  if (op == "%" && a.string()) return FormatPercent(*this, a.text(), b);
  if (a.undefined() || b.undefined()) return Fail(UndefinedMessage(a.undefined() ? a : b));
  bool user = a.user() || b.user();
  if (op == "+" && a.string() && b.string()) {
    if (!ChargeBytes(a.bytes().size() + b.bytes().size())) return {};
    TextBuilder out;
    out.Append(a.text());
    out.Append(b.text());
    return Value::String(out.Take());
  }
  if (op == "+" && a.sequence() && a.kind() == b.kind()) {
    if (!ChargeItems(a.items().size() + b.items().size())) return {};
    Values items = a.items();
    items.insert(items.end(), b.items().begin(), b.items().end());
    return Value::Sequence(a.kind(), std::move(items));
  }
  if (op == "*") {
    if ((a.string() || a.sequence()) && b.integer()) return Multiply(*this, a, b.i());
    if ((b.string() || b.sequence()) && a.integer()) return Multiply(*this, b, a.i());
  }
  if (!a.number() || !b.number()) {
    if (op == "+" && a.string())
      return Fail(StrCat("can only concatenate str (not \"", TypeName(b), "\") to str"));
    if (op == "+" && a.sequence())
      return Fail(
          StrCat("can only concatenate ", TypeName(a), " (not \"", TypeName(b), "\") to ", TypeName(a)));
    return Fail(
        StrCat("unsupported operand type(s) for ", op, ": '", TypeName(a), "' and '", TypeName(b), "'"));
  }
  if (op == "**") return Power(*this, a, b, user);
  bool ints = a.integer() && b.integer();
  if (op == "/" || op == "//" || op == "%") {
    if (b.d() == 0) return Fail(ints || op == "/" ? "division by zero" : "float floor division by zero");
    if (op == "/") return Value::Float(a.d() / b.d(), user);
    if (ints) {
      if (b.i() == -1) {
        int64_t negated = 0;
        if (op == "%") return Value::Int(0, user);
        if (__builtin_sub_overflow(int64_t{0}, a.i(), &negated)) return Fail("an integer beyond 64 bits");
        return Value::Int(negated, user);
      }
      int64_t q = a.i() / b.i(), r = a.i() % b.i();
      if (r != 0 && (r < 0) != (b.i() < 0)) {
        --q;
        r += b.i();
      }
      return Value::Int(op == "%" ? r : q, user);
    }
    double r = std::fmod(a.d(), b.d());
    if (r != 0 && (r < 0) != (b.d() < 0)) r += b.d();
    if (op == "%") return Value::Float(r == 0 ? std::copysign(0.0, b.d()) : r, user);
    double q = (a.d() - r) / b.d();
    double floored = std::floor(q);
    if (q - floored > 0.5) floored += 1;
    return Value::Float(q == 0 ? std::copysign(0.0, a.d() / b.d()) : floored, user);
  }
  if (ints) {
    int64_t result = 0;
    bool overflow = op == "+"   ? __builtin_add_overflow(a.i(), b.i(), &result)
                    : op == "-" ? __builtin_sub_overflow(a.i(), b.i(), &result)
                                : __builtin_mul_overflow(a.i(), b.i(), &result);
    return overflow ? Fail("an integer beyond 64 bits") : Value::Int(result, user);
  }
  return Value::Float(op == "+" ? a.d() + b.d() : op == "-" ? a.d() - b.d() : a.d() * b.d(), user);
}

void Interpreter::SortBy(Values& items, Values& keys, bool reverse) {
  // Our own merge sort: a failing or inconsistent comparison (NaN) must stay harmless. Python's reverse keeps
  // the order of equal items.
  size_t n = items.size();
  std::vector<uint32_t> order(n), buffer(n);
  for (size_t i = 0; i < n; ++i) order[i] = static_cast<uint32_t>(i);
  for (size_t width = 1; width < n; width *= 2) {
    for (size_t low = 0; low < n; low += 2 * width) {
      size_t mid = std::min(low + width, n), high = std::min(low + 2 * width, n), a = low, b = mid;
      for (size_t k = low; k < high; ++k) {
        bool take_right = a >= mid;
        if (!take_right && b < high) {
          if (!Charge(1)) return;
          take_right =
              reverse ? Order(keys[order[a]], keys[order[b]]) < 0 : Order(keys[order[b]], keys[order[a]]) < 0;
          if (failed()) return;
        }
        buffer[k] = take_right ? order[b++] : order[a++];
      }
    }
    order.swap(buffer);
  }
  Values sorted;
  for (uint32_t i : order) sorted.push_back(std::move(items[i]));
  items = std::move(sorted);
}

}  // namespace fd::jinja
