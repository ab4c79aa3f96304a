#include "stop_signal.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>

namespace fd {
namespace {

// Run in a child of its own: there is one StopSignal in a process.
TEST(StopSignal, AHangupIsNoStop) {
  const auto child = [] {
    if (freopen("/dev/null", "w", stderr) == nullptr) _exit(9);  // no terminal
    StopSignal stop;
    int hangups = 0;
    stop.OnHangup([&] { ++hangups; });
    stop.Arm();
    for (int i = 0; i < 3; ++i) {
      raise(SIGHUP);
      if (stop.Wait(0)) _exit(1);
      if (hangups != i + 1) _exit(2);
    }
    if (stop.Wait(0) || hangups != 3) _exit(3);
    raise(SIGHUP);
    raise(SIGTERM);
    _exit(stop.Wait(-1) && stop.terminated() ? 42 : 4);
  };
  EXPECT_EXIT(child(), testing::ExitedWithCode(42), "");
}

TEST(StopSignal, TellsTheFirstAndCanBeArmedAgain) {
  StopSignal stop;
  stop.Arm();
  EXPECT_FALSE(stop.requested());
  EXPECT_FALSE(stop.Wait(0));
  raise(SIGINT);
  EXPECT_TRUE(stop.requested());
  EXPECT_TRUE(stop.Wait(0));
  EXPECT_FALSE(stop.terminated());
  stop.Disarm();
  EXPECT_FALSE(stop.requested());
  EXPECT_FALSE(stop.Wait(0)) << "the signal before is forgotten";
  stop.Arm();
  raise(SIGTERM);
  EXPECT_TRUE(stop.Wait(-1));
  EXPECT_TRUE(stop.terminated());
  EXPECT_EXIT(raise(SIGINT), testing::ExitedWithCode(130), "") << "the second ends";
  stop.Disarm();
  EXPECT_EXIT(raise(SIGTERM), testing::ExitedWithCode(143), "") << "and so does one that nobody waits for";
}

}  // namespace
}  // namespace fd
