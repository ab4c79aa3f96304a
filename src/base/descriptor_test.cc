#include "base/descriptor.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <utility>

namespace fd {
namespace {

int Open() { return open("/dev/null", O_RDONLY | O_CLOEXEC); }
bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

TEST(Descriptor, ClosesWhatItOwns) {
  int fd;
  {
    Descriptor owner(Open());
    ASSERT_TRUE(owner.ok());
    fd = owner.get();
    EXPECT_TRUE(IsOpen(fd));
  }
  EXPECT_FALSE(IsOpen(fd));
  EXPECT_FALSE(Descriptor().ok());
}

TEST(Descriptor, MovesAndReleases) {
  Descriptor first(Open());
  const int fd = first.get();
  Descriptor second(std::move(first));
  EXPECT_FALSE(first.ok());
  EXPECT_EQ(second.get(), fd);
  const int replaced = Open();
  Descriptor third(replaced);
  third = std::move(second);
  EXPECT_EQ(third.get(), fd);
  EXPECT_FALSE(IsOpen(replaced));
  EXPECT_EQ(third.Release(), fd);
  EXPECT_FALSE(third.ok());
  EXPECT_TRUE(IsOpen(fd));
  Descriptor(fd).Reset();
  EXPECT_FALSE(IsOpen(fd));
}

TEST(Descriptor, LeavesErrnoAlone) {
  const int fd = Open();
  close(fd);
  errno = ENOENT;
  {
    Descriptor closed_already(fd);
  }
  EXPECT_EQ(errno, ENOENT);
}

}  // namespace
}  // namespace fd
