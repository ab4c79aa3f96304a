// Self-attention of a text layer: fused qkv, rope, paged cache, output projection.
#pragma once

#include "compute/ops/attention.h"
#include "compute/ops/linear.h"
#include "model/config/model_config.h"
#include "model/weights/weight_loader.h"

namespace fd {

struct AttentionWeights {
  ops::LinearWeight qkv;  // [(heads + 2 * kv_heads) * head_dim, hidden]: q, then k, then v
  ops::LinearWeight out;  // [hidden, heads * head_dim]
};
// `prefix` ends in "self_attn.".
AttentionWeights LoadAttention(WeightLoader& loader, const std::string& prefix, const ModelConfig& config);

// attended [tokens, heads * head_dim]: everything but the output projection, so that the last layer may
// project the rows it needs. in [tokens, hidden] act; cos_sin float32 [tokens, 2, head_dim / 2]; writes the
// step's keys and values.
void Attend(const ops::Context& ctx, const TensorView& attended, const TensorView& in,
            const AttentionWeights& weights, const ModelConfig& config, const TensorView& cos_sin,
            const TensorView& k_pages, const TensorView& v_pages, const ops::AttentionBatch& batch);
int64_t AttendScratchBytes(const ModelConfig& config, DType act, int64_t tokens);

}  // namespace fd
