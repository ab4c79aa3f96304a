// Expressions: names, attributes, calls.
#include <algorithm>

#include "base/strings.h"
#include "server/chat/jinja/interpreter.h"

namespace fd::jinja {

Value Interpreter::Eval(const Expr& e) {
  Depth depth(this);
  if (!Charge(1)) return {};
  line_ = e.line;
  Value v = EvalNode(e);
  if (v.depth() > kMaxValueDepth)
    return Fail(StrCat("values nested more than ", kMaxValueDepth, " levels deep"));
  return v;
}

Value Interpreter::EvalNode(const Expr& e) {
  switch (e.kind) {
    case ExprKind::kConst:
      return e.constant;
    case ExprKind::kName:
      return Lookup(e.name);
    case ExprKind::kList:
    case ExprKind::kTuple: {
      Values items;
      for (const ExprPtr& arg : e.args) items.push_back(Eval(*arg));
      return Value::Sequence(e.kind == ExprKind::kList ? Kind::kList : Kind::kTuple, std::move(items));
    }
    case ExprKind::kDict:
      return EvalDict(e);
    case ExprKind::kGetAttr: {
      Value object = Eval(*e.args[0]);
      return failed() ? Value() : GetAttr(object, e.name);
    }
    case ExprKind::kGetItem: {
      Value object = Eval(*e.args[0]);
      Value key = Eval(*e.args[1]);
      return failed() ? Value() : GetItem(object, key);
    }
    case ExprKind::kSlice:
      return EvalSlice(e);
    case ExprKind::kCall:
      return EvalCall(e);
    case ExprKind::kFilter:
      return EvalFilter(e, nullptr);
    case ExprKind::kTest:
      return EvalTest(e);
    case ExprKind::kNegative:
    case ExprKind::kPositive: {
      Value v = Eval(*e.args[0]);
      return failed() ? Value() : Signed(v, e.kind == ExprKind::kNegative);
    }
    case ExprKind::kNot:
      return Value::Bool(!Truth(Eval(*e.args[0])));
    case ExprKind::kAnd:
    case ExprKind::kOr: {
      Value left = Eval(*e.args[0]);
      bool truth = Truth(left);
      if (failed()) return {};
      return truth == (e.kind == ExprKind::kOr) ? left : Eval(*e.args[1]);
    }
    case ExprKind::kConcat:
      return EvalConcat(e);
    case ExprKind::kBinary: {
      Value a = Eval(*e.args[0]);
      Value b = Eval(*e.args[1]);
      return failed() ? Value() : Binary(e.name, a, b);
    }
    case ExprKind::kCompare:
      return EvalCompare(e);
    case ExprKind::kCondition: {
      bool truth = Truth(Eval(*e.args[1]));
      if (failed()) return {};
      if (truth) return Eval(*e.args[0]);
      return e.args[2] ? Eval(*e.args[2]) : NoElse(e);
    }
  }
  return {};
}

Value Interpreter::Signed(const Value& v, bool negative) {
  if (v.undefined()) return Fail(UndefinedMessage(v));
  if (!v.number())
    return Fail(StrCat("bad operand type for unary ", negative ? "-" : "+", ": '", TypeName(v), "'"));
  if (v.Is(Kind::kFloat)) return Value::Float(negative ? -v.d() : v.d(), v.user());
  if (negative && v.i() == INT64_MIN) return Fail("an integer beyond 64 bits");
  return Value::Int(negative ? -v.i() : v.i(), v.user());
}
Value Interpreter::NoElse(const Expr& e) {
  return Value::Undefined(StrCat("the inline if-expression on line ", e.line,
                                 " evaluated to false and no else section was defined."));
}

Value Interpreter::EvalConcat(const Expr& e) {
  TextBuilder out;
  for (const ExprPtr& arg : e.args) {
    Value v = Eval(*arg);
    if (failed()) return {};
    AppendStr(out, v);
  }
  return failed() ? Value() : Value::String(out.Take());
}

Value Interpreter::EvalDict(const Expr& e) {
  std::vector<std::pair<Value, Value>> items;
  for (size_t i = 0; i + 1 < e.args.size(); i += 2) {
    Value key = Eval(*e.args[i]);
    Value value = Eval(*e.args[i + 1]);
    if (failed()) return {};
    if (!Hashable(key)) return Fail(StrCat("unhashable type: '", TypeName(key), "'"));
    items.emplace_back(std::move(key), std::move(value));
  }
  return MakeDict(std::move(items));
}

Value Interpreter::MakeDict(std::vector<std::pair<Value, Value>> items) {
  if (!ChargeItems(items.size())) return {};
  // Python's rule: the first of equal keys gives the place and the key, the last one the value.
  std::vector<std::pair<Value, Value>> unique;
  if (items.size() <= 16) {
    for (auto& item : items) {
      auto same = std::find_if(unique.begin(), unique.end(),
                               [&](const auto& u) { return Equal(u.first, item.first); });
      if (same != unique.end()) {
        same->second = std::move(item.second);
      } else {
        unique.push_back(std::move(item));
      }
    }
    return Value::Dict(std::move(unique));
  }
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  for (const auto& [key, value] : items) {
    if (!key.string()) return Fail("a dict of more than 16 items needs strings as keys");
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return items[a].first.bytes() < items[b].first.bytes(); });
  std::vector<bool> drop(items.size(), false);
  for (size_t i = 0, j = 0; i < order.size(); i = j) {
    for (j = i + 1; j < order.size() && items[order[j]].first.bytes() == items[order[i]].first.bytes(); ++j)
      drop[order[j]] = true;
    if (j > i + 1) items[order[i]].second = items[order[j - 1]].second;
  }
  for (size_t i = 0; i < items.size(); ++i) {
    if (!drop[i]) unique.push_back(std::move(items[i]));
  }
  return Value::Dict(std::move(unique));
}

