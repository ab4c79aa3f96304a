// The one clock that durations and deadlines are measured with: it never goes back.
#pragma once

#include <chrono>

namespace fd {

using Clock = std::chrono::steady_clock;

inline double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

}  // namespace fd
