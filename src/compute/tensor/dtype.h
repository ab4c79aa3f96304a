// Element types and devices. Included by kernels, so it depends on nothing else.
#pragma once

#include <cstdint>

namespace fd {

enum class DType : uint8_t { kFloat32, kBFloat16, kInt32, kInt64, kUInt8, kInt8, kFloat8E4M3 };

constexpr int64_t DTypeBytes(DType t) {
  switch (t) {
    case DType::kFloat32:
    case DType::kInt32:
      return 4;
    case DType::kInt64:
      return 8;
    case DType::kBFloat16:
      return 2;
    case DType::kUInt8:
    case DType::kInt8:
    case DType::kFloat8E4M3:
      return 1;
  }
  return 0;
}
// "float32", "bfloat16", ...
const char* DTypeName(DType t);

enum class DeviceType : uint8_t { kCpu, kCuda };
struct Device {
  DeviceType type = DeviceType::kCpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

// The upper half of a float32. Arithmetic is done in float32; rounding is to nearest even.
struct BFloat16 {
  uint16_t bits;
};
inline float ToFloat(BFloat16 v) {
  uint32_t u = static_cast<uint32_t>(v.bits) << 16;
  float f;
  __builtin_memcpy(&f, &u, 4);
  return f;
}
inline BFloat16 ToBFloat16(float f) {
  uint32_t u;
  __builtin_memcpy(&u, &f, 4);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 0x40u)};  // quiet NaN
  return {static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

}  // namespace fd
