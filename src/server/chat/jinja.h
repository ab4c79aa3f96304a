// The Jinja subset that chat templates use (as transformers documents it), under an instruction and output
// budget. A parsed template is immutable; any thread may render it.
#pragma once

#include <cstdint>
#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace fd {

struct JinjaLimits {
  int64_t max_instructions = 500'000;
  int64_t max_output_bytes = 4 << 20;
  // Calls of macros and loops inside each other; five times as many statements and expressions. The default
  // needs less than 1 MiB of stack, under AddressSanitizer too.
  int max_depth = 64;
};

// Immutable: copies share what was parsed.
class JinjaTemplate {
 public:
  // Errors name the line. trim_blocks and lstrip_blocks are on, as in transformers.
  static StatusOr<JinjaTemplate> Parse(std::string_view source);

  struct Result {
    std::string text;
    // [begin, end) in bytes, ascending and disjoint: what came from variables that are not trusted, through
    // any filters and methods. All other text is the template's own.
    std::vector<std::pair<size_t, size_t>> user_spans;
    // [begin, end) in characters of the text inside {% generation %} blocks.
    std::vector<std::pair<int64_t, int64_t>> generation_spans;
  };
  // variables: an object. raise_exception's message comes back as kInvalidArgument, word for word.
  // now: what strftime_now sees. trusted: names of variables whose text counts as the template's own.
  StatusOr<Result> Render(const Json& variables, const JinjaLimits& limits, const std::tm& now,
                          const std::vector<std::string>& trusted = {}) const;

 private:
  struct Impl;
  explicit JinjaTemplate(std::shared_ptr<const Impl> impl);
  std::shared_ptr<const Impl> impl_;
};

}  // namespace fd
