// Choosing the next token from logits (golden/README "sampling" for the order of the steps).
#pragma once

#include "compute/ops/context.h"

namespace fd::ops {

// Per-row parameters as device tensors, so that one launch serves a mixed batch.
struct SampleParams {
  TensorView temperature;  // float32 [rows]; 0 = greedy: the largest logit, lowest index on ties
  TensorView top_k;        // int32 [rows]; 0 = off; ties with the k-th stay
  TensorView top_p;  // float32 [rows]; 1 = off; a token stays while the mass of the likelier ones is < top_p,
                     // at least one
  TensorView min_p;  // float32 [rows]; 0 = off; relative to the largest remaining probability
  TensorView seed;   // int64 [rows], the bits of a uint64
  TensorView
      position;  // int64 [rows]: index of the token being chosen; the draw depends on (seed, position) alone
};

// token_ids int32 [rows]; logprobs float32 [rows]: natural log of the chosen token's probability under
// softmax(logits) before temperature and truncation; logits float32 [rows, vocab]. Columns at or above
// valid_vocab are never chosen. A row with a NaN or without any finite logit gets token id -1.
void Sample(const Context& ctx, const TensorView& token_ids, const TensorView& logprobs,
            const TensorView& logits, const SampleParams& params, int64_t valid_vocab);

// What Sample takes from ctx.workspace.
int64_t SampleScratchBytes(const Context& ctx, int64_t rows, int64_t vocab);

// The distribution Sample draws from: probs float32 [rows, vocab]. For tests and log-probabilities.
void SampleProbs(const Context& ctx, const TensorView& probs, const TensorView& logits,
                 const SampleParams& params, int64_t valid_vocab);

}  // namespace fd::ops
