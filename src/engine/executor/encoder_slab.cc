#include "engine/executor/encoder_slab.h"

#include "base/check.h"
#include "compute/ops/rows.h"

namespace fd {

EncoderSlab::EncoderSlab(const Model& model, const ops::Context& ctx, const EngineOptions& options) {
  if (!model.config().vision || options.EncoderSlabTokens() == 0) return;
  slab_ = ops::NewTensor(ctx, model.dtype(), {options.EncoderSlabTokens(), model.config().hidden_size});
}

int64_t EncoderSlab::DeviceBytes(const ModelConfig& config, DType dtype, const EngineOptions& options) {
  if (!config.vision || options.EncoderSlabTokens() == 0) return 0;
  return Arena::PaddedBytes(options.EncoderSlabTokens() * config.hidden_size * DTypeBytes(dtype));
}

int64_t EncoderSlab::ScratchBytes(const ModelConfig& config, DType dtype, int64_t patches, int64_t tokens) {
  const VisionConfig& vision = *config.vision;
  return Arena::PaddedBytes(patches * vision.in_channels * vision.patch_size * vision.patch_size) +
         Arena::PaddedBytes(tokens * config.hidden_size * DTypeBytes(dtype));
}

void EncoderSlab::Encode(const ops::Context& ctx, Model& model, const std::vector<MediaEncode>& encodes) {
  EncodeBatch batch;
  int64_t patches = 0, row_bytes = 0;
  bool adjoining = true;  // outputs lie one behind the other
  for (const MediaEncode& e : encodes) {
    const MediaItem& item = *e.item;
    adjoining &= e.slab_row == encodes.front().slab_row + batch.OutputTokens();
    batch.grids.push_back({item.grid_t, item.grid_h, item.grid_w});
    const int64_t item_patches = 4 * item.EncodeTokens();
    row_bytes = static_cast<int64_t>(item.patch_rows.size()) / item_patches;
    patches += item_patches;
  }
  batch.patch_rows = ctx.workspace->Take(DType::kUInt8, {patches, row_bytes});
  int64_t first = 0;
  for (const MediaEncode& e : encodes) {
    const Shape shape{4 * e.item->EncodeTokens(), row_bytes};
    auto* bytes = const_cast<uint8_t*>(e.item->patch_rows.data());  // only read
    ops::Copy(ctx, batch.patch_rows.Rows(first, shape[0]), TensorView(bytes, DType::kUInt8, Device{}, shape));
    first += shape[0];
  }
  const int64_t tokens = batch.OutputTokens();
  if (adjoining) {
    model.Encode(ctx, slab_.view().Rows(encodes.front().slab_row, tokens), batch);
  } else {
    const TensorView outputs = ctx.workspace->Take(model.dtype(), {tokens, model.config().hidden_size});
    model.Encode(ctx, outputs, batch);
    int64_t row = 0;
    for (const MediaEncode& e : encodes) {
      ops::Copy(ctx, slab_.view().Rows(e.slab_row, e.item->num_tokens),
                outputs.Rows(row, e.item->num_tokens));
      row += e.item->num_tokens;
    }
  }
  ctx.workspace->Reset();
}

}  // namespace fd
