#include "server/multimodal/source/address_policy.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <cstring>

namespace fd {
namespace {

bool IsPublic(const char* text) {
  in_addr v4{};
  if (inet_pton(AF_INET, text, &v4) == 1) return IsPublicIpv4(ntohl(v4.s_addr));
  in6_addr v6{};
  EXPECT_EQ(inet_pton(AF_INET6, text, &v6), 1) << text;
  std::array<uint8_t, 16> bytes{};
  std::memcpy(bytes.data(), &v6, 16);
  return IsPublicIpv6(bytes);
}

// Each block with its first and last address, and the neighbours outside where they are public.
TEST(AddressPolicy, Ipv4Blocks) {
  for (const char* refused :
       {"0.0.0.0",         "0.255.255.255",   "10.0.0.0",        "10.255.255.255",  "100.64.0.0",
        "100.100.100.200", "100.127.255.255", "127.0.0.0",       "127.0.0.1",       "127.255.255.255",
        "168.63.129.16",   "169.254.0.0",     "169.254.169.254", "169.254.255.255", "172.16.0.0",
        "172.31.255.255",  "192.0.0.0",       "192.0.0.192",     "192.0.0.255",     "192.0.2.0",
        "192.0.2.255",     "192.88.99.0",     "192.88.99.255",   "192.168.0.0",     "192.168.255.255",
        "198.18.0.0",      "198.19.255.255",  "198.51.100.0",    "198.51.100.255",  "203.0.113.0",
        "203.0.113.255",   "224.0.0.0",       "239.255.255.255", "240.0.0.0",       "255.255.255.255"}) {
    EXPECT_FALSE(IsPublic(refused)) << refused;
  }
  for (const char* allowed :
       {"1.0.0.0",         "9.255.255.255",  "11.0.0.0",        "100.63.255.255",  "100.128.0.0",
        "126.255.255.255", "128.0.0.0",      "168.63.129.15",   "168.63.129.17",   "169.253.255.255",
        "169.255.0.0",     "172.15.255.255", "172.32.0.0",      "191.255.255.255", "192.0.1.0",
        "192.0.1.255",     "192.0.3.0",      "192.88.98.255",   "192.88.100.0",    "192.167.255.255",
        "192.169.0.0",     "198.17.255.255", "198.20.0.0",      "198.51.99.255",   "198.51.101.0",
        "203.0.112.255",   "203.0.114.0",    "223.255.255.255", "8.8.8.8"}) {
    EXPECT_TRUE(IsPublic(allowed)) << allowed;
  }
}

TEST(AddressPolicy, Ipv6Blocks) {
  for (const char* refused : {"::",
                              "::1",
                              "::2",
                              "::127.0.0.1",             // IPv4-compatible
                              "::8.8.8.8",               // the same with a public one inside
                              "100::1",                  // discard
                              "64:ff9b:1::8.8.8.8",      // local NAT64
                              "64:ff9b:0:0:1::8.8.8.8",  // not the /96
                              "1fff:ffff::1",            // below global unicast
                              "4000::1",                 // above
                              "5f00::1",                 // segment routing
                              "fc00::1",                 // unique local
                              "fd00:ec2::254",           // a cloud's metadata service
                              "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                              "fe80::1",  // link-local
                              "febf::1",
                              "fec0::1",  // site-local
                              "feff::1",
                              "ff00::1",  // multicast
                              "ff02::1",
                              "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                              "2001::1",  // Teredo
                              "2001:0:4136:e378:8000:63bf:3fff:fdd2",
                              "2001:2::1",   // benchmarking
                              "2001:10::1",  // ORCHID
                              "2001:20::1",
                              "2001:1ff:ffff::1",
                              "2001:db8::1",  // documentation
                              "2001:db8:ffff::1",
                              "2002::1",  // 6to4
                              "2002:7f00:1::",
                              "2002:808:808::1",
                              "3fff::1",  // documentation
                              "3fff:fff::1",
                              "2a00::5efe:127.0.0.1",  // ISATAP
                              "2a00::200:5efe:192.168.1.1"}) {
    EXPECT_FALSE(IsPublic(refused)) << refused;
  }
  for (const char* allowed :
       {"2000::1", "2001:200::1", "2001:db7:ffff::1", "2001:db9::1", "2003::1", "2606:4700::1111",
        "2a00:1450:4001::200e", "3ffe::1", "3fff:1000::1", "2a00::5efe:8.8.8.8"}) {
    EXPECT_TRUE(IsPublic(allowed)) << allowed;
  }
}

TEST(AddressPolicy, Ipv4InsideIpv6) {
  for (const char* inner :
       {"127.0.0.1", "0.0.0.0", "10.1.2.3", "169.254.169.254", "192.168.0.1", "224.0.0.1", "100.64.0.1"}) {
    EXPECT_FALSE(IsPublic((std::string("::ffff:") + inner).c_str())) << inner;
    EXPECT_FALSE(IsPublic((std::string("64:ff9b::") + inner).c_str())) << inner;
  }
  EXPECT_TRUE(IsPublic("::ffff:8.8.8.8"));
  EXPECT_TRUE(IsPublic("64:ff9b::8.8.8.8"));
  EXPECT_FALSE(IsPublic("::fffe:8.8.8.8"));
  EXPECT_FALSE(IsPublic("::ffff:0:8.8.8.8"));  // IPv4-translated
}

TEST(AddressPolicy, Sockets) {
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(80);
  inet_pton(AF_INET, "8.8.4.4", &v4.sin_addr);
  const auto* address = reinterpret_cast<const sockaddr*>(&v4);
  EXPECT_TRUE(IsPublicAddress(address, sizeof(v4)));
  EXPECT_EQ(EndpointText(address, sizeof(v4)), "8.8.4.4:80");
  EXPECT_FALSE(IsPublicAddress(address, 4));  // cut
  inet_pton(AF_INET, "127.0.0.1", &v4.sin_addr);
  EXPECT_FALSE(IsPublicAddress(address, sizeof(v4)));

  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(8080);
  inet_pton(AF_INET6, "2a00::1", &v6.sin6_addr);
  address = reinterpret_cast<const sockaddr*>(&v6);
  EXPECT_TRUE(IsPublicAddress(address, sizeof(v6)));
  EXPECT_EQ(EndpointText(address, sizeof(v6)), "[2a00::1]:8080");
  inet_pton(AF_INET6, "::1", &v6.sin6_addr);
  EXPECT_FALSE(IsPublicAddress(address, sizeof(v6)));

  sockaddr_un local{};
  local.sun_family = AF_UNIX;
  address = reinterpret_cast<const sockaddr*>(&local);
  EXPECT_FALSE(IsPublicAddress(address, sizeof(local)));
  EXPECT_EQ(EndpointText(address, sizeof(local)), "");
}

TEST(AddressPolicy, Texts) {
  EXPECT_TRUE(IsIpv4Text("127.0.0.1"));
  EXPECT_TRUE(IsIpv4Text("255.255.255.255"));
  for (const char* bad :
       {"", "1", "127.1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.04", "0x7f.0.0.1", "1.2.3.",
        ".1.2.3", "1.2.3.4 ", "1..3.4", "2130706433", "1.2.3.1000"}) {
    EXPECT_FALSE(IsIpv4Text(bad)) << bad;
  }
  EXPECT_TRUE(IsIpv6Text("::1"));
  EXPECT_TRUE(IsIpv6Text("::ffff:127.0.0.1"));
  for (const char* bad : {"", "1", "::1%lo", "[::1]", ":::", "g::1", "1:2:3:4:5:6:7:8:9"}) {
    EXPECT_FALSE(IsIpv6Text(bad)) << bad;
  }
}

}  // namespace
}  // namespace fd