Value Interpreter::EvalCompare(const Expr& e) {
  Value left = Eval(*e.args[0]);
  for (size_t i = 0; i < e.ops.size(); ++i) {
    Value right = Eval(*e.args[i + 1]);
    if (failed()) return {};
    const std::string& op = e.ops[i];
    bool hit = false;
    if (op == "==") {
      hit = Equal(left, right);
    } else if (op == "!=") {
      hit = !Equal(left, right);
    } else if (op == "in") {
      hit = Contains(right, left);
    } else if (op == "not in") {
      hit = !Contains(right, left);
    } else {
      bool nan = left.number() && right.number() && (left.d() != left.d() || right.d() != right.d());
      int order = Order(left, right, op.c_str());
      hit = !nan && (op == "<" ? order < 0 : op == "<=" ? order <= 0 : op == ">" ? order > 0 : order >= 0);
    }
    if (failed()) return {};
    if (!hit) return Value::Bool(false);
    left = std::move(right);
  }
  return Value::Bool(true);
}

Value Interpreter::EvalSlice(const Expr& e) {
  Value object = Eval(*e.args[0]);
  Value part[3];
  for (size_t i = 0; i < 3; ++i) {
    part[i] = e.args[i + 1] ? Eval(*e.args[i + 1]) : Value::None();
    if (failed()) return {};
  }
  return Slice(object, part);
}

Value Interpreter::Slice(const Value& object, const Value (&part)[3]) {
  for (const Value& p : part) {
    if (!p.none() && !p.integer())
      return Fail("slice indices must be integers or None or have an __index__ method");
  }
  if (object.undefined()) return Fail(UndefinedMessage(object));
  if (!object.string() && !object.sequence() && !object.Is(Kind::kView))
    return Fail(StrCat("'", TypeName(object), "' object is not subscriptable"));
  int64_t length = object.string() ? object.text().chars : static_cast<int64_t>(object.items().size());
  int64_t step = part[2].none() ? 1 : part[2].i();
  if (step == 0) return Fail("slice step cannot be zero");
  auto clamp = [&](const Value& v, int64_t otherwise) {
    if (v.none()) return otherwise;
    int64_t i = v.i();
    if (i < 0) i = i < -length ? -1 : i + length;
    if (i < 0) return step < 0 ? int64_t{-1} : int64_t{0};
    return std::min(i, step < 0 ? length - 1 : length);
  };
  int64_t start = clamp(part[0], step < 0 ? length - 1 : 0);
  int64_t stop = clamp(part[1], step < 0 ? -1 : length);
  if (object.string()) {
    const Text& t = object.text();
    if (!ChargeBytes(t.bytes.size())) return {};
    if (step == 1) {
      size_t begin = ByteOffset(t, start);
      return Value::String(SubText(t, begin, std::max(begin, ByteOffset(t, stop))));
    }
    std::vector<size_t> offsets;
    if (!Charge(length / 8)) return {};
    for (size_t at = 0; at < t.bytes.size(); ++at) {
      if ((static_cast<unsigned char>(t.bytes[at]) & 0xC0) != 0x80) offsets.push_back(at);
    }
    offsets.push_back(t.bytes.size());
    TextBuilder out;
    for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
      out.Append(t, offsets[static_cast<size_t>(i)], offsets[static_cast<size_t>(i) + 1]);
      if (__builtin_add_overflow(i, step, &i)) break;
    }
    return Value::String(out.Take());
  }
  Values items;
  if (!ChargeItems(object.items().size())) return {};
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    items.push_back(object.items()[static_cast<size_t>(i)]);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return Value::Sequence(object.Is(Kind::kTuple) ? Kind::kTuple : Kind::kList, std::move(items));
}

