#include "model/vision/vit.h"

#include <algorithm>
#include <cmath>

#include "base/strings.h"
#include "compute/ops/attention.h"
#include "compute/ops/elementwise.h"
#include "compute/ops/norm.h"
#include "compute/ops/rope.h"
#include "compute/ops/rows.h"
#include "model/layers/scratch.h"

namespace fd {
namespace {

// y and x of every patch: block row, block column, row in the block, column in the block; frame after frame.
void PatchPositions(const std::vector<VitFrame>& frames, int32_t* y, int32_t* x) {
  for (const VitFrame& f : frames) {
    for (int64_t by = 0; by < f.h; by += 2) {
      for (int64_t bx = 0; bx < f.w; bx += 2) {
        for (int64_t i = 0; i < 4; ++i) {
          *y++ = static_cast<int32_t>(by + i / 2);
          *x++ = static_cast<int32_t>(bx + i % 2);
        }
      }
    }
  }
}

void VitMlp(const ops::Context& ctx, const TensorView& out, const TensorView& in, const VitBlock& block) {
  const int64_t piece = VisionPiecesOn(ctx.device.type).mlp_rows;
  for (int64_t r = 0; r < in.dim(0); r += piece) {
    const int64_t rows = std::min(piece, in.dim(0) - r);
    Scratch scratch(ctx);
    TensorView wide = scratch.Take(in.dtype, {rows, block.fc1.weight.n});
    ops::Linear(ctx, wide, in.Rows(r, rows), block.fc1.weight, block.fc1.bias);
    ops::QuickGelu(ctx, wide, wide);
    ops::Linear(ctx, out.Rows(r, rows), wide, block.fc2.weight, block.fc2.bias);
  }
}

}  // namespace

VisionPieces VisionPiecesOn(DeviceType device) {
  if (device == DeviceType::kCuda) return {49152, 49152, 8192};
  return {8192, 2048, 1024};
}

Norm LoadNorm(WeightLoader& loader, const std::string& name, int64_t n) {
  Norm norm;
  norm.weight = loader.Vector(name + ".weight", n);
  norm.bias = loader.Vector(name + ".bias", n);
  return norm;
}

BiasedLinear LoadBiasedLinear(WeightLoader& loader, const std::string& name, int64_t out_features,
                              int64_t in_features) {
  BiasedLinear linear;
  linear.weight = loader.Linear({{name + ".weight", out_features}}, in_features);
  linear.bias = loader.Vector(name + ".bias", out_features);
  return linear;
}

VitWeights LoadVit(WeightLoader& loader, const VisionConfig& config) {
  const int64_t hidden = config.hidden_size, wide = config.intermediate_size;
  // As published, as transformers 5 saves, as transformers 5 names it in memory.
  const std::string prefix =
      loader.Prefix({"vision_model.", "model.vision_model.", "model.vision_tower."}, "ln.weight");
  VitWeights w;
  w.patch_embed = loader.Linear({{prefix + "patch_embed.proj.weight", hidden}},
                                config.in_channels * config.patch_size * config.patch_size);
  for (int64_t b = 0; b < config.depth; ++b) {
    const std::string p = StrCat(prefix, "blocks.", b, ".");
    VitBlock block;
    block.norm1 = LoadNorm(loader, p + "norm1", hidden);
    block.qkv = LoadBiasedLinear(loader, p + "attn.qkv", 3 * hidden, hidden);
    block.proj = LoadBiasedLinear(loader, p + "attn.proj", hidden, hidden);
    block.norm2 = LoadNorm(loader, p + "norm2", hidden);
    block.fc1 = LoadBiasedLinear(loader, p + "mlp.fc1", wide, hidden);
    block.fc2 = LoadBiasedLinear(loader, p + "mlp.fc2", hidden, wide);
    w.blocks.push_back(std::move(block));
  }
  w.final_norm = LoadNorm(loader, prefix + "ln", hidden);
  return w;
}

void Vit(const ops::Context& ctx, const TensorView& out, const TensorView& patch_rows,
         const std::vector<VitFrame>& frames, const VitWeights& weights, const VisionConfig& config,
         const RopeTable& rope, std::vector<int32_t>& host) {
  const int64_t rows = patch_rows.dim(0), hidden = config.hidden_size;
  const int64_t heads = config.num_heads, d = hidden / heads;
  const int64_t num_frames = static_cast<int64_t>(frames.size());
  const DType act = out.dtype;
  Scratch scratch(ctx);

  // Positions [2, rows] and the border of each frame.
  host.resize(static_cast<size_t>(2 * rows + num_frames + 1));
  PatchPositions(frames, host.data(), host.data() + rows);
  int32_t* borders = host.data() + 2 * rows;
  borders[0] = 0;
  int64_t longest = 0;
  for (int64_t f = 0; f < num_frames; ++f) {
    const int64_t patches = frames[static_cast<size_t>(f)].h * frames[static_cast<size_t>(f)].w;
    borders[f + 1] = borders[f] + static_cast<int32_t>(patches);
    longest = std::max(longest, patches);
  }
  FD_CHECK_EQ(static_cast<int64_t>(borders[num_frames]), rows, "patch rows against grids");
  TensorView uploaded = scratch.Take(DType::kInt32, {1, 2 * rows + num_frames + 1});
  ops::Copy(ctx, uploaded, TensorView(host.data(), DType::kInt32, Device{}, uploaded.shape));
  TensorView positions = uploaded.Columns(0, 2 * rows).Reshape({2, rows});
  TensorView segments = uploaded.Columns(2 * rows, num_frames + 1).Reshape({num_frames + 1});
  TensorView cos_sin = scratch.Take(DType::kFloat32, {rows, 2, d / 2});
  ops::RopeCosSin(ctx, cos_sin, positions, rope.inv_freq, rope.axis);

  TensorView x = scratch.Take(act, {rows, hidden});
  {
    Scratch pixels_scratch(ctx);
    TensorView pixels = pixels_scratch.Take(act, patch_rows.shape);
    ops::NormalizePixels(ctx, pixels, patch_rows, config.image_mean.data(), config.image_std.data());
    ops::Linear(ctx, x, pixels, weights.patch_embed);
  }
  TensorView h = scratch.Take(act, {rows, hidden});
  for (const VitBlock& block : weights.blocks) {
    ops::LayerNorm(ctx, h, x, block.norm1.weight, block.norm1.bias, config.layer_norm_eps);
    {
      Scratch attention(ctx);
      TensorView qkv = attention.Take(act, {rows, 3 * hidden});
      ops::Linear(ctx, qkv, h, block.qkv.weight, block.qkv.bias);
      TensorView q = qkv.Columns(0, hidden).Reshape({rows, heads, d});
      TensorView k = qkv.Columns(hidden, hidden).Reshape({rows, heads, d});
      TensorView v = qkv.Columns(2 * hidden, hidden).Reshape({rows, heads, d});
      // q and k lie side by side: one call rotates the heads of both.
      ops::ApplyRope(ctx, qkv.Columns(0, 2 * hidden).Reshape({rows, 2 * heads, d}), cos_sin,
                     ops::RopeStyle::kHalfSplit);
      TensorView attended = attention.Take(act, {rows, hidden});
      ops::SegmentAttention(ctx, attended.Reshape({rows, heads, d}), q, k, v, segments, longest,
                            1.0f / std::sqrt(static_cast<float>(d)));
      ops::Linear(ctx, h, attended, block.proj.weight, block.proj.bias);
    }
    ops::Add(ctx, x, x, h);
    ops::LayerNorm(ctx, h, x, block.norm2.weight, block.norm2.bias, config.layer_norm_eps);
    VitMlp(ctx, h, h, block);
    ops::Add(ctx, x, x, h);
  }
  ops::LayerNorm(ctx, out, x, weights.final_norm.weight, weights.final_norm.bias, config.layer_norm_eps);
}

int64_t VitScratchBytes(const ops::Context& ctx, const VisionConfig& config, DType act, int64_t rows,
                        int64_t frames, int64_t frame_rows) {
  const int64_t hidden = config.hidden_size;
  const int64_t patch = config.in_channels * config.patch_size * config.patch_size;
  const DeviceType device = ctx.device.type;
  const int64_t pixels = ScratchBytes(act, rows * patch) +
                         (device == DeviceType::kCuda ? ScratchBytes(act, rows * ops::PaddedK(patch))
                                                      : 0);  // the linear's own copy
  const int64_t attention =
      ScratchBytes(act, rows * 3 * hidden) + ScratchBytes(act, rows * hidden) +
      ops::SegmentAttentionScratchBytes(ctx, act, config.num_heads, hidden / config.num_heads, rows, frames,
                                        frame_rows);
  const int64_t mlp =
      ScratchBytes(act, std::min(rows, VisionPiecesOn(device).mlp_rows) * config.intermediate_size);
  const int64_t h = ScratchBytes(act, rows * hidden);
  return ScratchBytes(DType::kInt32, 2 * rows + frames + 1) +
         ScratchBytes(DType::kFloat32, rows * hidden / config.num_heads) + h +
         std::max(pixels, h + std::max(attention, mlp));
}

}  // namespace fd
