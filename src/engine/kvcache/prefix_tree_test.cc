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
  EXPECT_EQ(tree.FindPages(std::vector<Hash128>{h1, h2}), (std::vector<int32_t>{table[0], table[1]}));
  EXPECT_EQ(tree.FindPages(std::vector<Hash128>{h2}), (std::vector<int32_t>{table[1]}));
  auto other = Count(500, 64);
  other[40] = 9;
  EXPECT_EQ(tree.FindPartial(h1, TextPage(other)), std::pair(table[1], int64_t{40}));
  EXPECT_EQ(tree.FindPartial(root, TextPage(other)), std::pair(-1, int64_t{0}));
  other[0] = 9;
  EXPECT_EQ(tree.FindPartial(h1, TextPage(other)), std::pair(-1, int64_t{0}));
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
  EXPECT_EQ(tree.FindPages(std::vector<Hash128>{h1, h2}), (std::vector<int32_t>{0, 1}));
  std::vector<int32_t> more;
  ASSERT_TRUE(pool.Allocate(1, more));
  EXPECT_EQ(tree.FindPages(std::vector<Hash128>{h1, h2}), (std::vector<int32_t>{0}));
  tree.CheckAccounting();
  tree.Clear();
  EXPECT_EQ(pool.cached_pages(), 0);
  pool.CheckAccounting();
}

// Against a simple statement of the same: what each page holds, and who owns it.
TEST(PrefixTree, RandomChainsAgainstAReference) {
  std::mt19937 rng(3);
  constexpr int64_t kPages = 23;
  PagePool pool(kPages);
  PrefixTree tree(pool);
  std::map<int32_t, std::vector<int32_t>> holds;  // page -> all tokens up to its end
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
      const auto found = tree.FindPages(hashes);
      for (size_t p = 0; p < found.size(); ++p) {
        const std::vector<int32_t> upto(owner.tokens.begin(),
                                        owner.tokens.begin() + (static_cast<int64_t>(p) + 1) * kKvPageTokens);
        ASSERT_EQ(holds.at(found[p]), upto) << "a page that holds something else";
        pool.Share(found[p], owner.table);
      }
      const auto missing = pages - std::ssize(found);
      if (!pool.Allocate(missing, owner.table)) {
        pool.Free(owner.table);
        continue;
      }
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
}

}  // namespace
}  // namespace fd
