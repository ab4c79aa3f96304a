// Inverse frequencies of the text part's rotary embedding under each kind of scaling, as transformers
// computes them (modeling_rope_utils): float32, in its order of roundings.
#pragma once

#include <vector>

#include "model/config/model_config.h"

namespace fd {

struct RopeFrequencies {
  std::vector<float> inv_freq;    // [head_dim / 2]
  float attention_factor = 1.0f;  // cosine and sine are multiplied by it; yarn and longrope
};

// theta^(-2i / dim) with the roundings of transformers: the exponent, the power and its inverse in float32.
float InverseFrequency(float theta, int64_t i, int64_t dim);

// Depends on the length served (config.rope_tokens, else MaxContextTokens) for two kinds alone. dynamic:
// theta grows with what that length has beyond max_position_embeddings, and is as stored without. longrope:
// long_factor where that length is above original_max_position_embeddings, else short_factor. transformers
// takes the length of the sequence at hand in place of the length served; a sequence as long as that gets the
// same numbers here and there.
RopeFrequencies TextRopeFrequencies(const ModelConfig& config);

}  // namespace fd
