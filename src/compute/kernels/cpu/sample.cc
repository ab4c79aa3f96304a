#include "compute/kernels/cpu/sample.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "compute/kernels/cpu/isa.h"

namespace fd::cpu {

namespace avx2 {
extern const SampleKernels kSampleKernels;
}
namespace avx512 {
extern const SampleKernels kSampleKernels;
}
namespace avx512_bf16 {
extern const SampleKernels kSampleKernels;
}

const SampleKernels& GetSampleKernels() {
  switch (CurrentIsa()) {
    case Isa::kAvx512:
      return avx512::kSampleKernels;
    case Isa::kAvx512Bf16:
      return avx512_bf16::kSampleKernels;
    case Isa::kAvx2:
      break;
  }
  return avx2::kSampleKernels;
}

namespace {

// Orders as the floats do; -0 equals 0.
inline uint32_t OrderedKey(float x) {
  x += 0.0f;
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

// The tokens that stay: those with a larger key, and the first `ties` (in index order) with this key.
struct Threshold {
  uint32_t key = 0;
  int64_t ties = std::numeric_limits<int64_t>::max();
};

// Walks the keys from the largest down until their accumulated cost reaches `budget`; the key where that
// happens is the threshold, and tokens of that key stay while the cost before them is below the budget. Radix
// descent: three histograms instead of a sort. cost(i) >= 0; keys below `floor` take no part.
template <typename Cost>
Threshold Descend(const float* logits, int64_t n, uint32_t floor, double budget, const Cost& cost) {
  struct Bin {
    double cost;
    int64_t count;
  };
  constexpr int kShifts[] = {21, 10, 0};
  constexpr uint32_t kBins[] = {2048, 2048, 1024};
  static thread_local Bin bins[2048];
  uint32_t prefix = 0;
  double before = 0;
  Threshold result;
  for (int level = 0; level < 3; ++level) {
    std::fill(bins, bins + kBins[level], Bin{0, 0});
    const int shift = kShifts[level];
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t key = OrderedKey(logits[i]);
      if (key < floor) continue;
      if (level > 0 && (key >> kShifts[level - 1]) != prefix) continue;
      Bin& bin = bins[(key >> shift) & (kBins[level] - 1)];
      bin.cost += cost(i);
      ++bin.count;
    }
    uint32_t chosen = 0;
    double chosen_before = before;
    for (uint32_t b = kBins[level]; b-- > 0;) {
      if (bins[b].count == 0) continue;
      chosen = b;
      chosen_before = before;
      if (before + bins[b].cost >= budget) break;
      before += bins[b].cost;
    }
    before = chosen_before;
    prefix = prefix << (level == 2 ? 10 : 11) | chosen;
    if (level < 2) continue;
    result.key = prefix;
    const int64_t count = bins[chosen].count;
    const double each = bins[chosen].cost / static_cast<double>(count);
    result.ties = 1;
    while (result.ties < count && before + each * static_cast<double>(result.ties) < budget) ++result.ties;
  }
  return result;
}

// Fixed order, independent of what was dropped.
double SumOf(const float* weights, int64_t n) {
  constexpr int kLanes = 8;
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] += static_cast<double>(weights[i + j]);
  }
  double sum = 0;
  for (; i < n; ++i) sum += static_cast<double>(weights[i]);
  for (double lane : lanes) sum += lane;
  return sum;
}

}  // namespace

