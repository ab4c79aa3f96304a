#include "engine/kvcache/page_pool.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace fd {

PagePool::PagePool(int64_t total_pages) : pages_(static_cast<size_t>(total_pages)) {
  FD_CHECK_GE(total_pages, 1, "a key/value cache without pages");
  free_.reserve(pages_.size());
  for (int64_t page = total_pages - 1; page >= 0; --page) free_.push_back(static_cast<int32_t>(page));
}

bool PagePool::Allocate(int64_t count, std::vector<int32_t>& block_table) {
  if (count > available_pages()) return false;
  for (int64_t i = 0; i < count; ++i) {
    int32_t id = oldest_;
    if (!free_.empty()) {
      id = free_.back();
      free_.pop_back();
    } else {
      if (evicted_) evicted_(id);
      Unlink(id);
    }
    Page& page = pages_[static_cast<size_t>(id)];
    FD_CHECK_EQ(page.owners, 0, "page ", id, " was nobody's and used at once");
    page = {.owners = 1, .is_free = false};
    ++used_pages_;
    block_table.push_back(id);
  }
  return true;
}

void PagePool::Share(int32_t id, std::vector<int32_t>& block_table) {
  FD_CHECK(id >= 0 && id < total_pages() && !pages_[static_cast<size_t>(id)].is_free, "page ", id,
           " is free");
  Page& page = pages_[static_cast<size_t>(id)];
  if (page.owners++ == 0) {
    Unlink(id);
    ++used_pages_;
  }
  block_table.push_back(id);
}

void PagePool::Free(std::vector<int32_t>& block_table) {
  // Backwards, so that the next sequence gets the same pages in the same order, and of a prompt's cached
  // pages the last ones go first.
  for (auto it = block_table.rbegin(); it != block_table.rend(); ++it) {
    FD_CHECK(*it >= 0 && *it < total_pages() && pages_[static_cast<size_t>(*it)].owners > 0, "page ", *it,
             " given back twice");
    if (--pages_[static_cast<size_t>(*it)].owners > 0) continue;
    --used_pages_;
    if (pages_[static_cast<size_t>(*it)].is_kept) {
      LinkNewest(*it);
    } else {
      GiveBack(*it);
    }
  }
  block_table.clear();
}

void PagePool::Keep(int32_t page) {
  FD_CHECK_GE(pages_[static_cast<size_t>(page)].owners, 1, "page ", page, " is nobody's");
  pages_[static_cast<size_t>(page)].is_kept = true;
}

void PagePool::Drop(int32_t id) {
  Page& page = pages_[static_cast<size_t>(id)];
  if (!std::exchange(page.is_kept, false) || page.owners > 0) return;
  Unlink(id);
  GiveBack(id);
}

void PagePool::GiveBack(int32_t id) {
  pages_[static_cast<size_t>(id)] = {};
  free_.push_back(id);
}

void PagePool::LinkNewest(int32_t id) {
  Page& page = pages_[static_cast<size_t>(id)];
  page.older = newest_;
  page.newer = -1;
  (newest_ >= 0 ? pages_[static_cast<size_t>(newest_)].newer : oldest_) = id;
  newest_ = id;
  ++cached_pages_;
}

void PagePool::Unlink(int32_t id) {
  const Page& page = pages_[static_cast<size_t>(id)];
  (page.older >= 0 ? pages_[static_cast<size_t>(page.older)].newer : oldest_) = page.newer;
  (page.newer >= 0 ? pages_[static_cast<size_t>(page.newer)].older : newest_) = page.older;
  --cached_pages_;
}

void PagePool::CheckAccounting() const {
  const auto used = std::count_if(pages_.begin(), pages_.end(), [](const Page& p) { return p.owners > 0; });
  FD_CHECK_EQ(used, used_pages_, "used pages");
  int64_t cached = 0;
  for (int32_t id = oldest_; id >= 0; id = pages_[static_cast<size_t>(id)].newer) {
    const Page& page = pages_[static_cast<size_t>(id)];
    FD_CHECK(page.owners == 0 && page.is_kept && !page.is_free, "page ", id, " is not cached");
    FD_CHECK_LE(++cached, total_pages(), "the list of cached pages is a ring");
  }
  FD_CHECK_EQ(cached, cached_pages_, "cached pages");
  FD_CHECK_EQ(free_pages() + cached_pages_ + used_pages_, total_pages(), "free ", free_pages(), " cached ",
              cached_pages_, " used ", used_pages_);
}

}  // namespace fd
