// y = x W^T (+ b): float32 accumulation over k in ascending order, one rounding to the type of `out`.
// On the CPU a row's result does not depend on the other rows or on how many there are (batch invariance); on
// CUDA its last bits may change with the number of rows.
#pragma once

#include <cstdint>
#include <vector>

#include "compute/ops/context.h"

namespace fd::ops {

// A weight repacked at load time for the kernels of its device; immutable afterwards, shareable between
// threads. Later schemes (wint8, wint4, fp8) add values to WeightKind and tensors beside `data`.
enum class WeightKind : uint8_t { kBFloat16, kFloat32 };
struct LinearWeight {
  WeightKind kind = WeightKind::kBFloat16;
  int64_t n = 0;  // output features
  int64_t k = 0;  // input features
  Tensor data;    // packed; the layout is the kernels' own (CUDA: row-major [n, k])
  Tensor split;   // CUDA, small float32 weights (routers): the same as three bfloat16 parts [3 * n, k]
  // CUDA, bfloat16 rows off 16 bytes (a patch of 588 pixels): data with rows of PaddedK(k), zeros behind k.
  Tensor padded;
  int64_t size_bytes() const { return data.size_bytes() + split.size_bytes() + padded.size_bytes(); }
};

// bfloat16 elements of a row on 16 bytes: with more than 64 rows of another k, Linear on CUDA takes so many
// for every row from the workspace.
constexpr int64_t PaddedK(int64_t k) { return (k + 7) / 8 * 8; }

// `parts`: [n_i, k] views of one dtype (bfloat16 or float32), stacked on n into one weight; sources lie in
// host memory (a mapped file). transposed: the parts are [k, n_i] instead.
LinearWeight PackLinear(const Context& ctx, const std::vector<TensorView>& parts, bool transposed = false);

// out [m, n] act or float32; in [m, k] act; bias [n] act or empty. A float32 `in` is never rounded to
// bfloat16.
void Linear(const Context& ctx, const TensorView& out, const TensorView& in, const LinearWeight& weight,
            const TensorView& bias = {});

}  // namespace fd::ops
