// Filters of sequences and numbers, the tests, and their tables. Filters of text: text_filters.cc.
#include "server/chat/jinja/filters.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/strings.h"

namespace fd::jinja {
namespace {

Value Lowered(Interpreter& it, const Value& v, bool case_sensitive) {
  return v.string() && !case_sensitive ? Value::String(Lower(it, v.text())) : v;
}

// "a.b.0" or 0: nested access, a missing link replaced by `otherwise`.
Value Attribute(Interpreter& it, const Value& item, const Value* path, const Value* otherwise) {
  if (path == nullptr || path->none()) return item;
  if (!path->string()) {
    Value v = it.GetItem(item, *path);
    return v.undefined() && otherwise != nullptr ? *otherwise : v;
  }
  Value v = item;
  for (const std::string& part : Split(path->bytes(), '.')) {
    if (!it.Charge(1)) return {};
    int64_t index = 0;
    bool digits =
        !part.empty() && std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
    v = digits && ParsePythonInt(part, 10, &index) ? it.GetItem(v, Value::Int(index))
                                                   : it.GetItem(v, Value::String(part));
    if (v.undefined() && otherwise != nullptr) return *otherwise;
    if (it.failed()) return {};
  }
  return v;
}

// `lists`: each key is a list, of one entry per path when the path is "a,b" (sort).
bool Keys(Interpreter& it, const Values& items, const Value* path, bool case_sensitive,
          const Value* otherwise, Values* keys, bool lists = false) {
  bool several = lists && path != nullptr && path->string() && path->bytes().find(',') != std::string::npos;
  for (const Value& item : items) {
    if (!it.Charge(1)) return false;
    if (several) {
      Values parts;
      for (const std::string& one : Split(path->bytes(), ',')) {
        Value p = Value::String(one);
        parts.push_back(Lowered(it, Attribute(it, item, &p, otherwise), case_sensitive));
      }
      keys->push_back(Value::List(std::move(parts)));
    } else {
      Value key = Lowered(it, Attribute(it, item, path, otherwise), case_sensitive);
      keys->push_back(lists ? Value::List({key}) : key);
    }
    if (it.failed()) return false;
  }
  return true;
}

Value Default(Interpreter& it, const Value& v, Args& args) {
  Params p(it, "default", args, {"default_value", "boolean"});
  if (!p.ok()) return {};
  if (v.undefined() || (p.Truth(1, false) && !it.Truth(v))) return p[0] ? *p[0] : Value::String("");
  return v;
}
Value LengthFilter(Interpreter& it, const Value& v, Args& args) {
  Params p(it, "length", args, {});
  int64_t n = 0;
  if (!it.Length(v, &n)) return it.Fail(StrCat("object of type '", TypeName(v), "' has no len()"));
  return Value::Int(n);
}
Value First(Interpreter& it, const Value& v, Args& args) {
  if (v.Is(Kind::kIterator)) {
    auto& state = v.box<IteratorData>();
    if (state.next < state.items.size()) return state.items[state.next++];
    return Value::Undefined("No first item, sequence was empty.");
  }
  if (v.string()) {
    Value c = it.GetItem(v, Value::Int(0));
    return c;
  }
  if (v.has_items() && !v.items().empty()) return v.items()[0];
  Values items;
  if (!it.Iterate(v, &items)) return {};
  return items.empty() ? Value::Undefined("No first item, sequence was empty.") : items[0];
}
Value Last(Interpreter& it, const Value& v, Args& args) {
  if (v.Is(Kind::kIterator)) return it.Fail("'generator' object is not reversible");
  if (v.string()) return it.GetItem(v, Value::Int(-1));
  if (v.has_items() && !v.items().empty()) return v.items().back();
  Values items;
  if (!it.Iterate(v, &items)) return {};
  return items.empty() ? Value::Undefined("No last item, sequence was empty.") : items.back();
}
Value ListFilter(Interpreter& it, const Value& v, Args& args) {
  Values items;
  return it.Iterate(v, &items) ? Value::List(std::move(items)) : Value();
}
Value ReverseFilter(Interpreter& it, const Value& v, Args& args) {
  Values items;
  if (!it.Iterate(v, &items)) return {};
  std::reverse(items.begin(), items.end());
  return v.string() ? Value::String(JoinTexts(it, Text{}, items)) : Value::Iterator(std::move(items));
}
Value Join(Interpreter& it, const Value& v, Args& args) {
  Params p(it, "join", args, {"d", "attribute"});
  Values items, parts;
  if (!p.ok() || !it.Iterate(v, &items)) return {};
  if (p[1] != nullptr) {
    for (const Value& item : items) parts.push_back(Attribute(it, item, p[1], nullptr));
    items = std::move(parts);
  }
  if (it.failed()) return {};
  TextPtr separator = p[0] ? it.Str(*p[0]) : MakeText("", false);
  return Value::String(JoinTexts(it, *separator, items));
}
Value SortFilter(Interpreter& it, const Value& v, Args& args) {
  Params p(it, "sort", args, {"reverse", "case_sensitive", "attribute"});
  Values items, keys;
  if (!p.ok() || !it.Iterate(v, &items) || !Keys(it, items, p[2], p.Truth(1, false), nullptr, &keys, true))
    return {};
  it.SortBy(items, keys, p.Truth(0, false));
  return Value::List(std::move(items));
}
Value Unique(Interpreter& it, const Value& v, Args& args) {
  Params p(it, "unique", args, {"case_sensitive", "attribute"});
  Values items, keys, kept, others;
  if (!p.ok() || !it.Iterate(v, &items) || !Keys(it, items, p[1], p.Truth(0, false), nullptr, &keys))
    return {};
  std::set<std::string_view> seen;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!it.Charge(1)) return {};
    if (keys[i].string()) {
      if (!it.ChargeBytes(keys[i].bytes().size()) || !seen.insert(keys[i].bytes()).second) continue;
    } else {
      if (!it.Hashable(keys[i])) return it.Fail(StrCat("unhashable type: '", TypeName(keys[i]), "'"));
      if (std::any_of(others.begin(), others.end(),
                      [&](const Value& o) { return it.Charge(1) && it.Equal(o, keys[i]); }))
        continue;
      others.push_back(keys[i]);
    }
    kept.push_back(items[i]);
  }
  return Value::Iterator(std::move(kept));
}
template <bool max>
Value MinMax(Interpreter& it, const Value& v, Args& args) {
  Params p(it, max ? "max" : "min", args, {"case_sensitive", "attribute"});
  Values items, keys;
  if (!p.ok() || !it.Iterate(v, &items) || !Keys(it, items, p[1], p.Truth(0, false), nullptr, &keys))
    return {};
  if (items.empty()) return Value::Undefined("No aggregated item, sequence was empty.");
  size_t best = 0;
  for (size_t i = 1; i < items.size(); ++i) {
    if (!it.Charge(1)) return {};
    if (max ? it.Order(keys[best], keys[i]) < 0 : it.Order(keys[i], keys[best]) < 0) best = i;
  }
  return items[best];
}
Value Sum(Interpreter& it, const Value& v, Args& args) {
  Params p(it, "sum", args, {"attribute", "start"});
  Values items;
  if (!p.ok() || !it.Iterate(v, &items)) return {};
  Value total = p[1] ? *p[1] : Value::Int(0);
  if (total.string()) return it.Fail("sum() can't sum strings [use ''.join(seq) instead]");
  for (const Value& item : items) {
    if (!it.Charge(1)) return {};
    total = it.Binary("+", total, Attribute(it, item, p[0], nullptr));
    if (total.depth() > kMaxValueDepth) return it.Fail("values nested too deep");
  }
  return total;
}
Value DictSort(Interpreter& it, const Value& v, Args& args) {
  Params p(it, "dictsort", args, {"case_sensitive", "by", "reverse"});
  if (!p.ok()) return {};
  if (!v.Is(Kind::kDict))
    return it.Fail(v.undefined() ? UndefinedMessage(v)
                                 : StrCat("'", TypeName(v), "' object has no attribute 'items'"));
  const Text* by = p.String(1);
  if (it.failed()) return {};
  if (by != nullptr && by->bytes != "key" && by->bytes != "value")
    return it.Fail("You can only sort by either \"key\" or \"value\"");
  Values items, keys;
  bool case_sensitive = p.Truth(0, false), value_order = by != nullptr && by->bytes == "value";
  for (const auto& [key, value] : v.dict().items) {
    if (!it.Charge(1)) return {};
    items.push_back(Value::Tuple({key, value}));
    keys.push_back(Lowered(it, value_order ? value : key, case_sensitive));
  }
  it.SortBy(items, keys, p.Truth(2, false));
  return Value::List(std::move(items));
}
Value Items(Interpreter& it, const Value& v, Args& args) {
  if (v.undefined()) return Value::Iterator({});
  if (!v.Is(Kind::kDict)) return it.Fail("Can only get item pairs from a mapping.");
  Values items;
  if (!it.ChargeItems(v.dict().items.size())) return {};
  for (const auto& [key, value] : v.dict().items) items.push_back(Value::Tuple({key, value}));
  return Value::Iterator(std::move(items));
}
Value GroupBy(Interpreter& it, const Value& v, Args& args) {
  Params p(it, "groupby", args, {"attribute", "default", "case_sensitive"}, 1);
  Values items, keys;
  if (!p.ok() || !it.Iterate(v, &items) || !Keys(it, items, p[0], p.Truth(2, false), p[1], &keys)) return {};
  it.SortBy(items, keys, false);
  keys.clear();
  if (it.failed() || !Keys(it, items, p[0], p.Truth(2, false), p[1], &keys)) return {};
  Values groups;
  for (size_t i = 0, j = 0; i < items.size(); i = j) {
    for (j = i + 1; j < items.size() && it.Equal(keys[i], keys[j]);) ++j;
    if (!it.Charge(1)) return {};
    Value list =
        Value::List(Values(items.begin() + static_cast<long>(i), items.begin() + static_cast<long>(j)));
    groups.push_back(Value::Sequence(Kind::kTuple, {Attribute(it, items[i], p[0], p[1]), list}, "group"));
  }
  return Value::List(std::move(groups));
}
Value Batch(Interpreter& it, const Value& v, Args& args) {
  Params p(it, "batch", args, {"linecount", "fill_with"}, 1);
  Values items, rows, row;
  if (!p.ok() || !it.Iterate(v, &items)) return {};
  int64_t n = p.Int(0, 1);
  if (it.failed()) return {};
  for (Value& item : items) {
    if (static_cast<int64_t>(row.size()) == n) {
      if (!it.Charge(1)) return {};
      rows.push_back(Value::List(std::move(row)));
      row = {};
    }
    row.push_back(std::move(item));
  }
  if (!row.empty()) {
    int64_t missing = n - static_cast<int64_t>(row.size());
    if (p[1] != nullptr && !p[1]->none() && missing > 0) {
      if (!it.Charge(missing)) return {};
      row.insert(row.end(), static_cast<size_t>(missing), *p[1]);
    }
    rows.push_back(Value::List(std::move(row)));
  }
  return Value::Iterator(std::move(rows));
}
Value SliceFilter(Interpreter& it, const Value& v, Args& args) {
  Params p(it, "slice", args, {"slices", "fill_with"}, 1);
  Values items, columns;
  if (!p.ok() || !it.Iterate(v, &items)) return {};
  int64_t n = p.Int(0, 1), length = static_cast<int64_t>(items.size()), offset = 0;
  if (n == 0) return it.Fail("integer division or modulo by zero");
  if (it.failed() || !it.Charge(std::max<int64_t>(n, 0))) return {};
  for (int64_t k = 0; k < n; ++k) {
    int64_t start = offset + k * (length / n);
    if (k < length % n) ++offset;
    int64_t end = offset + (k + 1) * (length / n);
    Values column(items.begin() + static_cast<long>(start), items.begin() + static_cast<long>(end));
    if (p[1] != nullptr && !p[1]->none() && k >= length % n) column.push_back(*p[1]);
    columns.push_back(Value::List(std::move(column)));
  }
  return Value::Iterator(std::move(columns));
}
Value MapFilter(Interpreter& it, const Value& v, Args& args) {
  Values items, mapped;
  if (!it.Truth(v) && !v.string() && !v.has_items() && !v.Is(Kind::kDict) && !v.undefined())
    return it.Truth(v) ? Value() : Value::Iterator({});
  if (!it.Iterate(v, &items)) return {};
  const Value* attribute = nullptr;
  const Value* otherwise = nullptr;
  if (args.positional.empty()) {
    for (const auto& [key, value] : args.named) {
      if (key.bytes() == "attribute") attribute = &value;
      if (key.bytes() == "default") otherwise = &value;
    }
    if (attribute == nullptr) return it.Fail("map requires a filter argument");
  } else if (!args.positional[0].string()) {
    return it.Fail("map requires the name of a filter");
  }
  for (const Value& item : items) {
    if (!it.Charge(1)) return {};
    if (attribute != nullptr) {
      mapped.push_back(Attribute(it, item, attribute, otherwise));
    } else {
      Args rest{Values(args.positional.begin() + 1, args.positional.end()), args.named};
      mapped.push_back(it.ApplyFilter(args.positional[0].bytes(), item, rest));
    }
    if (it.failed()) return {};
  }
  return Value::Iterator(std::move(mapped));
}
template <bool keep, bool by_attribute>
Value Select(Interpreter& it, const Value& v, Args& args) {
  Values items, kept;
  if (v.none()) return Value::Iterator({});
  if (!it.Iterate(v, &items)) return {};
  size_t at = by_attribute ? 1 : 0;
  if (args.positional.size() < at) return it.Fail("Missing parameter for attribute name");
  if (args.positional.size() > at && !args.positional[at].string())
    return it.Fail("the name of a test must be a string");
  for (Value& item : items) {
    if (!it.Charge(1)) return {};
    Value subject = by_attribute ? Attribute(it, item, &args.positional[0], nullptr) : item;
    if (it.failed()) return {};
    bool hit = false;
    if (args.positional.size() > at) {
      Args rest{Values(args.positional.begin() + static_cast<long>(at) + 1, args.positional.end()),
                args.named};
      hit = it.ApplyTest(args.positional[at].bytes(), subject, rest);
    } else {
      hit = it.Truth(subject);
    }
    if (it.failed()) return {};
    if (hit == keep) kept.push_back(std::move(item));
  }
  return Value::Iterator(std::move(kept));
}

