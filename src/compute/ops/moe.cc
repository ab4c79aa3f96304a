#include "compute/ops/moe.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "compute/kernels/cpu/linear.h"
#include "compute/kernels/cuda/device.h"
#include "compute/kernels/cuda/moe.h"
#include "compute/kernels/cuda/rows.h"
#include "compute/ops/elementwise.h"
#include "compute/ops/linear_cpu.h"
#include "compute/ops/row_ranges.h"

namespace fd::ops {

namespace {

// One token. probs [experts] is scratch; on return ids ascend.
void RouteToken(int32_t* ids, float* weights, const float* logits, const float* bias, float* probs,
                int64_t experts, int64_t top_k, float norm_min, bool round_weights) {
  float largest = logits[0];
  for (int64_t e = 1; e < experts; ++e) largest = std::max(largest, logits[e]);
  float sum = 0.0f;
  for (int64_t e = 0; e < experts; ++e) sum += probs[e] = std::exp(logits[e] - largest);
  for (int64_t e = 0; e < experts; ++e) probs[e] /= sum;
  // ids holds the chosen so far in ascending order. A NaN compares false, so that the ids stay valid whatever
  // the logits.
  for (int64_t j = 0; j < top_k; ++j) {
    int64_t best = -1;
    float best_score = 0.0f;
    for (int64_t e = 0, next = 0; e < experts; ++e) {
      if (next < j && ids[next] == e) {
        ++next;
        continue;
      }
      const float score = probs[e] + (bias != nullptr ? bias[e] : 0.0f);
      if (best < 0 || score > best_score) {
        best = e;
        best_score = score;
      }
    }
    int64_t at = j;
    for (; at > 0 && ids[at - 1] > best; --at) ids[at] = ids[at - 1];
    ids[at] = static_cast<int32_t>(best);
  }
  float chosen = 0.0f;
  for (int64_t j = 0; j < top_k; ++j) chosen += probs[ids[j]];
  chosen = std::max(chosen, norm_min);
  for (int64_t j = 0; j < top_k; ++j) {
    const float w = probs[ids[j]] / chosen;
    weights[j] = round_weights ? ToFloat(ToBFloat16(w)) : w;
  }
}

// The (token, choice) pairs sorted by expert. All arrays live in the workspace.
struct Grouping {
  int32_t* offsets;      // [experts + 1] into the sorted pairs
  int32_t* pair_tokens;  // [pairs]
  int32_t* pair_slots;   // [tokens * top_k]: where choice j of token t went
};

Grouping GroupByExpert(const Context& ctx, const TensorView& ids, int64_t experts) {
  const int64_t pairs = ids.NumElements();
  Grouping g;
  g.offsets = ctx.workspace->Take(DType::kInt32, {experts + 1}).As<int32_t>();
  g.pair_tokens = ctx.workspace->Take(DType::kInt32, {pairs}).As<int32_t>();
  g.pair_slots = ctx.workspace->Take(DType::kInt32, {pairs}).As<int32_t>();
  std::fill(g.offsets, g.offsets + experts + 1, 0);
  const int64_t top_k = ids.dim(1);
  for (int64_t t = 0; t < ids.dim(0); ++t) {
    for (int64_t j = 0; j < top_k; ++j) {
      const int32_t e = ids.As<int32_t>()[t * ids.row_stride + j];
      FD_CHECK(e >= 0 && e < experts, "expert ", e, " of ", experts);
      ++g.offsets[e + 1];
    }
  }
  for (int64_t e = 0; e < experts; ++e) g.offsets[e + 1] += g.offsets[e];
  // Filling moves each offset to its expert's end, which is the next one's beginning; shift them back
  // afterwards.
  for (int64_t t = 0; t < ids.dim(0); ++t) {
    for (int64_t j = 0; j < top_k; ++j) {
      const int32_t slot = g.offsets[ids.As<int32_t>()[t * ids.row_stride + j]]++;
      g.pair_tokens[slot] = static_cast<int32_t>(t);
      g.pair_slots[t * top_k + j] = slot;
    }
  }
  for (int64_t e = experts; e > 0; --e) g.offsets[e] = g.offsets[e - 1];
  g.offsets[0] = 0;
  return g;
}

// out row p = weights[e] * in row rows[p] for each pair p of expert e; rows null: row p itself. One task list
// over all experts.
void GroupedLinear(const Context& ctx, const TensorView& out, const TensorView& in, const int32_t* rows,
                   const std::vector<LinearWeight>& weights, const int32_t* offsets) {
  const int64_t experts = static_cast<int64_t>(weights.size());
  const int64_t mark = ctx.workspace->Mark();
  const LinearCpuTask plan = LinearCpuPlan(weights[0], in.dtype);
  const TensorView source = LinearCpuInput(ctx, plan, in);
  // first_task[e] .. first_task[e + 1]: (row block, panel group) of expert e.
  int32_t* first_task = ctx.workspace->Take(DType::kInt32, {experts + 1}).As<int32_t>();
  const int64_t panels = (weights[0].n + cpu::kPanelFeatures - 1) / cpu::kPanelFeatures;
  const int64_t group = std::max<int64_t>(3, std::min<int64_t>(panels, 12) / 3 * 3);
  const int64_t groups = (panels + group - 1) / group;
  first_task[0] = 0;
  for (int64_t e = 0; e < experts; ++e) {
    const int64_t blocks = (offsets[e + 1] - offsets[e] + cpu::kMaxBlockRows - 1) / cpu::kMaxBlockRows;
    first_task[e + 1] = static_cast<int32_t>(first_task[e] + blocks * groups);
  }
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t e = std::upper_bound(first_task, first_task + experts + 1, task) - first_task - 1;
      const int64_t local = task - first_task[e];
      LinearCpuBlock block;
      block.first_in_row = block.first_out_row = offsets[e] + local / groups * cpu::kMaxBlockRows;
      block.in_rows = rows != nullptr ? rows + block.first_in_row : nullptr;
      block.rows = std::min<int64_t>(cpu::kMaxBlockRows, offsets[e + 1] - block.first_out_row);
      block.first_panel = local % groups * group;
      block.num_panels = std::min(group, panels - block.first_panel);
      RunLinearCpuBlock(plan, weights[e], out, source, {}, block);
    }
  };
  if (out.dim(0) * weights[0].n * weights[0].k < kMinParallelWork) {
    run(0, first_task[experts]);
  } else {
    ctx.threads->ParallelFor(first_task[experts], 1, run);
  }
  ctx.workspace->Release(mark);
}

