#include "model/layers/attention.h"

#include <cmath>

#include "model/layers/scratch.h"

namespace fd {

AttentionWeights LoadAttention(WeightLoader& loader, const std::string& prefix, const ModelConfig& config) {
  const int64_t q = config.num_heads * config.head_dim;
  const int64_t kv = config.num_kv_heads * config.head_dim;
  AttentionWeights w;
  w.qkv = loader.Linear(
      {{prefix + "q_proj.weight", q}, {prefix + "k_proj.weight", kv}, {prefix + "v_proj.weight", kv}},
      config.hidden_size, {.role = LinearRole::kDense});
  w.out = loader.Linear({{prefix + "o_proj.weight", config.hidden_size}}, q, {.role = LinearRole::kDense});
  return w;
}

void Attend(const ops::Context& ctx, const TensorView& attended, const TensorView& in,
            const AttentionWeights& weights, const ModelConfig& config, const TensorView& cos_sin,
            const TensorView& k_pages, const TensorView& v_pages, const ops::AttentionBatch& batch) {
  const int64_t tokens = in.dim(0), d = config.head_dim;
  const int64_t heads = config.num_heads, kv_heads = config.num_kv_heads;
  Scratch scratch(ctx);
  TensorView qkv = scratch.Take(in.dtype, {tokens, (heads + 2 * kv_heads) * d});
  ops::Linear(ctx, qkv, in, weights.qkv);
  TensorView q = qkv.Columns(0, heads * d).Reshape({tokens, heads, d});
  TensorView k = qkv.Columns(heads * d, kv_heads * d).Reshape({tokens, kv_heads, d});
  TensorView v = qkv.Columns((heads + kv_heads) * d, kv_heads * d).Reshape({tokens, kv_heads, d});
  ops::RopeAndWriteKv(ctx, q, k_pages, v_pages, k, v, cos_sin, batch.slots, ops::RopeStyle::kInterleaved);
  ops::PagedAttention(ctx, attended.Reshape({tokens, heads, d}), q, k_pages, v_pages, batch,
                      1.0f / std::sqrt(static_cast<float>(d)));
}

int64_t AttendScratchBytes(const ModelConfig& config, DType act, int64_t tokens) {
  return ScratchBytes(act, tokens * (config.num_heads + 2 * config.num_kv_heads) * config.head_dim);
}

}  // namespace fd
