// Computed pages that can be found again by what they were computed from. Ids and hashes only, no bytes.
// Engine thread.
//
// A page is found by its chain hash, which stands for everything up to its end; so two prompts share the
// pages up to the one in which they differ. Of that one the tokens before the difference can be copied. What
// is here is kept by the pool until the page is needed for something else. Then it moves to a host page, if
// there are any and it is worth it (MoveCosts), and can still be found; it is forgotten when its host page is
// needed for another.
//
// A page that comes back keeps its host page as a spare as long as nobody needs that: losing the device's
// page a second time then costs no move. Nothing writes a page that can be found, so both stay the same.
//
// Moves are planned here and carried out by the next step, in the order in which they were planned; the same
// order makes a page that is given to somebody else and then to a third right without any waiting.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "engine/kvcache/host_pages.h"
#include "engine/kvcache/page_content.h"
#include "engine/kvcache/page_pool.h"
#include "engine/plan/step_plan.h"

namespace fd {

// What is there of a prompt: whole pages, then the first copy_tokens tokens of `copy`, which belongs to
// somebody else and must not be written.
struct PrefixMatch {
  std::vector<PagePlace> pages;
  PagePlace copy;
  int64_t copy_tokens = 0;
  int64_t tokens() const { return static_cast<int64_t>(pages.size()) * kKvPageTokens + copy_tokens; }
  int64_t host_tokens() const;  // of them, those on the host
};

class PrefixTree {
 public:
  // pool outlives it.
  explicit PrefixTree(PagePool& pool, int64_t host_pages = 0);

  // The whole pages of a chain that are there and worth their moves, from its beginning on.
  std::vector<PagePlace> FindPages(std::span<const Hash128> hashes) const;
  // The page after `before` (a chain hash) that has most tokens in common with `next` (at least one) and is
  // worth its move, and how many; nowhere and 0 when there is none.
  std::pair<PagePlace, int64_t> FindPartial(const Hash128& before, const PageContent& next) const;

  // `page`, which is used, holds the keys and values of `content` after the chain `before`, once the planned
  // steps have run. hash: ChainHash(before, content). Nothing happens when the device has such a page
  // already.
  void Publish(const Hash128& before, const Hash128& hash, PageContent content, int32_t page);
  // `page` cannot be found any more, for what it holds may be wrong; nor its spare.
  void Retract(int32_t page);
  // All of them, after a failed step; what was planned to move does not.
  void Clear();

  // What is known of costs from now on.
  void SetMoveCosts(const MoveCosts& costs) { costs_ = costs; }
  // The match's host pages are used: others go first.
  void Touch(const PrefixMatch& match);
  // The match's host pages stay until Unpin, whatever the pool gives away meanwhile.
  void Pin(const PrefixMatch& match);
  void Unpin(const PrefixMatch& match);
  // What lies on this host page alone comes to `page`, which is used, and is found there.
  void BringIn(int32_t host_page, int32_t page);
  void PlanMove(PagePlace from, PagePlace to) { moves_.push_back({from, to}); }
  // Those planned since the last call, for a step that runs; without those to host pages that a later one
  // overwrites.
  std::vector<PageMove> TakeMoves();

  int64_t num_pages() const { return static_cast<int64_t>(nodes_.size()); }
  const HostPages& host_pages() const { return host_; }
  // Stops the program when an index disagrees with another.
  void CheckAccounting() const;

 private:
  struct Node {
    Hash128 hash;
    Hash128 sibling_key;  // of by_beginning_
    PageContent content;
    int32_t page = -1;  // one of the two is there, or both
    int32_t host_page = -1;
    PagePlace place() const { return page >= 0 ? PagePlace{page} : PagePlace{host_page, true}; }
  };
  void Evict(int32_t page);
  void LoseHostPage(int32_t host_page);
  void Forget(Node& node);

  PagePool& pool_;
  HostPages host_;
  MoveCosts costs_;
  std::unordered_map<Hash128, Node, Hash128Hasher> nodes_;
  std::vector<Node*> by_page_, by_host_page_;  // null: nothing that can be found
  // Nodes after the same chain that begin with the same token.
  std::unordered_map<Hash128, std::vector<Node*>, Hash128Hasher> by_beginning_;
  std::vector<PageMove> moves_;
};

}  // namespace fd
