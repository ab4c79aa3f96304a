// What a template computes with: Python's values, immutable but for namespaces, iterators, loops and cyclers.
// Scalars carry a mark too (`user`), because a number out of a message prints as user text.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "server/chat/jinja/text.h"

namespace fd::jinja {

struct Stmt;
struct Frame;

enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kList,
  kTuple,
  kView,  // range, dict_keys, dict_values, dict_items: sized, iterable
  kDict,
  kIterator,  // used up by the first pass
  kNamespace,
  kMacro,
  kFunction,  // a global
  kMethod,    // bound to its value
  kLoop,
  kCycler,
  kJoiner,
};

class Value;
using Values = std::vector<Value>;
struct ListData;
struct DictData;
struct IteratorData;
struct NamespaceData;
struct MacroData;
struct FunctionData;
struct LoopData;
struct CyclerData;
struct UndefinedData;

class Value {
 public:
  Value() = default;
  static Value None(bool user = false) { return Scalar(Kind::kNone, user); }
  static Value Bool(bool b, bool user = false);
  static Value Int(int64_t i, bool user = false);
  static Value Float(double d, bool user = false);
  static Value String(TextPtr text) { return Boxed(Kind::kString, std::move(text)); }
  static Value String(std::string text, bool user = false) { return String(MakeText(std::move(text), user)); }
  static Value Undefined(std::string message);
  static Value List(Values items) { return Sequence(Kind::kList, std::move(items)); }
  static Value Tuple(Values items) { return Sequence(Kind::kTuple, std::move(items)); }
  static Value Sequence(Kind kind, Values items, std::string label = {}, bool user = false);
  static Value Dict(std::vector<std::pair<Value, Value>> items, bool user = false);
  static Value Iterator(Values items);
  static Value Boxed(Kind kind, std::shared_ptr<const void> box) {
    Value v = Scalar(kind, false);
    v.box_ = std::move(box);
    return v;
  }
  // A copy of the JSON value; all of it marked as user text when `user`. False when nested deeper than
  // kMaxValueDepth.
  static bool FromJson(const Json& json, bool user, Value* out, int depth = 0);

  Kind kind() const { return kind_; }
  bool user() const { return user_; }
  bool Is(Kind k) const { return kind_ == k; }
  bool undefined() const { return kind_ == Kind::kUndefined; }
  bool none() const { return kind_ == Kind::kNone; }
  bool string() const { return kind_ == Kind::kString; }
  bool integer() const {
    return kind_ == Kind::kInt || kind_ == Kind::kBool;
  }  // as Python's isinstance(x, int)
  bool number() const { return integer() || kind_ == Kind::kFloat; }
  bool sequence() const { return kind_ == Kind::kList || kind_ == Kind::kTuple; }
  bool has_items() const { return sequence() || kind_ == Kind::kView; }

  int64_t i() const { return kind_ == Kind::kBool ? static_cast<int64_t>(b_) : i_; }
  double d() const { return kind_ == Kind::kFloat ? d_ : static_cast<double>(i()); }
  const Text& text() const { return *static_cast<const Text*>(box_.get()); }
  TextPtr text_ptr() const { return std::static_pointer_cast<const Text>(box_); }
  const std::string& bytes() const { return text().bytes; }
  const ListData& list() const { return *static_cast<const ListData*>(box_.get()); }
  const Values& items() const;
  const DictData& dict() const { return *static_cast<const DictData*>(box_.get()); }
  // Mutable state: the interpreter is the only holder.
  template <typename T>
  T& box() const {
    return *static_cast<T*>(const_cast<void*>(box_.get()));
  }
  const void* identity() const { return box_.get(); }
  // Levels of containers below and including this one.
  int depth() const;

 private:
  static Value Scalar(Kind kind, bool user) {
    Value v;
    v.kind_ = kind;
    v.user_ = user;
    return v;
  }
  Kind kind_ = Kind::kUndefined;
  bool user_ = false;
  union {
    bool b_;
    int64_t i_ = 0;
    double d_;
  };
  std::shared_ptr<const void> box_;
};

inline constexpr int kMaxValueDepth = 100;

struct ListData {
  Values items;
  std::string label;  // views: "dict_keys", "range(0, 3)"; groupby's pair: "group"
  int depth = 1;
};
struct DictData {
  std::vector<std::pair<Value, Value>> items;
  std::vector<uint32_t> by_key;  // positions of string keys, sorted, once there are more than 16 members
  int depth = 1;
  const Value* FindString(std::string_view key) const;
};
struct IteratorData {
  Values items;
  size_t next = 0;
  int depth = 1;
};
struct NamespaceData {
  std::vector<std::pair<std::string, Value>> attributes;
};
struct MacroData {
  const Stmt* node = nullptr;
  Frame* frame = nullptr;  // where it was defined; kept by the interpreter until the end
};
struct FunctionData {
  std::string name;
  Value self;  // methods
};
struct CyclerData {
  Values items;
  size_t position = 0;
  int depth = 1;
};
struct LoopData {
  Values items;
  size_t index0 = 0;
  int64_t depth0 = 0;
  const Stmt* node = nullptr;  // the loop, when it is recursive
  Frame* frame = nullptr;      // where a recursive loop started
  bool has_changed = false;
  Values changed;  // what loop.changed() saw last
  int depth = 1;
};
struct UndefinedData {
  std::string message;
};

int MaxDepth(const Values& items);
// "str", "NoneType", ...: Python's type names.
const char* TypeName(const Value& v);
// 1e+20, 0.1, 3.0, nan: Python's repr of a float.
std::string FloatRepr(double d);
std::string UndefinedMessage(const Value& v);

}  // namespace fd::jinja
