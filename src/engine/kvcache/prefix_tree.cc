#include "engine/kvcache/prefix_tree.h"

#include <algorithm>
#include <unordered_set>
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

size_t Index(int32_t page) { return static_cast<size_t>(page); }

// fn(host page) of the match, the end of the chain first, so that of pages of one age it goes first.
template <typename Fn>
void ForHostPages(const PrefixMatch& match, const Fn& fn) {
  if (match.copy_tokens > 0 && match.copy.on_host) fn(match.copy.page);
  for (auto place = match.pages.rbegin(); place != match.pages.rend(); ++place) {
    if (place->on_host) fn(place->page);
  }
}

}  // namespace

int64_t PrefixMatch::host_tokens() const {
  const auto whole = std::count_if(pages.begin(), pages.end(), [](const PagePlace& p) { return p.on_host; });
  return whole * kKvPageTokens + (copy.on_host ? copy_tokens : 0);
}

PrefixTree::PrefixTree(PagePool& pool, int64_t host_pages)
    : pool_(pool),
      host_(host_pages),
      by_page_(static_cast<size_t>(pool.total_pages())),
      by_host_page_(static_cast<size_t>(host_pages)) {
  pool_.OnEvict([this](int32_t page) { Evict(page); });
}

std::vector<PagePlace> PrefixTree::FindPages(std::span<const Hash128> hashes) const {
  std::vector<PagePlace> places;
  const bool pays = costs_.Pays(kKvPageTokens);
  for (const Hash128& hash : hashes) {
    const auto it = nodes_.find(hash);
    if (it == nodes_.end() || (it->second.page < 0 && !pays)) break;
    places.push_back(it->second.place());
  }
  return places;
}

std::pair<PagePlace, int64_t> PrefixTree::FindPartial(const Hash128& before, const PageContent& next) const {
  std::pair<PagePlace, int64_t> best;
  const auto it = by_beginning_.find(SiblingKey(before, next.token_ids.front()));
  if (it == by_beginning_.end()) return best;
  const std::vector<Node*>& nodes = it->second;
  for (size_t i = nodes.size(); i-- > nodes.size() - std::min(nodes.size(), kMaxCompared);) {
    const int64_t equal = EqualTokens(nodes[i]->content, next);
    if (equal < std::max<int64_t>(best.second, 1)) continue;
    if (equal == best.second && (!best.first.on_host || nodes[i]->page < 0)) continue;
    if (nodes[i]->page >= 0 || costs_.Pays(equal)) best = {nodes[i]->place(), equal};
  }
  return best;
}

void PrefixTree::Publish(const Hash128& before, const Hash128& hash, PageContent content, int32_t page) {
  FD_CHECK(by_page_[Index(page)] == nullptr, "page ", page, " is in the tree already");
  const auto [it, is_new] = nodes_.try_emplace(hash);
  Node& node = it->second;
  if (is_new) {
    node = {hash, SiblingKey(before, content.token_ids.front()), std::move(content)};
    by_beginning_[node.sibling_key].push_back(&node);
  } else if (node.page >= 0) {
    return;
  } else {  // the host has it, but it was computed again
    host_.SetSpare(node.host_page, true);
  }
  node.page = page;
  by_page_[Index(page)] = &node;
  pool_.Keep(page);
}

// The pool gives this page to somebody else.
void PrefixTree::Evict(int32_t page) {
  Node* node = std::exchange(by_page_[Index(page)], nullptr);
  FD_CHECK(node != nullptr, "page ", page, " is not in the tree");
  node->page = -1;
  if (node->host_page >= 0) return host_.SetSpare(node->host_page, false);
  const bool pays = costs_.Pays(std::ssize(node->content.token_ids));
  const int32_t host_page = pays ? host_.Take([this](int32_t lost) { LoseHostPage(lost); }) : -1;
  if (host_page < 0) return Forget(*node);
  node->host_page = host_page;
  by_host_page_[Index(host_page)] = node;
  PlanMove({page}, {host_page, true});
}

// Another page gets this host page.
void PrefixTree::LoseHostPage(int32_t host_page) {
  Node* node = std::exchange(by_host_page_[Index(host_page)], nullptr);
  FD_CHECK(node != nullptr, "host page ", host_page, " is not in the tree");
  node->host_page = -1;
  if (node->page < 0) Forget(*node);
}