double WeighRow(float* weights, const float* logits, int64_t n, const RowSampling& params, int32_t* largest) {
  const SampleKernels& kernels = GetSampleKernels();
  *largest = -1;
  const float max = n > 0 ? kernels.max(logits, n) : -std::numeric_limits<float>::max();
  const int64_t at = std::isnan(max) ? n : kernels.find(logits, n, max);
  if (at == n) {  // NaN, or nothing but -infinity
    std::fill(weights, weights + n, 0.0f);
    return 0;
  }
  *largest = static_cast<int32_t>(at);
  if (!(params.temperature > 0)) {
    std::fill(weights, weights + n, 0.0f);
    weights[at] = 1;
    return 1;
  }
  double total = kernels.weigh(weights, logits, n, max, 1.0 / static_cast<double>(params.temperature));

  Threshold stay;
  if (params.top_k > 0 && params.top_k < n) {
    stay = Descend(logits, n, 0, static_cast<double>(params.top_k), [](int64_t) { return 1.0; });
    stay.ties = std::numeric_limits<int64_t>::max();
  }
  if (params.top_p < 1) {
    const uint32_t floor = stay.key;
    double mass = 0;
    for (int64_t i = 0; i < n; ++i)
      mass += OrderedKey(logits[i]) >= floor ? static_cast<double>(weights[i]) : 0;
    stay = Descend(logits, n, floor, static_cast<double>(params.top_p) * mass,
                   [weights](int64_t i) { return static_cast<double>(weights[i]); });
  }
  if (stay.key == 0 && !(params.min_p > 0)) return total;
  int64_t ties = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t key = OrderedKey(logits[i]);
    const bool keep = key > stay.key || (key == stay.key && ties++ < stay.ties);
    // The likeliest token always stays and has weight 1.
    if (!keep || weights[i] < params.min_p) weights[i] = 0;
  }
  weights[at] = 1;
  return SumOf(weights, n);
}

int32_t DrawToken(const float* weights, int64_t n, double total, double u) {
  const double target = u * total;
  constexpr int64_t kPart = 1024;
  double before = 0;
  int64_t last = -1;
  for (int64_t begin = 0; begin < n; begin += kPart) {
    const int64_t count = std::min(kPart, n - begin);
    const double part = SumOf(weights + begin, count);
    if (before + part <= target && begin + count < n) {
      before += part;
      continue;
    }
    for (int64_t i = begin; i < begin + count; ++i) {
      if (weights[i] == 0) continue;
      last = i;
      before += static_cast<double>(weights[i]);
      if (before > target) return static_cast<int32_t>(i);
    }
  }
  // Rounding left the target beyond the last weight.
  for (int64_t i = n - 1; last < 0 && i >= 0; --i) {
    if (weights[i] > 0) last = i;
  }
  return static_cast<int32_t>(last);
}

int64_t TopTokens(int32_t* ids, const float* logits, int64_t n, int64_t k) {
  const auto value = [logits](int64_t id) { return std::min(logits[id], std::numeric_limits<float>::max()); };
  int64_t count = 0;
  float last = -std::numeric_limits<float>::infinity();  // what a token must exceed to get in
  for (int64_t i = 0; i < n; ++i) {
    if (!(logits[i] > last)) continue;
    const float x = value(i);
    if (count == k && x == last) continue;  // infinity after the largest finite float
    int64_t at = count < k ? count++ : k - 1;
    for (; at > 0 && value(ids[at - 1]) < x; --at) ids[at] = ids[at - 1];
    ids[at] = static_cast<int32_t>(i);
    if (count == k) last = value(ids[k - 1]);
  }
  return count;
}

int32_t TokenRank(const float* logits, int64_t n, int64_t token) {
  const auto value = [logits](int64_t i) {
    constexpr float kLargest = std::numeric_limits<float>::max();
    return std::clamp(logits[i], -kLargest, kLargest);
  };
  const float own = value(token);
  int32_t better = 0;  // two plain loops, for the compiler's vectors
  for (int64_t i = 0; i < token; ++i) better += value(i) >= own;
  for (int64_t i = token + 1; i < n; ++i) better += value(i) > own;
  return better + 1;
}

void Penalize(float* logits, const int32_t* seen, int64_t n, float repetition, float presence,
              float frequency) {
  for (int64_t i = 0; i < n; ++i) {
    if (seen[i] == 0) continue;
    const int32_t count = seen[i] & std::numeric_limits<int32_t>::max();
    float x = logits[i];
    x = x > 0 ? x / repetition : x * repetition;
    if (count > 0) {
      const float total = static_cast<float>(count) * frequency;
      x -= total + presence;
    }
    logits[i] = x;
  }
}

}  // namespace fd::cpu
