// Token ids arriving one by one -> text that is complete UTF-8, with stop strings. One object a sequence; one
// thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "server/text/tokenizer.h"

namespace fd {

class Detokenizer {
 public:
  // stop: strings that end the text; kept out of it unless include_stop. The one that is complete first
  // counts, of those that end together the longest: borders between tokens make no difference. Empty ones are
  // left out. The tokenizer must outlive this.
  Detokenizer(const Tokenizer* tokenizer, bool skip_special, std::vector<std::string> stop = {},
              bool include_stop = false);

  // What may be shown after this token: the longest prefix of the pending text that is complete UTF-8 and
  // cannot be the beginning of a stop string. After a stop string was found: nothing more.
  std::string Push(int32_t id);
  // The same with this text in the token's place: for a special token that is not shown but has a meaning.
  std::string PushText(std::string_view text);
  // The rest at the end of the sequence; ill-formed bytes as U+FFFD.
  std::string Flush();
  // A stop string has been found; the caller aborts the sequence.
  bool stopped() const { return stopped_; }
  const std::string& stop_found() const { return stop_found_; }

 private:
  // A stop string and how much of it the shown-or-held text ends with (Knuth, Morris and Pratt).
  struct Stop {
    std::string text;
    std::vector<size_t> fallback;  // after i + 1 matched bytes: the longest proper prefix that is a suffix
    size_t matched = 0;
  };
  std::string Release(bool at_end);
  // Appends to held_; true when a stop string is complete.
  bool Hold(std::string_view text);

  const Tokenizer* tokenizer_;
  bool skip_special_;
  bool include_stop_;
  std::vector<Stop> stops_;
  bool first_ = true;
  bool stopped_ = false;
  std::string stop_found_;
  std::string bytes_;  // not yet complete UTF-8
  std::string held_;   // complete text that may be the beginning of a stop string
};

}  // namespace fd
