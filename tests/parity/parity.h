// What every parity test needs: random tensors, every instruction set of this machine, comparisons.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "base/thread_pool.h"
#include "compute/kernels/cpu/attention.h"
#include "compute/kernels/cpu/isa.h"
#include "compute/kernels/reference/attention.h"
#include "compute/ops/context.h"

namespace fd::parity {

// A context of its own threads and workspace.
struct Cpu {
  explicit Cpu(int num_threads = 2) : threads(num_threads), workspace(Device{}, 16 << 20) {
    ctx.threads = &threads;
    ctx.workspace = &workspace;
  }
  ThreadPool threads;
  Workspace workspace;
  ops::Context ctx;
};

inline std::vector<cpu::Isa> Isas() {
  std::vector<cpu::Isa> out;
  for (int i = 0; i <= static_cast<int>(cpu::BestIsa()); ++i) out.push_back(static_cast<cpu::Isa>(i));
  return out;
}

// Runs fn once for each instruction set, then goes back to the best.
template <typename Fn>
void ForEachIsa(const Fn& fn) {
  for (cpu::Isa isa : Isas()) {
    SCOPED_TRACE(cpu::IsaName(isa));
    cpu::SetIsa(isa);
    fn();
  }
  cpu::SetIsa(cpu::BestIsa());
}

inline float Get(const TensorView& t, int64_t i) {
  return t.dtype == DType::kFloat32 ? t.As<float>()[i] : ToFloat(t.As<BFloat16>()[i]);
}
inline void Set(const TensorView& t, int64_t i, float v) {
  if (t.dtype == DType::kFloat32) {
    t.As<float>()[i] = v;
  } else {
    t.As<BFloat16>()[i] = ToBFloat16(v);
  }
}

// Normal random numbers times `scale`; contiguous.
inline Tensor Random(std::mt19937& rng, DType dtype, Shape shape, float scale = 1.0f) {
  Tensor t(dtype, Device{}, shape);
  std::normal_distribution<float> normal(0.0f, scale);
  for (int64_t i = 0; i < shape.NumElements(); ++i) Set(t, i, normal(rng));
  return t;
}

inline std::vector<float> Values(const TensorView& t) {
  std::vector<float> out;
  const int64_t row = TensorView::RowElements(t.shape);
  for (int64_t r = 0; r < t.dim(0); ++r)
    for (int64_t i = 0; i < row; ++i) out.push_back(Get(t, r * t.row_stride + i));
  return out;
}

// pages[slots[t]] = rows[t] for host tensors: rows [tokens, heads, head_dim], pages [pages, heads, 64,
// head_dim], slots int32 [tokens]; nothing where a slot is below 0.
inline void WritePages(const TensorView& pages, const TensorView& rows, const TensorView& slots) {
  const int64_t heads = rows.dim(1), bytes = rows.dim(2) * DTypeBytes(rows.dtype);
  for (int64_t t = 0; t < rows.dim(0); ++t) {
    const int64_t slot = slots.As<int32_t>()[t];
    if (slot < 0) continue;
    for (int64_t h = 0; h < heads; ++h) {
      std::memcpy(pages.As<char>() + ((slot / 64 * heads + h) * 64 + slot % 64) * bytes,
                  static_cast<char*>(rows.Rows(t, 1).data) + h * bytes, static_cast<size_t>(bytes));
    }
  }
}

// The same in the layout that pages have on the CPU: keys or, with `values`, values.
inline void WriteCpuPages(const TensorView& pages, const TensorView& rows, const TensorView& slots,
                          bool values) {
  const int64_t heads = rows.dim(1), n = rows.dim(2), bytes = DTypeBytes(rows.dtype);
  for (int64_t t = 0; t < rows.dim(0); ++t) {
    const int64_t slot = slots.As<int32_t>()[t];
    if (slot < 0) continue;
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t i = 0; i < n; ++i) {
        const int64_t to =
            (slot / 64 * heads + h) * 64 * n + (values ? cpu::ValueElement(rows.dtype, n, slot % 64, i)
                                                       : cpu::KeyElement(rows.dtype, slot % 64, i));
        std::memcpy(pages.As<char>() + to * bytes,
                    static_cast<char*>(rows.Rows(t, 1).data) + (h * n + i) * bytes,
                    static_cast<size_t>(bytes));
      }
    }
  }
}

// The same for pages of bytes, by the reference's rounding; keys or, with `values`, values, in the layout of
// the CPU or of CUDA. stored, unless empty: float32, what the pages then stand for, in the shape of rows.
inline void WriteBytePages(const TensorView& pages, const TensorView& rows, const TensorView& slots,
                           bool values, bool cpu_layout, const TensorView& stored = {}) {
  const int64_t heads = rows.dim(1), n = rows.dim(2), head_bytes = 64 * (n + 2);
  for (int64_t t = 0; t < rows.dim(0); ++t) {
    const int64_t slot = slots.As<int32_t>()[t], token = slot % 64;
    const std::vector<float> all = Values(rows.Rows(t, 1));
    for (int64_t h = 0; h < heads; ++h) {
      const std::vector<float> row(all.begin() + h * n, all.begin() + (h + 1) * n);
      const reference::ByteRow byte_row = reference::ToByteRow(row, pages.dtype);
      for (int64_t i = 0; i < n; ++i) {
        const uint8_t byte = byte_row.bytes[static_cast<size_t>(i)];
        if (!stored.empty()) {
          Set(stored, (t * heads + h) * n + i, reference::ByteValue(byte, pages.dtype) * byte_row.scale);
        }
        if (slot < 0) continue;
        const int64_t at = !cpu_layout ? token * n + i
                           : values    ? cpu::ValueElement(rows.dtype, n, token, i)
                                       : cpu::KeyElement(rows.dtype, token, i);
        pages.As<uint8_t>()[(slot / 64 * heads + h) * head_bytes + at] = byte;
      }
      if (slot < 0) continue;
      const BFloat16 scale = ToBFloat16(byte_row.scale);
      std::memcpy(pages.As<uint8_t>() + (slot / 64 * heads + h) * head_bytes + 64 * n + 2 * token, &scale, 2);
    }
  }
}

// |found - expected| <= absolute + relative * |expected| everywhere.
inline void ExpectClose(const TensorView& found, const TensorView& expected, double absolute,
                        double relative) {
  const std::vector<float> a = Values(found), b = Values(expected);
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
    ASSERT_LE(std::abs(static_cast<double>(a[i]) - b[i]),
              absolute + relative * std::abs(static_cast<double>(b[i])))
        << "at " << i << ": found " << a[i] << ", expected " << b[i];
  }
}

inline void ExpectSameBits(const TensorView& a, const TensorView& b) {
  ASSERT_TRUE(a.shape == b.shape && a.dtype == b.dtype);
  const int64_t row_bytes = TensorView::RowElements(a.shape) * DTypeBytes(a.dtype);
  for (int64_t r = 0; r < a.dim(0); ++r) {
    ASSERT_EQ(std::memcmp(a.Rows(r, 1).data, b.Rows(r, 1).data, row_bytes), 0) << "row " << r;
  }
}

// One rounding to bfloat16 may fall either way when the float32 sum differs in its last bits.
inline double RelativeTolerance(DType t) { return t == DType::kFloat32 ? 2e-6 : 8e-3; }

}  // namespace fd::parity
