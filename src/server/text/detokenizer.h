// Token ids arriving one by one -> text that is complete UTF-8, with stop strings. One object a sequence; one
// thread.
#pragma once

#include <string>
#include <vector>

#include "server/text/tokenizer.h"

namespace fd {

class Detokenizer {
 public:
  // stop: strings that end the text; kept out of it unless include_stop. The tokenizer must outlive this.
  Detokenizer(const Tokenizer* tokenizer, bool skip_special, std::vector<std::string> stop = {},
              bool include_stop = false);

  // What may be shown after this token: the longest prefix of the pending text that is complete UTF-8 and
  // cannot be the beginning of a stop string. After a stop string was found: nothing more.
  std::string Push(int32_t id);
  // The rest at the end of the sequence; ill-formed bytes as U+FFFD.
  std::string Flush();
  // A stop string has been found; the caller aborts the sequence.
  bool stopped() const { return stopped_; }
  const std::string& stop_found() const { return stop_found_; }

 private:
  std::string Release(bool at_end);
  const Tokenizer* tokenizer_;
  bool skip_special_;
  bool include_stop_;
  std::vector<std::string> stop_;
  bool first_ = true;
  bool stopped_ = false;
  std::string stop_found_;
  std::string bytes_;  // not yet complete UTF-8
  std::string held_;   // complete text that may be the beginning of a stop string
};

}  // namespace fd
