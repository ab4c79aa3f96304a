#include "engine/kvcache/host_pages.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <random>

namespace fd {
namespace {

TEST(MoveCosts, PaysWhereItCostsLessOrNobodyKnows) {
  EXPECT_TRUE(MoveCosts{}.Pays(1));
  EXPECT_TRUE((MoveCosts{.page_in_ms = 5}.Pays(1)));
  EXPECT_TRUE((MoveCosts{.token_ms = 5}.Pays(1)));
  const MoveCosts costs{.page_in_ms = 1, .page_out_ms = 9, .token_ms = 0.1};
  EXPECT_FALSE(costs.Pays(9));
  EXPECT_TRUE(costs.Pays(11));
}

TEST(HostPages, WithoutPagesThereIsNone) {
  HostPages pages(0);
  EXPECT_EQ(pages.Take([](int32_t) { FAIL(); }), -1);
  pages.CheckAccounting();
}

TEST(HostPages, SparesGoFirstThenTheOldest) {
  HostPages pages(3);
  std::vector<int32_t> lost;
  const auto take = [&] { return pages.Take([&](int32_t page) { lost.push_back(page); }); };
  for (int32_t page = 0; page < 3; ++page) EXPECT_EQ(take(), page);
  EXPECT_TRUE(lost.empty());
  EXPECT_EQ(pages.free_pages(), 0);
  pages.SetSpare(2, true);
  EXPECT_EQ(take(), 2);  // though 0 is older
  pages.Touch(0);
  EXPECT_EQ(take(), 1);
  EXPECT_EQ(take(), 2);
  pages.Pin(0);
  EXPECT_EQ(take(), 1);
  pages.Unpin(0);
  EXPECT_EQ(take(), 2);
  EXPECT_EQ(lost, (std::vector<int32_t>{2, 1, 2, 1, 2}));
  for (int32_t page = 0; page < 3; ++page) pages.Pin(page);
  EXPECT_EQ(take(), -1);
  for (int32_t page = 0; page < 3; ++page) pages.Unpin(page);
  pages.GiveBack(1);
  EXPECT_EQ(take(), 1);
  pages.CheckAccounting();
  pages.Clear();
  EXPECT_EQ(pages.free_pages(), 3);
  pages.CheckAccounting();
}

// Against two plain lists.
TEST(HostPages, RandomUseAgainstAReference) {
  constexpr int64_t kPages = 9;
  HostPages pages(kPages);
  std::mt19937 rng(4);
  std::list<int32_t> lists[2];  // of spares and of others, oldest first
  std::vector<int32_t> pinned;
  const auto remove = [&](int32_t page) {
    for (auto& list : lists) {
      if (std::erase(list, page) > 0) return &list;
    }
    return static_cast<std::list<int32_t>*>(nullptr);
  };
  for (int step = 0; step < 50000; ++step) {
    const auto page = static_cast<int32_t>(rng() % kPages);
    const bool used = std::count(lists[0].begin(), lists[0].end(), page) > 0 ||
                      std::count(lists[1].begin(), lists[1].end(), page) > 0;
    switch (rng() % 7) {
      case 0:
      case 1: {
        int32_t lost = -1;
        const bool full = pages.free_pages() == 0;
        const int32_t taken = pages.Take([&](int32_t p) { lost = p; });
        if (full) {
          auto& from = lists[0].empty() ? lists[1] : lists[0];
          ASSERT_EQ(taken, from.empty() ? -1 : from.front());
          ASSERT_EQ(taken, lost);
          if (taken >= 0) from.pop_front();
        } else {
          ASSERT_EQ(lost, -1);
        }
        if (taken >= 0) lists[1].push_back(taken);
        break;
      }
      case 2:
        if (!used) break;
        pages.GiveBack(page);
        remove(page);
        break;
      case 3:
        if (!used) break;
        ASSERT_EQ(pages.is_spare(page), remove(page) == &lists[0]);
        lists[0].push_back(page);
        pages.SetSpare(page, true);
        break;
      case 4:
        if (!used) break;
        pages.Touch(page);
        remove(page)->push_back(page);
        break;
      case 5:
        if (!used || lists[0].size() + lists[1].size() < 3) break;
        ASSERT_EQ(pages.is_spare(page), remove(page) == &lists[0]);
        pages.Pin(page);
        pinned.push_back(page);
        break;
      default:
        for (const int32_t p : pinned) {
          lists[pages.is_spare(p) ? 0 : 1].push_back(p);
          pages.Unpin(p);
        }
        pinned.clear();
        pages.CheckAccounting();
    }
    ASSERT_EQ(pages.used_pages(), std::ssize(lists[0]) + std::ssize(lists[1]) + std::ssize(pinned));
  }
}

TEST(HostPagesDeathTest, GivenBackTwiceStopsTheProgram) {
  HostPages pages(2);
  const int32_t page = pages.Take([](int32_t) {});
  pages.GiveBack(page);
  EXPECT_DEATH(pages.GiveBack(page), "given back twice");
}

}  // namespace
}  // namespace fd
