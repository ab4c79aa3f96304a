#include "base/fault.h"

#include <gtest/gtest.h>

#include <chrono>
#include <set>
#include <thread>

namespace fd {
namespace {

class FaultTest : public testing::Test {
 protected:
  ~FaultTest() override { EXPECT_TRUE(SetFaults("").ok()); }
  static std::string Passes(Fault fault, int count) {
    std::string hits;
    for (int i = 0; i < count; ++i) hits += FaultHits(fault) ? 'x' : '.';
    return hits;
  }
};

TEST_F(FaultTest, OffUnlessNamed) {
  EXPECT_EQ(FaultsOn(), "");
  for (const FaultPoint& point : FaultPoints()) EXPECT_FALSE(FaultHits(point.fault)) << point.name;
  ASSERT_TRUE(SetFaults("step_alloc").ok());
  EXPECT_EQ(FaultsOn(), "step_alloc");
  for (const FaultPoint& point : FaultPoints())
    EXPECT_EQ(FaultHits(point.fault), point.fault == Fault::kStepAlloc);
  ASSERT_TRUE(SetFaults(" ; ").ok());
  EXPECT_EQ(FaultsOn(), "");
  EXPECT_FALSE(FaultHits(Fault::kStepAlloc));
}

TEST_F(FaultTest, FromThePassAsOftenAsAsked) {
  ASSERT_TRUE(
      SetFaults("step_alloc@at=3; parse_alloc@at=2,times=2 ;media_alloc@times=0,at=4;log_disk_full").ok());
  EXPECT_EQ(Passes(Fault::kStepAlloc, 6), "..x...");
  EXPECT_EQ(Passes(Fault::kParseAlloc, 6), ".xx...");
  EXPECT_EQ(Passes(Fault::kMediaAlloc, 6), "...xxx");
  EXPECT_EQ(Passes(Fault::kLogDiskFull, 4), "xxxx");
  ASSERT_TRUE(SetFaults("step_alloc@at=3").ok());  // counts begin again
  EXPECT_EQ(Passes(Fault::kStepAlloc, 4), "..x.");
  EXPECT_EQ(Passes(Fault::kLogDiskFull, 2), "..");
}

TEST_F(FaultTest, PlacesThatWaitAndThatThrow) {
  ASSERT_TRUE(SetFaults("slow_step@at=2,times=1,ms=60;plan_alloc").ok());
  const auto begin = std::chrono::steady_clock::now();
  FaultDelay(Fault::kSlowStep);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(60));
  FaultDelay(Fault::kSlowStep);
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(60));
  EXPECT_THROW(FaultBadAlloc(Fault::kPlanAlloc), std::bad_alloc);
  EXPECT_NO_THROW(FaultBadAlloc(Fault::kPlanAlloc));
}

TEST_F(FaultTest, WhatIsWrongIsSaidWithTheWholeList) {
  ASSERT_TRUE(SetFaults("step_alloc@at=2").ok());
  for (const auto& [text, word] : {std::pair{"step_aloc", "did you mean step_alloc?"},
                                   {"step_alloc@at=0", "'at=0'"},
                                   {"step_alloc@at=", "'at='"},
                                   {"step_alloc@at=1x", "'at=1x'"},
                                   {"step_alloc@", "''"},
                                   {"step_alloc@ms=5", "'ms=5'"},
                                   {"slow_step@ms=0", "'ms=0'"},
                                   {"slow_step@times=-1", "'times=-1'"},
                                   {"slow_step@at=2;x", "no fault 'x'"}}) {
    const Status status = SetFaults(text);
    ASSERT_FALSE(status.ok()) << text;
    EXPECT_NE(status.message().find(word), std::string::npos) << status.message();
    for (const FaultPoint& point : FaultPoints())
      EXPECT_NE(status.message().find(std::string("\n  ") + point.name + ": "), std::string::npos);
  }
  EXPECT_EQ(FaultsOn(), "step_alloc@at=2");  // as it was
}

TEST_F(FaultTest, TheTableIsInTheOrderOfTheEnumeration) {
  std::set<std::string> names;
  for (size_t i = 0; i < FaultPoints().size(); ++i) {
    EXPECT_EQ(static_cast<size_t>(FaultPoints()[i].fault), i);
    EXPECT_TRUE(names.insert(FaultPoints()[i].name).second);
  }
}

TEST_F(FaultTest, ManyThreadsCountEveryPassOnce) {
  ASSERT_TRUE(SetFaults("step_alloc@at=101,times=50").ok());
  std::atomic<int> hits{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) hits += FaultHits(Fault::kStepAlloc);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(hits, 50);
}

}  // namespace
}  // namespace fd
