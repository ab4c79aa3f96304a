#include "stop_signal.h"

#include <gtest/gtest.h>
#include <signal.h>

namespace fd {
namespace {

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
