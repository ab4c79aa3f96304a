#include "engine/kvcache/prefix_tree.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace fd {
namespace {

GenerateRequest TextRequest(std::vector<int32_t> tokens) {
  GenerateRequest request;
  request.token_ids = std::move(tokens);
  return request;
}

PageContent TextPage(std::vector<int32_t> tokens) {
  const auto count = std::ssize(tokens);
  return ContentOf(TextRequest(tokens), tokens, count, 0, count);
}

std::vector<int32_t> Count(int32_t from, int64_t count) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(from + static_cast<int32_t>(i));
  return tokens;
}

// On the device.
std::vector<PagePlace> Places(const std::vector<int32_t>& pages) {
  std::vector<PagePlace> places;
  for (const int32_t page : pages) places.push_back({page});
  return places;
}

TEST(PageContent, HashesDependOnAllThatAPageDependsOn) {
  const auto tokens = Count(100, 64);
  GenerateRequest text = TextRequest(tokens);
  const Hash128 root = ChainRoot("");
  const auto hash = [&](const GenerateRequest& r, int64_t begin = 0, int64_t count = 64) {
    return ChainHash(root, ContentOf(r, tokens, 64, begin, count));
  };
  const Hash128 plain = hash(text);
  EXPECT_EQ(plain, hash(text));
  EXPECT_NE(plain, hash(text, 0, 63));
  EXPECT_NE(plain, ChainHash(ChainRoot("salt"), ContentOf(text, tokens, 64, 0, 64)));
  EXPECT_NE(plain, ChainHash(plain, ContentOf(text, tokens, 64, 0, 64)));

  // The same positions, spelt out, are the same page.
  GenerateRequest spelt = text;
  for (int axis = 0; axis < 3; ++axis) {
    for (int32_t n = 0; n < 64; ++n) spelt.positions.push_back(n);
  }
  EXPECT_EQ(plain, hash(spelt));
  GenerateRequest moved = spelt;
  moved.positions[64 + 10] = 11;  // h of one token
  EXPECT_NE(plain, hash(moved));
  GenerateRequest expert = spelt;
  expert.vision_expert.assign(64, 0);
  EXPECT_EQ(plain, hash(expert));
  expert.vision_expert[3] = 1;
  EXPECT_NE(plain, hash(expert));

  const auto picture = [&](uint64_t content, int64_t first) {
    auto item = std::make_shared<MediaItem>();
    item->content_hash = {content, 7};
    item->first_token = first;
    item->num_tokens = 4;
    GenerateRequest r = spelt;
    r.media = {item};
    return r;
  };
  EXPECT_NE(plain, hash(picture(1, 8)));
  EXPECT_EQ(hash(picture(1, 8)), hash(picture(1, 8)));
  EXPECT_NE(hash(picture(1, 8)), hash(picture(2, 8)));
  EXPECT_NE(hash(picture(1, 8)), hash(picture(1, 9)));
  // A picture that lies elsewhere does not matter here.
  EXPECT_EQ(hash(picture(1, 40), 0, 40), hash(spelt, 0, 40));
  EXPECT_EQ(
      EqualTokens(ContentOf(picture(1, 8), tokens, 64, 0, 64), ContentOf(picture(2, 8), tokens, 64, 0, 64)),
      8);
  // Text up to a picture is the same as text alone.
  EXPECT_EQ(EqualTokens(ContentOf(picture(1, 8), tokens, 64, 0, 64), ContentOf(text, tokens, 64, 0, 64)), 8);
  EXPECT_EQ(EqualTokens(ContentOf(text, tokens, 64, 0, 20), ContentOf(picture(1, 30), tokens, 64, 0, 64)),
            20);
  EXPECT_EQ(EqualTokens(ContentOf(moved, tokens, 64, 0, 64), ContentOf(text, tokens, 64, 0, 64)), 10);
}

TEST(PageContent, GeneratedTokensGoOnBehindTheDelta) {
  auto tokens = Count(0, 20);
  GenerateRequest r = TextRequest(Count(0, 10));
  r.position_delta = -3;
  for (int axis = 0; axis < 3; ++axis) {
    for (int32_t n = 0; n < 10; ++n) r.positions.push_back(n < 5 ? n : n - 3);
  }
  EXPECT_EQ(ContentOf(r, tokens, 10, 10, 10).first_position, 7);
  EXPECT_TRUE(ContentOf(r, tokens, 10, 10, 10).places.empty());
  EXPECT_EQ(ContentOf(r, tokens, 10, 5, 15).first_position, 2);
  EXPECT_EQ(ContentOf(r, tokens, 10, 4, 15).places.size(), 15u);
}

