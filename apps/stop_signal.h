// SIGINT and SIGTERM as a request to stop: the first one is told, the second ends the process at once. SIGHUP
// where it is asked for.
#pragma once

#include <functional>

namespace fd {

class StopSignal {
 public:
  // Installs the handlers and ignores SIGPIPE. One object in a process, made before any thread that lives on.
  StopSignal();
  ~StopSignal();  // the handlers stay; a later signal ends the process
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  // Until Arm, the first signal ends the process too: there is nothing to drain yet.
  void Arm();
  // As before Arm, with no signal seen: for a program that goes on after what was stopped.
  void Disarm();
  // From now on SIGHUP has Wait call `hangup` and go on. For programs without a terminal: on one, SIGHUP says
  // that the terminal is gone, and ends the process as ever. Before the first Wait.
  void OnHangup(std::function<void()> hangup);
  // Blocks until a signal has come, or timeout_ms have passed (-1: for ever). True: a signal has come.
  bool Wait(int timeout_ms);
  bool requested() const;
  // Whether SIGTERM was the signal.
  bool terminated() const;
  // As if a signal had come. Any thread.
  static void Request();

 private:
  std::function<void()> hangup_;
};

}  // namespace fd
