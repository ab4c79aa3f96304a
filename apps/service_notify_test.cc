#include "service_notify.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace fd {
namespace {

TEST(NotifyService, SendsToTheSocketOfTheEnvironment) {
  ::unsetenv("NOTIFY_SOCKET");
  EXPECT_FALSE(NotifyService("READY=1"));
  const std::string path = testing::TempDir() + "notify.sock";
  ::unlink(path.c_str());
  const int listener = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  ASSERT_LT(path.size(), sizeof(address.sun_path));
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ::setenv("NOTIFY_SOCKET", path.c_str(), 1);
  EXPECT_TRUE(NotifyService("READY=1\nSTATUS=serving"));
  char text[64] = {};
  const ssize_t n = ::recv(listener, text, sizeof(text), MSG_DONTWAIT);
  EXPECT_EQ(std::string(text, static_cast<size_t>(std::max<ssize_t>(n, 0))), "READY=1\nSTATUS=serving");
  ::close(listener);
  ::unlink(path.c_str());
  EXPECT_FALSE(NotifyService("READY=1"));
  ::setenv("NOTIFY_SOCKET", "relative", 1);
  EXPECT_FALSE(NotifyService("READY=1"));
  ::unsetenv("NOTIFY_SOCKET");
}

}  // namespace
}  // namespace fd