void Interpreter::EvalArgs(const CallSpec& spec, Args* args) {
  for (const ExprPtr& e : spec.positional) args->positional.push_back(Eval(*e));
  for (const auto& [name, e] : spec.named) {
    args->named.emplace_back(Value::String(name), Value());
    args->named.back().second = Eval(*e);
  }
  if (spec.star && !failed()) AddStar(Eval(*spec.star), args);
  if (spec.star_star && !failed()) AddStarStar(Eval(*spec.star_star), args);
}
void Interpreter::AddStar(const Value& v, Args* args) {
  Values more;
  if (failed() || !Iterate(v, &more)) return;
  args->positional.insert(args->positional.end(), more.begin(), more.end());
}
void Interpreter::AddStarStar(const Value& v, Args* args) {
  if (!failed()) {
    if (!v.Is(Kind::kDict)) {
      Fail(StrCat("argument after ** must be a mapping, not ", TypeName(v)));
      return;
    }
    if (!ChargeItems(v.dict().items.size())) return;
    for (const auto& [key, value] : v.dict().items) {
      if (!key.string()) {
        Fail("keywords must be strings");
        return;
      }
      args->named.emplace_back(key, value);
    }
  }
}

Value Interpreter::EvalCall(const Expr& e) {
  Value callee = Eval(*e.args[0]);
  Args args;
  if (!failed()) EvalArgs(*e.call, &args);
  if (failed()) return {};
  line_ = e.line;
  return Call(callee, args);
}

Value Interpreter::EvalFilter(const Expr& e, const Value* block) {
  Value input;
  if (e.args[0] == nullptr) {
    input = *block;
  } else if (e.args[0]->kind == ExprKind::kFilter) {
    Depth depth(this);
    if (!Charge(1)) return {};
    input = EvalFilter(*e.args[0], block);
  } else {
    input = Eval(*e.args[0]);
  }
  Args args;
  if (!failed()) EvalArgs(*e.call, &args);
  if (failed()) return {};
  line_ = e.line;
  return ApplyFilter(e.name, input, args);
}

Value Interpreter::EvalTest(const Expr& e) {
  Value input = Eval(*e.args[0]);
  Args args;
  if (!failed()) EvalArgs(*e.call, &args);
  if (failed()) return {};
  return Value::Bool(ApplyTest(e.name, input, args));
}

Value Interpreter::Lookup(std::string_view name) {
  if (Value* v = frame_->Find(name)) return *v;
  if (const Value* v = context_.Is(Kind::kDict) ? context_.dict().FindString(name) : nullptr) return *v;
  static constexpr std::string_view kFunctions[] = {
      "range", "dict", "namespace", "cycler", "joiner", "raise_exception", "strftime_now"};
  if (std::find(std::begin(kFunctions), std::end(kFunctions), name) != std::end(kFunctions)) {
    auto function = std::make_shared<FunctionData>();
    function->name = name;
    return Value::Boxed(Kind::kFunction, std::move(function));
  }
  return Value::Undefined(StrCat("'", name, "' is undefined"));
}

