#include "compute/kernels/reference/sample.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
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

}  // namespace fd::reference