Value Abs(Interpreter& it, const Value& v, Args& args) {
  if (!v.number())
    return it.Fail(v.undefined() ? UndefinedMessage(v)
                                 : StrCat("bad operand type for abs(): '", TypeName(v), "'"));
  if (v.Is(Kind::kFloat)) return Value::Float(std::fabs(v.d()), v.user());
  if (v.i() == INT64_MIN) return it.Fail("an integer beyond 64 bits");
  return Value::Int(std::abs(v.i()), v.user());
}
Value Round(Interpreter& it, const Value& v, Args& args) {
  Params p(it, "round", args, {"precision", "method"});
  int64_t precision = p.ok() ? p.Int(0, 0) : 0;
  const Text* method = p.ok() ? p.String(1) : nullptr;
  if (it.failed()) return {};
  std::string_view how = method ? std::string_view(method->bytes) : "common";
  if (how != "common" && how != "ceil" && how != "floor")
    return it.Fail("method must be common, ceil or floor");
  if (!v.number())
    return it.Fail(v.undefined() ? UndefinedMessage(v)
                                 : StrCat("type ", TypeName(v), " doesn't define __round__ method"));
  if (how != "common") {
    double scale = std::pow(10.0, static_cast<double>(precision)), scaled = v.d() * scale;
    return Value::Float((how == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale, v.user());
  }
  if (v.integer()) {
    if (precision >= 0) return Value::Int(v.i(), v.user());
    if (precision < -18) return Value::Int(0, v.user());
    int64_t unit = 1;
    for (int64_t k = precision; k < 0; ++k) unit *= 10;
    int64_t rest = v.i() % unit, down = v.i() - rest, half = unit / 2;
    if (std::abs(rest) > half || (std::abs(rest) == half && (down / unit) % 2 != 0)) {
      if (__builtin_add_overflow(down, rest < 0 ? -unit : unit, &down))
        return it.Fail("an integer beyond 64 bits");
    }
    return Value::Int(down, v.user());
  }
  if (!std::isfinite(v.d()) || precision > 320) return v;
  if (precision < 0) {
    if (precision < -308) return Value::Float(0, v.user());
    double scale = std::pow(10.0, static_cast<double>(-precision));
    return Value::Float(std::nearbyint(v.d() / scale) * scale, v.user());
  }
  char buffer[800];
  snprintf(buffer, sizeof(buffer), "%.*f", static_cast<int>(precision), v.d());
  return Value::Float(std::strtod(buffer, nullptr), v.user());
}
Value IntFilter(Interpreter& it, const Value& v, Args& args) {
  Params p(it, "int", args, {"default", "base"});
  int64_t base = p.ok() ? p.Int(1, 10) : 10, value = 0;
  if (it.failed()) return {};
  Value otherwise = p[0] ? *p[0] : Value::Int(0);
  if (v.undefined()) return it.Fail(UndefinedMessage(v));
  if (v.integer()) return Value::Int(v.i(), v.user());
  double d = v.d();
  bool user = v.user() || (v.string() && AnyUser(v.text()));
  if (v.string()) {
    if (!it.ChargeBytes(v.bytes().size())) return {};
    if (ParsePythonInt(v.bytes(), static_cast<int>(base), &value)) return Value::Int(value, user);
    if (!ParsePythonFloat(v.bytes(), &d)) return otherwise;
  } else if (!v.Is(Kind::kFloat)) {
    return otherwise;
  }
  if (std::isinf(d) && !v.string()) return it.Fail("cannot convert float infinity to integer");
  if (!std::isfinite(d)) return otherwise;
  if (std::fabs(d) >= 9.2e18) return it.Fail("an integer beyond 64 bits");
  return Value::Int(static_cast<int64_t>(d), user);
}
Value FloatFilter(Interpreter& it, const Value& v, Args& args) {
  Params p(it, "float", args, {"default"});
  if (!p.ok()) return {};
  if (v.undefined()) return it.Fail(UndefinedMessage(v));
  if (v.number()) return Value::Float(v.d(), v.user());
  double d = 0;
  if (v.string() && it.ChargeBytes(v.bytes().size()) && ParsePythonFloat(v.bytes(), &d))
    return Value::Float(d, AnyUser(v.text()));
  return p[0] ? *p[0] : Value::Float(0);
}
Value AttrFilter(Interpreter& it, const Value& v, Args& args) {
  Params p(it, "attr", args, {"name"}, 1);
  const Text* name = p.ok() ? p.String(0) : nullptr;
  if (name == nullptr) return {};
  if (v.Is(Kind::kDict) && FindMethod(v, name->bytes) == MethodKind::kAbsent &&
      !name->bytes.starts_with("__")) {
    return Value::Undefined(StrCat("'dict object' has no attribute '", name->bytes, "'"));
  }
  return it.GetAttr(v, name->bytes);
}
Value ToJson(Interpreter& it, const Value& v, Args& args) {
  Params p(it, "tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"});
  if (!p.ok()) return {};
  JsonStyle style;
  style.ensure_ascii = p.Truth(0, false);
  style.sort_keys = p.Truth(3, false);
  if (p[1] != nullptr && !p[1]->none()) {
    style.indented = true;
    style.item_separator = ",";
    if (p[1]->string()) {
      style.indent = p[1]->bytes();
    } else {
      int64_t n = std::max<int64_t>(p.Int(1, 0), 0);
      if (it.failed() || !it.ChargeBytes(static_cast<size_t>(n))) return {};
      style.indent = std::string(static_cast<size_t>(n), ' ');
    }
  }
  if (p[2] != nullptr && !p[2]->none()) {
    Values both;
    if (!it.Iterate(*p[2], &both)) return {};
    if (both.size() != 2 || !both[0].string() || !both[1].string())
      return it.Fail("tojson: separators must be two strings, e.g. (',', ':')");
    style.item_separator = both[0].bytes();
    style.key_separator = both[1].bytes();
  }
  TextBuilder out;
  AppendPythonJson(it, out, v, style, 0, false);
  return it.failed() || !it.ChargeBytes(out.size()) ? Value() : Value::String(out.Take());
}

