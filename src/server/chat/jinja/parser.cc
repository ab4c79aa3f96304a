#include "server/chat/jinja/parser.h"

#include <algorithm>

#include "base/strings.h"
#include "server/chat/jinja/lexer.h"

namespace fd::jinja {
namespace {

constexpr int kMaxNesting = 100;    // parentheses, brackets and blocks inside each other
constexpr int kMaxExprDepth = 200;  // levels of one expression tree: a + b + c has 3

// After the first error every token reads as the end, so all loops stop.
class Parser {
 public:
  explicit Parser(std::vector<Lexeme> tokens) : tokens_(std::move(tokens)) {}

  StatusOr<Body> Run() {
    Body body = Statements({});
    if (!error_.ok()) return error_;
    return body;
  }

 private:
  struct Nest {
    explicit Nest(Parser* p) : parser(p) {
      if (++parser->nesting_ > kMaxNesting)
        parser->Fail(StrCat("nested more than ", kMaxNesting, " levels deep"));
    }
    ~Nest() { --parser->nesting_; }
    Parser* parser;
  };
  // What a macro body mentions, so that caller, varargs and kwargs are only taken when they are used.
  struct Mentions {
    bool caller = false, varargs = false, kwargs = false;
  };

  const Lexeme& Now() const { return tokens_[at_]; }
  const Lexeme& Next() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  void Step() {
    if (at_ + 1 < tokens_.size()) ++at_;
  }
  void Fail(const std::string& message) {
    if (!error_.ok()) return;
    error_ = InvalidArgument(StrCat("line ", Now().line, ": ", message));
    tokens_.push_back({Token::kEnd, Now().line, "end of template"});
    at_ = tokens_.size() - 1;
  }
  bool IsOp(std::string_view op) const { return Now().token == Token::kOperator && Now().text == op; }
  bool IsName(std::string_view name) const { return Now().token == Token::kName && Now().text == name; }
  bool SkipOp(std::string_view op) {
    if (!IsOp(op)) return false;
    Step();
    return true;
  }
  bool SkipName(std::string_view name) {
    if (!IsName(name)) return false;
    Step();
    return true;
  }
  void Expect(bool hit, std::string_view what) {
    if (!hit) Fail(StrCat("expected ", what, ", got '", Now().text, "'"));
  }
  void ExpectOp(std::string_view op) { Expect(SkipOp(op), StrCat("'", op, "'")); }
  void ExpectName(std::string_view name) { Expect(SkipName(name), StrCat("'", name, "'")); }
  void ExpectBlockEnd() {
    Expect(Now().token == Token::kBlockEnd, "'%}'");
    Step();
  }
  std::string TakeName() {
    std::string name = Now().text;
    Expect(Now().token == Token::kName, "a name");
    Step();
    return name;
  }

  ExprPtr Make(ExprKind kind, std::vector<ExprPtr> args = {}, std::string name = {}) {
    auto e = std::make_unique<Expr>();
    e->kind = kind;
    e->line = Now().line;
    e->name = std::move(name);
    for (const ExprPtr& arg : args) {
      if (arg) e->depth = std::max(e->depth, arg->depth + 1);
    }
    e->args = std::move(args);
    if (e->depth > kMaxExprDepth) Fail(StrCat("an expression of more than ", kMaxExprDepth, " levels"));
    return e;
  }
  template <typename... A>
  ExprPtr Node(ExprKind kind, std::string name, A... args) {
    std::vector<ExprPtr> list;
    (list.push_back(std::move(args)), ...);
    return Make(kind, std::move(list), std::move(name));
  }
  ExprPtr Const(Value v) {
    ExprPtr e = Make(ExprKind::kConst);
    e->constant = std::move(v);
    return e;
  }
  void Raise(Expr& e, const ExprPtr& child) {
    if (child) e.depth = std::max(e.depth, child->depth + 1);
  }

  // ---- statements ----

