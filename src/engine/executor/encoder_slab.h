// The bytes of the encoder slab: outputs of pictures, in rows that the scheduler gives away (EncoderSlots).
// Engine thread.
#pragma once

#include <vector>

#include "engine/plan/options.h"
#include "engine/plan/step_plan.h"
#include "model/model.h"

namespace fd {

class EncoderSlab {
 public:
  // Allocates options.EncoderSlabTokens() rows; none for a text model.
  EncoderSlab(const Model& model, const ops::Context& ctx, const EngineOptions& options);
  static int64_t DeviceBytes(const ModelConfig& config, DType dtype, const EngineOptions& options);
  // What Encode takes of the workspace beside the model's own scratch, for so many patches and output tokens.
  static int64_t ScratchBytes(const ModelConfig& config, DType dtype, int64_t patches, int64_t tokens);

  // All of them in one call of the model. Takes scratch from ctx.workspace, whole and given back on return.
  void Encode(const ops::Context& ctx, Model& model, const std::vector<MediaEncode>& encodes);
  // [slice.count, hidden] act
  TensorView Rows(const MediaSlice& slice) const {
    return slab_.view().Rows(slice.slab_row + slice.media_begin, slice.count);
  }

 private:
  Tensor slab_;  // [slab tokens, hidden] act
};

}  // namespace fd