TEST(PrefixTree, WholePagesAndTheBestBeginning) {
  PagePool pool(8);
  PrefixTree tree(pool);
  const Hash128 root = ChainRoot("");
  std::vector<int32_t> table;
  ASSERT_TRUE(pool.Allocate(3, table));
  const PageContent first = TextPage(Count(0, 64)), second = TextPage(Count(500, 64));
  const Hash128 h1 = ChainHash(root, first), h2 = ChainHash(h1, second);
  tree.Publish(root, h1, first, table[0]);
  tree.Publish(h1, h2, second, table[1]);
  const PageContent tail = TextPage(Count(500, 10));
  tree.Publish(h1, ChainHash(h1, tail), tail, table[2]);
  EXPECT_EQ(tree.FindPages(std::vector<Hash128>{h1, h2}), Places({table[0], table[1]}));
  EXPECT_EQ(tree.FindPages(std::vector<Hash128>{h2}), Places({table[1]}));
  auto other = Count(500, 64);
  other[40] = 9;
  EXPECT_EQ(tree.FindPartial(h1, TextPage(other)), std::pair(PagePlace{table[1]}, int64_t{40}));
  EXPECT_EQ(tree.FindPartial(root, TextPage(other)), std::pair(PagePlace{}, int64_t{0}));
  other[0] = 9;
  EXPECT_EQ(tree.FindPartial(h1, TextPage(other)), std::pair(PagePlace{}, int64_t{0}));
  // A second page of the same content is not kept.
  std::vector<int32_t> again;
  ASSERT_TRUE(pool.Allocate(1, again));
  tree.Publish(root, h1, first, again[0]);
  pool.Free(again);
  EXPECT_EQ(pool.cached_pages(), 0);
  pool.Free(table);
  EXPECT_EQ(pool.cached_pages(), 3);
  tree.CheckAccounting();
  // The end of the chain goes first.
  ASSERT_TRUE(pool.Allocate(6, table));
  EXPECT_EQ(tree.FindPages(std::vector<Hash128>{h1, h2}), Places({0, 1}));
  std::vector<int32_t> more;
  ASSERT_TRUE(pool.Allocate(1, more));
  EXPECT_EQ(tree.FindPages(std::vector<Hash128>{h1, h2}), Places({0}));
  tree.CheckAccounting();
  tree.Clear();
  EXPECT_EQ(pool.cached_pages(), 0);
  pool.CheckAccounting();
}

// Chains of one page each: what lies where, and what moves.
class OnTheHost : public testing::Test {
 protected:
  // Computes the page and gives it back; what had to move for it.
  std::vector<PageMove> Compute(PrefixTree& tree, const PageContent& content) {
    std::vector<int32_t> table;
    EXPECT_TRUE(pool_.Allocate(1, table));
    tree.Publish(root_, ChainHash(root_, content), content, table[0]);
    pool_.Free(table);
    tree.CheckAccounting();
    return tree.TakeMoves();
  }
  PagePlace PlaceOf(const PrefixTree& tree, const PageContent& content) const {
    const auto places = tree.FindPages(std::vector<Hash128>{ChainHash(root_, content)});
    return places.empty() ? PagePlace{} : places[0];
  }
  // As AllocateFor does.
  std::vector<PageMove> BringIn(PrefixTree& tree, const PageContent& content) {
    const PrefixMatch match{.pages = {PlaceOf(tree, content)}, .copy = {}};
    EXPECT_TRUE(match.pages[0].on_host);
    EXPECT_EQ(match.host_tokens(), kKvPageTokens);
    std::vector<int32_t> table;
    tree.Pin(match);
    EXPECT_TRUE(pool_.Allocate(1, table));
    tree.Unpin(match);
    tree.BringIn(match.pages[0].page, table[0]);
    pool_.Free(table);
    tree.CheckAccounting();
    return tree.TakeMoves();
  }
  static void ExpectMoves(const std::vector<PageMove>& got, const std::vector<PageMove>& expected) {
    ASSERT_EQ(got.size(), expected.size());
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(got[i].from, expected[i].from) << i;
      EXPECT_EQ(got[i].to, expected[i].to) << i;
    }
  }

  PagePool pool_{1};
  const Hash128 root_ = ChainRoot("");
  const PageContent a_ = TextPage(Count(0, 64)), b_ = TextPage(Count(500, 64)), c_ = TextPage(Count(900, 64));
};

