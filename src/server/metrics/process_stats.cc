#include "server/metrics/process_stats.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/strings.h"

namespace fd {
namespace {

// When the machine started, in seconds since 1970; 0 where /proc does not say.
double BootTime() {
  std::ifstream file("/proc/stat");
  std::string line;
  while (std::getline(file, line)) {
    if (line.starts_with("btime ")) return std::strtod(line.c_str() + 6, nullptr);
  }
  return 0;
}

}  // namespace

ProcessStats ReadProcessStats() {
  ProcessStats stats;
  std::ifstream file("/proc/self/stat");
  std::string line;
  std::getline(file, line);
  // The name in the second field may hold anything; what follows its last ')' begins with the third.
  const size_t end = line.rfind(')');
  if (end != std::string::npos && end + 2 < line.size()) {
    const std::vector<std::string> fields = Split(line.substr(end + 2), ' ');
    const auto field = [&](size_t number) {  // as proc(5) counts them
      return number - 3 < fields.size() ? std::strtod(fields[number - 3].c_str(), nullptr) : 0.0;
    };
    const auto ticks = static_cast<double>(::sysconf(_SC_CLK_TCK));
    stats.cpu_seconds = (field(14) + field(15)) / ticks;
    stats.start_unix_s = BootTime() + field(22) / ticks;
    stats.virtual_bytes = static_cast<int64_t>(field(23));
    stats.resident_bytes = static_cast<int64_t>(field(24)) * ::sysconf(_SC_PAGESIZE);
  }
  std::error_code error;
  for (std::filesystem::directory_iterator it("/proc/self/fd", error), last; !error && it != last;
       it.increment(error)) {
    ++stats.open_files;
  }
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    stats.max_files = static_cast<int64_t>(limit.rlim_cur);
  }
  return stats;
}

}  // namespace fd
