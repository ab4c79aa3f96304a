#include "base/log.h"

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "base/json.h"
#include "base/log_output.h"
#include "base/log_sink.h"
#include "base/utf8.h"

namespace fd {
namespace {

std::atomic<LogLevel> g_level{LogLevel::kInfo};
std::atomic<LogFormat> g_format{LogFormat::kAuto};
std::atomic<bool> g_has_file{false};

std::atomic<int64_t> g_lost_lines{0};

constexpr std::chrono::seconds kLastLines{1};
constexpr const char* kNames[] = {"debug", "info", "warning", "error"};

// Neither is ever destroyed: threads may log until the process ends.
RotatingFile& File() {
  static RotatingFile* file = new RotatingFile;
  return *file;
}
PatientStream& StandardError() {
  static PatientStream* stream = new PatientStream(STDERR_FILENO);
  return *stream;
}

// What a terminal obeys or a reader of lines takes for the end of one: control characters of one and two
// bytes, the line separators of Unicode, and what turns the direction of writing.
bool IsControl(uint32_t code_point) {
  return code_point < 0x20 || (code_point >= 0x7f && code_point < 0xa0) ||
         (code_point >= 0x2028 && code_point <= 0x202e) || (code_point >= 0x2066 && code_point <= 0x2069);
}

std::string Spelled(uint32_t code_point) {
  char buffer[16];
  std::snprintf(buffer, sizeof(buffer), "\\u%04x", static_cast<unsigned>(code_point));
  return buffer;
}

// A JSON text that still has control characters in its strings, with these spelled out.
std::string WithoutControls(std::string_view json) {
  std::string out;
  while (!json.empty()) {
    const Utf8Char decoded = DecodeUtf8(json);
    const auto length = static_cast<size_t>(decoded.length_bytes);
    if (decoded.well_formed && IsControl(static_cast<uint32_t>(decoded.code_point))) {
      out += Spelled(static_cast<uint32_t>(decoded.code_point));
    } else {
      out.append(json.substr(0, length));
    }
    json.remove_prefix(length);
  }
  return out;
}

// Text in which nothing can move a terminal's cursor or begin a line: control characters and bytes that are
// no UTF-8 are spelled out.
void AppendEscaped(std::string& out, std::string_view text) {
  while (!text.empty()) {
    const auto c = static_cast<unsigned char>(text[0]);
    const Utf8Char decoded = DecodeUtf8(text);
    const auto length = static_cast<size_t>(decoded.length_bytes);
    if (!decoded.well_formed) {
      char buffer[8];
      std::snprintf(buffer, sizeof(buffer), "\\x%02x", c);
      out.append(buffer);
    } else if (IsControl(static_cast<uint32_t>(decoded.code_point))) {
      out += Spelled(static_cast<uint32_t>(decoded.code_point));
    } else {
      out.append(text.substr(0, length));
    }
    text.remove_prefix(length);
  }
}

// A value that a reader of "name=value" can take apart again.
void AppendTextValue(std::string& out, std::string_view value) {
  const bool plain = value.find_first_of(" \"=") == std::string_view::npos;
  if (!plain) out += '"';
  AppendEscaped(out, value);
  if (!plain) out += '"';
}

std::string Line(bool json, bool short_time, LogLevel level, std::string_view message,
                 std::initializer_list<LogField> fields) {
  const auto now = std::chrono::system_clock::now();
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count();
  const std::time_t seconds = ms / 1000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char time[40];
  const size_t n = std::strftime(time, sizeof(time), short_time ? "%H:%M:%S" : "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(time + n, sizeof(time) - n, short_time ? ".%03d" : ".%03dZ", static_cast<int>(ms % 1000));
  const char* name = kNames[static_cast<int>(level)];
  std::string out;
  if (json) {
    out = StrCat("{\"time\":\"", time, "\",\"level\":\"", name, "\",\"message\":");
    AppendJsonString(out, message);
    for (const LogField& field : fields) {
      if (field.value.empty()) continue;
      out += StrCat(",\"", field.name, "\":");
      if (field.is_number) {
        out += field.value;
      } else {
        AppendJsonString(out, field.value);
      }
    }
    return WithoutControls(out) + "}\n";
  }
  out = StrCat(time, level >= LogLevel::kWarning ? StrCat(" ", name, ": ") : std::string(" "));
  AppendEscaped(out, message);
  for (const LogField& field : fields) {
    if (field.value.empty()) continue;
    out += StrCat(" ", field.name, "=");
    AppendTextValue(out, field.value);
  }
  out += '\n';
  return out;
}

bool OnTerminal() {
  static const bool terminal = isatty(STDERR_FILENO) == 1;
  return terminal;
}

bool IsJson(bool terminal) {
  const LogFormat format = g_format.load(std::memory_order_relaxed);
  return format == LogFormat::kJson || (format == LogFormat::kAuto && !terminal);
}

void ToStandardError(bool json, bool terminal, const std::string& line) {
  const int64_t lost = StandardError().Write(line);
  if (lost <= 0) return;
  StandardError().Write(Line(
      json, terminal, LogLevel::kWarning,
      StrCat("before the last line ", lost, " lines of the log were lost: standard error did not take them"),
      {}));
}

// On standard error alone: the file cannot say it.
void TellAboutFile(const RotatingFile::Outcome& outcome) {
  const bool terminal = OnTerminal();
  const bool json = IsJson(terminal);
  const std::string message =
      outcome.event == RotatingFile::Event::kFailed
          ? StrCat("fastdeploy.log (--log-dir) cannot be written: ",
                   static_cast<const char*>(std::strerror(outcome.error)),
                   "; its lines are lost until it can, serving goes on")
          : StrCat("fastdeploy.log (--log-dir) is written again; ", outcome.lost_lines, " lines were lost");
  ToStandardError(json, terminal, Line(json, terminal, LogLevel::kWarning, message, {}));
}

}  // namespace

void SetLogLevel(LogLevel level) { g_level = level; }
bool LogEnabled(LogLevel level) { return level >= g_level.load(std::memory_order_relaxed); }

Status SetUpLog(const LogOptions& options) {
  g_level = options.level;
  g_format = options.format;
  if (options.directory.empty()) return OkStatus();
  if (::mkdir(options.directory.c_str(), 0750) != 0 && errno != EEXIST) {
    return InvalidArgument(StrCat("the folder ", options.directory, " for logs cannot be made: ",
                                  std::strerror(errno), " (--log-dir, FD_LOG_DIR)"),
                           "--log-dir");
  }
  const std::string path = StrCat(options.directory, "/fastdeploy.log");
  if (!File().Open(path, options.max_bytes, options.backups)) {
    return InvalidArgument(
        StrCat(path, " cannot be written: ", std::strerror(errno), " (--log-dir, FD_LOG_DIR)"), "--log-dir");
  }
  g_has_file = true;
  return OkStatus();
}

void LogLine(LogLevel level, std::string_view message) { LogEvent(level, message, {}); }

void LogEvent(LogLevel level, std::string_view message, std::initializer_list<LogField> fields) {
  const bool terminal = OnTerminal();
  const bool json = IsJson(terminal);
  const std::string line = Line(json, terminal, level, message, fields);
  ToStandardError(json, terminal, line);
  if (!g_has_file.load(std::memory_order_relaxed)) return;
  const bool file_json = g_format.load(std::memory_order_relaxed) != LogFormat::kText;
  const bool same = !terminal && json == file_json;
  const RotatingFile::Outcome outcome =
      File().Write(same ? line : Line(file_json, false, level, message, fields));
  if (outcome.event != RotatingFile::Event::kNone) TellAboutFile(outcome);
}

void ReopenLog() {
  if (!g_has_file.load(std::memory_order_relaxed)) return;
  if (const auto outcome = File().Reopen(); outcome.event != RotatingFile::Event::kNone)
    TellAboutFile(outcome);
}

void FlushLog() { StandardError().Flush(std::chrono::steady_clock::now() + kLastLines); }

void CountLostLines(int64_t lines) { g_lost_lines.fetch_add(lines, std::memory_order_relaxed); }
int64_t LostLogLines() { return g_lost_lines.load(std::memory_order_relaxed); }

}  // namespace fd
