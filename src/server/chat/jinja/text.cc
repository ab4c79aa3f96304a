#include "server/chat/jinja/text.h"

#include <string.h>

#include <algorithm>

#include "base/utf8.h"

namespace fd::jinja {

void TextBuilder::Mark(size_t begin, size_t end) {
  if (begin == end) return;
  if (!user_.empty() && user_.back().end == begin) {
    user_.back().end = end;
  } else {
    user_.push_back({begin, end});
  }
}

void TextBuilder::Append(std::string_view bytes, bool user) {
  size_t begin = bytes_.size();
  bytes_.append(bytes);
  if (user) Mark(begin, bytes_.size());
}

void TextBuilder::Append(const Text& text, size_t begin, size_t end) {
  size_t base = bytes_.size();
  bytes_.append(text.bytes, begin, end - begin);
  auto range = std::upper_bound(text.user.begin(), text.user.end(), begin,
                                [](size_t value, const ByteRange& r) { return value < r.end; });
  for (; range != text.user.end() && range->begin < end; ++range) {
    size_t from = std::max(range->begin, begin), to = std::min(range->end, end);
    if (from < to) Mark(base + from - begin, base + to - begin);
  }
}

void TextBuilder::Append(const TextBuilder& other) {
  size_t base = bytes_.size();
  bytes_.append(other.bytes_);
  for (const ByteRange& r : other.user_) Mark(base + r.begin, base + r.end);
}

TextPtr TextBuilder::Take() {
  auto text = std::make_shared<Text>();
  text->bytes = std::move(bytes_);
  text->user = std::move(user_);
  text->chars = CountUtf8Chars(text->bytes);
  bytes_.clear();
  user_.clear();
  return text;
}

TextPtr MakeText(std::string bytes, bool user) {
  auto text = std::make_shared<Text>();
  text->bytes = std::move(bytes);
  if (user && !text->bytes.empty()) text->user.push_back({0, text->bytes.size()});
  text->chars = CountUtf8Chars(text->bytes);
  return text;
}

TextPtr SubText(const Text& text, size_t begin, size_t end) {
  TextBuilder b;
  b.Append(text, begin, std::max(begin, end));
  return b.Take();
}

bool IsUser(const Text& text, size_t offset) {
  auto range = std::upper_bound(text.user.begin(), text.user.end(), offset,
                                [](size_t value, const ByteRange& r) { return value < r.end; });
  return range != text.user.end() && range->begin <= offset;
}

size_t ByteOffset(const Text& text, int64_t index) {
  if (text.ascii()) return static_cast<size_t>(index);
  size_t offset = 0;
  while (index > 0 && offset < text.bytes.size()) {
    offset += static_cast<size_t>(DecodeUtf8(std::string_view(text.bytes).substr(offset)).length_bytes);
    --index;
  }
  return offset;
}

int64_t CharIndex(const Text& text, size_t byte_offset) {
  if (text.ascii()) return static_cast<int64_t>(byte_offset);
  return CountUtf8Chars(std::string_view(text.bytes).substr(0, byte_offset));
}

size_t FindBytes(std::string_view text, std::string_view needle, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  // glibc's memmem is the two-way algorithm; string_view::find is quadratic.
  const void* hit = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  return hit == nullptr ? std::string_view::npos
                        : static_cast<size_t>(static_cast<const char*>(hit) - text.data());
}

size_t RfindBytes(std::string_view text, std::string_view needle, size_t end) {
  text = text.substr(0, std::min(end, text.size()));
  if (needle.size() > text.size()) return std::string_view::npos;
  std::string reversed_text(text.rbegin(), text.rend()), reversed_needle(needle.rbegin(), needle.rend());
  size_t hit = FindBytes(reversed_text, reversed_needle, 0);
  return hit == std::string_view::npos ? hit : text.size() - hit - needle.size();
}

}  // namespace fd::jinja
