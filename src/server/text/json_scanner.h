// A pull reader for large JSON files: vocabularies of 100,000s of entries are read in place, without a tree
// of values. The text must be UTF-8 throughout (checked by the caller) and outlive the scanner.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace fd {

class JsonScanner {
 public:
  // base: the offset of `text` in its file, for errors.
  explicit JsonScanner(std::string_view text, size_t base = 0) : text_(text), base_(base) {}

  // The next byte after white space, or '\0' at the end.
  char Peek();
  Status Expect(char c);
  // Inside an object or array, after its opening bracket or an element: true when an element follows (the
  // comma is taken), false when `close` was taken. first: nothing was read yet.
  StatusOr<bool> More(char close, bool first);
  Status String(std::string& out);
  StatusOr<int64_t> Int();
  // Takes one value whole and gives its text, which is only checked for balanced brackets and strings.
  StatusOr<std::string_view> Raw();
  size_t offset() const { return base_ + at_; }
  Status Error(std::string_view what) const;

 private:
  Status SkipString();
  std::string_view text_;
  size_t base_;
  size_t at_ = 0;
};

}  // namespace fd
