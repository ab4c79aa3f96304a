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

// The likeliest tokens of each row, as Sample's logprobs: natural log of the probability under the softmax of
// columns [0, valid_vocab) of these logits; descending, the lower index first on ties. token_ids int32,
// logprobs float32 [rows, max_k], max_k <= kMaxTopLogprobs, rows may be strided; k int32 [rows]: how many of
// them, more than max_k counts as max_k. The other entries get id -1 and NaN, and so do all of a row with a
// NaN; a token of logit -infinity is never listed.
inline constexpr int64_t kMaxTopLogprobs = 32;
void TopLogprobs(const Context& ctx, const TensorView& token_ids, const TensorView& logprobs,
                 const TensorView& logits, const TensorView& k, int64_t valid_vocab);

// What TopLogprobs takes from ctx.workspace.
int64_t TopLogprobsScratchBytes(const Context& ctx, int64_t rows, int64_t max_k);

// The log-probability of one token of each row, with the bits that Sample gives for it: where logits are
// penalised before the draw, and a copy from before says how likely the token was. logprobs float32 [rows],
// token_ids int32 [rows]; NaN for an id outside [0, valid_vocab) and for a row with a NaN.
void TokenLogprobs(const Context& ctx, const TensorView& logprobs, const TensorView& logits,
                   const TensorView& token_ids, int64_t valid_vocab);

// What is reported of given tokens in place of the log-probabilities above: natural log of the probability
// under softmax(logits / temperature) over columns [0, valid_vocab); with top_p below 1 within the tokens
// that Sample leaves at this temperature and top_p without top_k and min_p, -infinity for the others. Or
// as_logits: the logit divided by the temperature. At temperature 1 and top_p 1 the bits are those of
// TokenLogprobs.
struct ScoreParams {
  TensorView wanted = {};       // int32 [rows]: 0 leaves the row's scores as they are; empty: all rows
  TensorView temperature = {};  // float32 [rows], above 0; empty: 1
  TensorView top_p = {};        // float32 [rows], above 0; 1 = off; empty: off. Not looked at with as_logits
  bool as_logits = false;
};
// token_ids int32, scores float32, both [rows, n], rows may be strided; both empty: none.
struct TokenScores {
  TensorView token_ids, scores;
};
// NaN for an id outside [0, valid_vocab) and all over a row with a NaN. logits float32 [rows, vocab], rows
// may be strided.
void ScoreTokens(const Context& ctx, const TokenScores& drawn, const TokenScores& listed,
                 const TensorView& logits, const ScoreParams& params, int64_t valid_vocab);

// What ScoreTokens takes from ctx.workspace; without top_p on the CPU it takes nothing.
int64_t ScoreTokensScratchBytes(const Context& ctx, int64_t rows, int64_t vocab);

// Where TopLogprobs would list one token of each row if its list had no end: 1 + how many tokens of [0,
// valid_vocab) have a larger logit, or the same and a lower index. Infinities count as the largest finite
// float, of their sign. ranks, token_ids int32 [rows]; 0 for an id outside [0, valid_vocab) and for a row
// with a NaN. logits float32 [rows, vocab], rows may be strided. Takes no workspace.
void TokenRanks(const Context& ctx, const TensorView& ranks, const TensorView& logits,
                const TensorView& token_ids, int64_t valid_vocab);

// Penalties need to know what a sequence has seen: int32 [slots, vocab], one slot for each sequence that has
// penalties, rows may be strided. Bit 31 of seen[slot][token]: the token occurs in the prompt; the other
// bits: how often it was generated. The owner hands out slots; a slot below 0 stands for none, and its row
// costs nothing. Ids outside [0, vocab) are passed over everywhere. All four ops can be captured in a graph.

// Forgets what the slot held; enters a prompt and what was generated already (by a sequence that goes on
// after a preemption). prompt_ids, output_ids int32, vectors, may be empty.
void ResetSeen(const Context& ctx, const TensorView& seen, int64_t slot, const TensorView& prompt_ids,
               const TensorView& output_ids);

// Enters more of either without forgetting: what one chunk of a prompt holds.
void EnterSeen(const Context& ctx, const TensorView& seen, int64_t slot, const TensorView& prompt_ids,
               const TensorView& output_ids);

// Counts tokens[token_rows[r]] as generated in slots[r]: of a step of decodes, the tokens that go in. slots,
// token_rows int32 [rows]; tokens int32 [tokens of the step].
void CountTokens(const Context& ctx, const TensorView& seen, const TensorView& slots,
                 const TensorView& tokens, const TensorView& token_rows);

// Per-row parameters as device tensors, so that one launch serves a mixed batch.
struct PenaltyParams {
  TensorView slots;         // int32 [rows]
  TensorView repetition;    // float32 [rows], above 0; 1 = off
  TensorView presence;      // float32 [rows]; 0 = off
  TensorView frequency;     // float32 [rows]; 0 = off
  TensorView bias_offsets;  // int32 [rows + 1]: row r has entries [bias_offsets[r], bias_offsets[r + 1])
  TensorView bias_ids;      // int32 [entries]; within a row each token once at most
  TensorView bias_values;   // float32 [entries]; -infinity = banned
  // Bans, after the biases; all five empty where there are none. Row r has entries [ban_offsets[r],
  // ban_offsets[r + 1]), a token may stand there more than once. Entry i holds where ban_after[i] is -1 or
  // the last token of the row, tokens[token_rows[r]]: a word of several tokens may not be completed, and the
  // host need not know that last token, which may have been drawn in the step before.
  TensorView ban_offsets = {};  // int32 [rows + 1]
  TensorView ban_ids = {};      // int32 [entries]
  TensorView ban_after = {};    // int32 [entries]
  TensorView tokens = {};       // int32 [tokens of the step]
  TensorView token_rows = {};   // int32 [rows]
  // Where row r has entries [allow_offsets[r], allow_offsets[r + 1]), every other token is banned; a row
  // without entries may draw all. Both empty where no row has any.
  TensorView allow_offsets = {};  // int32 [rows + 1]
  TensorView allow_ids = {};      // int32 [entries]; ascending within a row
};

// In place, before Sample and after TopLogprobs: a token of prompt or output has its logit divided by
// repetition when above 0, else multiplied; then, if generated c > 0 times, minus c * frequency + presence;
// then plus its bias (golden/README "sampling"), then the bans and what is not allowed. Each operation
// rounded to float32. Banned is -infinity whatever it was but NaN. logits float32 [rows, >= vocab], rows may
// be strided; columns from vocab on are left alone.
void ApplyPenalties(const Context& ctx, const TensorView& logits, const TensorView& seen,
                    const PenaltyParams& params);

}  // namespace fd::ops
