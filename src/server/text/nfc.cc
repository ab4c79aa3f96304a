#include "server/text/nfc.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "base/utf8.h"

namespace fd {
namespace {

// Blocks whose every character is a starter that normalisation leaves alone (NFC_Quick_Check=Yes).
bool IsPlain(char32_t c) {
  return c < 0x300 || (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3000 && c <= 0x3029) ||
         (c >= 0x3041 && c <= 0x3096) || (c >= 0x30A0 && c <= 0x30FF) || (c >= 0xFF01 && c <= 0xFFEF) ||
         (c >= 0x400 && c <= 0x482) || (c >= 0x2010 && c <= 0x2027);
}

int CombiningClass(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

}  // namespace

std::optional<std::string> NormalizeNfc(std::string_view text) {
  bool plain = true;
  for (std::string_view rest = text; plain && !rest.empty();) {
    const Utf8Char c = DecodeUtf8(rest);
    plain = IsPlain(c.code_point);
    rest.remove_prefix(static_cast<size_t>(c.length_bytes));
  }
  if (plain) return std::nullopt;

  std::vector<utf8proc_int32_t> chars;
  chars.reserve(text.size());
  for (std::string_view rest = text; !rest.empty();) {
    const Utf8Char c = DecodeUtf8(rest);
    rest.remove_prefix(static_cast<size_t>(c.length_bytes));
    utf8proc_int32_t parts[16];
    int boundary = 0;
    const utf8proc_ssize_t count = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(c.code_point), parts, 16,
        static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE), &boundary);
    if (count < 0 || count > 16) {
      chars.push_back(static_cast<utf8proc_int32_t>(c.code_point));
    } else {
      chars.insert(chars.end(), parts, parts + count);
    }
  }
  // Canonical order. utf8proc's own sort is quadratic in a run of combining marks, which a user may send.
  for (auto it = chars.begin(); it != chars.end();) {
    if (CombiningClass(*it) == 0) {
      ++it;
      continue;
    }
    auto end = std::find_if(it, chars.end(), [](utf8proc_int32_t c) { return CombiningClass(c) == 0; });
    std::stable_sort(it, end, [](auto a, auto b) { return CombiningClass(a) < CombiningClass(b); });
    it = end;
  }
  const utf8proc_ssize_t length =
      utf8proc_normalize_utf32(chars.data(), static_cast<utf8proc_ssize_t>(chars.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (length < 0) return std::nullopt;
  std::string out;
  out.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < length; ++i) AppendUtf8(out, static_cast<char32_t>(chars[i]));
  return out;
}

}  // namespace fd
