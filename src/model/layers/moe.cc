#include "model/layers/moe.h"

#include <algorithm>

#include "base/strings.h"
#include "compute/ops/elementwise.h"
#include "compute/ops/rows.h"
#include "compute/ops/stream.h"
#include "model/layers/scratch.h"

namespace fd {
namespace {

constexpr int64_t kMaxThreads = 256;
constexpr int64_t kAlignmentSlackBytes = 4096;

ops::ExpertWeights LoadExperts(WeightLoader& loader, const std::string& prefix, int64_t first, int64_t count,
                               int64_t hidden, int64_t width, LinearRole role) {
  ops::ExpertWeights w;
  std::vector<std::string> gates, downs;
  for (int64_t e = first; e < first + count; ++e) {
    MlpWeights mlp = LoadMlp(loader, StrCat(prefix, "experts.", e, "."), hidden, width, role);
    w.gate_up.push_back(std::move(mlp.gate_up));
    w.down.push_back(std::move(mlp.down));
    gates.push_back(StrCat(prefix, "experts.", e, ".gate_proj.weight"));
    downs.push_back(StrCat(prefix, "experts.", e, ".down_proj.weight"));
  }
  loader.RequireSameType(gates);
  loader.RequireSameType(downs);
  loader.RequireSameScheme(gates, role);
  loader.RequireSameScheme(downs, role);
  loader.Experts(&w, count);
  return w;
}

// Routes and computes all rows of `in` with one set.
void RunSet(const ops::Context& ctx, const TensorView& out, const TensorView& in, const ExpertSet& set) {
  const int64_t rows = in.dim(0);
  Scratch scratch(ctx);
  TensorView logits = scratch.Take(DType::kFloat32, {rows, set.router.n});
  TensorView ids = scratch.Take(DType::kInt32, {rows, set.top_k});
  TensorView weights = scratch.Take(DType::kFloat32, {rows, set.top_k});
  ops::Linear(ctx, logits, in, set.router);
  ops::RouteSoftmax(ctx, ids, weights, logits, set.selection_bias, set.norm_min,
                    in.dtype == DType::kBFloat16);
  ops::MoeExperts(ctx, out, in, set.experts, ids, weights);
}

// Few rows leave most of the chip idle while they are routed and grouped; the shared experts' weights can be
// read meanwhile.
constexpr int64_t kMaxRowsBeside = 256;

void RunSetOnRows(const ops::Context& ctx, const TensorView& out, const TensorView& in, const ExpertSet& set,
                  const TensorView& rows) {
  if (rows.empty()) return;
  Scratch scratch(ctx);
  TensorView set_in = scratch.Take(in.dtype, {rows.dim(0), in.dim(1)});
  TensorView set_out = scratch.Take(in.dtype, {rows.dim(0), in.dim(1)});
  ops::GatherRows(ctx, set_in, in, rows);
  RunSet(ctx, set_out, set_in, set);
  ops::ScatterRows(ctx, out, set_out, rows);
}

void RunRouted(const ops::Context& ctx, const TensorView& out, const TensorView& in,
               const MoeWeights& weights, const ExpertRows& rows) {
  if (rows.vision.empty()) {
    RunSet(ctx, out, in, weights.text);
  } else {
    FD_CHECK(weights.vision.has_value(), "vision rows for a model without vision experts");
    RunSetOnRows(ctx, out, in, weights.text, rows.text);
    RunSetOnRows(ctx, out, in, *weights.vision, rows.vision);
  }
}

}  // namespace

MoeWeights LoadMoe(WeightLoader& loader, const std::string& prefix, const ModelConfig& config) {
  const MoeConfig& moe = *config.moe;
  const bool two_sets = moe.vision_intermediate_size > 0;
  const int64_t hidden = config.hidden_size;
  MoeWeights w;
  w.selection_bias =
      loader.Float32(prefix + "moe_statics.e_score_correction_bias", two_sets ? 2 : 1, moe.num_experts);
  auto set = [&](const char* router, int64_t index, int64_t width) {
    ExpertSet s;
    // Vision-language checkpoints store routers transposed, and so do Paddle's; other text ones do not.
    s.router = loader.Linear(
        {{prefix + router, moe.num_experts}}, hidden,
        {.transposed = two_sets || prefix.starts_with("ernie."), .random_type = DType::kFloat32});
    s.experts = LoadExperts(loader, prefix, index * moe.num_experts, moe.num_experts, hidden, width,
                            index == 0 ? LinearRole::kExpert : LinearRole::kVisionExpert);
    s.top_k = moe.top_k;
    s.norm_min = moe.norm_min;
    if (!w.selection_bias.view().empty()) {
      s.selection_bias = w.selection_bias.view().Rows(index, 1).Reshape({moe.num_experts});
    }
    return s;
  };
  w.text = set("gate.weight", 0, moe.intermediate_size);
  if (two_sets) w.vision = set("gate.weight_1", 1, moe.vision_intermediate_size);
  if (moe.num_shared_experts > 0) {
    w.shared =
        LoadMlp(loader, prefix + "shared_experts.", hidden, moe.num_shared_experts * moe.intermediate_size);
  }
  return w;
}

void Moe(const ops::Context& ctx, const TensorView& out, const TensorView& in, const MoeWeights& weights,
         const ExpertRows& rows) {
  if (!weights.shared) return RunRouted(ctx, out, in, weights, rows);
  const bool beside = ctx.side != nullptr && in.dim(0) <= kMaxRowsBeside;
  if (!beside) RunRouted(ctx, out, in, weights, rows);
  Scratch scratch(ctx);
  TensorView shared = scratch.Take(in.dtype, in.shape);
  if (beside) {
    const int64_t bytes = MlpScratchBytes(ctx, in.dtype, in.dim(0), weights.shared->down.k);
    Workspace own(scratch.Take(DType::kUInt8, {bytes}));
    ctx.side->Fork(ctx);
    ops::Context line = ctx.side->context(ctx);
    line.workspace = &own;
    Mlp(line, shared, in, *weights.shared);
    RunRouted(ctx, out, in, weights, rows);
    ctx.side->Join(ctx);
  } else {
    Mlp(ctx, shared, in, *weights.shared);
  }
  ops::Add(ctx, out, out, shared);
}

int64_t MoeScratchBytes(const ops::Context& ctx, const ModelConfig& config, DType act, int64_t rows) {
  const MoeConfig& moe = *config.moe;
  int64_t routed = ScratchBytes(DType::kFloat32, rows * moe.num_experts) +
                   2 * ScratchBytes(DType::kInt32, rows * moe.top_k);
  if (config.vision) routed += 2 * ScratchBytes(act, rows * config.hidden_size);
  // What ops::MoeExperts takes: the (row, expert) pairs sorted, their results, and widened copies of its
  // inputs.
  const int64_t pairs = rows * moe.top_k;
  const int64_t width = std::max(moe.intermediate_size, moe.vision_intermediate_size);
  routed += ScratchBytes(act, pairs * config.hidden_size) + ScratchBytes(act, pairs * 3 * width) +
            ScratchBytes(DType::kInt32, 2 * pairs + 4 * moe.num_experts) +
            ScratchBytes(DType::kFloat32, std::max(rows * config.hidden_size, pairs * width)) +
            ScratchBytes(DType::kFloat32, kMaxThreads * config.hidden_size) + kAlignmentSlackBytes;
  int64_t shared = 0;
  if (moe.num_shared_experts > 0) {
    shared = ScratchBytes(act, rows * config.hidden_size) +
             MlpScratchBytes(ctx, act, rows, moe.num_shared_experts * moe.intermediate_size);
  }
  // On CUDA they may run beside each other.
  return ctx.device.type == DeviceType::kCuda ? routed + shared : std::max(routed, shared);
}

}  // namespace fd
