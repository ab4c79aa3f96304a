// Which page of the key/value cache belongs to whom: ids only, no bytes. Engine thread.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/plan/options.h"

namespace fd {

// Every page is free, cached (unused but kept for a prompt that starts the same way) or used by one block
// table; free + cached + used == total at all times. A block table is a plain vector of page ids, owned by
// its sequence.
class PagePool {
 public:
  explicit PagePool(int64_t total_pages);

  // Appends `count` pages to `block_table`, or none and false when there are not so many.
  bool Allocate(int64_t count, std::vector<int32_t>& block_table);
  // Takes back all pages of `block_table` and clears it.
  void Free(std::vector<int32_t>& block_table);

  int64_t total_pages() const { return static_cast<int64_t>(is_used_.size()); }
  int64_t free_pages() const { return static_cast<int64_t>(free_.size()); }
  int64_t cached_pages() const { return cached_pages_; }
  int64_t used_pages() const { return used_pages_; }

  // Counts every page again and stops the program when the sum is wrong: a leaked or doubly owned page.
  void CheckAccounting() const;

 private:
  // A stack: the page given back last is taken first, so that a server with little to do touches little
  // memory.
  std::vector<int32_t> free_;
  std::vector<bool> is_used_;  // [total pages]
  int64_t used_pages_ = 0;
  int64_t cached_pages_ = 0;  // pages of the prefix tree, once there is one
};

}  // namespace fd
