// Byte strings by id and ids by byte string, for vocabularies of 100,000s of pieces: one arena, one array,
// one open-addressing table. Built once, then read by any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fd {

class PieceTable {
 public:
  static constexpr int32_t kNone = -1;

  void Reserve(size_t pieces, size_t total_bytes);
  // Gives `id` (>= 0) its bytes; ids may come in any order, gaps have no bytes.
  void Set(int32_t id, std::string_view bytes);
  // Makes the piece findable. False when another piece with the same bytes already is.
  bool Index(int32_t id);

  int32_t Find(std::string_view bytes) const;
  // Empty for an id that was never set.
  std::string_view Bytes(int32_t id) const;
  // Largest id set + 1.
  int32_t size() const { return static_cast<int32_t>(entries_.size()); }

 private:
  struct Entry {
    uint32_t offset = 0;
    uint32_t length = 0;
  };
  void Grow(size_t slots);
  std::string arena_;
  std::vector<Entry> entries_;
  // Half of the hash beside the id: most lookups end without touching the piece.
  struct Slot {
    uint32_t tag = 0;
    int32_t id = kNone;
  };
  std::vector<Slot> slots_;  // a power of two of them, at most half full
  size_t indexed_ = 0;
};

// Ids of pairs of ids: the merges of a BPE model.
class PairTable {
 public:
  struct Merge {
    uint32_t rank;
    int32_t id;
  };
  explicit PairTable(size_t expected_pairs = 0);
  // A later merge of the same pair replaces the earlier one.
  void Set(int32_t left, int32_t right, Merge merge);
  const Merge* Find(int32_t left, int32_t right) const;

 private:
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge = {};
  };
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  void Grow(size_t slots);
  std::vector<Slot> slots_;
  size_t used_ = 0;
};

}  // namespace fd
