#include "engine/kvcache/page_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

namespace fd {
namespace {

TEST(PagePool, PagesForTokens) {
  EXPECT_EQ(PagesForTokens(0), 0);
  EXPECT_EQ(PagesForTokens(1), 1);
  EXPECT_EQ(PagesForTokens(64), 1);
  EXPECT_EQ(PagesForTokens(65), 2);
}

TEST(PagePool, AllOrNothing) {
  PagePool pool(4);
  std::vector<int32_t> a, b;
  ASSERT_TRUE(pool.Allocate(3, a));
  EXPECT_EQ(a, (std::vector<int32_t>{0, 1, 2}));  // low ids first: untouched pages cost no memory
  EXPECT_FALSE(pool.Allocate(2, b));
  EXPECT_TRUE(b.empty());
  EXPECT_EQ(pool.free_pages(), 1);
  EXPECT_EQ(pool.used_pages(), 3);
  pool.Free(a);
  EXPECT_TRUE(a.empty());
  EXPECT_EQ(pool.free_pages(), 4);
  ASSERT_TRUE(pool.Allocate(2, b));
  EXPECT_EQ(b, (std::vector<int32_t>{0, 1}));  // the pages given back last come first
}

TEST(PagePool, RandomTablesNeverShareAPage) {
  std::mt19937 rng(7);
  PagePool pool(97);
  std::vector<std::vector<int32_t>> tables(12);
  for (int step = 0; step < 5000; ++step) {
    auto& table = tables[rng() % tables.size()];
    int64_t count = rng() % 9, free_before = pool.free_pages();
    if (rng() % 3 == 0) {
      pool.Free(table);
    } else {
      EXPECT_EQ(pool.Allocate(count, table), count <= free_before);
    }
    std::set<int32_t> seen;
    size_t used = 0;
    for (const auto& t : tables) {
      seen.insert(t.begin(), t.end());
      used += t.size();
    }
    ASSERT_EQ(seen.size(), used);
    ASSERT_EQ(pool.used_pages(), static_cast<int64_t>(used));
    pool.CheckAccounting();
  }
  for (auto& table : tables) pool.Free(table);
  EXPECT_EQ(pool.free_pages(), 97);
}

TEST(PagePoolDeathTest, DoubleFreeStopsTheProgram) {
  PagePool pool(2);
  std::vector<int32_t> a;
  ASSERT_TRUE(pool.Allocate(1, a));
  std::vector<int32_t> copy = a;
  pool.Free(a);
  EXPECT_DEATH(pool.Free(copy), "given back twice");
}

}  // namespace
}  // namespace fd
