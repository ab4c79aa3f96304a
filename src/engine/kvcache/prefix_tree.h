// Computed pages that can be found again by what they were computed from. Ids and hashes only, no bytes.
// Engine thread.
//
// A page is found by its chain hash, which stands for everything up to its end; so two prompts share the
// pages up to the one in which they differ. Of that one the tokens before the difference can be copied. What
// is here is kept by the pool until the page is needed for something else.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "engine/kvcache/page_content.h"
#include "engine/kvcache/page_pool.h"

namespace fd {

// What is there of a prompt: whole pages, then the first copy_tokens tokens of copy_page, which belongs to
// somebody else and must not be written.
struct PrefixMatch {
  std::vector<int32_t> pages;
  int32_t copy_page = -1;
  int64_t copy_tokens = 0;
  int64_t tokens() const { return static_cast<int64_t>(pages.size()) * kKvPageTokens + copy_tokens; }
};

class PrefixTree {
 public:
  // pool outlives it.
  explicit PrefixTree(PagePool& pool);

  // The whole pages of a chain that are there, from its beginning on.
  std::vector<int32_t> FindPages(std::span<const Hash128> hashes) const;
  // The page after `before` (a chain hash) that has most tokens in common with `next` (at least one), and how
  // many; {-1, 0} when there is none.
  std::pair<int32_t, int64_t> FindPartial(const Hash128& before, const PageContent& next) const;

  // `page`, which is used, holds the keys and values of `content` after the chain `before`, once the planned
  // steps have run. hash: ChainHash(before, content). Nothing happens when such a page is there already.
  void Publish(const Hash128& before, const Hash128& hash, PageContent content, int32_t page);
  // `page` cannot be found any more, for what it holds may be wrong.
  void Retract(int32_t page);
  // All of them, after a failed step.
  void Clear();

  int64_t num_pages() const { return static_cast<int64_t>(by_hash_.size()); }
  // Stops the program when an index disagrees with another.
  void CheckAccounting() const;

 private:
  struct Node {
    Hash128 hash;
    Hash128 sibling_key;  // of by_beginning_
    PageContent content;
  };
  void Forget(int32_t page);

  PagePool& pool_;
  std::unordered_map<int32_t, Node> nodes_;  // by page
  std::unordered_map<Hash128, int32_t, Hash128Hasher> by_hash_;
  // Pages after the same chain that begin with the same token.
  std::unordered_map<Hash128, std::vector<int32_t>, Hash128Hasher> by_beginning_;
};

}  // namespace fd
