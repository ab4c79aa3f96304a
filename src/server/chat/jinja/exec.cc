// Statements, frames, macros and loops.
#include <algorithm>

#include "base/strings.h"
#include "base/utf8.h"
#include "server/chat/jinja/interpreter.h"

namespace fd::jinja {

Value* Frame::Find(std::string_view name) {
  for (Frame* f = this; f != nullptr; f = f->parent) {
    for (auto& [key, value] : f->variables) {
      if (key == name) return &value;
    }
  }
  return nullptr;
}

void Frame::Set(std::string_view name, Value value) {
  for (auto& [key, old] : variables) {
    if (key == name) {
      old = std::move(value);
      return;
    }
  }
  variables.emplace_back(name, std::move(value));
}

Interpreter::Interpreter(const JinjaLimits& limits, const std::tm& now) : limits_(limits), now_(now) {}

Interpreter::~Interpreter() {
  // Namespaces and loops may refer to each other in rings and chains; cutting here keeps destructors shallow.
  Values cut;
  for (Value& v : kept_) {
    if (v.Is(Kind::kLoop)) {
      Values& changed = v.box<LoopData>().changed;
      cut.insert(cut.end(), changed.begin(), changed.end());
      changed.clear();
      continue;
    }
    for (auto& [key, value] : v.box<NamespaceData>().attributes) cut.push_back(std::move(value));
    v.box<NamespaceData>().attributes.clear();
  }
  cut.clear();
}

void Interpreter::Run(const Body& body, Value context) {
  context_ = std::move(context);
  Exec(body);
  for (auto& frame : kept_frames_) frame->variables.clear();
  root_.variables.clear();
}

Value Interpreter::Fail(std::string message) {
  if (status_.ok()) status_ = InvalidArgument(StrCat("chat template, line ", line_, ": ", message));
  return {};
}
Value Interpreter::FailExactly(std::string message) {
  if (status_.ok()) status_ = InvalidArgument(std::move(message));
  return {};
}

bool Interpreter::Charge(int64_t instructions) {
  if (failed()) return false;
  instructions_ += instructions;
  if (instructions_ <= limits_.max_instructions) return true;
  Fail(StrCat("more than ", limits_.max_instructions,
              " instructions; the messages are too many or the template never ends"));
  return false;
}
bool Interpreter::ChargeBytes(size_t bytes) {
  if (failed()) return false;
  if (bytes > static_cast<size_t>(limits_.max_output_bytes)) {
    Fail(StrCat("a text of more than ", limits_.max_output_bytes, " bytes"));
    return false;
  }
  return Charge(static_cast<int64_t>(bytes / 256));
}

Interpreter::Depth::Depth(Interpreter* it) : interpreter(it) {
  int most = kLevelsPerCall * it->limits_.max_depth;
  if (++it->depth_ > most) it->Fail(StrCat("nested more than ", most, " levels deep"));
}
Interpreter::CallLevel::CallLevel(Interpreter* it) : interpreter(it) {
  if (++it->call_depth_ > it->limits_.max_depth)
    it->Fail(StrCat("macros and loops call each other more than ", it->limits_.max_depth, " levels deep"));
}

Interpreter::ScopedFrame::ScopedFrame(Interpreter* it, Frame* parent)
    : interpreter(it), saved(it->frame_), frame(std::make_unique<Frame>()) {
  frame->parent = parent;
  it->frame_ = frame.get();
}
Interpreter::ScopedFrame::~ScopedFrame() {
  interpreter->frame_ = saved;
  if (frame->captured) interpreter->kept_frames_.push_back(std::move(frame));
}

void Interpreter::CaptureFrames() {
  for (Frame* f = frame_; f != nullptr && !f->captured; f = f->parent) f->captured = true;
}

Interpreter::Flow Interpreter::Exec(const Body& body) {
  for (const auto& s : body) {
    if (!Charge(1)) return Flow::kNormal;
    Flow flow = ExecOne(*s);
    if (flow != Flow::kNormal || failed()) return flow;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::ExecOne(const Stmt& s) {
  Depth depth(this);
  if (failed()) return Flow::kNormal;
  line_ = s.line;
  switch (s.kind) {
    case StmtKind::kText:
      AppendStr(*out_, s.text);
      return Flow::kNormal;
    case StmtKind::kPrint: {
      Value v = Eval(*s.expr);
      if (failed()) return Flow::kNormal;
      AppendStr(*out_, v);
      return Flow::kNormal;
    }
    case StmtKind::kIf:
      return ExecIf(s);
    case StmtKind::kFor:
      return ExecFor(s);
    case StmtKind::kSet: {
      Value v = Eval(*s.expr);
      if (!failed()) Assign(*s.target, v);
      return Flow::kNormal;
    }
    case StmtKind::kSetBlock:
      return ExecSetBlock(s);
    case StmtKind::kMacro:
      frame_->Set(s.name, MakeMacro(s));
      return Flow::kNormal;
    case StmtKind::kCallBlock:
      ExecCallBlock(s);
      return Flow::kNormal;
    case StmtKind::kFilterBlock:
      return ExecFilterBlock(s);
    case StmtKind::kWith:
      return ExecWith(s);
    case StmtKind::kGeneration:
      return ExecGeneration(s);
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::ExecSetBlock(const Stmt& s) {
  Flow flow = Flow::kNormal;
  Value v;
  {
    ScopedFrame scope(this, frame_);
    v = Value::String(Capture(s.body, &flow));
  }
  if (!failed() && s.expr) v = EvalFilter(*s.expr, &v);
  if (!failed()) Assign(*s.target, v);
  return flow;
}

Interpreter::Flow Interpreter::ExecFilterBlock(const Stmt& s) {
  Flow flow = Flow::kNormal;
  ScopedFrame scope(this, frame_);
  Value v = Value::String(Capture(s.body, &flow));
  if (!failed()) v = EvalFilter(*s.expr, &v);
  if (!failed()) AppendStr(*out_, v);
  return flow;
}

Value Interpreter::MakeMacro(const Stmt& s) {
  auto macro = std::make_shared<MacroData>();
  macro->node = &s;
  macro->frame = frame_;
  CaptureFrames();
  return Value::Boxed(Kind::kMacro, std::move(macro));
}

Interpreter::Flow Interpreter::ExecIf(const Stmt& s) {
  for (const auto& [test, body] : s.arms) {
    Value v = Eval(*test);
    bool hit = Truth(v);
    if (failed()) return Flow::kNormal;
    if (hit) return Exec(body);
  }
  return Exec(s.otherwise);
}

Interpreter::Flow Interpreter::ExecFor(const Stmt& s) {
  Values items;
  Value iterable = Eval(*s.expr);
  if (failed() || !Iterate(iterable, &items)) return Flow::kNormal;
  return Loop(s, std::move(items), 0, frame_);
}

Interpreter::Flow Interpreter::Loop(const Stmt& s, Values items, int64_t depth0, Frame* parent) {
  if (s.test) FilterItems(s, items, parent);
  if (failed()) return Flow::kNormal;
  bool ran = false;  // as in Jinja2, one pass must come to its end, or the else block runs
  if (!items.empty()) {
    Value loop = MakeLoop(s, std::move(items), depth0, parent);
    if (failed()) return Flow::kNormal;
    auto& state = loop.box<LoopData>();
    for (state.index0 = 0; state.index0 < state.items.size() && Charge(1); ++state.index0) {
      ScopedFrame scope(this, parent);
      Assign(*s.target, state.items[state.index0]);
      frame_->Set("loop", loop);
      if (failed()) break;
      Flow flow = Exec(s.body);
      if (flow == Flow::kBreak || failed()) break;
      ran |= flow == Flow::kNormal;
    }
  }
  if (ran || failed()) return Flow::kNormal;
  ScopedFrame scope(this, parent);
  return Exec(s.otherwise);
}

void Interpreter::FilterItems(const Stmt& s, Values& items, Frame* parent) {
  Values kept;
  for (Value& item : items) {
    ScopedFrame scope(this, parent);
    Assign(*s.target, item);
    bool keep = Truth(Eval(*s.test));
    if (failed()) return;
    if (keep) kept.push_back(std::move(item));
  }
  items = std::move(kept);
}

Value Interpreter::MakeLoop(const Stmt& s, Values items, int64_t depth0, Frame* parent) {
  auto state = std::make_shared<LoopData>();
  state->depth = MaxDepth(items) + 1;
  state->items = std::move(items);
  state->depth0 = depth0;
  if (state->depth > kMaxValueDepth)
    return Fail(StrCat("values nested more than ", kMaxValueDepth, " levels deep"));
  if (s.recursive) {
    state->node = &s;
    state->frame = parent;
    for (Frame* f = parent; f != nullptr && !f->captured; f = f->parent) f->captured = true;
  }
  return Value::Boxed(Kind::kLoop, std::move(state));
}

Interpreter::Flow Interpreter::ExecWith(const Stmt& s) {
  Values values;
  for (const auto& [target, value] : s.assignments) values.push_back(Eval(*value));
  if (failed()) return Flow::kNormal;
  ScopedFrame scope(this, frame_);
  for (size_t i = 0; i < values.size(); ++i) Assign(*s.assignments[i].first, values[i]);
  return Exec(s.body);
}

Interpreter::Flow Interpreter::ExecGeneration(const Stmt& s) {
  Flow flow = Flow::kNormal;
  ScopedFrame scope(this, frame_);
  TextPtr text = Capture(s.body, &flow);
  if (failed() || !ChargeBytes(root_out_.size())) return Flow::kNormal;
  int64_t start = CountUtf8Chars(root_out_.bytes());
  AppendStr(*out_, Value::String(text));
  generation_spans_.emplace_back(start, start + text->chars);
  return flow;
}

TextPtr Interpreter::Capture(const Body& body, Flow* flow) {
  TextBuilder buffer;
  TextBuilder* saved = out_;
  out_ = &buffer;
  *flow = Exec(body);
  out_ = saved;
  return buffer.Take();
}

void Interpreter::Assign(const Expr& target, const Value& value) {
  if (failed()) return;
  if (target.kind == ExprKind::kName) {
    frame_->Set(target.name, value);
  } else if (target.kind == ExprKind::kGetAttr) {
    Value* ns = frame_->Find(target.args[0]->name);
    if (ns == nullptr || !ns->Is(Kind::kNamespace)) {
      Fail("cannot assign attribute on non-namespace object");
      return;
    }
    auto& attributes = ns->box<NamespaceData>().attributes;
    for (auto& [key, old] : attributes) {
      if (key == target.name) {
        old = value;
        return;
      }
    }
    attributes.emplace_back(target.name, value);
  } else {
    Values items;
    if (!Iterate(value, &items)) return;
    if (items.size() != target.args.size()) {
      Fail(items.size() < target.args.size()
               ? StrCat("not enough values to unpack (expected ", target.args.size(), ", got ", items.size(),
                        ")")
               : StrCat("too many values to unpack (expected ", target.args.size(), ")"));
      return;
    }
    for (size_t i = 0; i < items.size(); ++i) Assign(*target.args[i], items[i]);
  }
}

void Interpreter::ExecCallBlock(const Stmt& s) {
  Value caller = MakeMacro(s);
  Value callee = Eval(*s.expr->args[0]);
  Args args;
  EvalArgs(*s.expr->call, &args);
  if (failed()) return;
  args.named.emplace_back(Value::String("caller"), std::move(caller));
  Value v = Call(callee, args);
  if (!failed()) AppendStr(*out_, v);
}

Value Interpreter::CallMacro(const Value& value, Args& args) {
  CallLevel level(this);
  Depth depth(this);
  if (failed()) return {};
  const MacroData& macro = value.box<MacroData>();
  const Stmt& s = *macro.node;
  ScopedFrame scope(this, macro.frame);
  BindParameters(s, args);
  if (failed()) return {};
  Flow flow = Flow::kNormal;
  TextPtr text = Capture(s.body, &flow);
  return failed() ? Value() : Value::String(std::move(text));
}

void Interpreter::BindParameters(const Stmt& s, Args& args) {
  std::string name = s.kind == StmtKind::kMacro ? s.name : "caller";
  Value caller;
  std::vector<std::pair<Value, Value>> extra;
  std::vector<bool> taken(args.named.size(), false);
  size_t given = std::min(args.positional.size(), s.params.size());
  bool caller_is_param = false;
  for (size_t i = 0; i < s.params.size(); ++i) {
    const auto& [param, fallback] = s.params[i];
    caller_is_param |= param == "caller";
    const Value* bound = i < given ? &args.positional[i] : nullptr;
    for (size_t k = 0; k < args.named.size() && bound == nullptr; ++k) {
      if (!taken[k] && args.named[k].first.bytes() == param) {
        bound = &args.named[k].second;
        taken[k] = true;
      }
    }
    if (bound != nullptr) {
      frame_->Set(param, *bound);
    } else if (fallback) {
      Value v = Eval(*fallback);
      frame_->Set(param, std::move(v));
    } else {
      frame_->Set(param, Value::Undefined(StrCat("parameter '", param, "' was not provided")));
    }
    if (failed()) return;
  }
  for (size_t k = 0; k < args.named.size(); ++k) {
    if (taken[k]) continue;
    const std::string& key = args.named[k].first.bytes();
    if (key == "caller" && s.uses_caller && !caller_is_param) {
      caller = args.named[k].second;
    } else if (s.uses_kwargs) {
      extra.push_back(args.named[k]);
    } else {
      Fail(StrCat("macro '", name, "' takes no keyword argument '", key, "'"));
      return;
    }
  }
  if (args.positional.size() > s.params.size() && !s.uses_varargs) {
    Fail(StrCat("macro '", name, "' takes not more than ", s.params.size(), " argument(s)"));
    return;
  }
  if (s.uses_caller && !caller_is_param) {
    frame_->Set("caller", caller.undefined() ? Value::Undefined("No caller defined") : caller);
  }
  if (s.uses_varargs)
    frame_->Set("varargs", Value::Tuple(Values(args.positional.begin() + static_cast<long>(given),
                                               args.positional.end())));
  if (s.uses_kwargs) frame_->Set("kwargs", Value::Dict(std::move(extra)));
}

Value Interpreter::CallLoop(const Value& loop, Args& args) {
  CallLevel level(this);
  Depth depth(this);
  if (failed()) return {};
  const LoopData& state = loop.box<LoopData>();
  if (state.node == nullptr)
    return Fail("The loop must have the 'recursive' marker to be called recursively.");
  if (args.positional.size() != 1 || !args.named.empty()) return Fail("loop() takes exactly one iterable");
  Values items;
  if (!Iterate(args.positional[0], &items)) return {};
  TextBuilder buffer;
  TextBuilder* saved = out_;
  out_ = &buffer;
  Loop(*state.node, std::move(items), state.depth0 + 1, state.frame);
  out_ = saved;
  return failed() ? Value() : Value::String(buffer.Take());
}

Value Interpreter::LoopAttr(const Value& loop, std::string_view name) {
  LoopData& state = loop.box<LoopData>();
  auto index = static_cast<int64_t>(state.index0);
  auto length = static_cast<int64_t>(state.items.size());
  if (name == "index0") return Value::Int(index);
  if (name == "index") return Value::Int(index + 1);
  if (name == "revindex0") return Value::Int(length - index - 1);
  if (name == "revindex") return Value::Int(length - index);
  if (name == "first") return Value::Bool(index == 0);
  if (name == "last") return Value::Bool(index + 1 >= length);
  if (name == "length") return Value::Int(length);
  if (name == "depth0") return Value::Int(state.depth0);
  if (name == "depth") return Value::Int(state.depth0 + 1);
  if (name == "previtem")
    return index > 0 ? state.items[state.index0 - 1] : Value::Undefined("there is no previous item");
  if (name == "nextitem")
    return index + 1 < length ? state.items[state.index0 + 1] : Value::Undefined("there is no next item");
  return Value::Undefined(StrCat("'LoopContext object' has no attribute '", name, "'"));
}

}  // namespace fd::jinja
