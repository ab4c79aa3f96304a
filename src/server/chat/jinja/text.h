// Text that remembers which bytes a user wrote. Every string inside the interpreter is one of these, so that
// the prompt can be cut into template text and user text after any chain of filters and methods.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace fd::jinja {

struct ByteRange {
  size_t begin = 0, end = 0;
};

struct Text {
  std::string bytes;            // UTF-8
  std::vector<ByteRange> user;  // sorted, disjoint, never empty ranges: written by the user
  int64_t chars = 0;            // code points

  bool ascii() const { return chars == static_cast<int64_t>(bytes.size()); }
};
using TextPtr = std::shared_ptr<const Text>;

class TextBuilder {
 public:
  void Append(std::string_view bytes, bool user);
  void Append(const Text& text) { Append(text, 0, text.bytes.size()); }
  // Bytes [begin, end) of text, with their marks.
  void Append(const Text& text, size_t begin, size_t end);
  void Append(const TextBuilder& other);
  size_t size() const { return bytes_.size(); }
  const std::string& bytes() const { return bytes_; }
  const std::vector<ByteRange>& user() const { return user_; }
  TextPtr Take();

 private:
  void Mark(size_t begin, size_t end);
  std::string bytes_;
  std::vector<ByteRange> user_;
};

TextPtr MakeText(std::string bytes, bool user);
TextPtr SubText(const Text& text, size_t begin, size_t end);
// Is the byte at `offset` user text?
bool IsUser(const Text& text, size_t offset);
// Is any byte user text?
inline bool AnyUser(const Text& text) { return !text.user.empty(); }

// Byte offset of character `index`, 0 <= index <= chars.
size_t ByteOffset(const Text& text, int64_t index);
int64_t CharIndex(const Text& text, size_t byte_offset);

// Linear-time search, npos when absent.
size_t FindBytes(std::string_view text, std::string_view needle, size_t from);
size_t RfindBytes(std::string_view text, std::string_view needle, size_t end);

}  // namespace fd::jinja
