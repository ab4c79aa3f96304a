// The parsed template. Immutable after parsing; shared by every thread that renders it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/chat/jinja/value.h"

namespace fd::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;
struct Stmt;
using Body = std::vector<std::unique_ptr<Stmt>>;

enum class ExprKind : uint8_t {
  kConst,
  kName,
  kList,
  kTuple,
  kDict,     // args: key, value, key, value
  kGetAttr,  // args[0].name
  kGetItem,  // args[0][args[1]]
  kSlice,    // args[0][args[1]:args[2]:args[3]], each part may be null
  kCall,     // args[0](call)
  kFilter,   // args[0] | name(call); args[0] null: the text of a block
  kTest,     // args[0] is name(call)
  kNegative,
  kPositive,
  kNot,
  kAnd,
  kOr,
  kConcat,     // ~
  kBinary,     // name is the operator
  kCompare,    // args[0] ops[0] args[1] ops[1] args[2] ...
  kCondition,  // args[0] if args[1] else args[2], which may be null
};

struct CallSpec {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr star, star_star;  // *args, **kwargs
};

struct Expr {
  ExprKind kind;
  int line = 0;
  int depth = 1;  // levels of expressions, bounded by the parser
  std::string name;
  Value constant;
  std::vector<ExprPtr> args;
  std::vector<std::string> ops;
  std::unique_ptr<CallSpec> call;
};

enum class StmtKind : uint8_t {
  kText,
  kPrint,
  kIf,
  kFor,
  kSet,
  kSetBlock,
  kMacro,
  kCallBlock,
  kFilterBlock,
  kWith,
  kGeneration,
  kBreak,
  kContinue,
};

struct Stmt {
  StmtKind kind;
  int line = 0;
  Value text;                                  // kText
  std::string name;                            // kMacro
  ExprPtr target;                              // kFor, kSet, kSetBlock: names, ns.attributes, tuples of them
  ExprPtr expr;                                // printed, iterated, assigned, called, filtered
  ExprPtr test;                                // for ... if test
  bool recursive = false;                      // kFor
  std::vector<std::pair<ExprPtr, Body>> arms;  // kIf: the conditions in order
  Body body, otherwise;
  std::vector<std::pair<std::string, ExprPtr>> params;   // kMacro, kCallBlock: a default or null
  std::vector<std::pair<ExprPtr, ExprPtr>> assignments;  // kWith
  bool uses_caller = false, uses_varargs = false, uses_kwargs = false;  // kMacro, kCallBlock
};

}  // namespace fd::jinja
