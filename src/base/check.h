// FD_CHECK stops the program on our own mistakes, in every build; it must be unreachable from user input.
// FD_DCHECK does the same in debug builds only. FD_CHECK_EQ(a, b) and friends print both operands.
#pragma once

#include <string>

#include "base/strings.h"

namespace fd {
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition, const std::string& detail);
}  // namespace fd

#define FD_CHECK(cond, ...)                                                    \
  do {                                                                         \
    if (!(cond)) [[unlikely]]                                                  \
      ::fd::CheckFailed(__FILE__, __LINE__, #cond, ::fd::StrCat(__VA_ARGS__)); \
  } while (0)

#define FD_CHECK_OP(a, op, b, ...)                                                         \
  do {                                                                                     \
    const auto& fd_a = (a);                                                                \
    const auto& fd_b = (b);                                                                \
    if (!(fd_a op fd_b)) [[unlikely]]                                                      \
      ::fd::CheckFailed(__FILE__, __LINE__, #a " " #op " " #b,                             \
                        ::fd::StrCat(fd_a, " vs ", fd_b, " " __VA_OPT__(, ) __VA_ARGS__)); \
  } while (0)

#define FD_CHECK_EQ(a, b, ...) FD_CHECK_OP(a, ==, b __VA_OPT__(, ) __VA_ARGS__)
#define FD_CHECK_NE(a, b, ...) FD_CHECK_OP(a, !=, b __VA_OPT__(, ) __VA_ARGS__)
#define FD_CHECK_LE(a, b, ...) FD_CHECK_OP(a, <=, b __VA_OPT__(, ) __VA_ARGS__)
#define FD_CHECK_LT(a, b, ...) FD_CHECK_OP(a, <, b __VA_OPT__(, ) __VA_ARGS__)
#define FD_CHECK_GE(a, b, ...) FD_CHECK_OP(a, >=, b __VA_OPT__(, ) __VA_ARGS__)
#define FD_CHECK_GT(a, b, ...) FD_CHECK_OP(a, >, b __VA_OPT__(, ) __VA_ARGS__)

#ifdef NDEBUG
#define FD_DCHECK(cond, ...) \
  do {                       \
  } while (0)
#else
#define FD_DCHECK(cond, ...) FD_CHECK(cond __VA_OPT__(, ) __VA_ARGS__)
#endif