template <typename T>
float Widen(T v) {
  if constexpr (sizeof(T) == 2) {
    return ToFloat(v);
  } else {
    return v;
  }
}

// out[t] = sum over j of weight_j * value row of choice j, in float32 and ascending j, rounded once.
template <typename T>
void Combine(const Context& ctx, const TensorView& out, const TensorView& values, const int32_t* slots,
             const TensorView& expert_weights) {
  const int64_t hidden = out.dim(1), top_k = expert_weights.dim(1);
  TensorView sums = ctx.workspace->Take(DType::kFloat32, {ctx.threads->num_threads(), hidden});
  const int64_t chunk = (out.dim(0) + ctx.threads->num_threads() - 1) / ctx.threads->num_threads();
  const auto run = [&](int thread) {
    float* sum = sums.As<float>() + thread * hidden;
    const int64_t end = std::min(out.dim(0), (thread + 1) * chunk);
    for (int64_t t = thread * chunk; t < end; ++t) {
      std::fill(sum, sum + hidden, 0.0f);
      for (int64_t j = 0; j < top_k; ++j) {
        const T* value = values.As<T>() + slots[t * top_k + j] * hidden;
        const float w = expert_weights.As<float>()[t * expert_weights.row_stride + j];
        for (int64_t i = 0; i < hidden; ++i) sum[i] += w * Widen(value[i]);
      }
      T* to = out.As<T>() + t * out.row_stride;
      for (int64_t i = 0; i < hidden; ++i) {
        if constexpr (sizeof(T) == 2) {
          to[i] = ToBFloat16(sum[i]);
        } else {
          to[i] = sum[i];
        }
      }
    }
  };
  if (out.dim(0) * top_k * hidden < kMinParallelWork) {
    for (int thread = 0; thread < ctx.threads->num_threads(); ++thread) run(thread);
  } else {
    ctx.threads->Run(run);
  }
}

