// Runs one template once, on one thread. The first failure is kept (Fail) and makes everything after it
// return at once with undefined values; loops ask failed(). Every step is charged against JinjaLimits, so any
// template ends.
#pragma once

#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "server/chat/jinja.h"
#include "server/chat/jinja/ast.h"

namespace fd::jinja {

// Statements, expressions and values inside each other, over all calls: this times JinjaLimits::max_depth. A
// level takes up to 2.6 KiB of stack under AddressSanitizer (stack_test.cc), and 1 MiB must do.
inline constexpr int kLevelsPerCall = 5;

struct Frame {
  Frame* parent = nullptr;
  bool captured = false;  // a macro or a recursive loop needs it until the end
  std::vector<std::pair<std::string_view, Value>> variables;
  Value* Find(std::string_view name);
  void Set(std::string_view name, Value value);
};

struct Args {
  Values positional;
  std::vector<std::pair<Value, Value>> named;  // keys are strings
};

class Interpreter {
 public:
  Interpreter(const JinjaLimits& limits, const std::tm& now);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // context: a dict of the template's variables.
  void Run(const Body& body, Value context);
  const Status& status() const { return status_; }
  TextBuilder& output() { return root_out_; }
  const std::vector<std::pair<int64_t, int64_t>>& generation_spans() const { return generation_spans_; }

  // ---- for filters, tests and methods ----

  bool failed() const { return !status_.ok(); }
  // Always returns an undefined value.
  Value Fail(std::string message);
  // raise_exception: the message goes out word for word.
  Value FailExactly(std::string message);
  // False, and failed(), when the budget is used up.
  bool Charge(int64_t instructions);
  // Before making or scanning that many bytes of one string; also refuses strings beyond the output limit.
  bool ChargeBytes(size_t bytes);
  bool ChargeItems(size_t items) { return Charge(static_cast<int64_t>(items) / 4 + 1); }
  const JinjaLimits& limits() const { return limits_; }
  const std::tm& now() const { return now_; }

  bool Truth(const Value& v);
  TextPtr Str(const Value& v);
  void AppendStr(TextBuilder& out, const Value& v);
  void AppendRepr(TextBuilder& out, const Value& v);
  bool Equal(const Value& a, const Value& b);
  // -1, 0, 1; fails for types without an order.
  int Order(const Value& a, const Value& b, const char* op = "<");
  bool Contains(const Value& container, const Value& item);
  // What a for loop would see.
  bool Iterate(const Value& v, Values* out);
  bool IsIterable(const Value& v) const;
  // len(v); false when it has none.
  bool Length(const Value& v, int64_t* length);
  const Value* DictFind(const Value& dict, const Value& key);
  bool Hashable(const Value& v) const;
  Value GetAttr(const Value& object, std::string_view name);
  Value GetItem(const Value& object, const Value& key);
  Value Call(const Value& callee, Args& args);
  Value Binary(std::string_view op, const Value& a, const Value& b);
  Value ApplyFilter(std::string_view name, const Value& input, Args& args);
  bool ApplyTest(std::string_view name, const Value& input, Args& args);
  Value MakeDict(std::vector<std::pair<Value, Value>> items);  // later keys replace earlier ones
  // Stable; keys[i] belongs to items[i].
  void SortBy(Values& items, Values& keys, bool reverse);

  struct Depth {
    explicit Depth(Interpreter* it);
    ~Depth() { --interpreter->depth_; }
    Interpreter* interpreter;
  };

 private:
  friend struct ScopedFrame;
  struct ScopedFrame {
    explicit ScopedFrame(Interpreter* it, Frame* parent);
    ~ScopedFrame();
    Interpreter* interpreter;
    Frame* saved;
    std::unique_ptr<Frame> frame;
  };
  // Levels of calls: macros, callers, recursive loops.
  struct CallLevel {
    explicit CallLevel(Interpreter* it);
    ~CallLevel() { --interpreter->call_depth_; }
    Interpreter* interpreter;
  };
  enum class Flow { kNormal, kBreak, kContinue };

  // exec.cc
  Flow Exec(const Body& body);
  Flow ExecOne(const Stmt& s);
  Flow ExecIf(const Stmt& s);
  Flow ExecFor(const Stmt& s);
  Flow ExecSetBlock(const Stmt& s);
  Flow ExecFilterBlock(const Stmt& s);
  Flow ExecWith(const Stmt& s);
  Flow ExecGeneration(const Stmt& s);
  void ExecCallBlock(const Stmt& s);
  // Runs the loop over items; the output goes to out_.
  Flow Loop(const Stmt& s, Values items, int64_t depth0, Frame* parent);
  void FilterItems(const Stmt& s, Values& items, Frame* parent);
  Value MakeLoop(const Stmt& s, Values items, int64_t depth0, Frame* parent);
  Value MakeMacro(const Stmt& s);
  TextPtr Capture(const Body& body, Flow* flow);
  void Assign(const Expr& target, const Value& value);
  void CaptureFrames();
  Value CallMacro(const Value& macro, Args& args);
  void BindParameters(const Stmt& s, Args& args);
  Value CallLoop(const Value& loop, Args& args);
  Value LoopAttr(const Value& loop, std::string_view name);

