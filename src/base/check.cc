#include "base/check.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace fd {

void CheckFailed(const char* file, int line, const char* condition, const std::string& detail) {
  const char* slash = std::strrchr(file, '/');
  std::fprintf(stderr, "fastdeploy: internal error at %s:%d: %s: %s\n", slash ? slash + 1 : file, line,
               condition, detail.c_str());
  std::fflush(stderr);
  std::abort();
}

}  // namespace fd
