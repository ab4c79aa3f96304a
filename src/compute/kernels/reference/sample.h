// Answers of ops/sample for one row, in double precision, by sorting.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace fd::reference {

std::vector<double> SampleProbs(const std::vector<float>& logits, double temperature, int top_k, double top_p,
                                double min_p);

// (token, natural log of its probability), best first; fewer than k when the others have logit -infinity.
std::vector<std::pair<int32_t, double>> TopLogprobs(const std::vector<float>& logits, size_t k);

// Natural log of each token's probability under softmax(logits / temperature), -infinity for those that top_p
// leaves out.
std::vector<double> Logprobs(const std::vector<float>& logits, double temperature, double top_p);

// 1: the largest logit; of equal ones the lower index comes first. No logit is NaN.
int32_t TokenRank(const std::vector<float>& logits, size_t token);

struct Penalties {
  double repetition = 1, presence = 0, frequency = 0;
  std::vector<std::pair<int32_t, double>> biases;
};
std::vector<double> Penalize(const std::vector<float>& logits, const std::vector<int32_t>& prompt,
                             const std::vector<int32_t>& output, const Penalties& penalties);

}  // namespace fd::reference
