#include "server/multimodal/source/data_url.h"

#include <array>
#include <optional>

#include "base/strings.h"
#include "server/multimodal/source/url_text.h"

namespace fd {
namespace {

constexpr std::string_view kExample = "; a picture is sent as data:image/png;base64,iVBORw0...";

constexpr std::array<int8_t, 256> MakeBase64Values() {
  std::array<int8_t, 256> values{};
  values.fill(-1);
  constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < kAlphabet.size(); ++i)
    values[static_cast<uint8_t>(kAlphabet[i])] = static_cast<int8_t>(i);
  return values;
}
constexpr std::array<int8_t, 256> kBase64Values = MakeBase64Values();

Status BadEscape(size_t position) {
  return InvalidArgument(
      StrCat("the data URL has a '%' without two hexadecimal digits at character ", position));
}

Status TooLarge(size_t bytes, int64_t max_bytes, std::string_view limit_flag) {
  return {StatusCode::kPayloadTooLarge,
          StrCat("the data URL holds ", bytes, " bytes; the limit is ", max_bytes, " (", limit_flag, ")")};
}

// payload_at: where the payload begins in the URL, for positions in errors.
StatusOr<std::string> DecodeBase64(std::string_view payload, size_t payload_at, int64_t max_bytes,
                                   std::string_view limit_flag) {
  size_t digits = 0, padding = 0;
  Unescaper check(payload);
  while (std::optional<char> c = check.Next()) {
    if (IsUrlSpace(*c)) continue;
    size_t at = payload_at + check.position();
    if (*c == '=') {
      ++padding;
    } else if (kBase64Values[static_cast<uint8_t>(*c)] < 0) {
      bool url_safe = *c == '-' || *c == '_';
      return InvalidArgument(StrCat("the data URL is no base64: ", PrintableByte(*c), " at character ", at,
                                    url_safe ? " (the URL-safe alphabet is not accepted)" : ""));
    } else if (padding > 0) {
      return InvalidArgument(StrCat("the data URL is no base64: data after the padding at character ", at));
    } else {
      ++digits;
    }
  }
  if (check.bad_escape()) return BadEscape(payload_at + check.position());
  if (padding > 2 || (padding > 0 && (digits + padding) % 4 != 0) || digits % 4 == 1) {
    return InvalidArgument(StrCat("the data URL is no base64: ", digits, " digits and ", padding,
                                  " padding signs do not make whole bytes; it may have been cut short"));
  }
  size_t bytes = digits / 4 * 3 + digits % 4 * 3 / 4;
  if (static_cast<int64_t>(bytes) > max_bytes) return TooLarge(bytes, max_bytes, limit_flag);

  std::string out;
  out.reserve(bytes);
  Unescaper read(payload);
  uint32_t bits = 0;
  int num_bits = 0;
  while (std::optional<char> c = read.Next()) {
    int value = kBase64Values[static_cast<uint8_t>(*c)];
    if (value < 0) continue;  // space and padding
    bits = bits << 6 | static_cast<uint32_t>(value);
    num_bits += 6;
    if (num_bits >= 8) {
      num_bits -= 8;
      out.push_back(static_cast<char>(bits >> num_bits & 0xff));
    }
  }
  return out;
}

StatusOr<std::string> DecodePercent(std::string_view payload, size_t payload_at, int64_t max_bytes,
                                    std::string_view limit_flag) {
  size_t bytes = 0;
  Unescaper check(payload);
  while (check.Next()) ++bytes;
  if (check.bad_escape()) return BadEscape(payload_at + check.position());
  if (static_cast<int64_t>(bytes) > max_bytes) return TooLarge(bytes, max_bytes, limit_flag);
  std::string out;
  out.reserve(bytes);
  Unescaper read(payload);
  while (std::optional<char> c = read.Next()) out.push_back(*c);
  return out;
}

}  // namespace

StatusOr<MediaBytes> ReadDataUrl(std::string_view url, int64_t max_bytes, std::string_view limit_flag) {
  const size_t total = url.size();
  while (!url.empty() && IsUrlSpace(url.front())) url.remove_prefix(1);
  if (url.empty()) return InvalidArgument(StrCat("the media URL is empty", kExample));
  if (LowerAscii(url.substr(0, 5)) != "data:") {
    return InvalidArgument(StrCat("this is no data URL", kExample));
  }
  // The head holds no payload: a type and parameters. Anything long is a payload without its comma.
  constexpr size_t kMaxHeadBytes = 1024;
  size_t comma = url.substr(0, kMaxHeadBytes).find(',');
  if (comma == std::string_view::npos) {
    return InvalidArgument(StrCat("the data URL has no comma before its data", kExample));
  }
  std::vector<std::string> head = Split(url.substr(5, comma - 5), ';');
  MediaBytes media;
  bool base64 = false;
  for (size_t i = 0; i < head.size(); ++i) {
    std::string part = LowerAscii(Trim(head[i]));
    if (i == 0) media.media_type = part;
    if (i + 1 == head.size() && i > 0 && part == "base64") base64 = true;
  }
  size_t payload_at = total - url.size() + comma + 1;
  std::string_view payload = url.substr(comma + 1);
  StatusOr<std::string> bytes = base64 ? DecodeBase64(payload, payload_at, max_bytes, limit_flag)
                                       : DecodePercent(payload, payload_at, max_bytes, limit_flag);
  if (!bytes.ok()) return bytes.status();
  if (bytes->empty()) return InvalidArgument(StrCat("the data URL holds no data", kExample));
  media.bytes = *std::move(bytes);
  return media;
}

}  // namespace fd
