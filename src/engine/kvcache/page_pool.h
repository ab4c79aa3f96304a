// Which page of the key/value cache belongs to whom: ids only, no bytes. Engine thread.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "engine/plan/options.h"

namespace fd {

// Every page is free, cached (nobody's, but kept for a prompt that starts the same way) or used by one or
// more block tables; free + cached + used == total at all times. A block table is a plain vector of page ids;
// each page in it counts one owner.
class PagePool {
 public:
  explicit PagePool(int64_t total_pages);
  // Told of each cached page before another gets it. Once, before the first Keep.
  void OnEvict(std::function<void(int32_t page)> evicted) { evicted_ = std::move(evicted); }

  // Appends `count` pages to `block_table`, or none and false when there are not so many. Free pages first,
  // then cached ones, those that were given back first.
  bool Allocate(int64_t count, std::vector<int32_t>& block_table);
  // One more owner of a cached or used page; appends it to `block_table`.
  void Share(int32_t page, std::vector<int32_t>& block_table);
  // Gives back all pages of `block_table`, the last one first, and clears it. Pages nobody owns any more
  // become free, or cached if they are kept.
  void Free(std::vector<int32_t>& block_table);

  // A used page is to become cached, not free, when its last owner gives it back.
  void Keep(int32_t page);
  // No longer; if it is cached it becomes free now.
  void Drop(int32_t page);

  int64_t total_pages() const { return static_cast<int64_t>(pages_.size()); }
  int64_t free_pages() const { return static_cast<int64_t>(free_.size()); }
  int64_t cached_pages() const { return cached_pages_; }
  int64_t used_pages() const { return used_pages_; }
  // What Allocate can give.
  int64_t available_pages() const { return free_pages() + cached_pages_; }
  int64_t owners(int32_t page) const { return pages_[static_cast<size_t>(page)].owners; }

  // Counts every page again and stops the program when the sum is wrong: a leaked or lost page.
  void CheckAccounting() const;

 private:
  struct Page {
    int32_t owners = 0;
    bool is_kept = false;
    bool is_free = true;
    // Of cached pages: its neighbours in the order in which they were given back; -1: none.
    int32_t older = -1, newer = -1;
  };
  void LinkNewest(int32_t page);
  void Unlink(int32_t page);
  void GiveBack(int32_t page);

  // A stack: the page given back last is taken first, so that a server with little to do touches little
  // memory.
  std::vector<int32_t> free_;
  std::vector<Page> pages_;  // [total pages]
  int32_t oldest_ = -1, newest_ = -1;
  int64_t used_pages_ = 0;
  int64_t cached_pages_ = 0;
  std::function<void(int32_t)> evicted_;
};

}  // namespace fd
