#include "step_work.h"

#include <cmath>
#include <string>

#include "base/strings.h"

namespace fd {

StepWork WorkOfStep(const ModelConfig& c, double kv_token_bytes, int64_t sequences, int64_t new_tokens,
                    double context, const Quantization& quantization) {
  const double h = static_cast<double>(c.hidden_size);
  const double q = static_cast<double>(c.num_heads * c.head_dim),
               kv = static_cast<double>(c.num_kv_heads * c.head_dim);
  const double tokens = static_cast<double>(sequences * new_tokens), outputs = static_cast<double>(sequences);
  const double seen = context + (static_cast<double>(new_tokens) - 1) / 2;  // mean over the new tokens
  StepWork work;
  const WeightSchemes schemes = SchemesFor(quantization, c);
  // `weights` read, of which each of `rows` rows meets `met`; k input features.
  const auto layer_weights = [&work](const ops::QuantScheme& scheme, double weights, double met, double rows,
                                     double k) {
    const double scales =
        scheme.bits == 0 ? 0 : 2 / (scheme.group_size > 0 ? static_cast<double>(scheme.group_size) : k);
    work.bytes += weights * ((scheme.bits == 0 ? 16 : scheme.bits) / 8.0 + scales);
    (scheme.bits == 0 ? work.flop : work.int8_flop) += 2 * met * rows;
  };
  const auto scheme_of = [&](LinearRole role, int64_t layer, std::string_view name) {
    return SchemeOf(schemes, role, StrCat("model.layers.", layer, ".", name)).scheme;
  };
  // gate, up and down of so many MLPs that are read, of which a row meets `met`.
  const auto mlp = [&](LinearRole role, int64_t layer, const std::string& name, double read, double met,
                       double rows, double width) {
    layer_weights(scheme_of(role, layer, name + ".gate_proj"), read * 2 * h * width, met * 2 * h * width,
                  rows, h);
    layer_weights(scheme_of(role, layer, name + ".down_proj"), read * h * width, met * h * width, rows,
                  width);
  };
  for (int64_t layer = 0; layer < c.num_layers; ++layer) {
    // After the last attention only rows whose logits are wanted go on.
    const double rows = layer + 1 == c.num_layers ? outputs : tokens;
    layer_weights(scheme_of(LinearRole::kDense, layer, "self_attn.q_proj"), h * (q + 2 * kv),
                  h * (q + 2 * kv), tokens, h);
    layer_weights(scheme_of(LinearRole::kDense, layer, "self_attn.o_proj"), q * h, q * h, rows, q);
    work.flop += 4 * tokens * seen * q;
    if (!c.moe || !c.layer_is_sparse[static_cast<size_t>(layer)]) {
      mlp(LinearRole::kDense, layer, "mlp", 1, 1, rows, static_cast<double>(c.intermediate_size));
      continue;
    }
    const double experts = static_cast<double>(c.moe->num_experts), top_k = static_cast<double>(c.moe->top_k);
    const double width = static_cast<double>(c.moe->intermediate_size);
    // Random tokens route uniformly: a token misses an expert with probability 1 - k/E, so `rows` of them hit
    // E (1 - (1 - k/E)^rows) different ones: 6 of 64 for one token, 50.8 for 16, 63.9 for 64.
    const double hit = experts * (1 - std::pow(1 - top_k / experts, rows));
    mlp(LinearRole::kExpert, layer, "mlp.experts.0", hit, top_k, rows, width);
    const double shared = static_cast<double>(c.moe->num_shared_experts);
    if (shared > 0) mlp(LinearRole::kDense, layer, "mlp.shared_experts", 1, 1, rows, shared * width);
    work.bytes += 4 * h * experts;  // the router
    work.flop += 2 * h * experts * rows;
  }
  const double head = h * static_cast<double>(c.vocab_size);
  layer_weights(schemes.head, head, head, outputs, h);
  work.bytes += (outputs * context + tokens) * kv_token_bytes;
  return work;
}

}  // namespace fd
