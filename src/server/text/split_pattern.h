// The regular expression of a tokenizer.json pre-tokenizer, run by PCRE2 in UTF mode with Unicode properties.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace fd {

class SplitPattern {
 public:
  // Errors give PCRE2's message and the offset. Immutable afterwards; any thread.
  static StatusOr<SplitPattern> Compile(const std::string& pattern);

  // Appends to `pieces` the matches and the texts between them ("isolated"), in order; together they are
  // `text`. text: well-formed UTF-8. A match that exceeds its limits (10 million steps, 64 MiB) ends the
  // splitting: the rest is one piece.
  void Split(std::string_view text, std::vector<std::string_view>& pieces) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

}  // namespace fd
