// y = x W^T (+ b): float32 accumulation over k in ascending order, one rounding to the type of `out`.
// On the CPU a row's result does not depend on the other rows or on how many there are (batch invariance); on
// CUDA that holds up to 16 rows of bfloat16 and, with quantised weights, among all numbers of rows beyond;
// else its last bits may change with the number of rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "compute/ops/context.h"

namespace fd::ops {

// Weight-only quantisation: symmetric, one bfloat16 scale for each feature and group of k.
//   scale = bfloat16(absmax / L), q = round-half-away(float32(w / absmax) * L); L = 127 for 8 bits, 7 for 4
// as FastDeploy quantises (the GPU kernel of Paddle's weight_quantize). q does not know that the scale was
// rounded: near absmax a weight is off by up to L / 512 of a step more than half of one. Where the scale is 0
// so is q.
struct QuantScheme {
  int bits = 0;            // 8, 4, or 0: as stored
  int64_t group_size = 0;  // a multiple of 32; the last group may be shorter; 0: the whole row
  bool operator==(const QuantScheme&) const = default;
};
// Input features of a quantised weight: beyond them its int32 sums could overflow.
constexpr int64_t kMaxQuantizedFeatures = 131072;

// A weight repacked at load time for the kernels of its device; immutable afterwards, shareable between
// threads.
enum class WeightKind : uint8_t { kBFloat16, kFloat32, kInt8, kInt4 };
struct LinearWeight {
  WeightKind kind = WeightKind::kBFloat16;
  int64_t n = 0;  // output features
  int64_t k = 0;  // input features
  // Packed; the layout is the kernels' own. CUDA: row-major [n, k], quantised weights as on the CPU.
  Tensor data;
  Tensor split;   // CUDA, small float32 weights (routers): the same as three bfloat16 parts [3 * n, k]
  Tensor scales;  // kInt8, kInt4: bfloat16 [panels, groups * 16]
  int64_t group_size = 0;  // kInt8, kInt4: of k under one scale; 0: all
  // CUDA, bfloat16 rows off 16 bytes (a patch of 588 pixels): data with rows of PaddedK(k), zeros behind k.
  Tensor padded;
};

// bfloat16 elements of a row on 16 bytes: with more than 64 rows of another k, Linear on CUDA takes so many
// for every row from the workspace.
constexpr int64_t PaddedK(int64_t k) { return (k + 7) / 8 * 8; }

// What a weight of this shape and stored type takes on ctx's device.
int64_t LinearWeightBytes(const Context& ctx, DType dtype, int64_t n, int64_t k,
                          const QuantScheme& scheme = {});

// The weight whose rows are those of `table` [n, k], bfloat16 or float32 on ctx's device: on CUDA it shares
// the table's memory, on the CPU it is packed from it.
LinearWeight LinearOfTable(const Context& ctx, const Tensor& table);
// What that takes beside the table.
int64_t LinearOfTableBytes(const Context& ctx, DType dtype, int64_t n, int64_t k);

// Called when part i has been read: pages of a mapped file that hold it may go.
using PartDone = std::function<void(size_t part)>;
// `parts`: [n_i, k] views of one dtype (bfloat16 or float32), stacked on n into one weight; sources lie in
// host memory (a mapped file) and are read one after another. transposed: the parts are [k, n_i] instead.
LinearWeight PackLinear(const Context& ctx, const std::vector<TensorView>& parts, bool transposed = false,
                        const PartDone& done = {});
// The same, quantised part by part on the host; scheme.bits is not 0. A part that is not finite makes its
// features NaN.
LinearWeight QuantizeLinear(const Context& ctx, const std::vector<TensorView>& parts, bool transposed,
                            const QuantScheme& scheme, const PartDone& done = {});
// The tensors of a quantised weight [n, k]: uint8 panels and bfloat16 scales (kernels/cpu/linear_quant.h).
// Bits and groups can be told from them: [panels, octets of k, 16 * bits] and [panels, groups, 16].
Shape QuantPanelsShape(int64_t n, int64_t k, const QuantScheme& scheme);
Shape QuantScalesShape(int64_t n, int64_t k, const QuantScheme& scheme);
// The tensor that PackLinear makes of a weight [n, k] on the CPU (kernels/cpu/linear.h): [panels, pairs of k,
// 32] of bfloat16 or [panels, k, 16] of float32.
Shape PanelsShape(DType dtype, int64_t n, int64_t k);
// The weight that PackLinear once made, from its panels in host memory. On the CPU it shares their memory,
// which is 64-byte aligned; on CUDA rows are made of them, some at a time, and uploaded.
LinearWeight LinearOfPanels(const Context& ctx, const Tensor& panels, int64_t n, int64_t k);
// Features first .. first + rows as plain rows [rows, k], on the host.
Tensor RowsOfPanels(const Context& ctx, const Tensor& panels, int64_t k, int64_t first, int64_t rows);
// The weight whose data and scales are these, in those shapes and in host memory: what QuantizeLinear made
// once. On the CPU it shares their memory, which is 64-byte aligned; on CUDA they are uploaded.
LinearWeight LinearOfPanels(const Context& ctx, const Tensor& panels, const Tensor& scales, int64_t n,
                            int64_t k, const QuantScheme& scheme);
// parts[i].rows features uniform in [-scale, scale] by ops::FillRandom(parts[i].key), made on the device; the
// same values on every one. With a scheme they are quantised as QuantizeLinear does.
struct RandomRows {
  int64_t rows;
  uint64_t key;
};
LinearWeight RandomLinear(const Context& ctx, DType dtype, const std::vector<RandomRows>& parts, int64_t k,
                          float scale, const QuantScheme& scheme = {});

// Numbers of rows up to `most` for which ctx's device chooses and loads kernels at first use; others share
// the next one's. Ascending; empty on the CPU.
std::vector<int64_t> LinearRowClasses(const Context& ctx, int64_t most);

// out [m, n] act or float32; in [m, k] act; bias [n] act or empty. A float32 `in` is never rounded to
// bfloat16. On the CPU a quantised weight takes bfloat16 rows rounded to int8, one scale a row
// (kernels/cpu/linear_quant.h); float32 rows, and bfloat16 rows on CUDA, are taken as they are.
void Linear(const Context& ctx, const TensorView& out, const TensorView& in, const LinearWeight& weight,
            const TensorView& bias = {});
// out [m, n / 2] = SwiGlu of gate_up's product with in [m, k], to the bit what Linear and SwiGlu give; one
// kernel where there is one. out may not be in.
void LinearSwiGlu(const Context& ctx, const TensorView& out, const TensorView& in,
                  const LinearWeight& gate_up);

}  // namespace fd::ops
