#include "engine/step_watchdog.h"

#include <gtest/gtest.h>

namespace fd {
namespace {

using std::chrono::milliseconds;

struct Seen {
  std::atomic<int> slow{0}, stuck{0};
  std::atomic<double> limit_s{0};

  StepWatchdog::Options Options(double limit_s, double min_limit_s) {
    return {.limit_s = limit_s,
            .min_limit_s = min_limit_s,
            .slow =
                [this](double seconds, double limit) {
                  EXPECT_GT(seconds, limit / 4);
                  ++slow;
                },
            .stuck =
                [this](double seconds, double limit) {
                  EXPECT_GT(seconds, limit);
                  this->limit_s = limit;
                  ++stuck;
                }};
  }
  bool WaitStuck() {
    const auto deadline = Clock::now() + std::chrono::seconds(60);
    while (stuck == 0 && Clock::now() < deadline) std::this_thread::sleep_for(milliseconds(5));
    return stuck == 1;
  }
};

TEST(StepWatchdog, TellsSlowThenStuckEachOnce) {
  Seen seen;
  StepWatchdog watchdog(seen.Options(0.4, 60));
  const auto begin = Clock::now();
  watchdog.Begin();
  ASSERT_TRUE(seen.WaitStuck());
  EXPECT_GE(SecondsSince(begin), 0.4);
  EXPECT_EQ(seen.slow, 1);
  std::this_thread::sleep_for(milliseconds(500));
  EXPECT_EQ(seen.stuck, 1);
}

TEST(StepWatchdog, ManyShortTurnsAndRestAreNoLongOne) {
  Seen seen;
  StepWatchdog watchdog(seen.Options(1.0, 60));
  const auto until = Clock::now() + std::chrono::milliseconds(2500);
  while (Clock::now() < until) {
    watchdog.Begin();
    std::this_thread::sleep_for(milliseconds(1));
    watchdog.Begin();  // the next turn without a rest
    watchdog.End();
  }
  std::this_thread::sleep_for(milliseconds(1500));  // rests longer than the limit
  EXPECT_EQ(seen.slow, 0);
  EXPECT_EQ(seen.stuck, 0);
}

TEST(StepWatchdog, TheLimitFollowsTheLongestTurn) {
  Seen seen;
  StepWatchdog watchdog(seen.Options(0, 0.2));
  EXPECT_DOUBLE_EQ(watchdog.limit_s(), 0.2);
  watchdog.Begin();
  std::this_thread::sleep_for(milliseconds(40));
  watchdog.End();
  const double limit = watchdog.limit_s();
  EXPECT_GE(limit, 0.8);
  watchdog.End();  // without a turn: nothing
  EXPECT_DOUBLE_EQ(watchdog.limit_s(), limit);
  watchdog.Begin();
  ASSERT_TRUE(seen.WaitStuck());
  EXPECT_DOUBLE_EQ(seen.limit_s, limit);
}

}  // namespace
}  // namespace fd
