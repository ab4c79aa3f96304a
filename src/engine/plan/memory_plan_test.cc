#include "engine/plan/memory_plan.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace fd {
namespace {

constexpr int64_t kMb = 1000 * 1000;

NeedsOf Needs(int64_t available) {
  MemoryNeeds n;
  n.available_bytes = available;
  n.utilization = 0.5;
  n.weight_bytes = 100 * kMb;
  n.page_bytes = kMb;
  n.executor_bytes = 20 * kMb;
  n.workspace_bytes = 30 * kMb;
  return [n](const EngineOptions&) { return n; };
}

TEST(PlanMemory, NeverMoreThanTheLimitsCanUse) {
  EngineOptions o;
  o.max_model_len = 1000;  // 16 pages
  o.max_num_seqs = 4;
  auto plan = PlanMemory(Needs(1000 * 1000 * kMb), o);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->num_kv_pages, 64);
  EXPECT_EQ(plan->total_bytes(), 214 * kMb);
  EXPECT_DOUBLE_EQ(plan->full_sequences, 4.0);
  EXPECT_NE(plan->Summary().find("64 pages"), std::string::npos) << plan->Summary();
  EXPECT_NE(plan->Summary().find("214.0 MB"), std::string::npos) << plan->Summary();
}

TEST(PlanMemory, TheShareOfMemoryBinds) {
  EngineOptions o;
  o.max_model_len = 1000;
  o.max_num_seqs = 4;
  auto plan = PlanMemory(Needs(380 * kMb), o);  // half is 190, 150 are taken
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->num_kv_pages, 40);
  EXPECT_EQ(plan->total_bytes(), 190 * kMb);
}

TEST(PlanMemory, SaysWhatWouldHelp) {
  EngineOptions o;
  o.max_model_len = 1000;
  auto plan = PlanMemory(Needs(320 * kMb), o);  // leaves 10 pages, one sequence needs 16
  ASSERT_FALSE(plan.ok());
  const std::string& m = plan.status().message();
  EXPECT_NE(m.find("--max-model-len to at most 640"), std::string::npos) << m;
  EXPECT_NE(m.find("16.0 MB"), std::string::npos) << m;
  plan = PlanMemory(Needs(100 * kMb), o);
  ASSERT_FALSE(plan.ok());
  EXPECT_EQ(plan.status().message().find("at most"), std::string::npos) << plan.status().message();
}

TEST(PlanMemory, TheEncoderCacheIsNamedAndCounted) {
  EngineOptions o;
  o.max_model_len = 1000;
  o.max_num_seqs = 1;
  o.encoder_cache_tokens = 10000;
  const NeedsOf needs_of = [](const EngineOptions& options) {
    MemoryNeeds n = Needs(500 * kMb)(options);
    n.encoder_bytes = std::max<int64_t>(options.encoder_cache_tokens, 1000) * 10000;
    return n;
  };
  auto plan = PlanMemory(needs_of, o);  // half is 250; 150 + 100 + 16 pages
  ASSERT_FALSE(plan.ok());
  EXPECT_NE(plan.status().message().find("encoder cache 100.0 MB"), std::string::npos)
      << plan.status().message();
  EXPECT_NE(plan.status().message().find("--encoder-cache-tokens to at most 8384"), std::string::npos)
      << plan.status().message();
  o.encoder_cache_tokens = 8384;
  plan = PlanMemory(needs_of, o);
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  EXPECT_NE(plan->Summary().find("encoder cache 83.8 MB"), std::string::npos) << plan->Summary();
  EXPECT_EQ(plan->total_bytes(), 250 * kMb - 160 * 1000);
}

TEST(PlanMemory, EveryFlagThatHelpsAloneIsNamedWithItsLimit) {
  // The workspace grows with the step, the step buffers with the sequences.
  NeedsOf needs = [](const EngineOptions& o) {
    MemoryNeeds n;
    n.available_bytes = 1000 * kMb;
    n.utilization = 0.5;
    n.weight_bytes = 100 * kMb;
    n.page_bytes = kMb;
    n.executor_bytes = 4 * kMb * o.max_num_seqs;
    n.workspace_bytes = kMb * o.max_num_batched_tokens;
    return n;
  };
  EngineOptions o;
  o.max_model_len = 6400;  // 100 pages
  o.max_num_seqs = 20;
  o.max_num_batched_tokens = 225;
  auto plan = PlanMemory(needs, o);  // 100 + 100 + 80 + 225 = 505 of 500
  ASSERT_FALSE(plan.ok());
  const std::string& m = plan.status().message();
  for (const char* part :
       {"5.0 MB are missing", "--max-model-len to at most 6080", "--max-num-batched-tokens to at most 220",
        "--max-num-seqs to at most 18", "--gpu-memory-utilization to 0.51"}) {
    EXPECT_NE(m.find(part), std::string::npos) << part << " in " << m;
  }
  o.max_model_len = 6080;
  EXPECT_TRUE(PlanMemory(needs, o).ok());
  o.max_model_len = 6081;
  EXPECT_FALSE(PlanMemory(needs, o).ok());
  EXPECT_EQ(LongestModelLen(needs, o), 6080);
  o.max_num_batched_tokens = 500;
  EXPECT_EQ(LongestModelLen(needs, o), 0);
}

TEST(PlanMemory, NumKvPagesIsTakenAsItIs) {
  EngineOptions o;
  o.max_model_len = 1000;
  o.num_kv_pages = 3;
  auto plan = PlanMemory(Needs(320 * kMb), o);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->num_kv_pages, 3);
  o.num_kv_pages = 171;
  plan = PlanMemory(Needs(320 * kMb), o);
  ASSERT_FALSE(plan.ok());
  EXPECT_NE(plan.status().message().find("at most 170"), std::string::npos) << plan.status().message();
  o.num_kv_pages = INT64_MAX / 2;
  EXPECT_FALSE(PlanMemory(Needs(320 * kMb), o).ok());
}