  Body Statements(const std::vector<std::string_view>& ends) {
    Nest nest(this);
    Body body;
    while (error_.ok()) {
      int line = Now().line;
      if (Now().token == Token::kEnd) {
        if (!ends.empty()) Fail(StrCat("the template ends where '", ends.front(), "' was expected"));
        break;
      }
      if (Now().token == Token::kData) {
        auto s = NewStmt(StmtKind::kText, line);
        s->text = Value::String(Now().text);
        body.push_back(std::move(s));
        Step();
      } else if (Now().token == Token::kVariableBegin) {
        Step();
        auto s = NewStmt(StmtKind::kPrint, line);
        s->expr = Tuple(true);
        Expect(Now().token == Token::kVariableEnd, "'}}'");
        Step();
        body.push_back(std::move(s));
      } else {
        Step();  // the block's begin
        if (Now().token == Token::kName && std::find(ends.begin(), ends.end(), Now().text) != ends.end())
          return body;
        auto s = Block(line);
        if (s && error_.ok()) body.push_back(std::move(s));
      }
    }
    return body;
  }
  // The body up to {% end %}, whose tag is consumed.
  Body Until(std::string_view end) {
    Body body = Statements({end});
    Step();
    ExpectBlockEnd();
    return body;
  }

  static std::unique_ptr<Stmt> NewStmt(StmtKind kind, int line) {
    auto s = std::make_unique<Stmt>();
    s->kind = kind;
    s->line = line;
    return s;
  }

  std::unique_ptr<Stmt> Block(int line) {
    std::string tag = TakeName();
    if (tag == "if") return If(line);
    if (tag == "for") return For(line);
    if (tag == "set") return Set(line);
    if (tag == "macro") return Macro(line);
    if (tag == "call") return Call(line);
    if (tag == "filter") {
      auto s = NewStmt(StmtKind::kFilterBlock, line);
      s->expr = Filters(nullptr, true);
      ExpectBlockEnd();
      s->body = Until("endfilter");
      return s;
    }
    if (tag == "with") return With(line);
    if (tag == "generation") {
      auto s = NewStmt(StmtKind::kGeneration, line);
      ExpectBlockEnd();
      s->body = Until("endgeneration");
      return s;
    }
    if (tag == "break" || tag == "continue") {
      if (loops_ == 0) Fail(StrCat("'", tag, "' outside a loop"));
      ExpectBlockEnd();
      return NewStmt(tag == "break" ? StmtKind::kBreak : StmtKind::kContinue, line);
    }
    Fail(tag.starts_with("end") ? StrCat("unexpected '", tag, "'") : StrCat("unknown tag '", tag, "'"));
    return nullptr;
  }

  std::unique_ptr<Stmt> If(int line) {
    auto s = NewStmt(StmtKind::kIf, line);
    for (;;) {
      ExprPtr test = Tuple(false);
      ExpectBlockEnd();
      Body body = Statements({"elif", "else", "endif"});
      s->arms.emplace_back(std::move(test), std::move(body));
      if (SkipName("elif")) continue;
      if (SkipName("else")) {
        ExpectBlockEnd();
        s->otherwise = Until("endif");
      } else {
        Step();
        ExpectBlockEnd();
      }
      return s;
    }
  }

  std::unique_ptr<Stmt> For(int line) {
    auto s = NewStmt(StmtKind::kFor, line);
    ++for_depth_;
    s->target = Target(false);
    ExpectName("in");
    s->expr = Tuple(false, "recursive");
    if (SkipName("if")) s->test = Condition();
    s->recursive = SkipName("recursive");
    ExpectBlockEnd();
    ++loops_;
    s->body = Statements({"else", "endfor"});
    --loops_;
    if (SkipName("else")) {
      ExpectBlockEnd();
      s->otherwise = Until("endfor");
    } else {
      Step();
      ExpectBlockEnd();
    }
    --for_depth_;
    return s;
  }