TEST_F(OnTheHost, PagesGoThereAndComeBack) {
  PrefixTree tree(pool_, 2);
  ExpectMoves(Compute(tree, a_), {});
  ExpectMoves(Compute(tree, b_), {{{0}, {0, true}}});
  EXPECT_EQ(PlaceOf(tree, a_), (PagePlace{0, true}));
  EXPECT_EQ(PlaceOf(tree, b_), PagePlace{0});
  // The page that makes room leaves first, then the other one comes.
  ExpectMoves(BringIn(tree, a_), {{{0}, {1, true}}, {{0, true}, {0}}});
  EXPECT_EQ(PlaceOf(tree, a_), PagePlace{0});
  EXPECT_EQ(PlaceOf(tree, b_), (PagePlace{1, true}));
  // What lies on the host already loses its page without a move.
  ExpectMoves(BringIn(tree, b_), {{{1, true}, {0}}});
  EXPECT_EQ(PlaceOf(tree, a_), (PagePlace{0, true}));
  // The host page of b is a spare and goes first; b itself then has none left, and a's is the oldest.
  ExpectMoves(Compute(tree, c_), {});
  EXPECT_EQ(PlaceOf(tree, b_), (PagePlace{1, true}));
  EXPECT_EQ(tree.num_pages(), 3);
}

TEST_F(OnTheHost, TheOldestIsForgottenAndASpareGoesBeforeIt) {
  PrefixTree tree(pool_, 2);
  Compute(tree, a_);
  Compute(tree, b_);
  Compute(tree, c_);  // a and b are on the host
  ExpectMoves(Compute(tree, TextPage(Count(2000, 64))), {{{0}, {0, true}}});
  EXPECT_EQ(PlaceOf(tree, a_), PagePlace{});
  EXPECT_EQ(PlaceOf(tree, c_), (PagePlace{0, true}));
  EXPECT_EQ(tree.num_pages(), 3);
  // b comes back; its host page, a spare now, takes what made room for it no longer: c would have to go.
  ExpectMoves(BringIn(tree, b_), {{{0}, {0, true}}, {{1, true}, {0}}});
  EXPECT_EQ(PlaceOf(tree, c_), PagePlace{});
}

TEST_F(OnTheHost, APinnedPageStays) {
  PrefixTree tree(pool_, 1);
  Compute(tree, a_);
  Compute(tree, b_);  // a is on the host
  // b would take the only host page, but that is what comes back: b is forgotten.
  ExpectMoves(BringIn(tree, a_), {{{0, true}, {0}}});
  EXPECT_EQ(PlaceOf(tree, a_), PagePlace{0});
  EXPECT_EQ(PlaceOf(tree, b_), PagePlace{});
}

TEST_F(OnTheHost, WhatIsComputedAgainHasASpare) {
  PrefixTree tree(pool_, 2);
  Compute(tree, a_);
  Compute(tree, b_);
  ExpectMoves(Compute(tree, a_), {{{0}, {1, true}}});
  EXPECT_EQ(PlaceOf(tree, a_), PagePlace{0});
  ExpectMoves(Compute(tree, c_), {});
  EXPECT_EQ(PlaceOf(tree, a_), (PagePlace{0, true}));
}

TEST_F(OnTheHost, RetractAndClearForgetThere) {
  PrefixTree tree(pool_, 2);
  Compute(tree, a_);
  Compute(tree, b_);
  BringIn(tree, a_);
  tree.Retract(0);  // and its spare
  EXPECT_EQ(PlaceOf(tree, a_), PagePlace{});
  EXPECT_EQ(tree.host_pages().used_pages(), 1);
  tree.CheckAccounting();
  std::vector<int32_t> table;
  Compute(tree, a_);
  ASSERT_TRUE(pool_.Allocate(1, table));  // a leaves, but the step of that move never runs
  pool_.Free(table);
  tree.Clear();
  EXPECT_TRUE(tree.TakeMoves().empty());
  EXPECT_EQ(tree.num_pages(), 0);
  EXPECT_EQ(tree.host_pages().used_pages(), 0);
  tree.CheckAccounting();
}

