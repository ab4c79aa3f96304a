// How lines of the log look and where they go, and lines with fields of their own. Any thread.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include "base/log.h"
#include "base/status.h"

namespace fd {

enum class LogFormat { kAuto, kText, kJson };  // kAuto: text on a terminal, else JSON

// Where lines go and how they look. Standard error is never waited for: what its reader does not take waits
// in memory, up to a megabyte, then lines are lost and counted.
struct LogOptions {
  LogLevel level = LogLevel::kInfo;
  LogFormat format = LogFormat::kAuto;
  // Lines also go to DIRECTORY/fastdeploy.log. Beyond max_bytes it becomes fastdeploy.log.1, and so on; the
  // oldest beyond `backups` is deleted. Empty: no file.
  std::string directory;
  int64_t max_bytes = 64 << 20;
  int backups = 7;
};
// An error names the folder or file that cannot be made; lines then still go to standard error.
Status SetUpLog(const LogOptions& options);

// One more thing that a line says.
struct LogField {
  std::string_view name;
  std::string value;  // "": left out
  bool is_number = false;
};

// "message name=value ..." in text, keys of their own in JSON.
void LogEvent(LogLevel level, std::string_view message, std::initializer_list<LogField> fields);

// Opens the file of SetUpLog again, for who has renamed it (SIGHUP).
void ReopenLog();
// Waits at most a second for a slow reader of standard error. Before the program ends.
void FlushLog();

// Lines that standard error, fastdeploy.log or a file like --step-log did not take, since start: for
// /metrics.
void CountLostLines(int64_t lines);
int64_t LostLogLines();

}  // namespace fd
