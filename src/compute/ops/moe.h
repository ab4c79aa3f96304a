// Mixture of experts: routing and the chosen experts' MLPs.
#pragma once

#include <vector>

#include "compute/ops/linear.h"

namespace fd::ops {

// Softmax routing with a selection bias (reference/ernie45-architecture 3.1): p = softmax(logits); the top_k
// largest p + bias are chosen (ties: the lower index); weights = p / max(sum of the chosen p, norm_min),
// rounded to bfloat16 when round_weights. expert_ids int32 [tokens, top_k] in ascending expert order;
// expert_weights float32 [tokens, top_k]; logits float32 [tokens, experts]; bias float32 [experts] or empty.
void RouteSoftmax(const Context& ctx, const TensorView& expert_ids, const TensorView& expert_weights,
                  const TensorView& logits, const TensorView& bias, float norm_min, bool round_weights);

struct ExpertWeights {
  std::vector<LinearWeight> gate_up;  // per expert [2 * width, hidden], gate rows first
  std::vector<LinearWeight> down;     // per expert [hidden, width]
  Tensor table;  // CUDA: where the kernels find the above (kernels/cuda/moe.h), made by FinishExperts
};
// What FinishExperts allocates for so many experts.
int64_t ExpertTableBytes(const Context& ctx, int64_t experts);
// Once gate_up and down are filled, which stay where they are from then on. Does nothing on the CPU.
void FinishExperts(const Context& ctx, ExpertWeights* experts);

// out[r] = sum over the chosen e of weight_e * down_e(silu(gate_e x) * up_e x) for the rows r of `in`: reads
// only the chosen experts' weights. Each expert's result is rounded to the activation type, weighted and
// summed in float32 in ascending expert order, rounded once. out, in [tokens, hidden] act; expert_ids int32
// and expert_weights float32 [tokens, top_k].
void MoeExperts(const Context& ctx, const TensorView& out, const TensorView& in, const ExpertWeights& experts,
                const TensorView& expert_ids, const TensorView& expert_weights);

}  // namespace fd::ops
