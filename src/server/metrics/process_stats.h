// What /proc says about this process. Any thread.
#pragma once

#include <cstdint>

namespace fd {

// What cannot be read stays 0.
struct ProcessStats {
  double cpu_seconds = 0;  // of all threads, since start
  int64_t resident_bytes = 0;
  int64_t virtual_bytes = 0;
  int64_t open_files = 0;
  int64_t max_files = 0;  // 0: no limit
  double start_unix_s = 0;
};
ProcessStats ReadProcessStats();

}  // namespace fd
