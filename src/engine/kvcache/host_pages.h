// Pages of host memory that hold what cached pages of the device held: ids only, no bytes. Engine thread.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace fd {

// When a page of tokens on the host is worth bringing back. 0: not known yet.
struct MoveCosts {
  double page_in_ms = 0;   // one page from the host to the device
  double page_out_ms = 0;  // and back
  double token_ms = 0;     // computing a prompt's token
  bool Pays(int64_t tokens) const {
    return page_in_ms <= 0 || token_ms <= 0 || page_in_ms <= token_ms * static_cast<double>(tokens);
  }
};

// Every page is free, a spare (what it holds lies on the device too) or the only place of what it holds. Of
// those in use the one used longest ago is given away first, spares before all others. Pinned pages stay.
class HostPages {
 public:
  explicit HostPages(int64_t total_pages);

  // A page for something else, now its only place and the newest; what it held is told first. -1: there is
  // none.
  int32_t Take(const std::function<void(int32_t page)>& lost);
  void GiveBack(int32_t page);
  // All of them; none is pinned.
  void Clear();

  // Of a used page; it becomes the newest.
  void SetSpare(int32_t page, bool is_spare);
  void Touch(int32_t page);
  // Until Unpin, which makes it the newest; once at a time.
  void Pin(int32_t page);
  void Unpin(int32_t page);

  int64_t total_pages() const { return static_cast<int64_t>(pages_.size()); }
  int64_t free_pages() const { return static_cast<int64_t>(free_.size()); }
  int64_t used_pages() const { return total_pages() - free_pages(); }
  bool is_spare(int32_t page) const { return pages_[static_cast<size_t>(page)].list == kSpare; }
  // Stops the program when a page is in no list or in two, or pinned: nothing is between two steps.
  void CheckAccounting() const;

 private:
  enum ListIndex : int8_t { kSpare = 0, kOnly = 1, kFree = 2 };
  struct Page {
    int8_t list = kFree;
    bool is_pinned = false;
    int32_t older = -1, newer = -1;  // in its list, but for free and pinned ones
  };
  struct List {
    int32_t oldest = -1, newest = -1;
  };
  Page& At(int32_t page);
  void LinkNewest(int32_t page);
  void Unlink(int32_t page);

  std::vector<Page> pages_;    // [total pages]
  std::vector<int32_t> free_;  // a stack
  List lists_[2];              // by ListIndex
};

}  // namespace fd
