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

}  // namespace fd::cuda
