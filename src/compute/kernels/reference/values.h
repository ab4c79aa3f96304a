// Elements of host tensors as doubles; element `i` of row `r`, whatever the type and the stride.
#pragma once

#include "compute/tensor/tensor.h"

namespace fd::reference {

inline double At(const TensorView& t, int64_t r, int64_t i) {
  const int64_t at = r * t.row_stride + i;
  switch (t.dtype) {
    case DType::kFloat32:
      return static_cast<double>(t.As<float>()[at]);
    case DType::kBFloat16:
      return static_cast<double>(ToFloat(t.As<BFloat16>()[at]));
    case DType::kUInt8:
      return t.As<uint8_t>()[at];
    case DType::kInt32:
      return t.As<int32_t>()[at];
    default:
      FD_CHECK(false, DTypeName(t.dtype));
      return 0;
  }
}

inline double Rounded(double v, DType act) {
  const float f = static_cast<float>(v);
  return static_cast<double>(act == DType::kFloat32 ? f : ToFloat(ToBFloat16(f)));
}

inline void Put(const TensorView& t, int64_t r, int64_t i, double v) {
  const int64_t at = r * t.row_stride + i;
  if (t.dtype == DType::kFloat32) {
    t.As<float>()[at] = static_cast<float>(v);
  } else {
    FD_CHECK(t.dtype == DType::kBFloat16, DTypeName(t.dtype));
    t.As<BFloat16>()[at] = ToBFloat16(static_cast<float>(v));
  }
}

}  // namespace fd::reference
