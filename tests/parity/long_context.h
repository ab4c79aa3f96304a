// One sequence of 131072 tokens in pages at the end of a cache: its last tokens as a chunk and as a decode,
// against the reference. For each device.
#pragma once

#include <numeric>

#include "compute/kernels/reference/attention.h"
#include "compute/ops/attention.h"
#include "tests/parity/parity.h"

namespace fd::parity {

struct LongContext {
  static constexpr int64_t kTokens = 131072, kHeads = 2, kKvHeads = 1, kHeadDim = 64;
  static constexpr int64_t kPages = kTokens / ops::kPageTokens;
  // Pages before the sequence's such that they lie beyond 2^31 elements.
  static constexpr int64_t kFarPages = (int64_t{1} << 31) / (ops::kPageTokens * kKvHeads * kHeadDim);
  // The rows that are attended: a chunk, then one token.
  static constexpr int64_t kChunk = 37, kQueries = kChunk + 1;
  static constexpr float kScale = 0.125f;

  // Larger queries, so that few keys carry the weight and the result is not a mean near zero.
  LongContext(std::mt19937& rng, DType act)
      : q(Random(rng, act, {kQueries, kHeads, kHeadDim}, 1.5f)),
        k(Random(rng, act, {kTokens, kKvHeads, kHeadDim})),
        v(Random(rng, act, {kTokens, kKvHeads, kHeadDim})),
        identity(DType::kFloat32, Device{}, {kTokens, 2, kHeadDim / 2}) {
    for (int64_t i = 0; i < identity.view().NumElements(); ++i)
      Set(identity, i, i / (kHeadDim / 2) % 2 == 0 ? 1.0f : 0.0f);
  }

  // Pages in an order that is not theirs, the last of the cache among them.
  std::vector<int32_t> Table(int64_t first_page) const {
    std::vector<int32_t> pages(static_cast<size_t>(kPages));
    for (int64_t p = 0; p < kPages; ++p)
      pages[static_cast<size_t>(p)] = static_cast<int32_t>(first_page + (p * 1021 + 77) % kPages);
    return pages;
  }
  static std::vector<int32_t> Slots(const std::vector<int32_t>& table) {
    std::vector<int32_t> slots;
    for (int64_t t = 0; t < kTokens; ++t) {
      slots.push_back(static_cast<int32_t>(
          table[static_cast<size_t>(t / ops::kPageTokens)] * ops::kPageTokens + t % ops::kPageTokens));
    }
    return slots;
  }
  // out [kQueries, kHeads, kHeadDim]: what the last rows see of the keys before and at their own place.
  Tensor Expected() const {
    Tensor out(DType::kFloat32, Device{}, {kQueries, kHeads, kHeadDim});
    for (int64_t row = 0; row < kQueries; ++row) {
      std::vector<int64_t> keys(static_cast<size_t>(kTokens - kQueries + row + 1));
      std::iota(keys.begin(), keys.end(), 0);
      reference::AttendRow(out, q, row, k, v, keys, kScale);
    }
    return out;
  }

  Tensor q;         // of the last kQueries tokens
  Tensor k, v;      // of all
  Tensor identity;  // angles that leave keys as they are
};

}  // namespace fd::parity