// Unused where the weight is quantised.
DType WeightDType(const LinearWeight& weight) {
  return weight.kind == WeightKind::kBFloat16 ? DType::kBFloat16 : DType::kFloat32;
}
cuda::ExpertQuant QuantOf(const LinearWeight& weight) {
  if (!IsQuantized(weight.kind)) return {};
  return {weight.kind == WeightKind::kInt8 ? 8 : 4, weight.group_size};
}

void MoeExpertsCuda(const Context& ctx, const TensorView& out, const TensorView& in,
                    const ExpertWeights& experts, const TensorView& expert_ids,
                    const TensorView& expert_weights) {
  FD_CHECK(experts.table.view().data != nullptr, "FinishExperts has not been called");
  cuda::MoeArgs a = {};
  a.tokens = in.dim(0);
  a.top_k = expert_ids.dim(1);
  a.experts = static_cast<int64_t>(experts.down.size());
  a.hidden = in.dim(1);
  a.width = experts.down[0].k;
  a.act = in.dtype;
  a.gate_up_weight = WeightDType(experts.gate_up[0]);
  a.down_weight = WeightDType(experts.down[0]);
  a.gate_up_quant = QuantOf(experts.gate_up[0]);
  a.down_quant = QuantOf(experts.down[0]);
  FD_CHECK_EQ(a.gate_up_quant.bits == 0, a.down_quant.bits == 0, "both products quantised, or neither");
  a.out = out.data;
  a.out_stride = out.row_stride;
  a.in = in.data;
  a.in_stride = in.row_stride;
  a.expert_ids = expert_ids.As<int32_t>();
  a.ids_stride = expert_ids.row_stride;
  a.expert_weights = expert_weights.As<float>();
  a.weights_stride = expert_weights.row_stride;
  a.table = experts.table.view().data;
  const int64_t mark = ctx.workspace->Mark();
  const int64_t pairs = a.tokens * a.top_k;
  a.offsets = ctx.workspace->Take(DType::kInt32, {a.experts + 1}).As<int32_t>();
  a.slots = ctx.workspace->Take(DType::kInt32, {pairs}).As<int32_t>();
  a.rows = ctx.workspace->Take(in.dtype, {pairs, a.hidden}).data;
  a.activated = ctx.workspace->Take(in.dtype, {pairs, a.width}).data;
  if (!cuda::MoeFused(a)) a.gate_up = ctx.workspace->Take(in.dtype, {pairs, 2 * a.width}).data;
  cuda::MoeExperts(a, ctx.stream);
  ctx.workspace->Release(mark);
}

}  // namespace

void RouteSoftmax(const Context& ctx, const TensorView& expert_ids, const TensorView& expert_weights,
                  const TensorView& logits, const TensorView& bias, float norm_min, bool round_weights) {
  const int64_t tokens = logits.dim(0), experts = logits.dim(1), top_k = expert_ids.dim(1);
  FD_CHECK(logits.dtype == DType::kFloat32 && expert_weights.dtype == DType::kFloat32 &&
           expert_ids.dtype == DType::kInt32);
  FD_CHECK(expert_ids.dim(0) == tokens && expert_weights.dim(0) == tokens && expert_weights.dim(1) == top_k);
  FD_CHECK(top_k >= 1 && top_k <= experts, top_k, " of ", experts, " experts");
  const float* bias_data = nullptr;
  if (bias.data != nullptr) {
    FD_CHECK_EQ(bias.NumElements(), experts);
    FD_CHECK(bias.dtype == DType::kFloat32);
    bias_data = bias.As<float>();
  }
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&expert_ids, &expert_weights, &logits, &bias});
    return cuda::RouteSoftmax(expert_ids.As<int32_t>(), expert_ids.row_stride, expert_weights.As<float>(),
                              expert_weights.row_stride, logits.As<float>(), logits.row_stride, bias_data,
                              tokens, experts, top_k, norm_min, round_weights, ctx.stream);
  }
  const int64_t mark = ctx.workspace->Mark();
  float* probs = ctx.workspace->Take(DType::kFloat32, {tokens, experts}).As<float>();
  ctx.threads->ParallelFor(tokens, 64, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      RouteToken(expert_ids.As<int32_t>() + t * expert_ids.row_stride,
                 expert_weights.As<float>() + t * expert_weights.row_stride,
                 logits.As<float>() + t * logits.row_stride, bias_data, probs + t * experts, experts, top_k,
                 norm_min, round_weights);
    }
  });
  ctx.workspace->Release(mark);
}

