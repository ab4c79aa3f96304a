// Faults on purpose, for tests: named places at which the program fails when FASTDEPLOY_FAULT says so. They
// are compiled in always and off unless the variable is set when the program starts; no request, flag or file
// switches one on. While all are off a place costs one relaxed load. Any thread may pass a place.
//
//   FASTDEPLOY_FAULT="slow_step@ms=500;step_alloc@at=3,times=2"
//
// at=N: from the Nth time that the place is passed, 1 without it. times=N: so often, 0 for ever; without it
// the table's. ms=N: how long a place that waits does so; without it the table's.
#pragma once

#include <atomic>
#include <cstdint>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace fd {

enum class Fault {
  kDeviceError,
  kSlowStep,
  kStepAlloc,
  kPlanAlloc,
  kScratchOverflow,
  kParseAlloc,
  kReplyAlloc,
  kAcceptAlloc,
  kMediaAlloc,
  kLogDiskFull,
  kStepLogDiskFull,
  kRecordDiskFull,
  kSlowLoad,
  kCount
};

struct FaultPoint {
  Fault fault;
  const char* name;
  int64_t times;         // where the text says none; 0: for ever
  int64_t ms;            // likewise; 0: the place does not wait, and ms= is an error
  const char* sentence;  // what happens
};
// In the order of the enumeration.
std::span<const FaultPoint> FaultPoints();

// What is on from now on, in place of what was; counts begin again. Empty: nothing. The error says what is
// wrong and lists every name with its sentence; then nothing has changed.
Status SetFaults(std::string_view text);
// As they were given; empty: none is on.
std::string FaultsOn();

namespace internal {
extern std::atomic<bool> g_any_fault;
// Counts the pass. How long to wait, 0 for a place that does not; below 0: nothing happens.
int64_t PassFault(Fault fault);
void SleepMs(int64_t ms);
}  // namespace internal

// Whether this pass fails.
inline bool FaultHits(Fault fault) {
  return internal::g_any_fault.load(std::memory_order_relaxed) && internal::PassFault(fault) >= 0;
}
inline void FaultDelay(Fault fault) {
  if (!internal::g_any_fault.load(std::memory_order_relaxed)) return;
  if (const int64_t ms = internal::PassFault(fault); ms > 0) internal::SleepMs(ms);
}
inline void FaultBadAlloc(Fault fault) {
  if (FaultHits(fault)) throw std::bad_alloc();
}

}  // namespace fd
