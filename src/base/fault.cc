#include "base/fault.h"

#include <array>
#include <chrono>
#include <mutex>
#include <optional>
#include <thread>

#include "base/strings.h"
#include "base/suggestion.h"

namespace fd {
namespace {

constexpr size_t kNumFaults = static_cast<size_t>(Fault::kCount);

constexpr FaultPoint kPoints[] = {
    {Fault::kDeviceError, "device_error", 1, 0, "a step loses its device; counted by steps"},
    {Fault::kSlowStep, "slow_step", 0, 1000, "a step waits, 1000 ms without ms=; counted by steps"},
    {Fault::kStepAlloc, "step_alloc", 1, 0, "a step gets no host memory; counted by steps"},
    {Fault::kPlanAlloc, "plan_alloc", 1, 0,
     "the engine gets no memory between two steps; counted by turns with work"},
    {Fault::kScratchOverflow, "scratch_overflow", 1, 0,
     "a step finds its planned scratch taken and must allocate; counted by steps"},
    {Fault::kParseAlloc, "parse_alloc", 1, 0, "a worker gets no memory; counted by pieces of work"},
    {Fault::kReplyAlloc, "reply_alloc", 1, 0,
     "a connection gets no memory; counted by requests that need the model or its tokenizer"},
    {Fault::kAcceptAlloc, "accept_alloc", 1, 0, "an accepted connection gets no memory; counted by those"},
    {Fault::kMediaAlloc, "media_alloc", 1, 0,
     "a picture or video gets no memory; counted by reading and preparing, two for each"},
    {Fault::kLogDiskFull, "log_disk_full", 0, 0, "no space for fastdeploy.log; counted by lines"},
    {Fault::kStepLogDiskFull, "step_log_disk_full", 0, 0, "no space for --step-log; counted by flushes"},
    {Fault::kRecordDiskFull, "record_disk_full", 0, 0,
     "no space for --record in the middle of a piece; counted by header, pictures, plans and results"},
    {Fault::kSlowLoad, "slow_load", 0, 1000, "loading waits after a tensor, 1000 ms without ms="},
};
static_assert(std::size(kPoints) == kNumFaults);

struct Armed {
  int64_t at = 1, times = 0, ms = 0, passed = 0;
};

struct State {
  std::mutex mutex;
  std::string text;
  std::array<std::optional<Armed>, kNumFaults> armed;
};
State& TheState() {
  static State* state = new State;  // never destroyed: threads may pass a place until the process ends
  return *state;
}

std::string AllPoints() {
  std::string text;
  for (const FaultPoint& point : kPoints) text += StrCat("\n  ", point.name, ": ", point.sentence);
  return text;
}

Status Wrong(std::string_view what) {
  return InvalidArgument(StrCat("FASTDEPLOY_FAULT: ", what,
                                "; for example FASTDEPLOY_FAULT=\"slow_step@at=10,times=1,ms=500;"
                                "step_alloc@at=3\". The faults are",
                                AllPoints()));
}

StatusOr<const FaultPoint*> PointNamed(std::string_view name) {
  std::vector<std::string> names;
  for (const FaultPoint& point : kPoints) {
    if (name == point.name) return &point;
    names.emplace_back(point.name);
  }
  const std::string near = DidYouMean(std::string(name), names);
  return Wrong(StrCat("there is no fault '", name, "'",
                      near.empty() ? std::string() : StrCat("; did you mean ", near, "?")));
}

StatusOr<Armed> ReadKeys(const FaultPoint& point, std::string_view keys) {
  Armed armed{.times = point.times, .ms = point.ms};
  for (const std::string& piece : Split(keys, ',')) {
    const std::string_view pair = Trim(piece);
    const size_t equals = std::min(pair.find('='), pair.size());
    const std::string_view key = pair.substr(0, equals);
    const std::string_view digits = pair.substr(std::min(equals + 1, pair.size()));
    int64_t number = -1;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    const bool whole = error == std::errc() && end == digits.data() + digits.size();
    if (key == "at" && whole && number >= 1) {
      armed.at = number;
    } else if (key == "times" && whole && number >= 0) {
      armed.times = number;
    } else if (key == "ms" && whole && number >= 1 && point.ms > 0) {
      armed.ms = number;
    } else {
      return Wrong(StrCat("'", pair, "' of ", point.name, " is none of at=N from 1, times=N from 0",
                          point.ms > 0 ? ", ms=N from 1" : ""));
    }
  }
  return armed;
}

}  // namespace

namespace internal {

std::atomic<bool> g_any_fault{false};

int64_t PassFault(Fault fault) {
  State& state = TheState();
  std::lock_guard lock(state.mutex);
  std::optional<Armed>& armed = state.armed[static_cast<size_t>(fault)];
  if (!armed) return -1;
  const int64_t after = ++armed->passed - armed->at;
  return after >= 0 && (armed->times == 0 || after < armed->times) ? armed->ms : -1;
}

void SleepMs(int64_t ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

}  // namespace internal

std::span<const FaultPoint> FaultPoints() { return kPoints; }

Status SetFaults(std::string_view text) {
  std::array<std::optional<Armed>, kNumFaults> all;
  bool any = false;
  for (const std::string& piece : Split(text, ';')) {
    const std::string_view item = Trim(piece);
    if (item.empty()) continue;
    const size_t at_sign = std::min(item.find('@'), item.size());
    FD_ASSIGN_OR_RETURN(const FaultPoint* point, PointNamed(item.substr(0, at_sign)));
    Armed armed{.times = point->times, .ms = point->ms};
    if (at_sign < item.size()) {
      FD_ASSIGN_OR_RETURN(armed, ReadKeys(*point, item.substr(at_sign + 1)));
    }
    all[static_cast<size_t>(point->fault)] = armed;
    any = true;
  }
  State& state = TheState();
  std::lock_guard lock(state.mutex);
  state.armed = all;
  state.text = any ? std::string(Trim(text)) : std::string();
  internal::g_any_fault.store(any, std::memory_order_relaxed);
  return OkStatus();
}

std::string FaultsOn() {
  State& state = TheState();
  std::lock_guard lock(state.mutex);
  return state.text;
}

}  // namespace fd