  // ops.cc
  void AppendItemsRepr(TextBuilder& out, const Value& v);
  void AppendMembersRepr(TextBuilder& out, const Value& v);
  static std::string OpaqueRepr(const Value& v);

  // eval.cc
  Value Eval(const Expr& e);
  Value EvalNode(const Expr& e);
  Value EvalCompare(const Expr& e);
  Value EvalSlice(const Expr& e);
  Value Slice(const Value& object, const Value (&part)[3]);
  Value Signed(const Value& v, bool negative);
  static Value NoElse(const Expr& e);
  Value EvalDict(const Expr& e);
  Value EvalConcat(const Expr& e);
  Value EvalCall(const Expr& e);
  Value EvalFilter(const Expr& e, const Value* block);
  Value EvalTest(const Expr& e);
  void EvalArgs(const CallSpec& spec, Args* args);
  void AddStar(const Value& v, Args* args);
  void AddStarStar(const Value& v, Args* args);
  Value Lookup(std::string_view name);
  Value CallFunction(std::string_view name, Args& args);
  bool ObjectAttr(const Value& object, std::string_view name, Value* out);

  JinjaLimits limits_;
  std::tm now_;
  int64_t instructions_ = 0;
  int depth_ = 0;
  int call_depth_ = 0;
  int line_ = 0;
  Status status_;
  Value context_;
  Frame root_;
  Frame* frame_ = &root_;
  TextBuilder root_out_;
  TextBuilder* out_ = &root_out_;
  std::vector<std::unique_ptr<Frame>> kept_frames_;
  std::vector<Value> kept_;  // namespaces and loops that may refer to each other
  std::vector<std::pair<int64_t, int64_t>> generation_spans_;
};

// Positional and named arguments bound to parameter names; the missing ones are null.
class Params {
 public:
  // Fails through `it` when there are too many or unknown ones. `what` names the callee.
  Params(Interpreter& it, std::string_view what, Args& args, std::initializer_list<std::string_view> names,
         size_t required = 0);
  const Value* operator[](size_t i) const { return bound_[i]; }
  bool ok() const { return ok_; }
  bool Truth(size_t i, bool otherwise) const;
  int64_t Int(size_t i, int64_t otherwise);
  // The string at i or null; fails when it is something else.
  const Text* String(size_t i);

 private:
  Interpreter& it_;
  std::string_view what_;
  std::vector<const Value*> bound_;
  bool ok_ = true;
};

// methods.cc: str, list, tuple, dict. HasMethod: does this kind of value have it; unsafe ones change their
// object.
enum class MethodKind { kAbsent, kSafe, kUnsafe };
MethodKind FindMethod(const Value& self, std::string_view name);
Value CallMethod(Interpreter& it, const Value& self, std::string_view name, Args& args);

// format.cc: "…" % values, "…".format(...), strftime.
Value FormatPercent(Interpreter& it, const Text& format, const Value& values);
Value FormatBraces(Interpreter& it, const Text& format, Args& args);
Value FormatTime(Interpreter& it, const Text& format);

// tojson.cc
struct JsonStyle {
  bool ensure_ascii = false, sort_keys = false;
  std::string indent;
  bool indented = false;
  std::string item_separator = ", ", key_separator = ": ";
};
void AppendPythonJson(Interpreter& it, TextBuilder& out, const Value& v, const JsonStyle& style, int level,
                      bool user);

// numbers.cc: int(text, base), float(text) with Python's rules; false when the text is no number.
bool ParsePythonInt(std::string_view text, int base, int64_t* out);
bool ParsePythonFloat(std::string_view text, double* out);

// strings.cc: str methods that filters use too.
TextPtr Upper(Interpreter& it, const Text& t);
TextPtr Lower(Interpreter& it, const Text& t);
TextPtr Capitalize(Interpreter& it, const Text& t);
TextPtr CaseFold(Interpreter& it, const Text& t);
TextPtr Strip(Interpreter& it, const Text& t, const Text* chars, bool left, bool right);
TextPtr Replace(Interpreter& it, const Text& t, const Text& from, const Text& to, int64_t count);
TextPtr Pad(Interpreter& it, const Text& t, int64_t left, int64_t right, const Text* fill);
TextPtr Center(Interpreter& it, const Text& t, int64_t width, const Text* fill);
TextPtr JoinTexts(Interpreter& it, const Text& separator, const Values& items);  // str() of each item
Values SplitLines(Interpreter& it, const Text& t, bool keep_ends);
Values SplitChars(Interpreter& it, const Text& t);
bool TextIsUpper(const Text& t);
bool TextIsLower(const Text& t);

}  // namespace fd::jinja
