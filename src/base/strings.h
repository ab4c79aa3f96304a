// Small string functions that the standard library of GCC 12 lacks (it has no <format>).
#pragma once

#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace fd {

namespace internal {
inline void AppendPiece(std::string& out, std::string_view s) { out.append(s); }
inline void AppendPiece(std::string& out, const char* s) { out.append(s); }
inline void AppendPiece(std::string& out, const std::string& s) { out.append(s); }
inline void AppendPiece(std::string& out, char c) { out.push_back(c); }
inline void AppendPiece(std::string& out, bool b) { out.append(b ? "true" : "false"); }
template <typename N>
  requires std::is_arithmetic_v<N>
void AppendPiece(std::string& out, N n) {
  char buffer[40];
  auto r = std::to_chars(buffer, buffer + sizeof(buffer), n);
  out.append(buffer, r.ptr);
}
}  // namespace internal

// StrCat("page ", 3, " of ", 7): numbers print in full, floats in their shortest exact form.
template <typename... Args>
std::string StrCat(const Args&... args) {
  std::string out;
  (internal::AppendPiece(out, args), ...);
  return out;
}

// Fixed-point text: Fixed(1.25, 1) == "1.2".
std::string Fixed(double value, int decimals);
// "31.2 MB", "1.5 GB": powers of 1000, as disks and links are sold.
std::string HumanBytes(double bytes);
std::vector<std::string> Split(std::string_view text, char separator);
std::string Join(const std::vector<std::string>& parts, std::string_view separator);
std::string_view Trim(std::string_view text);
// A to Z become a to z, every other byte stays.
inline char LowerAscii(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
std::string LowerAscii(std::string_view text);
// Levenshtein distance, for "did you mean".
int EditDistance(std::string_view a, std::string_view b);

}  // namespace fd
