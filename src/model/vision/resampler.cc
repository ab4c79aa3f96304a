#include "model/vision/resampler.h"

#include <algorithm>

#include "compute/ops/elementwise.h"
#include "compute/ops/norm.h"
#include "compute/ops/rows.h"
#include "model/layers/scratch.h"

namespace fd {
namespace {

MergeWeights LoadMerge(WeightLoader& loader, const std::string& prefix, int64_t in_features,
                       int64_t out_features) {
  // Published names count the layers of a torch Sequential; transformers calls them fc1, fc2, ln.
  const bool numbered = !loader.Has(prefix + "fc1.weight");
  MergeWeights w;
  w.fc1 = LoadBiasedLinear(loader, prefix + (numbered ? "0" : "fc1"), out_features, in_features);
  w.fc2 = LoadBiasedLinear(loader, prefix + (numbered ? "2" : "fc2"), out_features, out_features);
  w.norm = LoadNorm(loader, prefix + (numbered ? "3" : "ln"), out_features);
  return w;
}

void Merge(const ops::Context& ctx, const TensorView& out, const TensorView& in, const MergeWeights& weights,
           float eps) {
  Scratch scratch(ctx);
  TensorView wide = scratch.Take(in.dtype, out.shape);
  ops::Linear(ctx, wide, in, weights.fc1.weight, weights.fc1.bias);
  ops::Gelu(ctx, wide, wide);
  ops::Linear(ctx, out, wide, weights.fc2.weight, weights.fc2.bias);
  ops::LayerNorm(ctx, out, out, weights.norm.weight, weights.norm.bias, eps);
}

// For output token n the rows of `merged` that it joins: pairs[2 n] and pairs[2 n + 1].
void TimePairs(const std::vector<EncodeBatch::Grid>& grids, std::vector<int32_t>& pairs) {
  pairs.clear();
  int32_t first = 0;
  for (const EncodeBatch::Grid& g : grids) {
    const int32_t frame = static_cast<int32_t>(g.h * g.w / 4);
    for (int64_t t = 0; t < g.t; t += 2) {
      const int32_t second = g.t == 1 ? 0 : frame;
      for (int32_t i = 0; i < frame; ++i) {
        pairs.push_back(first + i);
        pairs.push_back(first + i + second);
      }
      first += frame + second;
    }
  }
}

}  // namespace

ResamplerWeights LoadResampler(WeightLoader& loader, const ModelConfig& config) {
  const std::string prefix = "model.resampler_model.";
  const int64_t merged = 4 * config.vision->hidden_size;
  ResamplerWeights w;
  w.spatial = LoadMerge(loader, prefix + "spatial_linear.", merged, merged);
  w.temporal = LoadMerge(loader, prefix + "temporal_linear.", 2 * merged, merged);
  w.out = LoadBiasedLinear(loader, prefix + "mlp", config.hidden_size, merged);
  w.after_norm = loader.Vector(prefix + "after_norm.weight", config.hidden_size);
  return w;
}

void MergeSpace(const ops::Context& ctx, const TensorView& merged, const TensorView& patches,
                const ResamplerWeights& weights, const VisionConfig& config) {
  Merge(ctx, merged, patches.Reshape({patches.dim(0) / 4, 4 * patches.dim(1)}), weights.spatial,
        config.layer_norm_eps);
}

void MergeTime(const ops::Context& ctx, const TensorView& out, const TensorView& merged,
               const std::vector<EncodeBatch::Grid>& grids, const ResamplerWeights& weights,
               const ModelConfig& config, std::vector<int32_t>& host) {
  TimePairs(grids, host);
  FD_CHECK_EQ(static_cast<int64_t>(host.size()), 2 * out.dim(0), "encoder outputs against grids");
  const int64_t width = merged.dim(1);
  Scratch scratch(ctx);
  TensorView pairs = scratch.Take(DType::kInt32, {1, static_cast<int64_t>(host.size())});
  ops::Copy(ctx, pairs, TensorView(host.data(), DType::kInt32, Device{}, pairs.shape));
  const int64_t time_tokens = VisionPiecesOn(ctx.device.type).time_tokens;
  for (int64_t t = 0; t < out.dim(0); t += time_tokens) {
    const int64_t tokens = std::min(time_tokens, out.dim(0) - t);
    Scratch piece(ctx);
    TensorView joined = piece.Take(out.dtype, {2 * tokens, width});
    TensorView mixed = piece.Take(out.dtype, {tokens, width});
    ops::GatherRows(ctx, joined, merged, pairs.Columns(2 * t, 2 * tokens).Reshape({2 * tokens}));
    Merge(ctx, mixed, joined.Reshape({tokens, 2 * width}), weights.temporal, config.vision->layer_norm_eps);
    TensorView rows = out.Rows(t, tokens);
    ops::Linear(ctx, rows, mixed, weights.out.weight, weights.out.bias);
    ops::RmsNorm(ctx, rows, rows, weights.after_norm, config.rms_norm_eps);
  }
}

int64_t MergeSpaceScratchBytes(const VisionConfig& config, DType act, int64_t rows) {
  return ScratchBytes(act, rows * config.hidden_size);
}

int64_t MergeTimeScratchBytes(const VisionConfig& config, DType act, int64_t tokens, DeviceType device) {
  const int64_t piece = std::min(tokens, VisionPiecesOn(device).time_tokens), width = 4 * config.hidden_size;
  return ScratchBytes(DType::kInt32, 2 * tokens) + ScratchBytes(act, 2 * piece * width) +
         2 * ScratchBytes(act, piece * width);
}

}  // namespace fd
