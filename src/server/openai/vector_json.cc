#include "server/openai/vector_json.h"

#include <bit>
#include <charconv>
#include <cstdint>

namespace fd {

void AppendFloatArray(std::string& out, std::span<const float> values) {
  out += '[';
  char text[32];
  for (size_t i = 0; i < values.size(); ++i) {
    if (i > 0) out += ',';
    const auto [end, error] = std::to_chars(text, text + sizeof(text), values[i]);
    out.append(text, end);
  }
  out += ']';
}

void AppendBase64(std::string& out, std::span<const float> values) {
  static_assert(std::endian::native == std::endian::little);
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
  const size_t count = values.size_bytes();
  out += '"';
  for (size_t i = 0; i < count; i += 3) {
    const size_t left = count - i;
    const uint32_t word = uint32_t{bytes[i]} << 16 | (left > 1 ? uint32_t{bytes[i + 1]} << 8 : 0) |
                          (left > 2 ? uint32_t{bytes[i + 2]} : 0);
    out += kDigits[word >> 18];
    out += kDigits[word >> 12 & 63];
    out += left > 1 ? kDigits[word >> 6 & 63] : '=';
    out += left > 2 ? kDigits[word & 63] : '=';
  }
  out += '"';
}

}  // namespace fd