  // A name, an attribute of a namespace, or a tuple of them.
  ExprPtr Target(bool with_namespace) {
    Nest nest(this);
    std::vector<ExprPtr> parts;
    bool tuple = false;
    do {
      if (IsName("in") || IsOp(")") || Now().token == Token::kBlockEnd) break;
      if (SkipOp("(")) {
        parts.push_back(Target(with_namespace));
        ExpectOp(")");
      } else {
        std::string name = TakeName();
        if (name == "true" || name == "false" || name == "none" || name == "True" || name == "False" ||
            name == "None") {
          Fail(StrCat("can't assign to '", name, "'"));
        }
        if (name == "loop" && for_depth_ > 0 && !IsOp(".")) Fail("can't assign to special loop variable");
        if (with_namespace && SkipOp(".")) {
          std::string attribute = TakeName();
          parts.push_back(Node(ExprKind::kGetAttr, attribute, Make(ExprKind::kName, {}, name)));
        } else {
          parts.push_back(Make(ExprKind::kName, {}, name));
        }
      }
      if (IsOp(",")) tuple = true;
    } while (SkipOp(","));
    if (parts.empty()) Fail(StrCat("expected a name to assign to, got '", Now().text, "'"));
    if (!tuple && parts.size() == 1) return std::move(parts[0]);
    return Make(ExprKind::kTuple, std::move(parts));
  }

  std::unique_ptr<Stmt> Set(int line) {
    auto s = NewStmt(StmtKind::kSet, line);
    s->target = Target(true);
    if (SkipOp("=")) {
      s->expr = Tuple(true);
      ExpectBlockEnd();
      return s;
    }
    s->kind = StmtKind::kSetBlock;
    if (IsOp("|")) s->expr = Filters(nullptr, false);
    ExpectBlockEnd();
    s->body = Until("endset");
    return s;
  }

  void Signature(Stmt& s) {
    ExpectOp("(");
    while (error_.ok() && !IsOp(")")) {
      if (!s.params.empty()) ExpectOp(",");
      std::string name = TakeName();
      ExprPtr value;
      if (SkipOp("=")) {
        value = Condition();
      } else if (!s.params.empty() && s.params.back().second) {
        Fail("non-default argument follows default argument");
      }
      s.params.emplace_back(std::move(name), std::move(value));
    }
    ExpectOp(")");
  }

  void MacroBody(Stmt& s, std::string_view end) {
    Mentions outer = mentions_;
    int loops = loops_;
    mentions_ = {};
    loops_ = 0;
    s.body = Until(end);
    s.uses_caller = mentions_.caller;
    s.uses_varargs = mentions_.varargs;
    s.uses_kwargs = mentions_.kwargs;
    for (const auto& [param, fallback] : s.params) {
      if (param == "caller" && s.uses_caller && !fallback) Fail("the parameter caller needs a default");
    }
    loops_ = loops;
    mentions_ = {outer.caller || mentions_.caller, outer.varargs || mentions_.varargs,
                 outer.kwargs || mentions_.kwargs};
  }

  std::unique_ptr<Stmt> Macro(int line) {
    auto s = NewStmt(StmtKind::kMacro, line);
    s->name = TakeName();
    Signature(*s);
    ExpectBlockEnd();
    MacroBody(*s, "endmacro");
    return s;
  }

  std::unique_ptr<Stmt> Call(int line) {
    auto s = NewStmt(StmtKind::kCallBlock, line);
    if (IsOp("(")) Signature(*s);
    s->expr = Condition();
    if (error_.ok() && s->expr->kind != ExprKind::kCall) Fail("expected a call after {% call");
    ExpectBlockEnd();
    MacroBody(*s, "endcall");
    return s;
  }

  std::unique_ptr<Stmt> With(int line) {
    auto s = NewStmt(StmtKind::kWith, line);
    while (error_.ok() && Now().token != Token::kBlockEnd) {
      if (!s->assignments.empty()) ExpectOp(",");
      ExprPtr target = TargetName();
      ExpectOp("=");
      ExprPtr value = Condition();
      s->assignments.emplace_back(std::move(target), std::move(value));
    }
    ExpectBlockEnd();
    s->body = Until("endwith");
    return s;
  }
  ExprPtr TargetName() {
    if (IsOp("(")) {
      Step();
      ExprPtr target = Target(false);
      ExpectOp(")");
      return target;
    }
    return Make(ExprKind::kName, {}, TakeName());
  }

  // ---- expressions, loosest first ----

