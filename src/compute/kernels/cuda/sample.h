// ops/sample on CUDA: the same thresholds, the same draw for the same (seed, position).
#pragma once

#include <cstdint>

namespace fd::cuda {

struct SampleArgs {
  int64_t rows, vocab, valid_vocab;
  const float* logits;  // [rows, vocab]
  int64_t logits_stride;
  const float* temperature;
  const int32_t* top_k;
  const float* top_p;
  const float* min_p;
  const int64_t* seed;      // unused by SampleProbs
  const int64_t* position;  // unused by SampleProbs
  void* scratch;            // SampleScratchBytes(rows)
};
int64_t SampleScratchBytes(int64_t rows);
// token_ids int32 [rows], logprobs float32 [rows].
void Sample(const SampleArgs& args, int32_t* token_ids, float* logprobs, void* stream);
void SampleProbs(const SampleArgs& args, float* probs, int64_t probs_stride, void* stream);

// A warp keeps one in each lane.
inline constexpr int64_t kMaxTopLogprobs = 32;
struct TopLogprobsArgs {
  int64_t rows, valid_vocab, max_k;
  const float* logits;
  int64_t logits_stride;
  const int32_t* k;    // [rows]
  int32_t* token_ids;  // [rows, max_k]
  int64_t ids_stride;
  float* logprobs;  // [rows, max_k]
  int64_t logprobs_stride;
  void* scratch;  // TopLogprobsScratchBytes(rows, max_k)
};
int64_t TopLogprobsScratchBytes(int64_t rows, int64_t max_k);
void TopLogprobs(const TopLogprobsArgs& args, void* stream);

struct TokenLogprobsArgs {
  int64_t rows, valid_vocab;
  const float* logits;
  int64_t logits_stride;
  const int32_t* token_ids;  // [rows]
  float* logprobs;           // [rows]
  void* scratch;             // SampleScratchBytes(rows)
};
void TokenLogprobs(const TokenLogprobsArgs& args, void* stream);

struct ScoreTokensArgs {
  int64_t rows, valid_vocab;
  const float* logits;
  int64_t logits_stride;
  const int32_t* wanted;     // [rows], above 0: this row; null: all
  const float* temperature;  // [rows]; null: 1
  const float* top_p;        // [rows]; null: 1
  bool as_logits;
  // [rows, count] each; count may be 0.
  struct Of {
    const int32_t* token_ids;
    float* scores;
    int64_t ids_stride, scores_stride, count;
  } of[2];
  void* scratch;  // SampleScratchBytes(rows)
};
void ScoreTokens(const ScoreTokensArgs& args, void* stream);

struct TokenRanksArgs {
  int64_t rows, valid_vocab;
  const float* logits;
  int64_t logits_stride;
  const int32_t* token_ids;  // [rows]
  int32_t* ranks;            // [rows]
};
void TokenRanks(const TokenRanksArgs& args, void* stream);

// What sequences have seen; slots outside [0, slots) and ids outside [0, vocab) are passed over.
struct SeenTable {
  int32_t* data;
  int64_t stride, slots, vocab;
};
void ClearSeen(const SeenTable& seen, int64_t slot, void* stream);
void EnterSeen(const SeenTable& seen, int64_t slot, const int32_t* prompt_ids, int64_t prompt_tokens,
               const int32_t* output_ids, int64_t output_tokens, void* stream);
// Of row r: tokens[token_rows[r]].
void CountTokens(const SeenTable& seen, const int32_t* slots, const int32_t* tokens,
                 const int32_t* token_rows, int64_t rows, void* stream);

struct PenaltyArgs {
  int64_t rows;
  float* logits;
  int64_t logits_stride;
  SeenTable seen;
  const int32_t* slots;
  const float* repetition;
  const float* presence;
  const float* frequency;
  const int32_t* bias_offsets;  // [rows + 1]
  const int32_t* bias_ids;
  const float* bias_values;
  const int32_t* ban_offsets;  // [rows + 1]; null: no bans, and none of the following
  const int32_t* ban_ids;
  const int32_t* ban_after;      // -1, or what the last token of the row must be
  const int32_t* tokens;         // the last token of row r is tokens[token_rows[r]]
  const int32_t* token_rows;     // [rows]
  const int32_t* allow_offsets;  // [rows + 1]; null: every row may draw all tokens
  const int32_t* allow_ids;
};
void ApplyPenalties(const PenaltyArgs& args, void* stream);

}  // namespace fd::cuda