TEST_F(OnTheHost, WhatIsDearerThanComputingNeitherGoesNorComes) {
  PrefixTree tree(pool_, 4);
  const PageContent begun = TextPage(Count(0, 10));
  Compute(tree, a_);
  Compute(tree, b_);
  auto like_a = Count(0, 64);
  like_a[40] = 9;
  EXPECT_EQ(tree.FindPartial(root_, TextPage(like_a)), std::pair(PagePlace(0, true), int64_t{40}));
  tree.SetMoveCosts({.page_in_ms = 5, .page_out_ms = 5, .token_ms = 0.1});  // of 50 tokens
  EXPECT_EQ(tree.FindPartial(root_, TextPage(like_a)), std::pair(PagePlace{}, int64_t{0}));
  EXPECT_EQ(PlaceOf(tree, a_), (PagePlace{0, true}));
  ExpectMoves(Compute(tree, begun), {{{0}, {1, true}}});
  EXPECT_EQ(tree.FindPartial(root_, TextPage(like_a)), std::pair(PagePlace{0}, int64_t{10}));
  ExpectMoves(Compute(tree, c_), {});  // ten tokens are not worth it
  tree.SetMoveCosts({.page_in_ms = 5, .page_out_ms = 5, .token_ms = 0.05});
  EXPECT_EQ(PlaceOf(tree, a_), PagePlace{});
  EXPECT_EQ(PlaceOf(tree, c_), PagePlace{0});
  ExpectMoves(Compute(tree, begun), {});
  EXPECT_EQ(PlaceOf(tree, c_), PagePlace{});
}

// What leaves the device in one step beyond the host's room does not move in vain.
TEST_F(OnTheHost, WhatIsOverwrittenInTheSameStepDoesNotMove) {
  PagePool pool(4);
  PrefixTree tree(pool, 1);
  std::vector<int32_t> table;
  ASSERT_TRUE(pool.Allocate(4, table));
  for (int32_t i = 0; i < 4; ++i) {
    const PageContent content = TextPage(Count(1000 * i, 64));
    tree.Publish(root_, ChainHash(root_, content), content, table[static_cast<size_t>(i)]);
  }
  pool.Free(table);  // the last one first
  ASSERT_TRUE(pool.Allocate(3, table));
  ExpectMoves(tree.TakeMoves(), {{{1}, {0, true}}});
  tree.PlanMove({0, true}, {2});  // read before it is overwritten
  ASSERT_TRUE(pool.Allocate(1, table));
  ExpectMoves(tree.TakeMoves(), {{{0, true}, {2}}, {{0}, {0, true}}});
  EXPECT_EQ(tree.num_pages(), 1);
  tree.CheckAccounting();
}

// Of two that begin alike to the same place, the device's costs nothing.
TEST_F(OnTheHost, TheDeviceComesFirstAmongEquals) {
  PagePool pool(2);
  PrefixTree tree(pool, 2);
  auto x = Count(0, 64), y = x, z = x;
  x[20] = 7;
  y[20] = 8;
  std::vector<int32_t> table;
  for (const auto& tokens : {x, y}) {
    ASSERT_TRUE(pool.Allocate(1, table));
    tree.Publish(root_, ChainHash(root_, TextPage(tokens)), TextPage(tokens), table.back());
  }
  const int32_t older = table[0];
  table.pop_back();
  std::vector<int32_t> newest{1 - older};
  pool.Free(newest);
  ASSERT_TRUE(pool.Allocate(1, newest));  // y, the newer one, moves to the host
  EXPECT_EQ(tree.FindPartial(root_, TextPage(z)), std::pair(PagePlace{older}, int64_t{20}));
}

// Against a simple statement of the same: what each page holds, and who owns it.
class RandomChains : public testing::TestWithParam<int64_t> {};