  // One expression or, with commas, a tuple.
  ExprPtr Tuple(bool with_condition, std::string_view extra_end = {}, bool parentheses = false) {
    Nest nest(this);
    std::vector<ExprPtr> parts;
    bool tuple = false;
    while (error_.ok()) {
      if (!parts.empty()) ExpectOp(",");
      if (Now().token == Token::kVariableEnd || Now().token == Token::kBlockEnd || IsOp(")") ||
          (!extra_end.empty() && IsName(extra_end))) {
        break;
      }
      parts.push_back(with_condition ? Condition() : Or());
      if (!IsOp(",")) break;
      tuple = true;
    }
    if (!tuple && parts.size() == 1) return std::move(parts[0]);
    if (parts.empty() && !parentheses) Fail(StrCat("expected an expression, got '", Now().text, "'"));
    return Make(ExprKind::kTuple, std::move(parts));
  }

  ExprPtr Condition() {
    Nest nest(this);
    ExprPtr value = Or();
    while (SkipName("if")) {
      ExprPtr test = Or();
      ExprPtr otherwise;
      if (SkipName("else")) otherwise = Condition();
      value = Node(ExprKind::kCondition, "", std::move(value), std::move(test), std::move(otherwise));
    }
    return value;
  }
  ExprPtr Or() {
    ExprPtr left = And();
    while (SkipName("or")) {
      ExprPtr right = And();
      left = Node(ExprKind::kOr, "", std::move(left), std::move(right));
    }
    return left;
  }
  ExprPtr And() {
    ExprPtr left = Not();
    while (SkipName("and")) {
      ExprPtr right = Not();
      left = Node(ExprKind::kAnd, "", std::move(left), std::move(right));
    }
    return left;
  }
  ExprPtr Not() {
    if (!IsName("not")) return Compare();
    Nest nest(this);
    Step();
    ExprPtr value = Not();
    return Node(ExprKind::kNot, "", std::move(value));
  }
  ExprPtr Compare() {
    std::vector<ExprPtr> parts;
    std::vector<std::string> ops;
    parts.push_back(Sum());
    while (error_.ok()) {
      std::string op;
      if (IsOp("==") || IsOp("!=") || IsOp("<") || IsOp("<=") || IsOp(">") || IsOp(">=")) {
        op = Now().text;
      } else if (IsName("in")) {
        op = "in";
      } else if (IsName("not") && Next().token == Token::kName && Next().text == "in") {
        op = "not in";
        Step();
      } else {
        break;
      }
      Step();
      parts.push_back(Sum());
      ops.push_back(std::move(op));
    }
    if (ops.empty()) return std::move(parts[0]);
    ExprPtr e = Make(ExprKind::kCompare, std::move(parts));
    e->ops = std::move(ops);
    return e;
  }
  ExprPtr Sum() {
    ExprPtr left = Concat();
    while (IsOp("+") || IsOp("-")) {
      std::string op = Now().text;
      Step();
      ExprPtr right = Concat();
      left = Node(ExprKind::kBinary, op, std::move(left), std::move(right));
    }
    return left;
  }
  ExprPtr Concat() {
    std::vector<ExprPtr> parts;
    parts.push_back(Product());
    while (SkipOp("~")) parts.push_back(Product());
    if (parts.size() == 1) return std::move(parts[0]);
    return Make(ExprKind::kConcat, std::move(parts));
  }
  ExprPtr Product() {
    ExprPtr left = Power();
    while (IsOp("*") || IsOp("/") || IsOp("//") || IsOp("%")) {
      std::string op = Now().text;
      Step();
      ExprPtr right = Power();
      left = Node(ExprKind::kBinary, op, std::move(left), std::move(right));
    }
    return left;
  }
  ExprPtr Power() {
    ExprPtr left = Unary(true);
    while (SkipOp("**")) {
      ExprPtr right = Unary(true);
      left = Node(ExprKind::kBinary, "**", std::move(left), std::move(right));
    }
    return left;
  }
  ExprPtr Unary(bool with_filter) {
    Nest nest(this);
    ExprPtr e;
    if (IsOp("-") || IsOp("+")) {
      ExprKind kind = IsOp("-") ? ExprKind::kNegative : ExprKind::kPositive;
      Step();
      ExprPtr inner = Unary(false);
      e = Node(kind, "", std::move(inner));
    } else {
      e = Primary();
    }
    e = Postfix(std::move(e));
    return with_filter ? FilterExpr(std::move(e)) : std::move(e);
  }

