// How ops/linear and ops/moe cut their work into kernel calls on the CPU.
#pragma once

#include <algorithm>

#include "compute/kernels/cpu/linear.h"
#include "compute/kernels/cpu/linear_quant.h"
#include "compute/ops/linear.h"

namespace fd::ops {

// Below so many multiply-adds waking another thread costs more than it saves.
inline constexpr int64_t kMinParallelWork = 1 << 16;

inline bool IsQuantized(WeightKind kind) { return kind == WeightKind::kInt8 || kind == WeightKind::kInt4; }

struct LinearCpuTask {
  // What the kernel wants of bfloat16 rows.
  enum class Input { kAsIs, kFloat32, kInt8 };
  void (*run)(const cpu::LinearBlock& block) = nullptr;
  void (*run_quantized)(const cpu::QuantBlock& block) = nullptr;  // exactly one of the two
  Input input = Input::kAsIs;
  int64_t group_size = 0;  // kInt8: the weight's
};
// The kernel for this weight and input type on this machine.
LinearCpuTask LinearCpuPlan(const LinearWeight& weight, DType in);
// The rows as the kernel wants them: `in`, or a copy in the workspace.
TensorView LinearCpuInput(const Context& ctx, const LinearCpuTask& plan, const TensorView& in);

// One call of the kernel: `rows` rows (at most cpu::kMaxBlockRows) times `num_panels` panels. Row r of the
// block comes from in's row in_rows[r], or first_in_row + r without a list, and goes to out's row
// first_out_row + r.
struct LinearCpuBlock {
  int64_t rows = 0;
  const int32_t* in_rows = nullptr;
  int64_t first_in_row = 0;
  int64_t first_out_row = 0;
  int64_t first_panel = 0;
  int64_t num_panels = 0;
};
void RunLinearCpuBlock(const LinearCpuTask& plan, const LinearWeight& weight, const TensorView& out,
                       const TensorView& in, const TensorView& bias, const LinearCpuBlock& block);

inline int64_t WeightBits(WeightKind kind) {
  switch (kind) {
    case WeightKind::kFloat32:
      return 32;
    case WeightKind::kBFloat16:
      return 16;
    case WeightKind::kInt8:
      return 8;
    case WeightKind::kInt4:
      return 4;
  }
  return 16;
}

// Panels in one task: about 128 KiB of weights for a few rows, so that a thread streams; less when there
// would not be four tasks a thread. A multiple of 3, the kernels' tile, unless the weight is smaller.
inline int64_t LinearCpuGroup(const LinearWeight& weight, int64_t rows, int num_threads) {
  const int64_t panels = (weight.n + cpu::kPanelFeatures - 1) / cpu::kPanelFeatures;
  const int64_t panel_bits = weight.k * cpu::kPanelFeatures * WeightBits(weight.kind);
  const int64_t panel_bytes = std::max<int64_t>(1, panel_bits / 8);
  const int64_t wanted = rows <= 8 ? (int64_t{128} << 10) / panel_bytes : 3;
  const int64_t balanced = panels / (4 * num_threads);
  return std::max<int64_t>(3, std::min(wanted, balanced) / 3 * 3);
}

}  // namespace fd::ops
