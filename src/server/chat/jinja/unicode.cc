#include "server/chat/jinja/unicode.h"

#include <algorithm>
#include <cstdint>

#include "base/utf8.h"

namespace fd::jinja {
namespace {

struct Range {
  char32_t first, last;
};
struct Run {
  char32_t first, last;
  int32_t step, delta;
};
struct Special {
  char32_t from;
  const char* to;
};
#include "server/chat/jinja/unicode_tables.inc"

template <size_t n>
bool Has(const Range (&table)[n], char32_t c) {
  auto it = std::upper_bound(std::begin(table), std::end(table), c,
                             [](char32_t value, const Range& r) { return value < r.first; });
  return it != std::begin(table) && c <= std::prev(it)->last;
}

template <size_t n, size_t m>
void Map(const Run (&runs)[n], const Special (&special)[m], std::string& out, char32_t c) {
  auto s = std::lower_bound(std::begin(special), std::end(special), c,
                            [](const Special& entry, char32_t value) { return entry.from < value; });
  if (s != std::end(special) && s->from == c) {
    out += s->to;
    return;
  }
  // Runs with step 2 may interleave with their neighbours, so look at a few before the position.
  auto it = std::upper_bound(std::begin(runs), std::end(runs), c,
                             [](char32_t value, const Run& r) { return value < r.first; });
  for (int back = 0; back < 4 && it != std::begin(runs); ++back) {
    --it;
    if (c <= it->last && (c - it->first) % static_cast<char32_t>(it->step) == 0) {
      AppendUtf8(out, static_cast<char32_t>(static_cast<int32_t>(c) + it->delta));
      return;
    }
  }
  AppendUtf8(out, c);
}

}  // namespace

bool IsSpace(char32_t c) { return Has(kSpace, c); }
bool IsPrintable(char32_t c) { return !Has(kUnprintable, c); }
bool IsAlpha(char32_t c) { return Has(kAlpha, c); }
bool IsDecimal(char32_t c) { return Has(kDecimal, c); }
int DecimalValue(char32_t c) {
  // Decimal digits stand in tens, 0 first.
  auto it = std::upper_bound(std::begin(kDecimal), std::end(kDecimal), c,
                             [](char32_t value, const Range& r) { return value < r.first; });
  if (it == std::begin(kDecimal) || c > std::prev(it)->last) return -1;
  return static_cast<int>((c - std::prev(it)->first) % 10);
}
bool IsDigit(char32_t c) { return Has(kDigit, c); }
bool IsNumeric(char32_t c) { return Has(kNumeric, c); }
bool IsLower(char32_t c) { return Has(kLower, c); }
bool IsUpper(char32_t c) { return Has(kUpper, c); }
bool IsCased(char32_t c) { return IsLower(c) || IsUpper(c) || Has(kTitleCase, c); }
void AppendLower(std::string& out, char32_t c) { Map(kToLower, kToLowerSpecial, out, c); }
void AppendUpper(std::string& out, char32_t c) { Map(kToUpper, kToUpperSpecial, out, c); }
void AppendTitle(std::string& out, char32_t c) { Map(kToTitle, kToTitleSpecial, out, c); }

void AppendFold(std::string& out, char32_t c) {
  std::string same, folded;
  AppendUtf8(same, c);
  Map(kToFold, kToFoldSpecial, folded, c);
  folded == same ? AppendLower(out, c) : void(out += folded);
}

std::string Lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    Utf8Char c = DecodeUtf8(text);
    AppendLower(out, c.code_point);
    text.remove_prefix(static_cast<size_t>(c.length_bytes));
  }
  return out;
}

}  // namespace fd::jinja
