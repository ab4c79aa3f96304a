#include "server/text/piece_table.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.h"

namespace fd {
namespace {

uint64_t Mix(uint64_t x) {
  x ^= x >> 32;
  x *= 0x9E3779B97F4A7C15u;
  x ^= x >> 29;
  x *= 0xBF58476D1CE4E5B9u;
  return x ^ (x >> 32);
}

// Not keyed: the keys are the model's, a request can look up but not insert.
uint64_t Hash(std::string_view bytes) {
  uint64_t h = bytes.size() * 0x9E3779B97F4A7C15u;
  const char* p = bytes.data();
  size_t n = bytes.size();
  for (; n >= 8; p += 8, n -= 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    h = Mix(h ^ word);
  }
  uint64_t tail = 0;
  for (size_t i = 0; i < n; ++i) tail |= uint64_t{static_cast<uint8_t>(p[i])} << (8 * i);
  return Mix(h ^ tail);
}

size_t SlotsFor(size_t entries) { return std::bit_ceil(std::max<size_t>(16, entries * 2)); }

}  // namespace

void PieceTable::Reserve(size_t pieces, size_t total_bytes) {
  entries_.reserve(pieces);
  arena_.reserve(total_bytes);
  if (SlotsFor(pieces) > slots_.size()) Grow(SlotsFor(pieces));
}

void PieceTable::Set(int32_t id, std::string_view bytes) {
  FD_CHECK_GE(id, 0);
  FD_CHECK_LE(arena_.size() + bytes.size(), size_t{UINT32_MAX});
  if (static_cast<size_t>(id) >= entries_.size()) entries_.resize(static_cast<size_t>(id) + 1);
  entries_[id] = {static_cast<uint32_t>(arena_.size()), static_cast<uint32_t>(bytes.size())};
  arena_.append(bytes);
}

bool PieceTable::Index(int32_t id) {
  if (SlotsFor(indexed_ + 1) > slots_.size()) Grow(SlotsFor(indexed_ + 1));
  const std::string_view bytes = Bytes(id);
  const uint64_t hash = Hash(bytes);
  const uint32_t tag = static_cast<uint32_t>(hash >> 32);
  const size_t mask = slots_.size() - 1;
  size_t at = hash & mask;
  for (; slots_[at].id != kNone; at = (at + 1) & mask) {
    if (slots_[at].tag == tag && Bytes(slots_[at].id) == bytes) return false;
  }
  slots_[at] = {tag, id};
  ++indexed_;
  return true;
}

int32_t PieceTable::Find(std::string_view bytes) const {
  if (slots_.empty()) return kNone;
  const uint64_t hash = Hash(bytes);
  const uint32_t tag = static_cast<uint32_t>(hash >> 32);
  const size_t mask = slots_.size() - 1;
  for (size_t at = hash & mask; slots_[at].id != kNone; at = (at + 1) & mask) {
    if (slots_[at].tag == tag && Bytes(slots_[at].id) == bytes) return slots_[at].id;
  }
  return kNone;
}

std::string_view PieceTable::Bytes(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= entries_.size()) return {};
  return std::string_view(arena_).substr(entries_[id].offset, entries_[id].length);
}

void PieceTable::Grow(size_t slots) {
  std::vector<Slot> old = std::move(slots_);
  slots_.assign(slots, {});
  for (const Slot& slot : old) {
    if (slot.id == kNone) continue;
    size_t at = Hash(Bytes(slot.id)) & (slots - 1);
    while (slots_[at].id != kNone) at = (at + 1) & (slots - 1);
    slots_[at] = slot;
  }
}

namespace {
uint64_t PairKey(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}
}  // namespace

PairTable::PairTable(size_t expected_pairs) { Grow(SlotsFor(expected_pairs)); }

void PairTable::Set(int32_t left, int32_t right, Merge merge) {
  if (SlotsFor(used_ + 1) > slots_.size()) Grow(SlotsFor(used_ + 1));
  const size_t mask = slots_.size() - 1;
  const uint64_t key = PairKey(left, right);
  size_t at = Mix(key) & mask;
  while (slots_[at].key != kEmpty && slots_[at].key != key) at = (at + 1) & mask;
  if (slots_[at].key == kEmpty) ++used_;
  slots_[at] = {key, merge};
}

const PairTable::Merge* PairTable::Find(int32_t left, int32_t right) const {
  if (left < 0 || right < 0) return nullptr;
  const size_t mask = slots_.size() - 1;
  const uint64_t key = PairKey(left, right);
  for (size_t at = Mix(key) & mask; slots_[at].key != kEmpty; at = (at + 1) & mask) {
    if (slots_[at].key == key) return &slots_[at].merge;
  }
  return nullptr;
}

void PairTable::Grow(size_t slots) {
  std::vector<Slot> old = std::move(slots_);
  slots_.assign(slots, {});
  for (const Slot& slot : old) {
    if (slot.key == kEmpty) continue;
    size_t at = Mix(slot.key) & (slots - 1);
    while (slots_[at].key != kEmpty) at = (at + 1) & (slots - 1);
    slots_[at] = slot;
  }
}

}  // namespace fd
