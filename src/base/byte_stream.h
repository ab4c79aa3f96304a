// Values as bytes, for files of our own: little endian, whole numbers as varints, floats as their bits. A
// reader takes any bytes: past the end or malformed it fails once and for all, and gives zeros.
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>

namespace fd {

class ByteWriter {
 public:
  explicit ByteWriter(std::string* out) : out_(*out) {}
  void Byte(uint8_t value) { out_.push_back(static_cast<char>(value)); }
  void Unsigned(uint64_t value) {
    for (; value >= 0x80; value >>= 7) Byte(static_cast<uint8_t>(value | 0x80));
    Byte(static_cast<uint8_t>(value));
  }
  void Signed(int64_t value) {  // small ones of both signs are short
    Unsigned(static_cast<uint64_t>(value) << 1 ^ static_cast<uint64_t>(value >> 63));
  }
  void Fixed32(uint32_t value) { Fixed(value, 4); }
  void Fixed64(uint64_t value) { Fixed(value, 8); }
  void Bytes(std::string_view bytes) { out_.append(bytes); }
  void Text(std::string_view text) {
    Unsigned(text.size());
    Bytes(text);
  }

 private:
  void Fixed(uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) Byte(static_cast<uint8_t>(value >> (8 * i)));
  }
  std::string& out_;
};

class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : rest_(bytes) {}
  bool ok() const { return ok_; }
  void Fail() {
    ok_ = false;
    rest_ = {};
  }
  size_t remaining() const { return rest_.size(); }
  bool AtEnd() const { return ok_ && rest_.empty(); }

  uint8_t Byte() {
    if (rest_.empty()) return Fail(), uint8_t{0};
    const auto value = static_cast<uint8_t>(rest_[0]);
    rest_.remove_prefix(1);
    return value;
  }
  uint64_t Unsigned() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint64_t byte = Byte();
      if (shift == 63 && byte > 1) break;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    return Fail(), uint64_t{0};
  }
  int64_t Signed() {
    const uint64_t coded = Unsigned();
    return static_cast<int64_t>(coded >> 1 ^ (~(coded & 1) + 1));
  }
  uint32_t Fixed32() { return static_cast<uint32_t>(Fixed(4)); }
  uint64_t Fixed64() { return Fixed(8); }
  // Points into the bytes that the reader was given.
  std::string_view Bytes(uint64_t count) {
    if (count > rest_.size()) return Fail(), std::string_view();
    const std::string_view bytes = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return bytes;
  }
  std::string_view Text() { return Bytes(Unsigned()); }

 private:
  uint64_t Fixed(int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) value |= uint64_t{Byte()} << (8 * i);
    return value;
  }
  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace fd
