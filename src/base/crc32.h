// CRC-32 as zlib, PNG and Ethernet have it: finds damage, not intent.
#pragma once

#include <cstdint>
#include <string_view>

namespace fd {

// Of `bytes` behind those that gave `begun`.
uint32_t Crc32(std::string_view bytes, uint32_t begun = 0);

}  // namespace fd
