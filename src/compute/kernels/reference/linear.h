// Answers of ops/linear and ops/moe: double precision sums over host tensors.
#pragma once

#include <vector>

#include "compute/tensor/tensor.h"

namespace fd::reference {

// out[i][j] = sum over p of in[i][p] * weight[j][p] (+ bias[j]). out float32; in, weight, bias float32 or
// bfloat16; bias may be empty.
void Linear(const TensorView& out, const TensorView& in, const TensorView& weight, const TensorView& bias);

// See ops::RouteSoftmax; the same operands.
void RouteSoftmax(const TensorView& expert_ids, const TensorView& expert_weights, const TensorView& logits,
                  const TensorView& bias, float norm_min, bool round_weights);

// See ops::MoeExperts. out float32 [tokens, hidden]; gate_up[e] [2 * width, hidden], down[e] [hidden, width].
// act: the type that intermediate results are rounded to.
void MoeExperts(const TensorView& out, const TensorView& in, const std::vector<Tensor>& gate_up,
                const std::vector<Tensor>& down, const TensorView& expert_ids,
                const TensorView& expert_weights, DType act);

}  // namespace fd::reference
