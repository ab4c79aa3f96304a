#include "engine/kvcache/page_pool.h"

#include <algorithm>

#include "base/check.h"

namespace fd {

PagePool::PagePool(int64_t total_pages) : is_used_(static_cast<size_t>(total_pages), false) {
  FD_CHECK_GE(total_pages, 1, "a key/value cache without pages");
  free_.reserve(is_used_.size());
  for (int64_t page = total_pages - 1; page >= 0; --page) free_.push_back(static_cast<int32_t>(page));
}

bool PagePool::Allocate(int64_t count, std::vector<int32_t>& block_table) {
  if (count > free_pages()) return false;
  for (int64_t i = 0; i < count; ++i) {
    int32_t page = free_.back();
    free_.pop_back();
    FD_CHECK(!is_used_[page], "page ", page, " was free and used at once");
    is_used_[page] = true;
    block_table.push_back(page);
  }
  used_pages_ += count;
  return true;
}

void PagePool::Free(std::vector<int32_t>& block_table) {
  // Backwards, so that the next sequence gets the same pages in the same order.
  for (auto it = block_table.rbegin(); it != block_table.rend(); ++it) {
    FD_CHECK(*it >= 0 && *it < total_pages() && is_used_[*it], "page ", *it, " given back twice");
    is_used_[*it] = false;
    free_.push_back(*it);
  }
  used_pages_ -= static_cast<int64_t>(block_table.size());
  block_table.clear();
}

void PagePool::CheckAccounting() const {
  int64_t marked = std::count(is_used_.begin(), is_used_.end(), true);
  FD_CHECK_EQ(marked, used_pages_, "used pages");
  FD_CHECK_EQ(free_pages() + cached_pages_ + used_pages_, total_pages(), "free ", free_pages(), " cached ",
              cached_pages_, " used ", used_pages_);
}

}  // namespace fd
