#include "engine/kvcache/host_pages.h"

#include "base/check.h"

namespace fd {

HostPages::HostPages(int64_t total_pages) : pages_(static_cast<size_t>(total_pages)) {
  free_.reserve(pages_.size());
  Clear();
}

void HostPages::Clear() {
  for (const Page& page : pages_) FD_CHECK(!page.is_pinned, "a pinned host page is given back");
  pages_.assign(pages_.size(), Page{});
  free_.clear();
  for (int64_t page = total_pages() - 1; page >= 0; --page) free_.push_back(static_cast<int32_t>(page));
  lists_[kSpare] = lists_[kOnly] = {};
}

HostPages::Page& HostPages::At(int32_t page) {
  FD_CHECK(page >= 0 && page < total_pages(), "host page ", page, " of ", total_pages());
  return pages_[static_cast<size_t>(page)];
}

int32_t HostPages::Take(const std::function<void(int32_t)>& lost) {
  int32_t page = -1;
  if (!free_.empty()) {
    page = free_.back();
    free_.pop_back();
  } else {
    page = lists_[kSpare].oldest >= 0 ? lists_[kSpare].oldest : lists_[kOnly].oldest;
    if (page < 0) return -1;
    Unlink(page);
    lost(page);
  }
  At(page).list = kOnly;
  LinkNewest(page);
  return page;
}

void HostPages::GiveBack(int32_t page) {
  FD_CHECK(At(page).list != kFree, "host page ", page, " given back twice");
  FD_CHECK(!At(page).is_pinned, "a pinned host page is given back");
  Unlink(page);
  At(page) = {};
  free_.push_back(page);
}

void HostPages::SetSpare(int32_t page, bool is_spare) {
  FD_CHECK(At(page).list != kFree && !At(page).is_pinned);
  Unlink(page);
  At(page).list = is_spare ? kSpare : kOnly;
  LinkNewest(page);
}

void HostPages::Touch(int32_t page) { SetSpare(page, is_spare(page)); }

void HostPages::Pin(int32_t page) {
  FD_CHECK(At(page).list != kFree && !At(page).is_pinned);
  Unlink(page);
  At(page).is_pinned = true;
}

void HostPages::Unpin(int32_t page) {
  FD_CHECK(At(page).is_pinned);
  At(page).is_pinned = false;
  LinkNewest(page);
}

void HostPages::LinkNewest(int32_t id) {
  Page& page = At(id);
  List& list = lists_[page.list];
  page.older = list.newest;
  page.newer = -1;
  (list.newest >= 0 ? At(list.newest).newer : list.oldest) = id;
  list.newest = id;
}

void HostPages::Unlink(int32_t id) {
  const Page page = At(id);
  List& list = lists_[page.list];
  (page.older >= 0 ? At(page.older).newer : list.oldest) = page.newer;
  (page.newer >= 0 ? At(page.newer).older : list.newest) = page.older;
}

void HostPages::CheckAccounting() const {
  int64_t linked = 0;
  for (const int8_t index : {kSpare, kOnly}) {
    int32_t older = -1;
    for (int32_t id = lists_[index].oldest; id >= 0; id = pages_[static_cast<size_t>(id)].newer) {
      const Page& page = pages_[static_cast<size_t>(id)];
      FD_CHECK(page.list == index && page.older == older && !page.is_pinned, "host page ", id);
      FD_CHECK_LE(++linked, used_pages(), "host pages in a ring");
      older = id;
    }
    FD_CHECK_EQ(lists_[index].newest, older);
  }
  FD_CHECK_EQ(linked, used_pages(), "a host page is in no list");
}

}  // namespace fd
