// One row of logits -> weights to draw from -> a token. The vector loops are compiled per instruction set,
// the rest is plain code.
#pragma once

#include <cstdint>

namespace fd::cpu {

struct SampleKernels {
  // The largest of x, infinities clamped to the largest finite float; NaN when there is one.
  float (*max)(const float* x, int64_t n);
  // The first i with x[i] == value, which is what `max` returned; n when there is none.
  int64_t (*find)(const float* x, int64_t n, float value);
  // weights[i] = e^((x[i] - max) / temperature), their sum. weights may be null.
  double (*weigh)(float* weights, const float* x, int64_t n, float max, double inverse_temperature);
};
const SampleKernels& GetSampleKernels();

struct RowSampling {
  float temperature;
  int32_t top_k;
  float top_p;
  float min_p;
};

// weights[i] proportional to the probability of token i, 0 when dropped; returns their sum, or 0 when the row
// has a NaN or no finite logit. The sum's order of additions is fixed. *largest: the most likely token, the
// lowest index on ties, -1 without one. Greedy (temperature 0) leaves weight 1 on it.
double WeighRow(float* weights, const float* logits, int64_t n, const RowSampling& params, int32_t* largest);

// The token at share u of the weights in index order, u in [0, 1).
int32_t DrawToken(const float* weights, int64_t n, double total, double u);

// ids[0 .. returned) are the k likeliest tokens, by descending logit (infinity counts as the largest finite
// float), then index; none of logit -infinity, NaN passed over. k above 0.
int64_t TopTokens(int32_t* ids, const float* logits, int64_t n, int64_t k);

// 1 + how many tokens TopTokens would list before this one; infinities as the largest finite float of their
// sign. No logit is NaN; token in [0, n).
int32_t TokenRank(const float* logits, int64_t n, int64_t token);

// seen: bit 31 a token of the prompt, the other bits how often it was generated. Every operation is rounded
// to float32, as on CUDA.
void Penalize(float* logits, const int32_t* seen, int64_t n, float repetition, float presence,
              float frequency);

}  // namespace fd::cpu
