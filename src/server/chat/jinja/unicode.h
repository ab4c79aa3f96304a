// Character classes and case mapping as Python's str has them (Unicode 14, unicode_tables.inc).
#pragma once

#include <string>

namespace fd::jinja {

bool IsSpace(char32_t c);
bool IsPrintable(char32_t c);
bool IsAlpha(char32_t c);
bool IsDecimal(char32_t c);
int DecimalValue(char32_t c);  // 0 to 9, -1 for what is no decimal digit
bool IsDigit(char32_t c);
bool IsNumeric(char32_t c);
bool IsLower(char32_t c);
bool IsUpper(char32_t c);
bool IsCased(char32_t c);  // lower, upper or title case letter
// One character may become up to three.
void AppendLower(std::string& out, char32_t c);
void AppendUpper(std::string& out, char32_t c);
void AppendTitle(std::string& out, char32_t c);
void AppendFold(std::string& out, char32_t c);  // str.casefold
std::string Lowercase(std::string_view text);

}  // namespace fd::jinja