int64_t ExpertTableBytes(const Context& ctx, int64_t experts) {
  return OnCuda(ctx) ? Arena::PaddedBytes(cuda::ExpertTableBytes(experts)) : 0;
}

void FinishExperts(const Context& ctx, ExpertWeights* experts) {
  if (!OnCuda(ctx)) return;
  FD_CHECK(!experts->down.empty());
  const int64_t count = static_cast<int64_t>(experts->down.size());
  const int64_t bytes = cuda::ExpertTableBytes(count);
  std::vector<cuda::ExpertAddresses> addresses;
  for (int64_t e = 0; e < count; ++e) {
    const LinearWeight& g = experts->gate_up[static_cast<size_t>(e)];
    const LinearWeight& d = experts->down[static_cast<size_t>(e)];
    FD_CHECK(g.data.view().device == ctx.device && d.data.view().device == ctx.device);
    addresses.push_back({g.data.view().data, d.data.view().data, g.scales.view().data, d.scales.view().data});
  }
  const Tensor host(DType::kUInt8, Device{}, {bytes});
  const cuda::ExpertTableShape shape = {count, experts->down[0].n, experts->down[0].k,
                                        WeightDType(experts->gate_up[0]) == WeightDType(experts->down[0])
                                            ? WeightDType(experts->down[0])
                                            : DType::kFloat32,
                                        IsQuantized(experts->down[0].kind)};
  cuda::FillExpertTable(host.view().data, shape, addresses.data());
  experts->table = NewTensor(ctx, DType::kUInt8, {bytes});
  cuda::CopyAsync(experts->table.view().data, host.view().data, bytes, ctx.stream);
}

void MoeExperts(const Context& ctx, const TensorView& out, const TensorView& in, const ExpertWeights& experts,
                const TensorView& expert_ids, const TensorView& expert_weights) {
  const int64_t tokens = in.dim(0), hidden = in.dim(1), top_k = expert_ids.dim(1);
  FD_CHECK(!experts.gate_up.empty() && experts.gate_up.size() == experts.down.size());
  FD_CHECK(out.dim(0) == tokens && out.dim(1) == hidden && out.dtype == in.dtype);
  FD_CHECK(expert_ids.dim(0) == tokens && expert_weights.dim(0) == tokens && expert_weights.dim(1) == top_k);
  FD_CHECK(expert_ids.dtype == DType::kInt32 && expert_weights.dtype == DType::kFloat32);
  const int64_t width = experts.down[0].k;
  for (size_t e = 0; e < experts.down.size(); ++e) {
    FD_CHECK(experts.gate_up[e].k == hidden && experts.gate_up[e].n == 2 * width &&
                 experts.down[e].k == width && experts.down[e].n == hidden &&
                 experts.gate_up[e].kind == experts.gate_up[0].kind &&
                 experts.gate_up[e].group_size == experts.gate_up[0].group_size &&
                 experts.down[e].kind == experts.down[0].kind &&
                 experts.down[e].group_size == experts.down[0].group_size,
             "expert ", e, " differs from the first");
  }
  if (tokens == 0) return;
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&out, &in, &expert_ids, &expert_weights, &experts.table.view()});
    return MoeExpertsCuda(ctx, out, in, experts, expert_ids, expert_weights);
  }
  const int64_t mark = ctx.workspace->Mark();
  const int64_t pairs = tokens * top_k;
  const Grouping g = GroupByExpert(ctx, expert_ids, static_cast<int64_t>(experts.down.size()));
  const TensorView values = ctx.workspace->Take(in.dtype, {pairs, hidden});
  const TensorView gate_up = ctx.workspace->Take(in.dtype, {pairs, 2 * width});
  const TensorView activated = ctx.workspace->Take(in.dtype, {pairs, width});
  GroupedLinear(ctx, gate_up, in, g.pair_tokens, experts.gate_up, g.offsets);
  SwiGlu(ctx, activated, gate_up);
  GroupedLinear(ctx, values, activated, nullptr, experts.down, g.offsets);
  if (in.dtype == DType::kBFloat16) {
    Combine<BFloat16>(ctx, out, values, g.pair_slots, expert_weights);
  } else {
    Combine<float>(ctx, out, values, g.pair_slots, expert_weights);
  }
  ctx.workspace->Release(mark);
}

}  // namespace fd::ops
