#include "base/cpu_topology.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <numeric>

#include "base/strings.h"

namespace fd {
namespace {

using Cpus = std::vector<int>;

Cpus Range(int begin, int end) {
  Cpus cpus(static_cast<size_t>(end - begin));
  std::iota(cpus.begin(), cpus.end(), begin);
  return cpus;
}

class Topology : public testing::Test {
 protected:
  void SetUp() override {
    root_ = StrCat(testing::TempDir(), "/fd_topology");
    std::filesystem::remove_all(root_);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text << "\n";
  }
  void Remove(const std::string& path) { std::filesystem::remove_all(root_ + path); }
  void WriteCpu(int cpu, const std::string& file, const std::string& text) {
    Write(StrCat("/sys/devices/system/cpu/cpu", cpu, "/topology/", file), text);
  }
  // Two nodes of 8 cores: CPUs 0-7 and 8-15, their siblings 16-23 and 24-31, as Linux counts them.
  void WriteTwoNodes() {
    Write("/sys/devices/system/cpu/online", "0-31");
    Write("/sys/devices/system/node/node0/cpulist", "0-7,16-23");
    Write("/sys/devices/system/node/node1/cpulist", "8-15,24-31");
    Write("/sys/devices/system/node/node2/cpulist", "");  // memory alone
    Write("/sys/devices/system/node/online", "0-2");
    for (int cpu = 0; cpu < 32; ++cpu) {
      WriteCpu(cpu, "thread_siblings_list", StrCat(cpu % 16, ",", cpu % 16 + 16));
      WriteCpu(cpu, "physical_package_id", StrCat(cpu % 16 / 8));
      WriteCpu(cpu, "core_id", StrCat(cpu % 8));
    }
  }
  CpuTopology ReadTree(const Cpus& allowed = Range(0, 32)) { return ReadCpuTopology(allowed, root_); }
  std::string root_;
};

Cpus CpusOf(const CpuTopology& topology) {
  Cpus cpus;
  for (const LogicalCpu& cpu : topology.cpus) cpus.push_back(cpu.cpu);
  return cpus;
}
Cpus PlacedOn(const CpuTopology& topology, int threads) {
  return PlaceThreads(topology, threads, Pinning::kAlways).cpus;
}

TEST(CpuList, Parse) {
  EXPECT_EQ(*ParseCpuList("0-3,16"), (Cpus{0, 1, 2, 3, 16}));
  EXPECT_EQ(*ParseCpuList(" 5,2,5,2-3\n"), (Cpus{2, 3, 5}));
  EXPECT_EQ(*ParseCpuList(""), Cpus{});
  for (const char* bad :
       {"0-", "-1", "3-1", "a", "0,,1", "1 2", "0-99999999999", "70000", "1.5", "0x1", ","}) {
    const StatusOr<Cpus> list = ParseCpuList(bad);
    EXPECT_FALSE(list.ok()) << bad;
    EXPECT_NE(list.status().message().find("0-7,16"), std::string::npos);
  }
  EXPECT_EQ(CpuListText({0, 1, 2, 5, 7, 8}), "0-2,5,7-8");
  EXPECT_EQ(CpuListText({}), "");
}

TEST_F(Topology, TwoNodesWithSiblings) {
  WriteTwoNodes();
  const CpuTopology topology = ReadTree();
  EXPECT_EQ(topology.cpus.size(), 32u);
  EXPECT_TRUE(topology.cores_known);
  EXPECT_EQ(topology.NumCores(), 16);
  EXPECT_EQ(topology.Nodes(), (Cpus{0, 1}));
  EXPECT_EQ(topology.quota_cpus, 0);
  EXPECT_EQ(DefaultThreads(topology), 16);

  EXPECT_EQ(PlacedOn(topology, 0), Range(0, 16));
  EXPECT_EQ(PlacedOn(topology, 4), (Cpus{0, 1, 8, 9}));
  EXPECT_EQ(PlacedOn(topology, 5), (Cpus{0, 1, 2, 8, 9}));
  EXPECT_EQ(PlacedOn(topology, 1), (Cpus{0}));
  EXPECT_EQ(PlacedOn(topology, 18),  // every core before any sibling
            (Cpus{0, 1, 2, 3, 4, 5, 6, 7, 16, 8, 9, 10, 11, 12, 13, 14, 15, 24}));
  Cpus all = PlacedOn(topology, 32);
  std::sort(all.begin(), all.end());
  EXPECT_EQ(all, Range(0, 32));
  EXPECT_TRUE(PlacedOn(topology, 33).empty());  // more threads than CPUs
}

TEST_F(Topology, WhoIsPinned) {
  WriteTwoNodes();
  const CpuTopology two = ReadTree();
  const ThreadPlacement spread = PlaceThreads(two, 2, Pinning::kWhereUseful);
  EXPECT_EQ(spread.cpus, (Cpus{0, 8}));  // two nodes take part
  EXPECT_EQ(spread.nodes, (Cpus{0, 1}));
  EXPECT_EQ(spread.caller_cpus, (Cpus{0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23}));
  EXPECT_EQ(spread.ToString(), "2 threads on CPUs 0,8 of 2 nodes");
  EXPECT_TRUE(PlaceThreads(two, 1, Pinning::kWhereUseful).cpus.empty());
  EXPECT_EQ(PlaceThreads(two, 1, Pinning::kWhereUseful).nodes, (Cpus{0}));
  EXPECT_TRUE(PlaceThreads(two, 16, Pinning::kNever).cpus.empty());

  const CpuTopology one = ReadTree({0, 1, 2, 3, 16, 17, 18, 19});  // 4 cores of one node
  EXPECT_EQ(PlaceThreads(one, 0, Pinning::kWhereUseful).cpus, Range(0, 4));
  EXPECT_TRUE(PlaceThreads(one, 0, Pinning::kWhereUseful).caller_cpus.empty());
  EXPECT_TRUE(PlaceThreads(one, 3, Pinning::kWhereUseful).cpus.empty());  // a core is left
  EXPECT_EQ(PlaceThreads(one, 3, Pinning::kWhereUseful).ToString(), "3 threads");
  EXPECT_EQ(PlaceThreads(one, 6, Pinning::kWhereUseful).cpus, (Cpus{0, 1, 2, 3, 16, 17}));
  EXPECT_TRUE(PlaceThreads(one, 9, Pinning::kWhereUseful).cpus.empty());
  EXPECT_EQ(PlaceThreads(one, 9, Pinning::kWhereUseful).num_threads, 9);
  EXPECT_EQ(PlaceThreads(one, 3, Pinning::kAlways).caller_cpus, CpusOf(one));
}

TEST_F(Topology, CpusetCutsANode) {
  WriteTwoNodes();
  Write("/proc/self/cgroup", "0::/pod/box");
  Write("/sys/fs/cgroup/pod/cpuset.cpus.effective", "0-31");
  Write("/sys/fs/cgroup/pod/box/cpuset.cpus.effective", "0-7,8-9,24-25");
  const CpuTopology topology = ReadTree();
  EXPECT_EQ(CpusOf(topology), (Cpus{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 24, 25}));
  EXPECT_EQ(DefaultThreads(topology), 10);
  EXPECT_EQ(PlacedOn(topology, 8), (Cpus{0, 1, 2, 3, 4, 5, 8, 9}));
  EXPECT_EQ(PlacedOn(topology, 11), (Cpus{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 24}));
  Write("/sys/fs/cgroup/pod/box/cpuset.cpus.effective", "40-41");  // contradicts the mask
  EXPECT_EQ(CpusOf(ReadTree()), Range(0, 32));
  Write("/sys/fs/cgroup/pod/box/cpuset.cpus.effective", "0-");  // no list: the parent's
  Write("/sys/fs/cgroup/pod/cpuset.cpus.effective", "3");
  EXPECT_EQ(CpusOf(ReadTree()), (Cpus{3}));
  // Version 1.
  Remove("/sys/fs/cgroup");
  Write("/proc/self/cgroup", "4:cpuset:/box\n3:cpu,cpuacct:/box");
  Write("/sys/fs/cgroup/cpuset/box/cpuset.cpus", "8-15");
  EXPECT_EQ(CpusOf(ReadTree()), Range(8, 16));
  EXPECT_EQ(ReadTree().Nodes(), (Cpus{1}));
}

TEST_F(Topology, OfflineCpus) {
  WriteTwoNodes();
  Write("/sys/devices/system/cpu/online", "0-6,8-31");  // an offline CPU has no topology folder
  Remove("/sys/devices/system/cpu/cpu7");
  WriteCpu(23, "thread_siblings_list", "23");
  const CpuTopology topology = ReadTree();
  EXPECT_EQ(topology.cpus.size(), 31u);
  EXPECT_TRUE(topology.cores_known);
  EXPECT_EQ(topology.NumCores(), 16);
  EXPECT_EQ(PlacedOn(topology, 16), (Cpus{0, 1, 2, 3, 4, 5, 6, 23, 8, 9, 10, 11, 12, 13, 14, 15}));
}

TEST_F(Topology, SiblingsFromNumbersOrNotAtAll) {
  WriteTwoNodes();
  for (int cpu = 0; cpu < 32; ++cpu) WriteCpu(cpu, "thread_siblings_list", cpu % 2 ? "oops" : "");
  EXPECT_EQ(ReadTree().NumCores(), 16);  // package and core number
  EXPECT_TRUE(ReadTree().cores_known);
  WriteCpu(5, "core_id", "-1");
  EXPECT_FALSE(ReadTree().cores_known);
  EXPECT_EQ(DefaultThreads(ReadTree()), 32);  // all that are allowed
  for (int cpu = 0; cpu < 32; ++cpu) WriteCpu(cpu, "core_cpus_list", StrCat(cpu % 16, ",", cpu % 16 + 16));
  EXPECT_EQ(ReadTree().NumCores(), 16);
  WriteCpu(3, "core_cpus_list", "4,20");  // a list that lacks its own CPU
  WriteCpu(3, "core_id", "x");
  EXPECT_FALSE(ReadTree().cores_known);
}

TEST_F(Topology, NothingThere) {
  const CpuTopology topology = ReadTree({2, 3, 5});
  EXPECT_EQ(CpusOf(topology), (Cpus{2, 3, 5}));
  EXPECT_FALSE(topology.cores_known);
  EXPECT_EQ(topology.Nodes(), (Cpus{0}));
  EXPECT_EQ(DefaultThreads(topology), 3);
  EXPECT_EQ(PlacedOn(topology, 0), (Cpus{2, 3, 5}));
  EXPECT_EQ(CpusOf(ReadTree({})), (Cpus{0}));  // no mask either
  Write("/sys/devices/system/cpu/online", "0-3");
  EXPECT_EQ(CpusOf(ReadTree({})), Range(0, 4));
  Write("/sys/devices/system/node/node0/cpulist", "0-");
  Write("/sys/devices/system/node/nodeX/cpulist", "0-1");
  Write("/sys/devices/system/node/has_cpu", "0");
  EXPECT_EQ(ReadTree().Nodes(), (Cpus{0}));
}

TEST_F(Topology, Quota) {
  WriteTwoNodes();
  Write("/proc/self/cgroup", "0::/pod/box");
  Write("/sys/fs/cgroup/pod/box/cpu.max", "max 100000");
  EXPECT_EQ(ReadTree().quota_cpus, 0);
  Write("/sys/fs/cgroup/pod/box/cpu.max", "250000 100000");
  EXPECT_EQ(ReadTree().quota_cpus, 2.5);
  EXPECT_EQ(DefaultThreads(ReadTree()), 2);
  Write("/sys/fs/cgroup/pod/cpu.max", "50000 100000");  // a parent binds too
  EXPECT_EQ(DefaultThreads(ReadTree()), 1);
  Write("/sys/fs/cgroup/pod/cpu.max", "9900000 100000");
  Write("/sys/fs/cgroup/pod/box/cpu.max", "5000000 100000");
  EXPECT_EQ(ReadTree().quota_cpus, 50);
  EXPECT_EQ(DefaultThreads(ReadTree()), 16);
  Write("/sys/fs/cgroup/pod/box/cpu.max", "oops");
  EXPECT_EQ(ReadTree().quota_cpus, 99);
  // Version 1, in a container that sees its own group as the root.
  Remove("/sys/fs/cgroup");
  Write("/proc/self/cgroup", "3:cpu,cpuacct:/docker/123\n0::/");
  Write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1");
  Write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000");
  EXPECT_EQ(ReadTree().quota_cpus, 0);
  Write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "350000");
  EXPECT_EQ(ReadTree().quota_cpus, 3.5);
  EXPECT_EQ(DefaultThreads(ReadTree()), 3);
}

TEST_F(Topology, KeepCpus) {
  WriteTwoNodes();
  const CpuTopology topology = ReadTree(Range(0, 20));
  const StatusOr<CpuTopology> kept = KeepCpus(topology, {8, 9, 16});
  ASSERT_TRUE(kept.ok());
  EXPECT_EQ(PlacedOn(*kept, 0), (Cpus{16, 8, 9}));
  EXPECT_EQ(PlaceThreads(*kept, 1, Pinning::kAlways).caller_cpus, (Cpus{16}));
  const StatusOr<CpuTopology> wrong = KeepCpus(topology, {8, 20});
  EXPECT_FALSE(wrong.ok());
  EXPECT_NE(wrong.status().message().find("CPU 20 "), std::string::npos);
  EXPECT_NE(wrong.status().message().find("0-19"), std::string::npos);
  EXPECT_FALSE(KeepCpus(topology, {}).ok());
}

TEST(ThisMachine, HasACpu) {
  const CpuTopology topology = ReadCpuTopology();
  ASSERT_FALSE(topology.cpus.empty());
  EXPECT_GE(DefaultThreads(topology), 1);
  EXPECT_LE(DefaultThreads(topology), static_cast<int>(topology.cpus.size()));
}

}  // namespace
}  // namespace fd
