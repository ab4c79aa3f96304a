// Quantised weights by their bytes (layout: kernels/cpu/linear_quant.h).
#pragma once

#include "compute/kernels/cpu/linear_quant.h"
#include "compute/ops/linear.h"
#include "tests/parity/parity.h"

namespace fd::parity {

// The weight [n, k] that a quantised one in host memory stands for, exact in float32.
inline Tensor Dequantized(const ops::LinearWeight& w) {
  const bool eight = w.kind == ops::WeightKind::kInt8;
  const int64_t groups = cpu::QuantGroups(w.k, w.group_size);
  const int64_t panel_bytes = cpu::QuantPanelBytes(w.k, eight ? 8 : 4);
  Tensor out(DType::kFloat32, Device{}, {w.n, w.k});
  for (int64_t i = 0; i < w.n; ++i) {
    const uint8_t* panel = w.data.view().As<uint8_t>() + i / 16 * panel_bytes;
    for (int64_t j = 0; j < w.k; ++j) {
      const int byte = panel[(eight ? j / 4 : j / 8) * 64 + i % 16 * 4 + j % 4];
      const int q = eight ? byte - 128 : (j / 4 % 2 == 0 ? byte & 15 : byte >> 4) - 8;
      const int64_t group = w.group_size == 0 ? 0 : j / w.group_size;
      Set(out, i * w.k + j, static_cast<float>(q) * Get(w.scales, (i / 16 * groups + group) * 16 + i % 16));
    }
  }
  return out;
}

// The bytes of every feature, not those of the features that pad the last panel.
inline void ExpectSameQuantized(const ops::LinearWeight& a, const ops::LinearWeight& b) {
  ASSERT_TRUE(a.kind == b.kind && a.n == b.n && a.k == b.k && a.group_size == b.group_size);
  ASSERT_TRUE(a.data.size_bytes() == b.data.size_bytes() && a.scales.size_bytes() == b.scales.size_bytes());
  const int64_t panels = a.data.view().dim(0);
  const int64_t panel_bytes = a.data.size_bytes() / panels,
                panel_scales = a.scales.view().NumElements() / panels;
  for (int64_t i = 0; i < a.data.size_bytes(); ++i) {
    if (i / panel_bytes * 16 + i % 64 / 4 >= a.n) continue;
    ASSERT_EQ(a.data.view().As<uint8_t>()[i], b.data.view().As<uint8_t>()[i]) << "byte " << i;
  }
  for (int64_t i = 0; i < a.scales.view().NumElements(); ++i) {
    if (i / panel_scales * 16 + i % 16 >= a.n) continue;
    ASSERT_EQ(a.scales.view().As<BFloat16>()[i].bits, b.scales.view().As<BFloat16>()[i].bits)
        << "scale " << i;
  }
}

}  // namespace fd::parity
