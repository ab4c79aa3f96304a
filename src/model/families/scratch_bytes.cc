// The arithmetic of Forward's and Encode's scratch memory: the same tensors, counted.
#include <algorithm>

#include "model/layers/attention.h"
#include "model/layers/mlp.h"
#include "model/layers/moe.h"
#include "model/layers/scratch.h"
#include "model/model.h"
#include "model/vision/encoder.h"

namespace fd {

int64_t ForwardScratchBytes(const ModelConfig& config, DType act, int64_t tokens, int64_t outputs,
                            int64_t max_context_tokens, int64_t threads) {
  const int64_t hidden = config.hidden_size, attended = config.num_heads * config.head_dim;
  int64_t bytes = ScratchBytes(DType::kFloat32, tokens * config.head_dim) +
                  3 * ScratchBytes(act, tokens * hidden) + ScratchBytes(act, (tokens + outputs) * attended);
  int64_t widest = std::max(hidden, attended);  // linears may widen their input to float32
  int64_t block = AttendScratchBytes(config, act, tokens) +
                  AttentionOpBytes(config.num_heads, config.num_kv_heads, config.head_dim, tokens,
                                   max_context_tokens, threads);
  for (bool sparse : config.layer_is_sparse) {
    block = std::max(block, sparse ? MoeScratchBytes(config, act, tokens)
                                   : MlpScratchBytes(act, tokens, config.intermediate_size));
    if (!sparse) widest = std::max(widest, config.intermediate_size);
  }
  if (config.moe) widest = std::max(widest, config.moe->num_shared_experts * config.moe->intermediate_size);
  return bytes + block + ScratchBytes(DType::kFloat32, tokens * widest) + 4096;
}

int64_t EncodeScratchBytes(const ModelConfig& config, DType act, int64_t patch_rows, int64_t frame_rows,
                           int64_t threads, DeviceType device) {
  FD_CHECK(config.vision.has_value());
  return VisionEncoderScratchBytes(config, act, patch_rows, frame_rows, threads, device);
}

}  // namespace fd
