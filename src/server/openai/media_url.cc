#include "server/openai/media_url.h"

#include <array>
#include <cstdint>

#include "base/strings.h"

namespace fd {
namespace {

constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

constexpr int8_t kInvalid = -1;
constexpr int8_t kSpace = -2;
constexpr int8_t kPad = -3;

constexpr std::array<int8_t, 256> MakeTable() {
  std::array<int8_t, 256> table{};
  for (auto& v : table) v = kInvalid;
  for (int i = 0; i < 64; ++i) table[static_cast<uint8_t>(kAlphabet[i])] = static_cast<int8_t>(i);
  for (char c : {' ', '\n', '\r', '\t'}) table[static_cast<uint8_t>(c)] = kSpace;
  table['='] = kPad;
  return table;
}
constexpr std::array<int8_t, 256> kTable = MakeTable();

}  // namespace

StatusOr<std::string> DecodeBase64(std::string_view text) {
  std::string out;
  out.reserve(text.size() / 4 * 3 + 3);
  uint32_t bits = 0;
  int digits = 0;  // of the current group of four
  int pads = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const int8_t v = kTable[static_cast<uint8_t>(text[i])];
    if (v == kSpace) continue;
    if (v == kPad) {
      ++pads;
      continue;
    }
    if (v == kInvalid) return InvalidArgument(StrCat("base64: a character outside its alphabet at byte ", i));
    if (pads > 0) return InvalidArgument(StrCat("base64: data after the padding at byte ", i));
    bits = bits << 6 | static_cast<uint32_t>(v);
    if (++digits == 4) {
      out.push_back(static_cast<char>(bits >> 16));
      out.push_back(static_cast<char>(bits >> 8));
      out.push_back(static_cast<char>(bits));
      bits = 0;
      digits = 0;
    }
  }
  if (digits == 1 || pads > 2 || (pads > 0 && digits + pads != 4)) {
    return InvalidArgument(StrCat("base64: cut off after ", text.size(), " bytes"));
  }
  if (digits == 2) {
    out.push_back(static_cast<char>(bits >> 4));
  } else if (digits == 3) {
    out.push_back(static_cast<char>(bits >> 10));
    out.push_back(static_cast<char>(bits >> 2));
  }
  return out;
}

std::string EncodeBase64(std::string_view bytes) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  size_t i = 0;
  const auto at = [&](size_t k) { return static_cast<uint32_t>(static_cast<uint8_t>(bytes[k])); };
  for (; i + 3 <= bytes.size(); i += 3) {
    const uint32_t v = at(i) << 16 | at(i + 1) << 8 | at(i + 2);
    for (int shift = 18; shift >= 0; shift -= 6) out.push_back(kAlphabet[v >> shift & 63]);
  }
  if (i < bytes.size()) {
    const bool two = i + 1 < bytes.size();
    const uint32_t v = at(i) << 16 | (two ? at(i + 1) << 8 : 0);
    out.push_back(kAlphabet[v >> 18 & 63]);
    out.push_back(kAlphabet[v >> 12 & 63]);
    out.push_back(two ? kAlphabet[v >> 6 & 63] : '=');
    out.push_back('=');
  }
  return out;
}

StatusOr<std::string> FetchMedia(std::string_view url) {
  const auto has_scheme = [&](std::string_view scheme) {
    if (url.size() < scheme.size()) return false;
    for (size_t i = 0; i < scheme.size(); ++i) {
      const char c = url[i];
      if ((c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c) != scheme[i]) return false;
    }
    return true;
  };
  if (has_scheme("http:") || has_scheme("https:")) {
    return Unimplemented(
        "http and https picture URLs are still to come; send the picture as a data URL, "
        "for example data:image/png;base64,iVBORw0...");
  }
  if (has_scheme("file:")) {
    return Unimplemented(
        "file: picture URLs are not allowed; send the picture as a data URL, for example "
        "data:image/png;base64,iVBORw0...");
  }
  if (!has_scheme("data:")) {
    return InvalidArgument("the URL is no data URL; example: data:image/png;base64,iVBORw0...");
  }
  const size_t comma = url.find(',');
  if (comma == std::string_view::npos) {
    return InvalidArgument(
        "the data URL has no comma before its data; example: data:image/png;base64,iVBORw0...");
  }
  if (!url.substr(0, comma).ends_with(";base64")) {
    return InvalidArgument("the data URL is not base64; example: data:image/png;base64,iVBORw0...");
  }
  FD_ASSIGN_OR_RETURN(std::string bytes, DecodeBase64(url.substr(comma + 1)));
  if (bytes.empty()) return InvalidArgument("the data URL holds no data");
  return bytes;
}

}  // namespace fd
