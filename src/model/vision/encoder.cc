#include "model/vision/encoder.h"

#include <algorithm>

#include "model/layers/scratch.h"

namespace fd {
namespace {

// A group of frames has at most so many patches, unless one frame alone has more: bounds the scratch of long
// videos.
constexpr int64_t kGroupRows = 8192;

}  // namespace

VisionEncoder LoadVisionEncoder(WeightLoader& loader, const ModelConfig& config) {
  VisionEncoder encoder;
  encoder.vit = LoadVit(loader, *config.vision);
  encoder.resampler = LoadResampler(loader, config);
  encoder.rope = MakeVisionRope(loader, *config.vision);
  return encoder;
}

void EncodeVision(const ops::Context& ctx, const TensorView& embeddings, const EncodeBatch& batch,
                  VisionEncoder& encoder, const ModelConfig& config, const TensorProbe& probe) {
  const VisionConfig& vision = *config.vision;
  const DType act = embeddings.dtype;
  int64_t total_rows = 0;
  for (const EncodeBatch::Grid& g : batch.grids) {
    FD_CHECK(g.h > 0 && g.w > 0 && g.h % 2 == 0 && g.w % 2 == 0 && (g.t == 1 || (g.t > 0 && g.t % 2 == 0)),
             "grid ", g.t, " x ", g.h, " x ", g.w);
    total_rows += g.t * g.h * g.w;
  }
  FD_CHECK_EQ(batch.patch_rows.dim(0), total_rows, "patch rows against grids");
  FD_CHECK_EQ(embeddings.dim(0), batch.OutputTokens());
  Scratch scratch(ctx);
  TensorView merged = scratch.Take(act, {total_rows / 4, 4 * vision.hidden_size});

  const int64_t group_rows = VisionPiecesOn(ctx.device.type).group_rows;
  int64_t first = 0, rows = 0;
  encoder.frames.clear();
  auto run_group = [&] {
    if (rows == 0) return;
    Scratch group(ctx);
    TensorView patches = group.Take(act, {rows, vision.hidden_size});
    Vit(ctx, patches, batch.patch_rows.Rows(first, rows), encoder.frames, encoder.vit, vision, encoder.rope,
        encoder.host);
    if (probe) probe("vision_output", patches);
    MergeSpace(ctx, merged.Rows(first / 4, rows / 4), patches, encoder.resampler, vision);
    first += rows;
    rows = 0;
    encoder.frames.clear();
  };
  for (const EncodeBatch::Grid& g : batch.grids) {
    for (int64_t t = 0; t < g.t; ++t) {
      if (rows + g.h * g.w > group_rows) run_group();
      encoder.frames.push_back({g.h, g.w});
      rows += g.h * g.w;
    }
  }
  run_group();
  MergeTime(ctx, embeddings, merged, batch.grids, encoder.resampler, config, encoder.host);
  if (probe) probe("resampler_output", embeddings);
}

int64_t VisionEncoderScratchBytes(const ops::Context& ctx, const ModelConfig& config, DType act,
                                  int64_t patch_rows, int64_t frame_rows) {
  const VisionConfig& vision = *config.vision;
  const DeviceType device = ctx.device.type;
  const int64_t group = std::min(patch_rows, std::max(VisionPiecesOn(device).group_rows, frame_rows));
  const int64_t merged = ScratchBytes(act, patch_rows * vision.hidden_size);
  const int64_t tower = ScratchBytes(act, group * vision.hidden_size) +
                        std::max(VitScratchBytes(ctx, vision, act, group, group / 4, frame_rows),
                                 MergeSpaceScratchBytes(vision, act, group));
  // On the CPU linears may widen their input to float32.
  const int64_t widest = std::max({8 * vision.hidden_size, vision.intermediate_size,
                                   vision.in_channels * vision.patch_size * vision.patch_size});
  return merged + std::max(tower, MergeTimeScratchBytes(vision, act, patch_rows / 4, device)) +
         (device == DeviceType::kCpu ? ScratchBytes(DType::kFloat32, group * widest) : 0) + 4096;
}

}  // namespace fd
