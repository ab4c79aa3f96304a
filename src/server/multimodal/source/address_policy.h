// Which network addresses a media URL may lead to: those of the public internet. Pure; any thread.
//
// The tables follow IANA's special-purpose registries; what is reserved, experimental or a transition form is
// refused as well, so that an address passes only when it is plainly public.
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace fd {

// Host byte order: 127.0.0.1 is 0x7f000001.
bool IsPublicIpv4(uint32_t address);
// Network byte order. IPv4-mapped and NAT64 (64:ff9b::/96) addresses follow the IPv4 address inside; ISATAP
// ones must have a public one inside; other transition forms are refused whole.
bool IsPublicIpv6(const std::array<uint8_t, 16>& address);
// As the socket will dial it. Families other than IPv4 and IPv6 are not public.
bool IsPublicAddress(const sockaddr* address, size_t size_bytes);

// "127.0.0.1:80" and "[::1]:80", to compare with MediaPolicy::public_endpoints_for_tests; empty for other
// families.
std::string EndpointText(const sockaddr* address, size_t size_bytes);

// Four decimal numbers without leading zeros, nothing else.
bool IsIpv4Text(std::string_view text);
// What inet_pton takes, without brackets and zone.
bool IsIpv6Text(std::string_view text);

}  // namespace fd