  ExprPtr Primary() {
    const Lexeme token = Now();
    switch (token.token) {
      case Token::kName: {
        Step();
        if (token.text == "true" || token.text == "True") return Const(Value::Bool(true));
        if (token.text == "false" || token.text == "False") return Const(Value::Bool(false));
        if (token.text == "none" || token.text == "None") return Const(Value::None());
        mentions_.caller |= token.text == "caller";
        mentions_.varargs |= token.text == "varargs";
        mentions_.kwargs |= token.text == "kwargs";
        return Make(ExprKind::kName, {}, token.text);
      }
      case Token::kString: {
        std::string text;
        while (Now().token == Token::kString) {
          text += Now().text;
          Step();
        }
        return Const(Value::String(std::move(text)));
      }
      case Token::kInteger:
        Step();
        return Const(Value::Int(token.integer));
      case Token::kFloat:
        Step();
        return Const(Value::Float(token.real));
      default:
        break;
    }
    if (SkipOp("(")) {
      ExprPtr e = Tuple(true, {}, true);
      ExpectOp(")");
      return e;
    }
    if (SkipOp("[")) {
      std::vector<ExprPtr> items;
      while (error_.ok() && !IsOp("]")) {
        if (!items.empty()) ExpectOp(",");
        if (IsOp("]")) break;
        items.push_back(Condition());
      }
      ExpectOp("]");
      return Make(ExprKind::kList, std::move(items));
    }
    if (SkipOp("{")) {
      std::vector<ExprPtr> items;
      while (error_.ok() && !IsOp("}")) {
        if (!items.empty()) ExpectOp(",");
        if (IsOp("}")) break;
        items.push_back(Condition());
        ExpectOp(":");
        items.push_back(Condition());
      }
      ExpectOp("}");
      return Make(ExprKind::kDict, std::move(items));
    }
    Fail(StrCat("unexpected '", token.text, "'"));
    return Const(Value::None());
  }

  ExprPtr Postfix(ExprPtr e) {
    while (error_.ok()) {
      if (SkipOp(".")) {
        if (Now().token == Token::kInteger) {
          ExprPtr index = Const(Value::Int(Now().integer));
          Step();
          e = Node(ExprKind::kGetItem, "", std::move(e), std::move(index));
        } else {
          std::string name = TakeName();
          e = Node(ExprKind::kGetAttr, name, std::move(e));
        }
      } else if (SkipOp("[")) {
        e = Subscript(std::move(e));
      } else if (IsOp("(")) {
        e = CallOf(std::move(e));
      } else {
        break;
      }
    }
    return e;
  }

  ExprPtr Subscript(ExprPtr e) {
    ExprPtr part[3];
    int colons = 0;
    while (error_.ok() && !IsOp("]")) {
      if (SkipOp(":")) {
        if (++colons > 2) Fail("a slice has at most two colons");
      } else if (IsOp(",")) {
        break;
      } else {
        if (part[colons]) break;
        part[colons] = Condition();
      }
    }
    if (colons == 0 && part[0] && IsOp(",")) {  // x[a, b]: a tuple as key
      std::vector<ExprPtr> keys;
      keys.push_back(std::move(part[0]));
      while (SkipOp(",")) keys.push_back(Condition());
      part[0] = Make(ExprKind::kTuple, std::move(keys));
    }
    if (colons == 0 && !part[0]) Fail("expected subscript expression");
    ExpectOp("]");
    if (colons == 0) return Node(ExprKind::kGetItem, "", std::move(e), std::move(part[0]));
    return Node(ExprKind::kSlice, "", std::move(e), std::move(part[0]), std::move(part[1]),
                std::move(part[2]));
  }

