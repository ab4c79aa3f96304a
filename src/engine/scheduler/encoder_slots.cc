#include "engine/scheduler/encoder_slots.h"

#include <deque>
#include <iterator>
#include <limits>
#include <vector>

#include "base/check.h"

namespace fd {

EncoderSlots::EncoderSlots(int64_t capacity_tokens) : capacity_tokens_(capacity_tokens) {
  FD_CHECK_GE(capacity_tokens, 0);
  if (capacity_tokens > 0) free_[0] = capacity_tokens;
}

std::optional<int64_t> EncoderSlots::Use(const Hash128& hash) {
  const auto it = entries_.find(hash);
  if (it == entries_.end()) return std::nullopt;
  it->second.last_use = next_use_++;
  return it->second.begin;
}

std::optional<int64_t> EncoderSlots::FirstFree(int64_t tokens) const {
  for (const auto& [begin, rows] : free_) {
    if (rows >= tokens) return begin;
  }
  return std::nullopt;
}

std::optional<int64_t> EncoderSlots::Allocate(const Hash128& hash, int64_t tokens) {
  FD_CHECK_GE(tokens, 1);
  std::optional<int64_t> begin = FirstFree(tokens);
  if (!begin) {
    if (!MakeRoom(tokens)) return std::nullopt;
    begin = FirstFree(tokens);
  }
  FD_CHECK(begin.has_value(), "no room after room was made");
  const auto range = free_.find(*begin);
  const int64_t rows = range->second;
  free_.erase(range);
  if (rows > tokens) free_[*begin + tokens] = rows - tokens;
  FD_CHECK(entries_.emplace(hash, Entry{*begin, tokens, 0, next_use_++}).second, "kept already");
  by_row_[*begin] = hash;
  kept_tokens_ += tokens;
  return begin;
}

// Of all stretches of rows that are free or may go and are long enough, clears the one whose most recently
// used entry was used longest ago: as little as possible, and nothing that another choice would spare.
bool EncoderSlots::MakeRoom(int64_t tokens) {
  if (tokens > capacity_tokens_) return false;
  struct Piece {  // an entry that may go
    Entries::iterator entry;
    int64_t begin = 0, end = 0;
  };
  std::vector<Piece> pieces;  // of the stretch in hand
  std::deque<size_t> newest;  // indices of pieces of the window, last_use descending
  size_t first = 0;           // piece of the window
  int64_t best_use = std::numeric_limits<int64_t>::max(), best_begin = 0, best_end = 0;  // the best window
  const auto start_of_free = [this](int64_t row) {  // of the free range that ends at `row`, or `row`
    auto it = free_.lower_bound(row);
    if (it == free_.begin()) return row;
    --it;
    return it->first + it->second == row ? it->first : row;
  };
  const auto end_of_free = [this](int64_t row) {
    const auto it = free_.find(row);
    return it == free_.end() ? row : row + it->second;
  };
  const auto window_begin = [&] { return start_of_free(pieces[first].begin); };
  for (const auto& [row, hash] : by_row_) {
    const auto entry = entries_.find(hash);
    if (!MayGo(entry->second)) {
      pieces.clear();
      newest.clear();
      first = 0;
      continue;
    }
    while (!newest.empty() && pieces[newest.back()].entry->second.last_use < entry->second.last_use)
      newest.pop_back();
    newest.push_back(pieces.size());
    pieces.push_back({entry, row, row + entry->second.tokens});
    const int64_t end = end_of_free(pieces.back().end);
    // The shortest window that ends here and is long enough: leave behind what is not needed for it.
    while (first + 1 < pieces.size() && end - start_of_free(pieces[first + 1].begin) >= tokens) {
      if (newest.front() == first) newest.pop_front();
      ++first;
    }
    if (end - window_begin() < tokens) continue;
    const int64_t use = pieces[newest.front()].entry->second.last_use;
    if (use >= best_use) continue;
    best_use = use;
    best_begin = pieces[first].begin;
    best_end = pieces.back().end;
  }
  if (best_end == 0) return false;
  for (auto it = by_row_.lower_bound(best_begin); it != by_row_.end() && it->first < best_end;) {
    const auto here = it++;
    Erase(entries_.find(here->second));
  }
  return true;
}

void EncoderSlots::Erase(Entries::iterator entry) {
  const int64_t tokens = entry->second.tokens, begin = entry->second.begin;
  FD_CHECK_EQ(entry->second.pins, 0, "a pinned encoder output is dropped");
  kept_tokens_ -= tokens;
  by_row_.erase(begin);
  entries_.erase(entry);
  auto here = free_.emplace(begin, tokens).first;
  if (const auto next = std::next(here); next != free_.end() && begin + tokens == next->first) {
    here->second += next->second;
    free_.erase(next);
  }
  if (here == free_.begin()) return;
  if (const auto before = std::prev(here); before->first + before->second == begin) {
    before->second += here->second;
    free_.erase(here);
  }
}

void EncoderSlots::Pin(const Hash128& hash) {
  const auto it = entries_.find(hash);
  FD_CHECK(it != entries_.end(), "an encoder output that is not there is pinned");
  ++it->second.pins;
  ++pins_;
}

void EncoderSlots::Unpin(const Hash128& hash) {
  const auto it = entries_.find(hash);
  FD_CHECK(it != entries_.end() && it->second.pins > 0, "an encoder output is unpinned twice");
  --it->second.pins;
  --pins_;
}

void EncoderSlots::DropUnpinned() {
  for (auto it = entries_.begin(); it != entries_.end();) {
    const auto here = it++;
    if (here->second.pins == 0) Erase(here);
  }
}

void EncoderSlots::Clear() {
  FD_CHECK_EQ(pins_, 0, "pinned encoder outputs are cleared");
  DropUnpinned();
}

void EncoderSlots::CheckAccounting() const {
  int64_t kept = 0, pins = 0, row = 0;
  auto free = free_.begin();
  for (const auto& [begin, hash] : by_row_) {
    if (free != free_.end() && free->first == row) {
      row += free->second;
      ++free;
    }
    const auto it = entries_.find(hash);
    FD_CHECK(it != entries_.end(), "rows of nobody");
    FD_CHECK_EQ(it->second.begin, begin);
    FD_CHECK_EQ(begin, row, "encoder outputs overlap or rows are lost");
    row += it->second.tokens;
    kept += it->second.tokens;
    pins += it->second.pins;
  }
  if (free != free_.end()) {
    FD_CHECK_EQ(free->first, row, "a free range lies elsewhere");
    row += free->second;
    ++free;
  }
  FD_CHECK(free == free_.end(), "free ranges inside outputs");
  FD_CHECK_EQ(row, capacity_tokens_, "rows of the encoder slab");
  FD_CHECK_EQ(by_row_.size(), entries_.size());
  FD_CHECK_EQ(kept, kept_tokens_, "kept tokens");
  FD_CHECK_EQ(pins, pins_, "pins");
}

}  // namespace fd
