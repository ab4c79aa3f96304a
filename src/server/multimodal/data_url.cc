#include "server/multimodal/data_url.h"

#include <array>
#include <optional>

#include "base/strings.h"

namespace fd {
namespace {

constexpr std::string_view kExample = "; a picture is sent as data:image/png;base64,iVBORw0...";

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

std::string LowerCase(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = Lower(c);
  return out;
}

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f'; }

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = Lower(c);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

constexpr std::array<int8_t, 256> MakeBase64Values() {
  std::array<int8_t, 256> values{};
  values.fill(-1);
  constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < kAlphabet.size(); ++i)
    values[static_cast<uint8_t>(kAlphabet[i])] = static_cast<int8_t>(i);
  return values;
}
constexpr std::array<int8_t, 256> kBase64Values = MakeBase64Values();

// The byte as an error may show it.
std::string Printable(char c) {
  if (c > ' ' && c < 0x7f) return StrCat("'", c, "'");
  constexpr char kHex[] = "0123456789abcdef";
  auto byte = static_cast<uint8_t>(c);
  return StrCat("byte 0x", kHex[byte >> 4], kHex[byte & 15]);
}

// Walks a payload, resolving percent-escapes: one plain byte a call, nothing at the end.
class Unescaper {
 public:
  explicit Unescaper(std::string_view text) : text_(text) {}
  // Where the last byte stood in the payload.
  size_t position() const { return position_; }
  bool bad_escape() const { return bad_escape_; }
  std::optional<char> Next() {
    if (next_ >= text_.size()) return std::nullopt;
    position_ = next_;
    char c = text_[next_++];
    if (c != '%') return c;
    int high = next_ + 1 < text_.size() ? HexValue(text_[next_]) : -1;
    int low = high >= 0 ? HexValue(text_[next_ + 1]) : -1;
    if (low < 0) {
      bad_escape_ = true;
      return std::nullopt;
    }
    next_ += 2;
    return static_cast<char>(high * 16 + low);
  }

 private:
  std::string_view text_;
  size_t next_ = 0;
  size_t position_ = 0;
  bool bad_escape_ = false;
};

Status BadEscape(size_t position) {
  return InvalidArgument(
      StrCat("the data URL has a '%' without two hexadecimal digits at character ", position));
}

Status TooLarge(size_t bytes, int64_t max_bytes) {
  return {StatusCode::kPayloadTooLarge,
          StrCat("the data URL holds ", bytes, " bytes; the limit is ", max_bytes, " (--max-image-bytes)")};
}

// payload_at: where the payload begins in the URL, for positions in errors.
StatusOr<std::string> DecodeBase64(std::string_view payload, size_t payload_at, int64_t max_bytes) {
  size_t digits = 0, padding = 0;
  Unescaper check(payload);
  while (std::optional<char> c = check.Next()) {
    if (IsSpace(*c)) continue;
    size_t at = payload_at + check.position();
    if (*c == '=') {
      ++padding;
    } else if (kBase64Values[static_cast<uint8_t>(*c)] < 0) {
      bool url_safe = *c == '-' || *c == '_';
      return InvalidArgument(StrCat("the data URL is no base64: ", Printable(*c), " at character ", at,
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
  if (static_cast<int64_t>(bytes) > max_bytes) return TooLarge(bytes, max_bytes);

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

StatusOr<std::string> DecodePercent(std::string_view payload, size_t payload_at, int64_t max_bytes) {
  size_t bytes = 0;
  Unescaper check(payload);
  while (check.Next()) ++bytes;
  if (check.bad_escape()) return BadEscape(payload_at + check.position());
  if (static_cast<int64_t>(bytes) > max_bytes) return TooLarge(bytes, max_bytes);
  std::string out;
  out.reserve(bytes);
  Unescaper read(payload);
  while (std::optional<char> c = read.Next()) out.push_back(*c);
  return out;
}

Status RefuseScheme(std::string_view url) {
  size_t colon = url.substr(0, 32).find(':');
  std::string scheme = colon == std::string_view::npos ? std::string() : LowerCase(url.substr(0, colon));
  if (scheme == "http" || scheme == "https") {
    return Unimplemented(StrCat("fetching ", scheme, " URLs is still to come", kExample));
  }
  if (scheme == "file") {
    return InvalidArgument(StrCat("file URLs are not read by the server", kExample,
                                  "; from the command line: fastdeploy run MODEL PROMPT --image FILE"));
  }
  return InvalidArgument(StrCat("the media URL has no scheme that is known", kExample));
}

}  // namespace

StatusOr<MediaBytes> ReadMediaUrl(std::string_view url, int64_t max_bytes) {
  const size_t total = url.size();
  while (!url.empty() && IsSpace(url.front())) url.remove_prefix(1);
  if (url.empty()) return InvalidArgument(StrCat("the media URL is empty", kExample));
  if (LowerCase(url.substr(0, 5)) != "data:") return RefuseScheme(url);
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
    std::string part = LowerCase(Trim(head[i]));
    if (i == 0) media.media_type = part;
    if (i + 1 == head.size() && i > 0 && part == "base64") base64 = true;
  }
  size_t payload_at = total - url.size() + comma + 1;
  std::string_view payload = url.substr(comma + 1);
  StatusOr<std::string> bytes =
      base64 ? DecodeBase64(payload, payload_at, max_bytes) : DecodePercent(payload, payload_at, max_bytes);
  if (!bytes.ok()) return bytes.status();
  if (bytes->empty()) return InvalidArgument(StrCat("the data URL holds no data", kExample));
  media.bytes = *std::move(bytes);
  return media;
}

}  // namespace fd
