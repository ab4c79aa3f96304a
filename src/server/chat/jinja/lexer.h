// Template source -> tokens, with Jinja's whitespace rules (trim_blocks and lstrip_blocks on, last newline
// dropped).
#pragma once

#include <string>
#include <vector>

#include "base/status.h"

namespace fd::jinja {

enum class Token : uint8_t {
  kData,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Lexeme {
  Token token = Token::kEnd;
  int line = 0;
  std::string text;  // strings are already unescaped
  int64_t integer = 0;
  double real = 0;
};

StatusOr<std::vector<Lexeme>> Tokenize(std::string_view source);

}  // namespace fd::jinja