TEST_P(RandomChains, AgainstAReference) {
  std::mt19937 rng(3);
  constexpr int64_t kPages = 23;
  PagePool pool(kPages);
  PrefixTree tree(pool, GetParam());
  // All tokens up to a page's end, by page, of the device and of the host.
  std::map<int32_t, std::vector<int32_t>> holds, host_holds;
  const auto move = [&] {
    for (const PageMove& m : tree.TakeMoves()) {
      (m.to.on_host ? host_holds : holds)[m.to.page] = (m.from.on_host ? host_holds : holds).at(m.from.page);
    }
  };
  int64_t brought_in = 0;
  struct Owner {
    std::vector<int32_t> tokens, table;
  };
  std::vector<Owner> owners;
  for (int step = 0; step < 40000; ++step) {
    if (owners.size() < 6 && rng() % 2 == 0) {
      Owner owner;
      const int64_t pages = 1 + static_cast<int64_t>(rng() % 4);
      for (int64_t p = 0; p < pages; ++p) {
        const auto part =
            Count(static_cast<int32_t>(rng() % 3) * 1000 + static_cast<int32_t>(p), kKvPageTokens);
        owner.tokens.insert(owner.tokens.end(), part.begin(), part.end());
      }
      std::vector<Hash128> hashes;
      std::vector<PageContent> contents;
      for (int64_t p = 0; p < pages; ++p) {
        contents.push_back(ContentOf(TextRequest(owner.tokens), owner.tokens, std::ssize(owner.tokens),
                                     p * kKvPageTokens, kKvPageTokens));
        hashes.push_back(ChainHash(p == 0 ? ChainRoot("") : hashes.back(), contents.back()));
      }
      const PrefixMatch match{.pages = tree.FindPages(hashes), .copy = {}};
      const auto& found = match.pages;
      std::vector<int32_t> shared, fresh;
      for (size_t p = 0; p < found.size(); ++p) {
        const std::vector<int32_t> upto(owner.tokens.begin(),
                                        owner.tokens.begin() + (static_cast<int64_t>(p) + 1) * kKvPageTokens);
        ASSERT_EQ((found[p].on_host ? host_holds : holds).at(found[p].page), upto) << "another page";
        if (!found[p].on_host) pool.Share(found[p].page, shared);
      }
      tree.Pin(match);
      const bool there_is_room = pool.Allocate(pages - std::ssize(shared), fresh);
      tree.Unpin(match);
      if (!there_is_room) {
        pool.Free(shared);
        continue;
      }
      auto next_shared = shared.begin(), next_fresh = fresh.begin();
      for (const PagePlace& place : found) {
        if (place.on_host) tree.BringIn(place.page, *next_fresh);
        brought_in += place.on_host;
        owner.table.push_back(place.on_host ? *next_fresh++ : *next_shared++);
      }
      owner.table.insert(owner.table.end(), next_fresh, fresh.end());
      move();
      for (auto p = static_cast<size_t>(std::ssize(found)); p < static_cast<size_t>(pages); ++p) {
        holds[owner.table[p]] = {owner.tokens.begin(),
                                 owner.tokens.begin() + (static_cast<int64_t>(p) + 1) * kKvPageTokens};
        tree.Publish(p == 0 ? ChainRoot("") : hashes[p - 1], hashes[p], contents[p], owner.table[p]);
      }
      owners.push_back(std::move(owner));
    } else if (!owners.empty()) {
      const size_t i = rng() % owners.size();
      if (rng() % 20 == 0) tree.Retract(owners[i].table.back());
      pool.Free(owners[i].table);
      owners.erase(owners.begin() + static_cast<int64_t>(i));
    }
    if (rng() % 500 == 0) tree.Clear();
    std::map<int32_t, int64_t> count;
    for (const Owner& owner : owners) {
      for (int32_t page : owner.table) ++count[page];
    }
    ASSERT_EQ(pool.used_pages(), std::ssize(count));
    for (const auto& [page, n] : count) ASSERT_EQ(pool.owners(page), n);
    pool.CheckAccounting();
    tree.CheckAccounting();
  }
  EXPECT_EQ(brought_in > 0, GetParam() > 0);
}

INSTANTIATE_TEST_SUITE_P(HostPages, RandomChains, testing::Values(0, 1, 7, 60));

}  // namespace
}  // namespace fd
