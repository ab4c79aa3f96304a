#include "compute/kernels/reference/sample.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>

namespace fd::reference {

std::vector<double> SampleProbs(const std::vector<float>& logits, double temperature, int top_k, double top_p,
                                double min_p) {
  const size_t n = logits.size();
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  std::vector<double> p(n, 0.0);
  if (temperature <= 0) {
    p[order[0]] = 1;
    return p;
  }
  size_t kept = n;
  if (top_k > 0 && static_cast<size_t>(top_k) < n) {
    kept = static_cast<size_t>(top_k);
    while (kept < n && logits[order[kept]] == logits[order[kept - 1]]) ++kept;
  }
  const double top = static_cast<double>(logits[order[0]]);
  for (size_t j = 0; j < kept; ++j) {
    p[order[j]] = std::exp((static_cast<double>(logits[order[j]]) - top) / temperature);
  }
  double sum = std::accumulate(p.begin(), p.end(), 0.0), before = 0;
  for (size_t j = 0; j < n; ++j) {
    const double mass = p[order[j]];
    if (j > 0 && top_p < 1 && before >= top_p * sum) p[order[j]] = 0;
    before += mass;
  }
  for (double& x : p) x = x < min_p ? 0 : x;  // the largest is 1
  sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p) x /= sum;
  return p;
}

std::vector<std::pair<int32_t, double>> TopLogprobs(const std::vector<float>& logits, size_t k) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto logit = [&](int32_t i) { return static_cast<double>(logits[static_cast<size_t>(i)]); };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return logit(a) > logit(b); });
  double sum = 0;
  for (int32_t i : order) sum += std::exp(logit(i) - logit(order[0]));
  std::vector<std::pair<int32_t, double>> top;
  for (int32_t i : order) {
    if (top.size() == k || std::isinf(logit(i))) break;
    top.emplace_back(i, logit(i) - logit(order[0]) - std::log(sum));
  }
  return top;
}

std::vector<double> Logprobs(const std::vector<float>& logits, double temperature, double top_p) {
  const size_t n = logits.size();
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  std::vector<double> below(n);
  double sum = 0, before = 0, kept_sum = 0;
  for (size_t i = 0; i < n; ++i) {
    below[i] = (static_cast<double>(logits[i]) - static_cast<double>(logits[order[0]])) / temperature;
    sum += std::exp(below[i]);
  }
  size_t kept = 0;
  while (kept < n && (kept == 0 || top_p >= 1 || before < top_p * sum)) {
    const double weight = std::exp(below[order[kept++]]);
    before += weight;
    kept_sum += weight;
  }
  std::vector<double> out(n, -std::numeric_limits<double>::infinity());
  for (size_t j = 0; j < kept; ++j) out[order[j]] = below[order[j]] - std::log(kept_sum);
  return out;
}

int32_t TokenRank(const std::vector<float>& logits, size_t token) {
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  return 1 + static_cast<int32_t>(std::find(order.begin(), order.end(), token) - order.begin());
}

std::vector<double> Penalize(const std::vector<float>& logits, const std::vector<int32_t>& prompt,
                             const std::vector<int32_t>& output, const Penalties& penalties) {
  std::vector<double> out(logits.begin(), logits.end());
  for (size_t i = 0; i < out.size(); ++i) {
    const auto times = [&](const std::vector<int32_t>& ids) {
      return std::count(ids.begin(), ids.end(), static_cast<int32_t>(i));
    };
    const auto count = static_cast<double>(times(output));
    if (count > 0 || times(prompt) > 0) {
      out[i] = out[i] > 0 ? out[i] / penalties.repetition : out[i] * penalties.repetition;
    }
    if (count > 0) out[i] -= penalties.presence + penalties.frequency * count;
  }
  for (const auto& [id, bias] : penalties.biases) out[static_cast<size_t>(id)] += bias;
  return out;
}

}  // namespace fd::reference