  void CallArgs(Expr& e) {
    e.call = std::make_unique<CallSpec>();
    CallSpec& call = *e.call;
    ExpectOp("(");
    bool first = true;
    while (error_.ok() && !IsOp(")")) {
      if (!first) {
        ExpectOp(",");
        if (IsOp(")")) break;
      }
      first = false;
      if (SkipOp("**")) {
        if (call.star_star) Fail("more than one ** argument");
        call.star_star = Condition();
        Raise(e, call.star_star);
      } else if (SkipOp("*")) {
        if (call.star || call.star_star) Fail("a * argument must come once and before **");
        call.star = Condition();
        Raise(e, call.star);
      } else if (Now().token == Token::kName && Next().token == Token::kOperator && Next().text == "=") {
        if (call.star_star) Fail("a named argument after **");
        std::string name = TakeName();
        Step();
        for (const auto& other : call.named) {
          if (other.first == name) Fail(StrCat("keyword argument repeated: ", name));
        }
        call.named.emplace_back(std::move(name), Condition());
        Raise(e, call.named.back().second);
      } else {
        if (call.star || call.star_star || !call.named.empty())
          Fail("a positional argument after named ones");
        call.positional.push_back(Condition());
        Raise(e, call.positional.back());
      }
    }
    ExpectOp(")");
    if (e.depth > kMaxExprDepth) Fail(StrCat("an expression of more than ", kMaxExprDepth, " levels"));
  }
  ExprPtr CallOf(ExprPtr callee) {
    ExprPtr e = Node(ExprKind::kCall, "", std::move(callee));
    CallArgs(*e);
    return e;
  }

  ExprPtr FilterExpr(ExprPtr e) {
    while (error_.ok()) {
      if (IsOp("|")) {
        e = Filters(std::move(e), false);
      } else if (IsName("is")) {
        e = Test(std::move(e));
      } else if (IsOp("(")) {
        e = CallOf(std::move(e));
      } else {
        break;
      }
    }
    return e;
  }

  std::string DottedName() {
    std::string name = TakeName();
    while (SkipOp(".")) name += "." + TakeName();
    return name;
  }

  // e | a | b(...); `inline_start`: the first name stands without "|" ({% filter a %}).
  ExprPtr Filters(ExprPtr e, bool inline_start) {
    while (error_.ok() && (inline_start || IsOp("|"))) {
      if (!inline_start) Step();
      inline_start = false;
      std::string name = DottedName();
      e = Node(ExprKind::kFilter, name, std::move(e));
      if (IsOp("(")) {
        CallArgs(*e);
      } else {
        e->call = std::make_unique<CallSpec>();
      }
    }
    return e;
  }

  ExprPtr Test(ExprPtr e) {
    Step();  // is
    bool negated = SkipName("not");
    std::string name = DottedName();
    e = Node(ExprKind::kTest, name, std::move(e));
    const Lexeme& now = Now();
    if (IsOp("(")) {
      CallArgs(*e);
    } else {
      e->call = std::make_unique<CallSpec>();
      bool starts = now.token == Token::kName || now.token == Token::kString ||
                    now.token == Token::kInteger || now.token == Token::kFloat || IsOp("[") || IsOp("{");
      if (starts && !IsName("else") && !IsName("or") && !IsName("and")) {
        if (IsName("is")) Fail("You cannot chain multiple tests with is");
        Nest nest(this);
        ExprPtr arg = Primary();
        arg = Postfix(std::move(arg));
        Raise(*e, arg);
        e->call->positional.push_back(std::move(arg));
      }
    }
    if (negated) e = Node(ExprKind::kNot, "", std::move(e));
    return e;
  }

  std::vector<Lexeme> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
  int loops_ = 0;      // for loops around, up to the macro: break and continue need one
  int for_depth_ = 0;  // for tags around, macros looked through
  Mentions mentions_;
  Status error_;
};

}  // namespace

StatusOr<Body> ParseTemplate(std::string_view source) {
  FD_ASSIGN_OR_RETURN(std::vector<Lexeme> tokens, Tokenize(source));
  return Parser(std::move(tokens)).Run();
}

}  // namespace fd::jinja
