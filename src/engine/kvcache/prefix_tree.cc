#include "engine/kvcache/prefix_tree.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace fd {
namespace {

// Of pages that begin alike only so many are compared: the newest.
constexpr size_t kMaxCompared = 256;

Hash128 SiblingKey(const Hash128& before, int32_t first_token) {
  const auto id = static_cast<uint64_t>(static_cast<uint32_t>(first_token));
  // Both words are random already; only the page's own hash must be beyond anybody's influence.
  return {before.low + id * 0x9e3779b97f4a7c15u, before.high ^ id};
}

}  // namespace

PrefixTree::PrefixTree(PagePool& pool) : pool_(pool) {
  pool_.OnEvict([this](int32_t page) { Forget(page); });
}

std::vector<int32_t> PrefixTree::FindPages(std::span<const Hash128> hashes) const {
  std::vector<int32_t> pages;
  for (const Hash128& hash : hashes) {
    const auto it = by_hash_.find(hash);
    if (it == by_hash_.end()) break;
    pages.push_back(it->second);
  }
  return pages;
}

std::pair<int32_t, int64_t> PrefixTree::FindPartial(const Hash128& before, const PageContent& next) const {
  std::pair<int32_t, int64_t> best{-1, 0};
  const auto it = by_beginning_.find(SiblingKey(before, next.token_ids.front()));
  if (it == by_beginning_.end()) return best;
  const std::vector<int32_t>& pages = it->second;
  for (size_t i = pages.size(); i-- > pages.size() - std::min(pages.size(), kMaxCompared);) {
    const int64_t equal = EqualTokens(nodes_.at(pages[i]).content, next);
    if (equal > best.second) best = {pages[i], equal};
  }
  return best;
}

void PrefixTree::Publish(const Hash128& before, const Hash128& hash, PageContent content, int32_t page) {
  FD_CHECK(!nodes_.contains(page), "page ", page, " is in the tree already");
  if (!by_hash_.emplace(hash, page).second) return;
  const Hash128 key = SiblingKey(before, content.token_ids.front());
  by_beginning_[key].push_back(page);
  nodes_.emplace(page, Node{hash, key, std::move(content)});
  pool_.Keep(page);
}

void PrefixTree::Forget(int32_t page) {
  const auto it = nodes_.find(page);
  FD_CHECK(it != nodes_.end(), "page ", page, " is not in the tree");
  FD_CHECK_EQ(by_hash_.erase(it->second.hash), 1u);
  const auto siblings = by_beginning_.find(it->second.sibling_key);
  FD_CHECK_EQ(std::erase(siblings->second, page), 1u);
  if (siblings->second.empty()) by_beginning_.erase(siblings);
  nodes_.erase(it);
}

void PrefixTree::Retract(int32_t page) {
  if (!nodes_.contains(page)) return;
  Forget(page);
  pool_.Drop(page);
}

void PrefixTree::Clear() {
  for (const auto& [page, node] : nodes_) pool_.Drop(page);
  nodes_.clear();
  by_hash_.clear();
  by_beginning_.clear();
}

void PrefixTree::CheckAccounting() const {
  FD_CHECK_EQ(nodes_.size(), by_hash_.size());
  size_t beginnings = 0;
  for (const auto& [key, pages] : by_beginning_) beginnings += pages.size();
  FD_CHECK_EQ(nodes_.size(), beginnings);
  int64_t unowned = 0;
  for (const auto& [page, node] : nodes_) {
    FD_CHECK_EQ(by_hash_.at(node.hash), page);
    if (pool_.owners(page) == 0) ++unowned;
  }
  FD_CHECK_EQ(unowned, pool_.cached_pages(), "cached pages that nobody can find");
}

}  // namespace fd
