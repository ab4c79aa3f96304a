#include "model/families/ernie45_text.h"

#include <algorithm>

#include "base/strings.h"
#include "compute/ops/elementwise.h"
#include "compute/ops/norm.h"
#include "compute/ops/rows.h"
#include "model/layers/scratch.h"

namespace fd {

Ernie45Text LoadErnie45Text(WeightLoader& loader, const ModelConfig& config) {
  // Paddle's checkpoints, which FastDeploy quantises, store matrices transposed.
  const std::string prefix = loader.Prefix({"model.", "ernie."}, "embed_tokens.weight");
  const bool transposed = prefix == "ernie.";
  const std::string embedding = prefix + "embed_tokens.weight";
  Ernie45Text w;
  w.embedding = loader.Table(embedding, config.vocab_size, config.hidden_size);
  for (int64_t l = 0; l < config.num_layers; ++l) {
    const std::string p = StrCat(prefix, "layers.", l, ".");
    Ernie45Layer layer;
    layer.input_norm = loader.Vector(p + "input_layernorm.weight", config.hidden_size);
    layer.attention = LoadAttention(loader, p + "self_attn.", config);
    layer.post_norm = loader.Vector(p + "post_attention_layernorm.weight", config.hidden_size);
    if (config.layer_is_sparse[static_cast<size_t>(l)]) {
      layer.moe = LoadMoe(loader, p + "mlp.", config);
    } else {
      layer.mlp = LoadMlp(loader, p + "mlp.", config.hidden_size, config.intermediate_size);
    }
    w.layers.push_back(std::move(layer));
  }
  w.final_norm = loader.Vector(prefix + "norm.weight", config.hidden_size);
  // Tied only if the checkpoint brings no head of its own (reference 1.1, note a).
  const bool own_head = loader.Has("lm_head.weight") || !config.tie_word_embeddings;
  if (!config.has_head) {
    loader.Skip(own_head ? "lm_head.weight" : embedding, LinearRole::kHead);
    w.rope = MakeTextRope(loader, config);
    return w;
  }
  w.head = own_head ? loader.Linear({{"lm_head.weight", config.vocab_size}}, config.hidden_size,
                                    {.transposed = transposed, .role = LinearRole::kHead})
                    : loader.Tied(embedding, w.embedding, config.vocab_size, config.hidden_size);
  w.rope = MakeTextRope(loader, config);
  return w;
}

// Beyond the last layer: x is the residual stream, h is free.
static void ScoreRows(const ops::Context& ctx, const TensorView& h, const TensorView& x,
                      const ForwardBatch& batch, const Ernie45Text& weights, const ModelConfig& config) {
  const int64_t scored = batch.scored_rows.dim(0), slice = ScoredSliceRows(config.vocab_size);
  const TensorView rows = h.Rows(0, scored);
  ops::GatherRows(ctx, rows, x, batch.scored_rows);
  ops::RmsNorm(ctx, rows, rows, weights.final_norm, config.rms_norm_eps);
  Scratch scratch(ctx);
  const TensorView logits = scratch.Take(DType::kFloat32, {std::min(slice, scored), config.vocab_size});
  for (int64_t begin = 0; begin < scored; begin += slice) {
    const int64_t count = std::min(slice, scored - begin);
    ops::Linear(ctx, logits.Rows(0, count), rows.Rows(begin, count), weights.head);
    batch.on_scored(begin, logits.Rows(0, count));
  }
}

void ForwardErnie45Text(const ops::Context& ctx, const TensorView& logits, const ForwardBatch& batch,
                        KvStorage& kv, const Ernie45Text& weights, const ModelConfig& config, DType act,
                        const TensorProbe& probe) {
  const int64_t tokens = batch.num_tokens, hidden = config.hidden_size;
  const int64_t outputs = batch.logits_rows.empty() ? 0 : batch.logits_rows.dim(0);
  const int64_t scored = batch.scored_rows.empty() ? 0 : batch.scored_rows.dim(0);
  Scratch scratch(ctx);
  TensorView cos_sin = scratch.Take(DType::kFloat32, {tokens, 2, config.head_dim / 2});
  ops::RopeCosSin(ctx, cos_sin, batch.positions, weights.rope.inv_freq, weights.rope.axis,
                  weights.rope.attention_factor);

  TensorView x = scratch.Take(act, {tokens, hidden});  // the residual stream
  ops::Embedding(ctx, x, weights.embedding, batch.token_ids);
  if (!batch.media_rows.empty()) ops::ScatterRows(ctx, x, batch.media_embeddings, batch.media_rows);
  if (probe) probe("embed", x);

  TensorView h = scratch.Take(act, {tokens, hidden});
  TensorView attended = scratch.Take(act, {tokens, config.num_heads * config.head_dim});
  TensorView y = scratch.Take(act, {tokens, hidden});
  ops::RmsNorm(ctx, h, x, weights.layers[0].input_norm, config.rms_norm_eps);
  ExpertRows rows{batch.text_rows, batch.vision_rows};
  bool only_outputs = false;
  const auto marked = batch.mark_share > 0
                          ? static_cast<size_t>(batch.mark_share * static_cast<double>(weights.layers.size()))
                          : weights.layers.size();
  for (size_t l = 0; l < weights.layers.size(); ++l) {
    if (l == marked) batch.on_mark();
    const Ernie45Layer& layer = weights.layers[l];
    const bool last = l + 1 == weights.layers.size();
    Attend(ctx, attended, h, layer.attention, config, cos_sin, kv.k[l], kv.v[l], batch.attention);
    if (last && outputs + scored == 0 && !probe) return;  // keys and values are all that such a chunk is for
    // Beyond the last attention a row depends on itself alone: go on with the wanted ones. With vision rows
    // the two row lists would have to be cut down too; their prefills keep all rows, and so do steps that
    // score a prompt, which want most of them.
    if (last && outputs < tokens && scored == 0 && rows.vision.empty() && !probe) {
      TensorView wanted = scratch.Take(act, {outputs, attended.dim(1)});
      ops::GatherRows(ctx, wanted, attended, batch.logits_rows);
      attended = wanted;
      ops::GatherRows(ctx, h.Rows(0, outputs), x, batch.logits_rows);
      std::swap(x, h);
      x = x.Rows(0, outputs);
      h = h.Rows(0, outputs);
      y = y.Rows(0, outputs);
      rows = {};
      only_outputs = true;
    }
    ops::Linear(ctx, y, attended, layer.attention.out);
    ops::AddRmsNorm(ctx, h, x, y, layer.post_norm, config.rms_norm_eps);
    if (layer.moe) {
      Moe(ctx, y, h, *layer.moe, rows);
    } else {
      Mlp(ctx, y, h, *layer.mlp);
    }
    if (last) {
      ops::Add(ctx, x, x, y);
    } else {
      ops::AddRmsNorm(ctx, h, x, y, weights.layers[l + 1].input_norm, config.rms_norm_eps);
    }
    if (probe) probe(StrCat("layer", l), x);
  }
  if (scored > 0) ScoreRows(ctx, h, x, batch, weights, config);
  if (outputs == 0) return;
  TensorView last_rows = h.Rows(0, outputs);
  if (only_outputs) {
    ops::RmsNorm(ctx, last_rows, x, weights.final_norm, config.rms_norm_eps);
  } else {
    ops::GatherRows(ctx, last_rows, x, batch.logits_rows);
    ops::RmsNorm(ctx, last_rows, last_rows, weights.final_norm, config.rms_norm_eps);
  }
  if (probe) probe("final_norm", last_rows);
  if (config.has_head) {
    ops::Linear(ctx, logits, last_rows, weights.head);
  } else {
    ops::Copy(ctx, logits, last_rows);
  }
}

}  // namespace fd