NeedsOf SwapNeeds(int64_t available, bool device_is_host, int64_t host_available) {
  return [=](const EngineOptions& o) {
    MemoryNeeds n = Needs(available)(o);
    n.swap_bytes = o.num_host_pages * n.page_bytes;
    n.device_is_host = device_is_host;
    n.host_available_bytes = host_available;
    return n;
  };
}

TEST(PlanMemory, SwapSpaceCountsWhereItLies) {
  EngineOptions o;
  o.max_model_len = 1000;  // 16 pages
  o.max_num_seqs = 4;
  o.num_host_pages = 20;
  auto plan = PlanMemory(SwapNeeds(400 * kMb, true, 0), o);  // half is 200; 150 + 20
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  EXPECT_EQ(plan->num_kv_pages, 30);
  EXPECT_EQ(plan->total_bytes(), 200 * kMb);
  EXPECT_NE(plan->Summary().find(" + swap space 20.0 MB + workspace"), std::string::npos) << plan->Summary();

  plan = PlanMemory(SwapNeeds(400 * kMb, false, 70 * kMb), o);
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  EXPECT_EQ(plan->num_kv_pages, 50);
  EXPECT_EQ(plan->total_bytes(), 200 * kMb);
  EXPECT_NE(plan->Summary().find("; swap space 20.0 MB of 70.0 MB available on the host"), std::string::npos)
      << plan->Summary();
}

TEST(PlanMemory, SwapSpaceThatDoesNotFitIsRefused) {
  EngineOptions o;
  o.max_model_len = 1000;
  o.max_num_seqs = 4;
  o.num_host_pages = 40;
  auto plan = PlanMemory(SwapNeeds(400 * kMb, true, 0), o);  // 150 + 40 + 16 of 200
  ASSERT_FALSE(plan.ok());
  std::string m = plan.status().message();
  EXPECT_NE(m.find("swap space 40.0 MB"), std::string::npos) << m;
  EXPECT_NE(m.find("lower --swap-space to at most 0.031"), std::string::npos) << m;  // 34 MB
  o.num_host_pages = 34;
  EXPECT_TRUE(PlanMemory(SwapNeeds(400 * kMb, true, 0), o).ok());
  o.num_host_pages = 71;
  plan = PlanMemory(SwapNeeds(400 * kMb, false, 70 * kMb), o);
  ASSERT_FALSE(plan.ok());
  m = plan.status().message();
  EXPECT_NE(m.find("71 pages of 1.0 MB are 71.0 MB of host memory, but 70.0 MB are available"),
            std::string::npos)
      << m;
  EXPECT_NE(m.find("to at most 0.065"), std::string::npos) << m;
  EXPECT_TRUE(PlanMemory(SwapNeeds(400 * kMb, false, 0), o).ok());  // unknown
}

// A token's place in the cache is an int32.
TEST(PlanMemory, PagesThatAnInt32CanCount) {
  static_assert(kMaxKvPages * kKvPageTokens - 1 == INT32_MAX);
  EngineOptions o;
  o.max_model_len = int64_t{1} << 24;
  o.max_num_seqs = 256;
  auto plan = PlanMemory(Needs(0), o);  // memory unknown
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->num_kv_pages, kMaxKvPages);
  o.num_kv_pages = kMaxKvPages;
  EXPECT_TRUE(PlanMemory(Needs(0), o).ok());
  o.num_kv_pages = kMaxKvPages + 1;
  plan = PlanMemory(Needs(0), o);
  ASSERT_FALSE(plan.ok());
  EXPECT_EQ(
      plan.status().message(),
      "--num-kv-pages 33554433: a cache has at most 33554432 pages of 64 tokens, for example --num-kv-pages "
      "33554432");
}

class AvailableMemory : public testing::Test {
 protected:
  void SetUp() override {
    root_ = testing::TempDir() + "/fd_available_memory";
    std::filesystem::remove_all(root_);
    Write("/proc/meminfo", "MemTotal:       1000 kB\nMemAvailable:    800 kB\n");
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  std::string root_;
};

TEST_F(AvailableMemory, MemInfoWithoutGroups) { EXPECT_EQ(AvailableMemoryBytes(root_), 800 * 1024); }

TEST_F(AvailableMemory, VersionTwoWithParents) {
  Write("/proc/self/cgroup", "0::/a/b\n");
  Write("/sys/fs/cgroup/a/b/memory.max", "max\n");
  Write("/sys/fs/cgroup/a/b/memory.current", "1000\n");
  EXPECT_EQ(AvailableMemoryBytes(root_), 800 * 1024);
  Write("/sys/fs/cgroup/a/memory.max", "500000\n");
  Write("/sys/fs/cgroup/a/memory.current", "300000\n");
  Write("/sys/fs/cgroup/a/memory.stat", "anon 5\ninactive_file 100000\nactive_file 7\n");
  EXPECT_EQ(AvailableMemoryBytes(root_), 300000);
}

TEST_F(AvailableMemory, VersionOneAtTheMountOfAContainer) {
  Write("/proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n");
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "400000\n");
  Write("/sys/fs/cgroup/memory/memory.usage_in_bytes", "450000\n");
  Write("/sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 100000\n");
  EXPECT_EQ(AvailableMemoryBytes(root_), 50000);
}

TEST(AvailableMemoryHere, IsPlausible) {
  EXPECT_GT(AvailableMemoryBytes(), int64_t{1} << 20);
  EXPECT_EQ(AvailableMemoryBytes("/no/such/root"), 0);
}

}  // namespace
}  // namespace fd