// ---- tests ----

bool RunTest(Interpreter& it, std::string_view name, const Value& v, Args& args, bool* known) {
  *known = true;
  struct Unary {
    std::string_view name;
    bool (*test)(Interpreter&, const Value&);
  };
  static constexpr Unary kUnary[] = {
      {"defined", [](Interpreter&, const Value& v) { return !v.undefined(); }},
      {"undefined", [](Interpreter&, const Value& v) { return v.undefined(); }},
      {"none", [](Interpreter&, const Value& v) { return v.none(); }},
      {"boolean", [](Interpreter&, const Value& v) { return v.Is(Kind::kBool); }},
      {"true", [](Interpreter&, const Value& v) { return v.Is(Kind::kBool) && v.i() == 1; }},
      {"false", [](Interpreter&, const Value& v) { return v.Is(Kind::kBool) && v.i() == 0; }},
      {"integer", [](Interpreter&, const Value& v) { return v.Is(Kind::kInt); }},
      {"float", [](Interpreter&, const Value& v) { return v.Is(Kind::kFloat); }},
      {"number", [](Interpreter&, const Value& v) { return v.number(); }},
      {"string", [](Interpreter&, const Value& v) { return v.string(); }},
      {"mapping", [](Interpreter&, const Value& v) { return v.Is(Kind::kDict); }},
      {"iterable", [](Interpreter& it, const Value& v) { return it.IsIterable(v); }},
      {"sequence",
       [](Interpreter&, const Value& v) {
         return v.string() || v.sequence() || v.Is(Kind::kDict) || v.undefined() ||
                (v.Is(Kind::kView) && v.list().label.starts_with("range"));
       }},
      {"callable",
       [](Interpreter&, const Value& v) {
         return v.Is(Kind::kMacro) || v.Is(Kind::kFunction) || v.Is(Kind::kMethod) || v.Is(Kind::kLoop) ||
                v.Is(Kind::kJoiner) || v.undefined();
       }},
      {"escaped", [](Interpreter&, const Value&) { return false; }},
      {"odd",
       [](Interpreter& it, const Value& v) {
         Value r = it.Binary("%", v, Value::Int(2));
         return !it.failed() && r.number() && r.d() == 1;
       }},
      {"even",
       [](Interpreter& it, const Value& v) {
         Value r = it.Binary("%", v, Value::Int(2));
         return !it.failed() && r.number() && r.d() == 0;
       }},
      {"upper", [](Interpreter& it, const Value& v) { return TextIsUpper(*it.Str(v)); }},
      {"lower", [](Interpreter& it, const Value& v) { return TextIsLower(*it.Str(v)); }},
      {"filter", [](Interpreter&, const Value& v) { return v.string() && FindFilter(v.bytes()) != nullptr; }},
  };
  for (const Unary& unary : kUnary) {
    if (unary.name != name) continue;
    Params p(it, name, args, {});
    return p.ok() && it.ChargeBytes(v.string() ? v.bytes().size() : 0) && unary.test(it, v);
  }
  static constexpr std::pair<std::string_view, std::string_view> kBinary[] = {
      {"eq", "=="}, {"equalto", "=="},    {"==", "=="},     {"ne", "!="}, {"!=", "!="},
      {"lt", "<"},  {"lessthan", "<"},    {"<", "<"},       {"le", "<="}, {"<=", "<="},
      {"gt", ">"},  {"greaterthan", ">"}, {">", ">"},       {"ge", ">="}, {">=", ">="},
      {"in", "in"}, {"divisibleby", "%"}, {"sameas", "is"},
  };
  for (const auto& [key, op] : kBinary) {
    if (key != name) continue;
    Params p(it, name, args, {"other"}, 1);
    if (!p.ok()) return false;
    const Value& o = *p[0];
    if (op == "==") return it.Equal(v, o);
    if (op == "!=") return !it.Equal(v, o);
    if (op == "in") return it.Contains(o, v);
    if (op == "%") {
      Value r = it.Binary("%", v, o);
      return !it.failed() && r.number() && r.d() == 0;
    }
    if (op == "is") {
      if (v.kind() != o.kind()) return false;
      return v.identity() != nullptr ? v.identity() == o.identity() : it.Equal(v, o);
    }
    int order = it.Order(v, o, std::string(op).c_str());
    return !it.failed() && (op == "<"    ? order < 0
                            : op == "<=" ? order <= 0
                            : op == ">"  ? order > 0
                                         : order >= 0);
  }
  if (name == "test") return v.string() && v.bytes() != "test" && IsTest(it, v.bytes());
  *known = false;
  return false;
}

}  // namespace