void PrefixTree::BringIn(int32_t host_page, int32_t page) {
  Node* node = by_host_page_[Index(host_page)];
  FD_CHECK(node != nullptr && node->page < 0, "host page ", host_page, " is not the only place of a page");
  PlanMove({host_page, true}, {page});
  host_.SetSpare(host_page, true);
  node->page = page;
  by_page_[Index(page)] = node;
  pool_.Keep(page);
}

std::vector<PageMove> PrefixTree::TakeMoves() {
  std::vector<PageMove> needed;             // the last one first
  std::unordered_set<int32_t> overwritten;  // host pages, by what comes behind
  for (auto move = moves_.rbegin(); move != moves_.rend(); ++move) {
    if (move->to.on_host && !overwritten.insert(move->to.page).second) continue;
    if (move->from.on_host) overwritten.erase(move->from.page);
    needed.push_back(*move);
  }
  moves_.clear();
  std::reverse(needed.begin(), needed.end());
  return needed;
}

void PrefixTree::Touch(const PrefixMatch& match) {
  ForHostPages(match, [this](int32_t page) { host_.Touch(page); });
}

void PrefixTree::Pin(const PrefixMatch& match) {
  ForHostPages(match, [this](int32_t page) { host_.Pin(page); });
}

void PrefixTree::Unpin(const PrefixMatch& match) {
  ForHostPages(match, [this](int32_t page) { host_.Unpin(page); });
}

void PrefixTree::Forget(Node& node) {
  if (node.page >= 0) by_page_[Index(node.page)] = nullptr;
  if (node.host_page >= 0) {
    by_host_page_[Index(node.host_page)] = nullptr;
    host_.GiveBack(node.host_page);
  }
  const auto siblings = by_beginning_.find(node.sibling_key);
  FD_CHECK_EQ(std::erase(siblings->second, &node), 1u);
  if (siblings->second.empty()) by_beginning_.erase(siblings);
  const Hash128 hash = node.hash;  // the node ends with this
  FD_CHECK_EQ(nodes_.erase(hash), 1u);
}

void PrefixTree::Retract(int32_t page) {
  Node* node = by_page_[Index(page)];
  if (node == nullptr) return;
  Forget(*node);
  pool_.Drop(page);
}

void PrefixTree::Clear() {
  for (const auto& [hash, node] : nodes_) {
    if (node.page >= 0) pool_.Drop(node.page);
  }
  nodes_.clear();
  by_beginning_.clear();
  std::fill(by_page_.begin(), by_page_.end(), nullptr);
  std::fill(by_host_page_.begin(), by_host_page_.end(), nullptr);
  host_.Clear();
  moves_.clear();
}

void PrefixTree::CheckAccounting() const {
  size_t beginnings = 0;
  for (const auto& [key, nodes] : by_beginning_) beginnings += nodes.size();
  FD_CHECK_EQ(nodes_.size(), beginnings);
  int64_t on_device = 0, on_host = 0, unowned = 0;
  for (const auto& [hash, node] : nodes_) {
    FD_CHECK(node.page >= 0 || node.host_page >= 0, "a page that lies nowhere");
    if (node.page >= 0) {
      ++on_device;
      FD_CHECK(by_page_[Index(node.page)] == &node);
      if (pool_.owners(node.page) == 0) ++unowned;
    }
    if (node.host_page >= 0) {
      ++on_host;
      FD_CHECK(by_host_page_[Index(node.host_page)] == &node);
      FD_CHECK_EQ(host_.is_spare(node.host_page), node.page >= 0);
    }
  }
  const auto places = [](const std::vector<Node*>& of) {
    return std::count_if(of.begin(), of.end(), [](const Node* node) { return node != nullptr; });
  };
  FD_CHECK_EQ(places(by_page_), on_device);
  FD_CHECK_EQ(places(by_host_page_), on_host);
  FD_CHECK_EQ(unowned, pool_.cached_pages(), "cached pages that nobody can find");
  FD_CHECK_EQ(host_.used_pages(), on_host, "host pages that nobody can find");
  host_.CheckAccounting();
}

}  // namespace fd
