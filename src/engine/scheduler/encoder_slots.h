// Which rows of the encoder slab belong to which picture: ids and ranges only, no bytes (those are the
// executor's EncoderSlab). Engine thread.
//
// An encoder output lies in one contiguous range of rows and is found by its content hash. It stays when
// nobody needs it any more, until its rows are needed for another: the least recently used go first. Two
// kinds of entries never go: pinned ones, and those used in the step that is being planned, because the
// executor encodes everything of a step before it reads anything. A range may be given away while a step that
// reads it is still running: steps run in order, so it is written after that step.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <unordered_map>

#include "base/hash.h"

namespace fd {

class EncoderSlots {
 public:
  explicit EncoderSlots(int64_t capacity_tokens);

  // From here on entries used before may go again.
  void BeginStep() { step_begin_ = next_use_; }
  // First row of a kept output, which then counts as used in this step; nullopt: it is not there.
  std::optional<int64_t> Use(const Hash128& hash);
  // Rows for an output that is not there, used in this step; nullopt: even with everything dropped that may
  // go, no range is long enough, and nothing was dropped.
  std::optional<int64_t> Allocate(const Hash128& hash, int64_t tokens);
  // Between Pin and Unpin an entry stays. Pins count.
  void Pin(const Hash128& hash);
  void Unpin(const Hash128& hash);
  // Drops what is not pinned, also what this step uses: for a cache that keeps nothing.
  void DropUnpinned();
  // Drops everything, after a failed step: nobody knows what was written. Nothing is pinned.
  void Clear();

  int64_t capacity_tokens() const { return capacity_tokens_; }
  int64_t kept_tokens() const { return kept_tokens_; }
  int64_t pins() const { return pins_; }
  // Walks every range and stops the program when two overlap, rows are lost or a count is wrong.
  void CheckAccounting() const;

 private:
  struct Entry {
    int64_t begin = 0;
    int64_t tokens = 0;
    int64_t pins = 0;
    int64_t last_use = 0;  // unique among entries
  };
  using Entries = std::unordered_map<Hash128, Entry, Hash128Hasher>;
  bool MayGo(const Entry& entry) const { return entry.pins == 0 && entry.last_use < step_begin_; }
  std::optional<int64_t> FirstFree(int64_t tokens) const;
  bool MakeRoom(int64_t tokens);
  void Erase(Entries::iterator entry);

  const int64_t capacity_tokens_;
  int64_t kept_tokens_ = 0;
  int64_t pins_ = 0;
  int64_t next_use_ = 0;
  int64_t step_begin_ = 0;
  Entries entries_;
  std::map<int64_t, Hash128> by_row_;  // first row -> whose
  std::map<int64_t, int64_t> free_;    // first row -> rows; no two touch
};

}  // namespace fd
