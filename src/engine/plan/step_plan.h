// The contract between scheduler and executor: what one step computes. Plain values; the executor never sees
// a Sequence.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "engine/plan/request.h"

namespace fd {

// Where a page of keys and values lies: among the device's pages (EngineOptions::num_kv_pages) or among the
// host's (num_host_pages).
struct PagePlace {
  int32_t page = -1;  // -1: nowhere
  bool on_host = false;
  bool operator==(const PagePlace&) const = default;
};

// The page at `to` becomes what the page at `from` is then; not both on the host.
struct PageMove {
  PagePlace from, to;
};

// How many of them stay on the device, leave it and come to it.
struct PageMoveCounts {
  int64_t copies = 0, out = 0, in = 0;
};
inline PageMoveCounts CountMoves(const std::vector<PageMove>& moves) {
  PageMoveCounts counts;
  for (const PageMove& move : moves) {
    ++(move.to.on_host ? counts.out : move.from.on_host ? counts.in : counts.copies);
  }
  return counts;
}

// A picture to encode in this step: its output goes to rows [slab_row, slab_row + item->num_tokens) of the
// encoder slab.
struct MediaEncode {
  std::shared_ptr<const MediaItem> item;
  int64_t slab_row = 0;
};

// A slice of an encoder output that enters this step: rows [slab_row + media_begin, + count) of the encoder
// slab replace the embeddings of rows [row_begin, row_begin + count) of the sequence's chunk.
struct MediaSlice {
  int64_t slab_row = 0;     // of the item's first output token
  int64_t media_begin = 0;  // output token of the item
  int64_t row_begin = 0;    // relative to the chunk
  int64_t count = 0;
};

// A token that may not be drawn: always (after -1), or where the sequence's last token is `after`.
struct TokenBan {
  int32_t token_id = -1;
  int32_t after = -1;
};

// What a sequence wants of sampling beyond SequenceStep's own fields. Without any of it there is none.
struct SequenceControls {
  // Its record of seen tokens (ops::SeenTokens), for penalties; -1: it needs none. Of the chunk, tokens from
  // enter_begin on have not been entered yet, the first enter_prompt of those as prompt.
  int32_t seen_slot = -1;
  bool reset_seen = false;  // forget whoever had the slot before
  int64_t enter_begin = 0;  // relative to the chunk; the chunk's length when there is nothing to enter
  int64_t enter_prompt = 0;
  // Tokens before the chunk that no step computes for this sequence, because the prefix tree had them:
  // entered before all others, the first found_prompt as prompt.
  std::vector<int32_t> found_ids;
  int64_t found_prompt = 0;
  // Only when it samples:
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  std::vector<std::pair<int32_t, float>> biases;
  std::vector<TokenBan> bans;
  std::vector<int32_t> allowed;  // ascending; empty: all
  int32_t top_logprobs = -1;     // as in SamplingParams, and the next two
  bool temp_scaled_logprobs = false;
  bool top_p_normalized_logprobs = false;

  bool EditsLogits() const { return seen_slot >= 0 || !biases.empty() || !bans.empty() || !allowed.empty(); }
};

struct SequenceStep {
  RequestId request_id = 0;
  std::vector<int32_t> token_ids;  // new tokens of this step: a prefill chunk or one decode token
  // The last of token_ids is what the step before draws in this row of its output (0 stands in its place),
  // not known when this plan was made; -1: all are known.
  int32_t last_token_from_row = -1;
  std::vector<int32_t> positions;      // [3, new tokens]
  std::vector<uint8_t> vision_expert;  // [new tokens] or empty
  int64_t context_tokens = 0;          // tokens in the cache after this step
  std::vector<int32_t> block_table;    // pages covering context_tokens
  std::vector<MediaSlice> media;
  // Log-probabilities of prompt tokens: the chunk's rows [score_begin, score_begin + score_ids.size()), which
  // say how likely score_ids, the tokens behind them, were; the score_top likeliest beside them.
  int64_t score_begin = 0;
  std::vector<int32_t> score_ids;
  int32_t score_top = 0;
  bool samples =
      false;  // the chunk reaches the end of what is known: one token is drawn, or its vector is ready
  int32_t sum_slot = -1;  // PoolingType::kMean: its running sum of last hidden states
  // Only when it samples:
  float temperature = 1.0f;
  int32_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
  uint64_t seed = 0;
  int64_t sample_position = 0;               // sequence index of the token to draw
  std::optional<SequenceControls> controls;  // also of a chunk that does not sample, to enter what it holds
};

struct StepPlan {
  int64_t step = 0;
  Clock::time_point begun_at{};         // planning began
  std::vector<SequenceStep> sequences;  // decodes first, then prefills
  int64_t num_tokens = 0;
  int32_t num_outputs = 0;           // sequences that sample; row r of the output belongs to the r-th of them
  int32_t num_decodes = 0;           // the first so many sequences
  std::vector<PageMove> page_moves;  // before anything else of the step, in this order
  // Before anything is read from the slab, all of them are encoded; no two share rows.
  std::vector<MediaEncode> encodes;
  int64_t encode_tokens = 0;  // output tokens of `encodes`
  int64_t encoder_hits = 0;   // items that sequences begin in this step and whose outputs were kept
  int64_t encoder_hit_tokens = 0;
  int64_t encoder_kept_tokens = 0;  // in the slab after this step
  // Of the sequences that this step admits: how many looked into the prefix tree, how many found something,
  // and their tokens in all and those found.
  int64_t prefix_queries = 0;
  int64_t prefix_hits = 0;
  int64_t prefix_query_tokens = 0;
  int64_t prefix_hit_tokens = 0;
  int64_t prefix_host_hit_tokens = 0;  // of them, those that lay on the host
};

struct StepResult {
  int64_t step = 0;
  struct Token {
    RequestId request_id = 0;
    int32_t token_id = -1;  // -1: the logits held a NaN
    float logprob = 0.0f;
    std::vector<TokenLogprob> top_logprobs;  // of who asked
    std::vector<float> embedding;            // [hidden], in place of a token where the engine pools
  };
  struct Scores {
    RequestId request_id = 0;
    std::vector<PromptLogprob> prompt_logprobs;
  };
  std::vector<Token> tokens;   // one for each sequence that samples, in plan order
  std::vector<Scores> scores;  // one for each sequence with score_ids, in plan order
  Status status;               // not ok: the step failed; no tokens
  bool device_lost = false;    // no later step can work
  double device_ms = 0;        // the device's time between inputs and drawn tokens; 0 on the CPU
  double device_idle_ms = 0;   // from the end of the step before, if that was the last one, to its begin
  double encode_ms = 0;        // of it, encoding; on the CPU the time on the clock
};

}  // namespace fd
