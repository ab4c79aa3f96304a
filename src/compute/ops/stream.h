// The order of work on a context's device: waiting, marks in the stream, recorded work. On the CPU ops are
// done when they return, so waiting is nothing and there is nothing to record.
#pragma once

#include <functional>
#include <memory>

#include "compute/ops/context.h"

namespace fd::ops {

// The calling thread's ops go to ctx's device from now on: once for every thread that uses a context.
void UseDevice(const Context& ctx);
// Waits until everything given to ctx has been done.
void Synchronize(const Context& ctx);

// From here on the device is lost, as by an error of a kernel; on the CPU a DeviceError at once. For fault
// tests.
void InjectFault(const Context& ctx);

// A mark in a stream. Movable; one thread.
class Event {
 public:
  Event() = default;
  explicit Event(const Context& ctx);
  void Record(const Context& ctx);
  // The calling thread waits until the mark is reached; at once when nothing was recorded.
  void Wait() const;
  // Both recorded and reached. 0 on the CPU.
  static double MillisecondsBetween(const Event& begin, const Event& end);

 private:
  std::shared_ptr<void> event_;  // null on the CPU
};

// Work recorded once and replayed on the same addresses. CUDA alone. Movable; one thread.
class Graph {
 public:
  // What fn gives to ctx is recorded, not run.
  Graph(const Context& ctx, const std::function<void()>& fn);
  void Launch(const Context& ctx) const;

 private:
  std::shared_ptr<void> graph_;
};
// Whether ctx's device can replay graphs.
bool HasGraphs(const Context& ctx);

// A second line of work beside ctx's: what is given to context() between Fork and Join may run beside what is
// given to ctx. Scratch of both lines comes from one workspace, so what either took may be given back after
// Join alone. On the CPU context() is ctx, one after the other.
class SideLine {
 public:
  SideLine() = default;
  explicit SideLine(const Context& ctx);
  void Fork(const Context& ctx);
  void Join(const Context& ctx);
  // ctx with this line's stream.
  Context context(const Context& ctx) const;

 private:
  std::shared_ptr<void> stream_;  // null on the CPU
  std::shared_ptr<void> forked_, done_;
};

}  // namespace fd::ops
