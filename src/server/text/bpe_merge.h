// The merge loop of byte-pair encoding, shared by SentencePiece and tokenizer.json: the adjacent pair of the
// lowest rank is joined first, of equal ranks the leftmost, until no pair has a rank. O(n log n).
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

namespace fd {

struct BpeSymbol {
  uint32_t begin;   // byte offset in the text at hand
  uint32_t length;  // bytes
  int32_t id;       // -1: no piece
};

struct BpeRank {
  static constexpr uint32_t kNever = UINT32_MAX;
  uint32_t rank = kNever;
  int32_t id = -1;  // of the joined symbol
};

// Reused between words; one thread.
struct BpeScratch {
  std::vector<BpeSymbol> symbols;
  std::vector<BpeRank> ranks;
  std::vector<uint32_t> previous;
  std::vector<uint32_t> next;
  std::vector<uint64_t> heap;
};

namespace internal {

// For words of ordinary length: a scan over a few ranks beats a heap.
template <typename RankOf>
void MergeByScan(BpeScratch& scratch, const RankOf& rank_of) {
  auto& symbols = scratch.symbols;
  auto& ranks = scratch.ranks;  // ranks[i] belongs to the pair (i, i + 1)
  ranks.clear();
  for (size_t i = 0; i + 1 < symbols.size(); ++i) ranks.push_back(rank_of(symbols[i], symbols[i + 1]));
  while (!ranks.empty()) {
    size_t best = 0;
    for (size_t i = 1; i < ranks.size(); ++i) {
      if (ranks[i].rank < ranks[best].rank) best = i;
    }
    if (ranks[best].rank == BpeRank::kNever) return;
    symbols[best].length += symbols[best + 1].length;
    symbols[best].id = ranks[best].id;
    symbols.erase(symbols.begin() + best + 1);
    ranks.erase(ranks.begin() + best);
    if (best > 0) ranks[best - 1] = rank_of(symbols[best - 1], symbols[best]);
    if (best < ranks.size()) ranks[best] = rank_of(symbols[best], symbols[best + 1]);
  }
}

template <typename RankOf>
void MergeByHeap(BpeScratch& scratch, const RankOf& rank_of) {
  auto& [symbols, ranks, previous, next, heap] = scratch;
  const uint32_t count = static_cast<uint32_t>(symbols.size());
  constexpr uint32_t kEnd = UINT32_MAX;
  ranks.assign(count, {});
  previous.resize(count);
  next.resize(count);
  heap.clear();
  // A heap entry is rank << 32 | index of the left symbol. It is stale unless that pair still has that rank.
  for (uint32_t i = 0; i < count; ++i) {
    previous[i] = i > 0 ? i - 1 : kEnd;
    next[i] = i + 1 < count ? i + 1 : kEnd;
    if (i + 1 == count) break;
    ranks[i] = rank_of(symbols[i], symbols[i + 1]);
    if (ranks[i].rank != BpeRank::kNever) heap.push_back(uint64_t{ranks[i].rank} << 32 | i);
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  auto update = [&](uint32_t left) {
    ranks[left] = next[left] == kEnd ? BpeRank{} : rank_of(symbols[left], symbols[next[left]]);
    if (ranks[left].rank == BpeRank::kNever) return;
    heap.push_back(uint64_t{ranks[left].rank} << 32 | left);
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    const uint32_t rank = static_cast<uint32_t>(heap.front() >> 32);
    const uint32_t left = static_cast<uint32_t>(heap.front());
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
    if (ranks[left].rank != rank) continue;
    const uint32_t right = next[left];
    symbols[left].length += symbols[right].length;
    symbols[left].id = ranks[left].id;
    symbols[right].length = 0;
    ranks[right] = {};
    next[left] = next[right];
    if (next[left] != kEnd) previous[next[left]] = left;
    if (previous[left] != kEnd) update(previous[left]);
    update(left);
  }
  std::erase_if(symbols, [](const BpeSymbol& s) { return s.length == 0; });
}

}  // namespace internal

// Merges scratch.symbols in place; each must be at least one byte long. rank_of(left, right) -> BpeRank.
template <typename RankOf>
void MergeSymbols(BpeScratch& scratch, const RankOf& rank_of) {
  constexpr size_t kScanSymbols = 48;
  if (scratch.symbols.size() <= kScanSymbols) {
    internal::MergeByScan(scratch, rank_of);
  } else {
    internal::MergeByHeap(scratch, rank_of);
  }
}

}  // namespace fd
