#include "engine/step_log.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/fault.h"
#include "base/files.h"
#include "base/json.h"
#include "base/log_sink.h"
#include "base/strings.h"

namespace fd {
namespace {

TEST(StepLog, OneJsonLineAStep) {
  const std::string path = testing::TempDir() + "step_log_test.jsonl";
  {
    auto log = StepLog::Open(path);
    ASSERT_TRUE(log.ok()) << log.status().message();
    StepPlan plan;
    plan.step = 7;
    plan.begun_at = Clock::now();
    plan.sequences.resize(3);
    plan.num_tokens = 384;
    plan.num_decodes = 2;
    plan.encodes.resize(1);
    plan.encode_tokens = 256;
    plan.encoder_hits = 4;
    plan.prefix_query_tokens = 1200;
    plan.prefix_hit_tokens = 1150;
    plan.prefix_host_hit_tokens = 640;
    plan.page_moves = {{{1}, {2}},       {{1}, {0, true}}, {{3, true}, {1}},
                       {{4, true}, {5}}, {{6}, {7}},       {{8, true}, {9}}};
    StepResult result;
    result.encode_ms = 1.5;
    (*log)->Add(plan, result, 5);
    (*log)->Flush();
    EXPECT_EQ(Split(*ReadFile(path), '\n').size(), 2u);  // there before the log ends
    plan.step = 8;
    result.status = Internal("broken");
    (*log)->Add(plan, result, 0);
  }
  const std::vector<std::string> lines = Split(*ReadFile(path), '\n');
  ASSERT_EQ(lines.size(), 3u);
  const auto first = ParseJson(lines[0]), second = ParseJson(lines[1]);
  ASSERT_TRUE(first.ok()) << lines[0];
  ASSERT_TRUE(second.ok()) << lines[1];
  const auto number = [&](const char* name) { return first->Find(name)->as_int(); };
  EXPECT_EQ(number("step"), 7);
  EXPECT_EQ(number("tokens"), 384);
  EXPECT_EQ(number("sequences"), 3);
  EXPECT_EQ(number("decodes"), 2);
  EXPECT_EQ(number("prefills"), 1);
  EXPECT_EQ(number("waiting"), 5);
  EXPECT_EQ(number("encoded_items"), 1);
  EXPECT_EQ(number("encoded_tokens"), 256);
  EXPECT_EQ(number("encoder_hits"), 4);
  EXPECT_EQ(number("prefix_query_tokens"), 1200);
  EXPECT_EQ(number("prefix_hit_tokens"), 1150);
  EXPECT_EQ(number("page_copies"), 2);
  EXPECT_EQ(number("pages_out"), 1);
  EXPECT_EQ(number("pages_in"), 3);
  EXPECT_EQ(number("prefix_host_hit_tokens"), 640);
  EXPECT_TRUE(first->Find("ok")->as_bool());
  EXPECT_FALSE(second->Find("ok")->as_bool());
  std::filesystem::remove(path);
}

TEST(StepLog, AFileThatCannotBeMadeIsAnError) {
  auto log = StepLog::Open("/no/such/folder/steps.jsonl");
  ASSERT_FALSE(log.ok());
  EXPECT_NE(log.status().message().find("/no/such/folder/steps.jsonl"), std::string::npos);
  EXPECT_NE(log.status().message().find("--step-log"), std::string::npos);
}

TEST(StepLog, AFullDiskEndsTheLogAndNothingElse) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  auto log = StepLog::Open("/dev/full");
  ASSERT_TRUE(log.ok());
  for (int i = 0; i < 1000; ++i) (*log)->Add(StepPlan{}, StepResult{}, 0);
  (*log)->Flush();
  (*log)->Add(StepPlan{}, StepResult{}, 0);
  (*log)->Flush();
  EXPECT_EQ(LostLogLines(), 1001);
}

TEST(StepLog, WhatWasWrittenBeforeTheDiskWasFullStaysWhole) {
  const std::string path = testing::TempDir() + "fd_step_log_full";
  ASSERT_TRUE(SetFaults("step_log_disk_full@at=2").ok());
  {
    auto log = StepLog::Open(path);
    ASSERT_TRUE(log.ok());
    for (int i = 0; i < 3; ++i) {
      (*log)->Add(StepPlan{}, StepResult{}, 0);
      (*log)->Flush();
    }
  }
  ASSERT_TRUE(SetFaults("").ok());
  std::ifstream in(path);
  std::string line, more;
  ASSERT_TRUE(std::getline(in, line));
  EXPECT_TRUE(ParseJson(line).ok());
  EXPECT_FALSE(std::getline(in, more));
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace fd