bool IsTest(Interpreter& it, std::string_view name) {
  static constexpr std::string_view kNames[] = {
      "defined", "undefined", "none",     "boolean",  "true",        "false",    "integer", "float",
      "number",  "string",    "mapping",  "iterable", "sequence",    "callable", "escaped", "odd",
      "even",    "upper",     "lower",    "filter",   "eq",          "equalto",  "==",      "ne",
      "!=",      "lt",        "lessthan", "<",        "le",          "<=",       "gt",      "greaterthan",
      ">",       "ge",        ">=",       "in",       "divisibleby", "sameas",   "test"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

Filter FindFilter(std::string_view name) {
  static constexpr std::pair<std::string_view, Filter> kTable[] = {
      {"default", Default},
      {"d", Default},
      {"length", LengthFilter},
      {"count", LengthFilter},
      {"first", First},
      {"last", Last},
      {"list", ListFilter},
      {"reverse", ReverseFilter},
      {"join", Join},
      {"sort", SortFilter},
      {"unique", Unique},
      {"min", MinMax<false>},
      {"max", MinMax<true>},
      {"sum", Sum},
      {"dictsort", DictSort},
      {"items", Items},
      {"groupby", GroupBy},
      {"batch", Batch},
      {"slice", SliceFilter},
      {"map", MapFilter},
      {"select", Select<true, false>},
      {"reject", Select<false, false>},
      {"selectattr", Select<true, true>},
      {"rejectattr", Select<false, true>},
      {"abs", Abs},
      {"round", Round},
      {"int", IntFilter},
      {"float", FloatFilter},
      {"attr", AttrFilter},
      {"tojson", ToJson},
  };
  for (const auto& [key, filter] : kTable) {
    if (key == name) return filter;
  }
  return FindTextFilter(name);
}

Value Interpreter::ApplyFilter(std::string_view name, const Value& input, Args& args) {
  Depth depth(this);
  if (!Charge(1)) return {};
  Filter filter = FindFilter(name);
  if (filter == nullptr) return Fail(StrCat("No filter named '", name, "'."));
  Value v = filter(*this, input, args);
  return failed() ? Value() : v;
}

bool Interpreter::ApplyTest(std::string_view name, const Value& input, Args& args) {
  Depth depth(this);
  if (!Charge(1)) return false;
  bool known = false, hit = RunTest(*this, name, input, args, &known);
  if (!known) Fail(StrCat("No test named '", name, "'."));
  return hit && !failed();
}

}  // namespace fd::jinja
