#include "base/memory_policy.h"

#include <gtest/gtest.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "base/cpu_topology.h"

namespace fd {
namespace {

constexpr size_t kBytes = 4 << 20;

class MemoryPolicy : public testing::Test {
 protected:
  MemoryPolicy() {
    data_ =
        static_cast<char*>(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  }
  ~MemoryPolicy() override { munmap(data_, kBytes); }
  // Negative where the system does not tell.
  int PolicyAt(size_t offset) {
    int mode = -1;
    return syscall(SYS_get_mempolicy, &mode, nullptr, 0UL, data_ + offset, MPOL_F_ADDR) == 0 ? mode : -1;
  }
  char* data_;
};

TEST_F(MemoryPolicy, InterleavesAMapping) {
  if (PolicyAt(0) < 0) GTEST_SKIP() << "the system tells no policy";
  const std::vector<int> nodes = ReadCpuTopology().Nodes();
  if (!InterleavePages(data_, kBytes, nodes)) GTEST_SKIP() << "the system refuses mbind, errno " << errno;
  EXPECT_EQ(PolicyAt(0), MPOL_INTERLEAVE);
  EXPECT_EQ(PolicyAt(kBytes - 1), MPOL_INTERLEAVE);
  for (size_t i = 0; i < kBytes; i += 4096) data_[i] = 1;
  EXPECT_EQ(data_[0], 1);
}

TEST_F(MemoryPolicy, ARefusalIsReported) {
  EXPECT_FALSE(InterleavePages(data_, kBytes, {1 << 20}));    // no such node
  EXPECT_FALSE(InterleavePages(data_ + 1, kBytes - 1, {0}));  // not a page boundary
  data_[0] = 1;
}

TEST_F(MemoryPolicy, OneNodeIsLeftAlone) {
  EXPECT_FALSE(SetInterleavedNodes({}));
  EXPECT_FALSE(SetInterleavedNodes({0}));
  const int before = PolicyAt(0);
  PlacePages(data_, kBytes);
  EXPECT_EQ(PolicyAt(0), before);
}

TEST_F(MemoryPolicy, SeveralNodesSurviveARefusal) {
  if (!SetInterleavedNodes({0, 1 << 20})) GTEST_SKIP() << "a policy is set, or the system tells none";
  PlacePages(data_, kBytes);  // warns once
  PlacePages(data_, kBytes);
  data_[kBytes - 1] = 1;
  EXPECT_FALSE(SetInterleavedNodes({}));
}

}  // namespace
}  // namespace fd
