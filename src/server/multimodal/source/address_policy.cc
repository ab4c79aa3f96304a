#include "server/multimodal/source/address_policy.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/strings.h"

namespace fd {
namespace {

struct Ipv4Block {
  uint32_t address;
  int prefix_bits;
};

constexpr uint32_t Ipv4(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  return a << 24 | b << 16 | c << 8 | d;
}

constexpr Ipv4Block kRefusedIpv4[] = {
    {Ipv4(0, 0, 0, 0), 8},         // this network; Linux dials 0.0.0.0 as loopback
    {Ipv4(10, 0, 0, 0), 8},        // private
    {Ipv4(100, 64, 0, 0), 10},     // carrier-grade NAT; holds a cloud's metadata service
    {Ipv4(127, 0, 0, 0), 8},       // loopback
    {Ipv4(168, 63, 129, 16), 32},  // a cloud's host agent, reachable from its machines alone
    {Ipv4(169, 254, 0, 0), 16},    // link-local; holds the metadata services
    {Ipv4(172, 16, 0, 0), 12},     // private
    {Ipv4(192, 0, 0, 0), 24},      // protocol assignments
    {Ipv4(192, 0, 2, 0), 24},      // documentation
    {Ipv4(192, 88, 99, 0), 24},    // 6to4 relays
    {Ipv4(192, 168, 0, 0), 16},    // private
    {Ipv4(198, 18, 0, 0), 15},     // benchmarking
    {Ipv4(198, 51, 100, 0), 24},   // documentation
    {Ipv4(203, 0, 113, 0), 24},    // documentation
    {Ipv4(224, 0, 0, 0), 4},       // multicast
    {Ipv4(240, 0, 0, 0), 4},       // reserved, broadcast
};

struct Ipv6Block {
  std::array<uint8_t, 6> prefix;
  int prefix_bits;
};

// Inside 2000::/3, the only block of global unicast addresses.
constexpr Ipv6Block kRefusedIpv6[] = {
    {{0x20, 0x01, 0x00, 0x00}, 23},  // protocol assignments: Teredo, benchmarking, ORCHID
    {{0x20, 0x01, 0x0d, 0xb8}, 32},  // documentation
    {{0x20, 0x02}, 16},              // 6to4
    {{0x3f, 0xff, 0x00}, 20},        // documentation
};
constexpr std::array<uint8_t, 12> kMappedPrefix = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
constexpr std::array<uint8_t, 12> kNat64Prefix = {0, 0x64, 0xff, 0x9b};

bool HasPrefix(const std::array<uint8_t, 16>& address, const uint8_t* prefix, int prefix_bits) {
  const int whole = prefix_bits / 8;
  if (std::memcmp(address.data(), prefix, static_cast<size_t>(whole)) != 0) return false;
  const int rest = prefix_bits % 8;
  return rest == 0 || address[static_cast<size_t>(whole)] >> (8 - rest) == prefix[whole] >> (8 - rest);
}

}  // namespace

bool IsPublicIpv4(uint32_t address) {
  return std::none_of(std::begin(kRefusedIpv4), std::end(kRefusedIpv4), [&](const Ipv4Block& block) {
    return address >> (32 - block.prefix_bits) == block.address >> (32 - block.prefix_bits);
  });
}

bool IsPublicIpv6(const std::array<uint8_t, 16>& address) {
  const uint32_t inner = Ipv4(address[12], address[13], address[14], address[15]);
  if (HasPrefix(address, kMappedPrefix.data(), 96) || HasPrefix(address, kNat64Prefix.data(), 96)) {
    return IsPublicIpv4(inner);
  }
  if (address[0] >> 5 != 1) return false;  // 2000::/3
  for (const Ipv6Block& block : kRefusedIpv6) {
    if (HasPrefix(address, block.prefix.data(), block.prefix_bits)) return false;
  }
  const bool isatap =
      (address[8] & 0xfd) == 0 && address[9] == 0 && address[10] == 0x5e && address[11] == 0xfe;
  return !isatap || IsPublicIpv4(inner);
}

bool IsPublicAddress(const sockaddr* address, size_t size_bytes) {
  if (address->sa_family == AF_INET && size_bytes >= sizeof(sockaddr_in)) {
    sockaddr_in v4{};
    std::memcpy(&v4, address, sizeof(v4));
    return IsPublicIpv4(ntohl(v4.sin_addr.s_addr));
  }
  if (address->sa_family == AF_INET6 && size_bytes >= sizeof(sockaddr_in6)) {
    sockaddr_in6 v6{};
    std::memcpy(&v6, address, sizeof(v6));
    std::array<uint8_t, 16> bytes{};
    std::memcpy(bytes.data(), &v6.sin6_addr, bytes.size());
    return IsPublicIpv6(bytes);
  }
  return false;
}

std::string EndpointText(const sockaddr* address, size_t size_bytes) {
  char text[INET6_ADDRSTRLEN] = {};
  if (address->sa_family == AF_INET && size_bytes >= sizeof(sockaddr_in)) {
    sockaddr_in v4{};
    std::memcpy(&v4, address, sizeof(v4));
    inet_ntop(AF_INET, &v4.sin_addr, text, sizeof(text));
    return StrCat(text, ":", ntohs(v4.sin_port));
  }
  if (address->sa_family == AF_INET6 && size_bytes >= sizeof(sockaddr_in6)) {
    sockaddr_in6 v6{};
    std::memcpy(&v6, address, sizeof(v6));
    inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof(text));
    return StrCat("[", text, "]:", ntohs(v6.sin6_port));
  }
  return {};
}

bool IsIpv4Text(std::string_view text) {
  const std::vector<std::string> parts = Split(text, '.');
  if (parts.size() != 4) return false;
  return std::all_of(parts.begin(), parts.end(), [](const std::string& part) {
    if (part.empty() || part.size() > 3 || (part.size() > 1 && part[0] == '0')) return false;
    int value = 0;
    for (char c : part) {
      if (c < '0' || c > '9') return false;
      value = value * 10 + (c - '0');
    }
    return value <= 255;
  });
}

bool IsIpv6Text(std::string_view text) {
  in6_addr address{};
  return text.size() < INET6_ADDRSTRLEN && text.find('\0') == std::string_view::npos &&
         inet_pton(AF_INET6, std::string(text).c_str(), &address) == 1;
}

}  // namespace fd