// The attributes of an object that are not its items. True when `name` is one.
bool Interpreter::ObjectAttr(const Value& object, std::string_view name, Value* out) {
  std::string_view type = TypeName(object);
  if (name.starts_with("__") && name.ends_with("__") && name.size() > 4) {
    *out = Value::Undefined(StrCat("access to attribute '", name, "' of '", type, "' object is unsafe."));
    return true;
  }
  switch (object.kind()) {
    case Kind::kString:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict: {
      if (object.Is(Kind::kTuple) && object.list().label == "group" &&
          (name == "grouper" || name == "list")) {
        *out = object.items()[name == "grouper" ? 0 : 1];
        return true;
      }
      MethodKind method = FindMethod(object, name);
      if (method == MethodKind::kAbsent) return false;
      if (method == MethodKind::kUnsafe) {
        *out = Value::Undefined(StrCat("access to attribute '", name, "' of '", type, "' object is unsafe."));
        return true;
      }
      auto bound = std::make_shared<FunctionData>();
      bound->name = name;
      bound->self = object;
      *out = Value::Boxed(Kind::kMethod, std::move(bound));
      return true;
    }
    case Kind::kNamespace:
      for (const auto& [key, value] : object.box<NamespaceData>().attributes) {
        if (key != name) continue;
        *out = value;
        return true;
      }
      return false;
    case Kind::kLoop:
      if (name == "cycle" || name == "changed") {
        auto bound = std::make_shared<FunctionData>();
        bound->name = name;
        bound->self = object;
        *out = Value::Boxed(Kind::kMethod, std::move(bound));
      } else {
        *out = LoopAttr(object, name);
      }
      return true;
    case Kind::kCycler:
      if (name == "current") {
        const auto& cycler = object.box<CyclerData>();
        *out = cycler.items[cycler.position];
        return true;
      }
      if (name == "next" || name == "reset") {
        auto bound = std::make_shared<FunctionData>();
        bound->name = name;
        bound->self = object;
        *out = Value::Boxed(Kind::kMethod, std::move(bound));
        return true;
      }
      return false;
    case Kind::kMacro: {
      const Stmt& s = *object.box<MacroData>().node;
      if (name == "name") {
        *out = s.kind == StmtKind::kMacro ? Value::String(s.name) : Value::None();
        return true;
      }
      if (name == "arguments") {
        Values names;
        for (const auto& param : s.params) names.push_back(Value::String(param.first));
        *out = Value::Tuple(std::move(names));
        return true;
      }
      if (name == "catch_kwargs" || name == "catch_varargs" || name == "caller") {
        *out = Value::Bool(name == "caller"         ? s.uses_caller
                           : name == "catch_kwargs" ? s.uses_kwargs
                                                    : s.uses_varargs);
        return true;
      }
      return false;
    }
    default:
      return false;
  }
}

namespace {
std::string NoAttribute(const Value& object, std::string_view name) {
  if (object.none()) return StrCat("'None' has no attribute '", name, "'");
  return StrCat("'", TypeName(object), object.Is(Kind::kNamespace) ? "" : " object", "' has no attribute '",
                name, "'");
}
}  // namespace

Value Interpreter::GetAttr(const Value& object, std::string_view name) {
  if (object.undefined()) return Fail(UndefinedMessage(object));
  Value out;
  if (ObjectAttr(object, name, &out)) return out;
  if (object.Is(Kind::kDict)) {
    if (!ChargeItems(object.dict().items.size() > 16 ? 0 : object.dict().items.size())) return {};
    if (const Value* v = object.dict().FindString(name)) return *v;
  }
  return Value::Undefined(NoAttribute(object, name));
}

