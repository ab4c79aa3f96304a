#include "base/thread_pool.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <thread>
#include <vector>

namespace fd {
namespace {

TEST(ThreadPool, EveryThreadRunsOnce) {
  for (int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 200; ++round) {
      std::vector<int> calls(threads, 0);
      pool.Run([&](int t) { ++calls[t]; });
      for (int c : calls) ASSERT_EQ(c, 1);
    }
  }
}

TEST(ThreadPool, ParallelForCoversEachIndexOnce) {
  ThreadPool pool(3);
  for (int64_t count : {0, 1, 2, 7, 64, 1000}) {
    for (int64_t grain : {1, 3, 64, 5000}) {
      std::vector<std::atomic<int>> seen(count);
      pool.ParallelFor(count, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) ++seen[i];
      });
      for (auto& s : seen) ASSERT_EQ(s.load(), 1);
    }
  }
}

std::vector<int> MyCpus() {
  cpu_set_t set;
  EXPECT_EQ(sched_getaffinity(0, sizeof(set), &set), 0);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

TEST(ThreadPool, PinsWorkersAndTheCallerThatAsks) {
  const std::vector<int> all = MyCpus();
  ThreadPlacement placement;
  placement.num_threads = 3;
  placement.cpus = {all.front(), all.back(), all.front()};
  placement.caller_cpus = {all.back()};
  ThreadPool pool(placement);
  std::vector<int> seen[3];
  pool.Run([&](int t) { seen[t] = MyCpus(); });
  EXPECT_EQ(seen[0], all);  // whoever merely calls stays as it is
  EXPECT_EQ(seen[1], (std::vector<int>{all.back()}));
  EXPECT_EQ(seen[2], (std::vector<int>{all.front()}));
  std::thread([&] {
    pool.PlaceCaller();
    EXPECT_EQ(MyCpus(), (std::vector<int>{all.back()}));
  }).join();
  EXPECT_EQ(MyCpus(), all);
}

TEST(ThreadPool, WorksWherePinningIsRefused) {
  ThreadPlacement placement;
  placement.num_threads = 2;
  placement.cpus = {60000, 60001};
  placement.caller_cpus = {60000};
  ThreadPool pool(placement);
  pool.PlaceCaller();
  std::atomic<int> calls{0};
  pool.Run([&](int) { ++calls; });
  EXPECT_EQ(calls.load(), 2);
}

TEST(ThreadPool, DefaultIsTheMachines) {
  EXPECT_EQ(ThreadPool(0).num_threads(), DefaultThreads(ReadCpuTopology()));
}

}  // namespace
}  // namespace fd
