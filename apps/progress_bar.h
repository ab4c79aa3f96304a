// How far loading is, on standard error: a bar on a terminal, plain log lines otherwise. One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace fd {

class ProgressBar {
 public:
  explicit ProgressBar(std::string what);
  void Update(int64_t done_bytes, int64_t total_bytes);
  // Clears the bar; when lines are logged: one line with bytes, time and speed.
  void Finish();

 private:
  double Seconds() const;
  std::string what_;
  bool terminal_;
  bool drawn_ = false;
  int64_t done_bytes_ = 0;
  int64_t total_bytes_ = 0;
  std::chrono::steady_clock::time_point begin_;
  std::chrono::steady_clock::time_point last_;
};

}  // namespace fd
