#include "base/log.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <ctime>

namespace fd {
namespace {

std::atomic<LogLevel> g_level{LogLevel::kInfo};

std::string Escape(std::string_view text, bool json) {
  std::string out;
  out.reserve(text.size());
  for (char c : text) {
    if (json && (c == '"' || c == '\\')) {
      out.push_back('\\');
      out.push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      char buffer[8];
      std::snprintf(buffer, sizeof(buffer), "\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(c)));
      out.append(buffer);
    } else {
      out.push_back(c);
    }
  }
  return out;
}

}  // namespace

void SetLogLevel(LogLevel level) { g_level = level; }
bool LogEnabled(LogLevel level) { return level >= g_level.load(std::memory_order_relaxed); }

void LogLine(LogLevel level, std::string_view message) {
  static const bool terminal = isatty(STDERR_FILENO) == 1;
  static constexpr const char* kNames[] = {"debug", "info", "warning", "error"};
  const char* name = kNames[static_cast<int>(level)];
  auto now = std::chrono::system_clock::now();
  auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count();
  std::time_t seconds = ms / 1000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char time[40];
  size_t n = std::strftime(time, sizeof(time), terminal ? "%H:%M:%S" : "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(time + n, sizeof(time) - n, ".%03d", static_cast<int>(ms % 1000));
  // One fwrite per line: lines of several threads do not mix.
  std::string line =
      terminal ? StrCat(time, level >= LogLevel::kWarning ? StrCat(" ", name, ": ") : std::string(" "),
                        Escape(message, false), "\n")
               : StrCat("{\"time\":\"", time, "Z\",\"level\":\"", name, "\",\"message\":\"",
                        Escape(message, true), "\"}\n");
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace fd