Value Interpreter::GetItem(const Value& object, const Value& key) {
  if (object.undefined()) return Fail(UndefinedMessage(object));
  if (object.Is(Kind::kDict)) {
    if (const Value* v = Hashable(key) ? DictFind(object, key) : nullptr) return *v;
    if (failed()) return {};
  } else if (key.integer() && (object.string() || object.has_items())) {
    if (object.Is(Kind::kView) && !object.list().label.starts_with("range"))
      return Value::Undefined(NoAttribute(object, "[]"));
    int64_t length = object.string() ? object.text().chars : static_cast<int64_t>(object.items().size());
    int64_t i = key.i() < 0 ? key.i() + length : key.i();
    if (i < 0 || i >= length)
      return Value::Undefined(StrCat(TypeName(object), " object has no element ", key.i()));
    if (!object.string()) return object.items()[static_cast<size_t>(i)];
    const Text& t = object.text();
    if (!t.ascii() && !ChargeBytes(t.bytes.size())) return {};
    size_t begin = ByteOffset(t, i), end = begin + 1;
    while (end < t.bytes.size() && (static_cast<unsigned char>(t.bytes[end]) & 0xC0) == 0x80) ++end;
    return Value::String(SubText(t, begin, end));
  }
  if (key.string()) {
    Value out;
    if (ObjectAttr(object, key.bytes(), &out)) return out;
    return Value::Undefined(NoAttribute(object, key.bytes()));
  }
  return Value::Undefined(StrCat("'", TypeName(object), " object' has no such element"));
}

Value Interpreter::Call(const Value& callee, Args& args) {
  if (!Charge(1)) return {};
  switch (callee.kind()) {
    case Kind::kMacro:
      return CallMacro(callee, args);
    case Kind::kLoop:
      return CallLoop(callee, args);
    case Kind::kFunction:
      return CallFunction(callee.box<FunctionData>().name, args);
    case Kind::kJoiner: {
      auto& state = callee.box<CyclerData>();
      if (state.position++ > 0) return state.items[0];
      return Value::String("");
    }
    case Kind::kMethod: {
      const FunctionData& method = callee.box<FunctionData>();
      if (method.self.Is(Kind::kCycler)) {
        auto& state = method.self.box<CyclerData>();
        if (method.name == "reset") {
          state.position = 0;
          return Value::None();
        }
        Value v = state.items[state.position];
        state.position = (state.position + 1) % state.items.size();
        return v;
      }
      if (method.self.Is(Kind::kLoop)) {
        auto& state = method.self.box<LoopData>();
        if (method.name == "cycle") {
          if (args.positional.empty()) return Fail("no items for cycling given");
          return args.positional[state.index0 % args.positional.size()];
        }
        bool same = state.has_changed && Equal(Value::Tuple(state.changed), Value::Tuple(args.positional));
        if (!state.has_changed) kept_.push_back(method.self);
        state.has_changed = true;
        state.changed = args.positional;
        return Value::Bool(!same);
      }
      return CallMethod(*this, method.self, method.name, args);
    }
    case Kind::kUndefined:
      return Fail(UndefinedMessage(callee));
    default:
      return Fail(StrCat("'", TypeName(callee), "' object is not callable"));
  }
}

