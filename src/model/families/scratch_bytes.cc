// The arithmetic of Forward's and Encode's scratch memory: the same tensors, counted.
#include <algorithm>

#include "compute/ops/sample.h"
#include "model/layers/attention.h"
#include "model/layers/mlp.h"
#include "model/layers/moe.h"
#include "model/layers/scratch.h"
#include "model/model.h"
#include "model/vision/encoder.h"

namespace fd {

namespace {

// The slice of logits that on_scored gets, and its log-probabilities.
int64_t ScoredScratchBytes(const ops::Context& ctx, const ModelConfig& config, int64_t tokens) {
  const int64_t rows = std::min(ScoredSliceRows(config.vocab_size), tokens);
  return ScratchBytes(DType::kFloat32, rows * config.vocab_size) +
         ops::TopLogprobsScratchBytes(ctx, rows, ops::kMaxTopLogprobs);
}

}  // namespace

int64_t ForwardScratchBytes(const ops::Context& ctx, const ModelConfig& config, DType act, int64_t tokens,
                            int64_t sequences, int64_t max_context_tokens) {
  const int64_t hidden = config.hidden_size, attended = config.num_heads * config.head_dim;
  int64_t bytes = ScratchBytes(DType::kFloat32, tokens * config.head_dim) +
                  3 * ScratchBytes(act, tokens * hidden) + ScratchBytes(act, (tokens + sequences) * attended);
  int64_t widest = std::max(hidden, attended);
  int64_t block = AttendScratchBytes(config, act, tokens) +
                  ops::PagedAttentionScratchBytes(ctx, act, config.num_heads, config.num_kv_heads,
                                                  config.head_dim, tokens, sequences, max_context_tokens);
  for (bool sparse : config.layer_is_sparse) {
    block = std::max(block, sparse ? MoeScratchBytes(ctx, config, act, tokens)
                                   : MlpScratchBytes(ctx, act, tokens, config.intermediate_size));
    if (!sparse) widest = std::max(widest, config.intermediate_size);
  }
  block = std::max(block, ScoredScratchBytes(ctx, config, tokens));
  if (config.moe) widest = std::max(widest, config.moe->num_shared_experts * config.moe->intermediate_size);
  // What ops::Linear takes: on the CPU its input in float32, on CUDA the parts of a router's results.
  int64_t linear = tokens * widest;
  if (ctx.device.type == DeviceType::kCuda) linear = config.moe ? tokens * 3 * config.moe->num_experts : 0;
  return bytes + block + ScratchBytes(DType::kFloat32, linear) + 4096;
}

int64_t EncodeScratchBytes(const ops::Context& ctx, const ModelConfig& config, DType act, int64_t patch_rows,
                           int64_t frame_rows) {
  FD_CHECK(config.vision.has_value());
  return VisionEncoderScratchBytes(ctx, config, act, patch_rows, frame_rows);
}

}  // namespace fd
