#include "server/chat/jinja/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/strings.h"

namespace fd::jinja {

Value Value::Bool(bool b, bool user) {
  Value v = Scalar(Kind::kBool, user);
  v.b_ = b;
  return v;
}
Value Value::Int(int64_t i, bool user) {
  Value v = Scalar(Kind::kInt, user);
  v.i_ = i;
  return v;
}
Value Value::Float(double d, bool user) {
  Value v = Scalar(Kind::kFloat, user);
  v.d_ = d;
  return v;
}
Value Value::Undefined(std::string message) {
  auto data = std::make_shared<UndefinedData>();
  data->message = std::move(message);
  return Boxed(Kind::kUndefined, std::move(data));
}
Value Value::Sequence(Kind kind, Values items, std::string label, bool user) {
  auto data = std::make_shared<ListData>();
  data->depth = MaxDepth(items) + 1;
  data->items = std::move(items);
  data->label = std::move(label);
  Value v = Boxed(kind, std::move(data));
  v.user_ = user;
  return v;
}
Value Value::Dict(std::vector<std::pair<Value, Value>> items, bool user) {
  auto data = std::make_shared<DictData>();
  for (const auto& [k, v] : items) data->depth = std::max({data->depth, v.depth() + 1, k.depth() + 1});
  data->items = std::move(items);
  if (data->items.size() > 16) {
    for (size_t i = 0; i < data->items.size(); ++i) {
      if (data->items[i].first.string()) data->by_key.push_back(static_cast<uint32_t>(i));
    }
    std::sort(data->by_key.begin(), data->by_key.end(), [&](uint32_t a, uint32_t b) {
      return data->items[a].first.bytes() < data->items[b].first.bytes();
    });
  }
  Value v = Boxed(Kind::kDict, std::move(data));
  v.user_ = user;
  return v;
}
Value Value::Iterator(Values items) {
  auto data = std::make_shared<IteratorData>();
  data->depth = MaxDepth(items) + 1;
  data->items = std::move(items);
  return Boxed(Kind::kIterator, std::move(data));
}

bool Value::FromJson(const Json& json, bool user, Value* out, int depth) {
  if (depth >= kMaxValueDepth) return false;
  if (json.is_null()) {
    *out = None(user);
  } else if (json.is_bool()) {
    *out = Bool(json.as_bool(), user);
  } else if (json.is_int()) {
    *out = Int(json.as_int(), user);
  } else if (json.is_double()) {
    *out = Float(json.as_double(), user);
  } else if (json.is_string()) {
    *out = String(json.as_string(), user);
  } else if (json.is_array()) {
    Values items(json.as_array().size());
    for (size_t i = 0; i < items.size(); ++i) {
      if (!FromJson(json.as_array()[i], user, &items[i], depth + 1)) return false;
    }
    *out = Sequence(Kind::kList, std::move(items), {}, user);
  } else {
    std::vector<std::pair<Value, Value>> items;
    items.reserve(json.as_object().size());
    for (const auto& [key, value] : json.as_object()) {
      items.emplace_back(String(key, user), Value());
      if (!FromJson(value, user, &items.back().second, depth + 1)) return false;
    }
    *out = Dict(std::move(items), user);
  }
  return true;
}

int MaxDepth(const Values& items) {
  int depth = 0;
  for (const Value& v : items) depth = std::max(depth, v.depth());
  return depth;
}

const Values& Value::items() const { return list().items; }

int Value::depth() const {
  switch (kind_) {
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kView:
      return list().depth;
    case Kind::kDict:
      return dict().depth;
    case Kind::kIterator:
      return box<IteratorData>().depth;
    case Kind::kCycler:
    case Kind::kJoiner:
      return box<CyclerData>().depth;
    case Kind::kLoop:
      return box<LoopData>().depth;
    case Kind::kMethod:
      return box<FunctionData>().self.depth() + 1;
    default:
      return 0;
  }
}

const Value* DictData::FindString(std::string_view key) const {
  if (by_key.empty()) {
    for (const auto& [k, v] : items) {
      if (k.string() && k.bytes() == key) return &v;
    }
    return nullptr;
  }
  auto it =
      std::lower_bound(by_key.begin(), by_key.end(), key, [&](uint32_t position, std::string_view wanted) {
        return std::string_view(items[position].first.bytes()) < wanted;
      });
  if (it == by_key.end() || items[*it].first.bytes() != key) return nullptr;
  return &items[*it].second;
}

const char* TypeName(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kView:
      return v.list().label.starts_with("range") ? "range" : v.list().label.c_str();
    case Kind::kDict:
      return "dict";
    case Kind::kIterator:
      return "generator";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kMacro:
      return "Macro";
    case Kind::kFunction:
      return "function";
    case Kind::kMethod:
      return "builtin_function_or_method";
    case Kind::kLoop:
      return "LoopContext";
    case Kind::kCycler:
      return "Cycler";
    case Kind::kJoiner:
      return "Joiner";
  }
  return "object";
}

std::string FloatRepr(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d < 0 ? "-inf" : "inf";
  char buffer[40];
  auto end = std::to_chars(buffer, buffer + sizeof(buffer), d, std::chars_format::scientific).ptr;
  std::string_view s(buffer, static_cast<size_t>(end - buffer));
  std::string out;
  if (s[0] == '-') {
    out = "-";
    s.remove_prefix(1);
  }
  size_t e = s.find('e');
  std::string digits(1, s[0]);
  if (e > 2) digits += s.substr(2, e - 2);
  int exponent = std::atoi(std::string(s.substr(e + 1)).c_str());
  int count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    out += digits[0];
    if (count > 1) out += "." + digits.substr(1);
    int shown = std::abs(exponent);
    return StrCat(out, exponent < 0 ? "e-" : "e+", shown < 10 ? "0" : "", shown);
  }
  if (exponent < 0) return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  if (count <= exponent + 1)
    return out + digits + std::string(static_cast<size_t>(exponent + 1 - count), '0') + ".0";
  return out + digits.substr(0, static_cast<size_t>(exponent + 1)) + "." +
         digits.substr(static_cast<size_t>(exponent + 1));
}

std::string UndefinedMessage(const Value& v) {
  return v.identity() == nullptr ? "a value is undefined" : v.box<UndefinedData>().message;
}

}  // namespace fd::jinja
