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

// How the panels of one block of rows are cut into tasks, handed out in order. While rows are few, memory
// decides: every thread first streams one long stretch, then the rest goes out in small pieces that even out
// what the threads' speeds differ by. Every piece but the last is a multiple of 3 panels, the kernels' tile.
struct PanelCut {
  int64_t panels = 0;
  int64_t long_tasks = 0;
  int64_t long_panels = 0;
  int64_t short_panels = 3;

  int64_t tasks() const {
    return long_tasks + (panels - long_tasks * long_panels + short_panels - 1) / short_panels;
  }
  int64_t first(int64_t task) const {
    return task < long_tasks ? task * long_panels
                             : long_tasks * long_panels + (task - long_tasks) * short_panels;
  }
  int64_t count(int64_t task) const {
    return task < long_tasks ? long_panels : std::min(short_panels, panels - first(task));
  }
};
inline constexpr int64_t kMaxStreamedRows = 64;
inline PanelCut CutPanels(int64_t n, int64_t rows, int num_threads) {
  PanelCut cut;
  cut.panels = (n + cpu::kPanelFeatures - 1) / cpu::kPanelFeatures;
  if (rows > kMaxStreamedRows || num_threads == 1) {
    if (num_threads == 1) cut.short_panels = std::max<int64_t>(3, cut.panels);
    return cut;
  }
  cut.long_tasks = num_threads;
  cut.long_panels = cut.panels * 3 / (4 * num_threads) / 3 * 3;
  cut.short_panels = std::max<int64_t>(3, cut.panels / (16 * num_threads) / 3 * 3);
  return cut;
}

}  // namespace fd::ops