Value Interpreter::CallFunction(std::string_view name, Args& args) {
  if (name == "raise_exception") {
    Params p(*this, name, args, {"message"}, 1);
    return p.ok() ? FailExactly(Str(*p[0])->bytes) : Value();
  }
  if (name == "strftime_now") {
    Params p(*this, name, args, {"format"}, 1);
    const Text* format = p.String(0);
    return failed() ? Value() : FormatTime(*this, *format);
  }
  if (name == "namespace" || name == "dict") {
    std::vector<std::pair<Value, Value>> items;
    if (args.positional.size() > 1)
      return Fail(StrCat(name, " expected at most 1 argument, got ", args.positional.size()));
    if (args.positional.size() == 1) {
      const Value& from = args.positional[0];
      if (from.Is(Kind::kDict)) {
        items = from.dict().items;
      } else {
        Values pairs;
        if (!Iterate(from, &pairs)) return {};
        for (const Value& pair : pairs) {
          Values both;
          if (!Iterate(pair, &both)) return {};
          if (both.size() != 2) return Fail("dictionary update sequence elements need length 2");
          if (!Hashable(both[0])) return Fail(StrCat("unhashable type: '", TypeName(both[0]), "'"));
          items.emplace_back(both[0], both[1]);
        }
      }
    }
    items.insert(items.end(), args.named.begin(), args.named.end());
    Value dict = MakeDict(std::move(items));
    if (failed() || name == "dict") return dict;
    auto ns = std::make_shared<NamespaceData>();
    for (const auto& [key, value] : dict.dict().items) {
      if (key.string()) ns->attributes.emplace_back(key.bytes(), value);
    }
    kept_.push_back(Value::Boxed(Kind::kNamespace, std::move(ns)));
    return kept_.back();
  }
  if (name == "cycler" || name == "joiner") {
    auto state = std::make_shared<CyclerData>();
    if (name == "joiner") {
      Params p(*this, name, args, {"sep"});
      if (!p.ok()) return {};
      state->items = {p[0] ? *p[0] : Value::String(", ")};
    } else {
      if (args.positional.empty()) return Fail("at least one item has to be provided");
      state->items = args.positional;
    }
    state->depth = MaxDepth(state->items) + 1;
    return Value::Boxed(name == "joiner" ? Kind::kJoiner : Kind::kCycler, std::move(state));
  }
  // range
  if (!args.named.empty()) return Fail("range() takes no keyword arguments");
  int64_t n[3] = {0, 0, 1};
  if (args.positional.empty() || args.positional.size() > 3)
    return Fail(StrCat("range expected 1 to 3 arguments, got ", args.positional.size()));
  bool user = false;
  for (size_t i = 0; i < args.positional.size(); ++i) {
    const Value& v = args.positional[i];
    if (!v.integer())
      return Fail(v.undefined() ? UndefinedMessage(v)
                                : StrCat("'", TypeName(v), "' object cannot be interpreted as an integer"));
    n[args.positional.size() == 1 ? 1 : i] = v.i();
    user |= v.user();
  }
  if (n[2] == 0) return Fail("range() arg 3 must not be zero");
  __int128 span = n[2] > 0 ? static_cast<__int128>(n[1]) - n[0] : static_cast<__int128>(n[0]) - n[1];
  __int128 step = n[2] > 0 ? static_cast<__int128>(n[2]) : -static_cast<__int128>(n[2]);
  __int128 count = span <= 0 ? 0 : (span + step - 1) / step;
  if (count > 100000) return Fail("Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
  if (!ChargeItems(static_cast<size_t>(count))) return {};
  Values items;
  for (int64_t k = 0; k < static_cast<int64_t>(count); ++k)
    items.push_back(Value::Int(static_cast<int64_t>(n[0] + static_cast<__int128>(k) * n[2]), user));
  std::string label = StrCat("range(", n[0], ", ", n[1], n[2] == 1 ? "" : StrCat(", ", n[2]), ")");
  return Value::Sequence(Kind::kView, std::move(items), std::move(label));
}

Params::Params(Interpreter& it, std::string_view what, Args& args,
               std::initializer_list<std::string_view> names, size_t required)
    : it_(it), what_(what), bound_(names.size(), nullptr) {
  if (args.positional.size() > names.size()) {
    it.Fail(StrCat(what, "() takes at most ", names.size(), " argument(s), got ", args.positional.size()));
    ok_ = false;
    return;
  }
  for (size_t i = 0; i < args.positional.size(); ++i) bound_[i] = &args.positional[i];
  for (const auto& [key, value] : args.named) {
    auto at = std::find(names.begin(), names.end(), key.bytes());
    size_t i = static_cast<size_t>(at - names.begin());
    if (at == names.end() || bound_[i] != nullptr) {
      it.Fail(StrCat(what, "() got an unexpected keyword argument '", key.bytes(), "'"));
      ok_ = false;
      return;
    }
    bound_[i] = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (bound_[i] != nullptr) continue;
    it.Fail(StrCat(what, "() missing argument '", *(names.begin() + i), "'"));
    ok_ = false;
    return;
  }
}
bool Params::Truth(size_t i, bool otherwise) const { return bound_[i] ? it_.Truth(*bound_[i]) : otherwise; }
int64_t Params::Int(size_t i, int64_t otherwise) {
  if (bound_[i] == nullptr) return otherwise;
  if (bound_[i]->integer()) return bound_[i]->i();
  it_.Fail(StrCat(what_, "() needs an integer, not ", TypeName(*bound_[i])));
  ok_ = false;
  return otherwise;
}
const Text* Params::String(size_t i) {
  if (bound_[i] == nullptr) return nullptr;
  if (bound_[i]->string()) return &bound_[i]->text();
  it_.Fail(bound_[i]->undefined() ? UndefinedMessage(*bound_[i])
                                  : StrCat(what_, "() needs a string, not ", TypeName(*bound_[i])));
  ok_ = false;
  return nullptr;
}

}  // namespace fd::jinja
