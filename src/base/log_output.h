// Where lines of the log go: standard error, which is never waited for, and the file of --log-dir. Internal
// to log.cc.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

namespace fd {

// A descriptor whose reader may be slow, stopped or gone. What it does not take at once waits here, up to
// max_waiting_bytes; lines beyond are lost and counted. Any thread.
class PatientStream {
 public:
  explicit PatientStream(int fd, size_t max_waiting_bytes = size_t{1} << 20);
  // The whole line with its end, or nothing of it. Never waits. How many lines were lost before this one and
  // not told yet: the caller says so by a line of its own. -1: this one is lost too.
  int64_t Write(std::string_view line);
  // Until all has been taken, or the deadline. For the end of the program.
  void Flush(std::chrono::steady_clock::time_point deadline);

 private:
  // Writes what can be written without waiting; false: it has an error, and what waits is lost.
  bool Push();
  // As write(), but EAGAIN where it would wait.
  int64_t WriteNow(std::string_view bytes) const;

  const int fd_;
  const size_t max_waiting_bytes_;
  enum class Kind { kFile, kSocket, kOther } kind_;
  std::mutex mutex_;
  std::string waiting_;  // begins within a line where a part of it was taken
  int64_t untold_ = 0;
};

// A file of whole lines that rotates by size. Any thread.
class RotatingFile {
 public:
  enum class Event { kNone, kFailed, kWorksAgain };
  struct Outcome {
    Event event = Event::kNone;
    int error = 0;           // errno of kFailed
    int64_t lost_lines = 0;  // of kWorksAgain: since it failed
  };

  // False with errno: it cannot be opened.
  bool Open(const std::string& path, int64_t max_bytes, int backups);
  // A line that does not fit on the disk is lost whole: no part of it stays. kFailed and kWorksAgain are told
  // once for each outage.
  Outcome Write(std::string_view line);
  // Closes it and opens its path again, for who has renamed it.
  Outcome Reopen();

 private:
  bool OpenPath();
  void Rotate();
  Outcome Failed(int error);

  std::mutex mutex_;
  std::string path_;
  int fd_ = -1;
  int64_t bytes_ = 0;
  int64_t max_bytes_ = 0;
  int backups_ = 0;
  int64_t lost_lines_ = 0;  // of this outage
  bool failing_ = false;
  std::chrono::steady_clock::time_point open_again_{};
};

}  // namespace fd
