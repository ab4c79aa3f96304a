#include "engine/executor/page_mover.h"

#include <gtest/gtest.h>

#include <random>

namespace fd {
namespace {

constexpr int64_t kPages = 5, kHostPages = 3, kPageBytes = 24;

// Three layers whose pages have their own number in every byte.
KvStorage Storage() {
  KvStorage kv;
  kv.num_pages = kPages;
  for (int layer = 0; layer < 3; ++layer) {
    for (auto* tensors : {&kv.k, &kv.v}) {
      tensors->emplace_back(DType::kUInt8, Device{}, Shape{kPages, 4, kPageBytes / 4});
      for (int64_t p = 0; p < kPages; ++p)
        std::fill_n(tensors->back().view().Rows(p, 1).As<uint8_t>(), kPageBytes, static_cast<uint8_t>(p + 1));
    }
  }
  return kv;
}

void ExpectPage(const KvStorage& kv, int64_t page, int value) {
  for (const auto* tensors : {&kv.k, &kv.v}) {
    for (const Tensor& tensor : *tensors) {
      const uint8_t* bytes = tensor.view().Rows(page, 1).As<uint8_t>();
      for (int64_t i = 0; i < kPageBytes; ++i) ASSERT_EQ(bytes[i], value) << "page " << page;
    }
  }
}

class PageMoverTest : public testing::TestWithParam<int> {
 protected:
  PageMoverTest() {
    if (GetParam() > 0) threads_ = std::make_unique<ThreadPool>(GetParam());
    ctx_.threads = threads_.get();
  }
  std::unique_ptr<ThreadPool> threads_;
  ops::Context ctx_;
};

TEST_P(PageMoverTest, InOrder) {
  KvStorage kv = Storage();
  PageMover mover(ctx_, kv, kHostPages);
  EXPECT_EQ(mover.host_bytes(), kHostPages * 6 * kPageBytes);
  // 1 leaves, 2 goes where it lay, 1 comes back elsewhere; then its host page is used again.
  mover.Move(ctx_, {{{0}, {2, true}}, {{1}, {0}}, {{2, true}, {4}}, {{3}, {2, true}}, {{2, true}, {1}}});
  ExpectPage(kv, 0, 2);
  ExpectPage(kv, 1, 4);
  ExpectPage(kv, 2, 3);
  ExpectPage(kv, 3, 4);
  ExpectPage(kv, 4, 1);
  mover.Move(ctx_, {});
  mover.Move(ctx_, {{{2, true}, {2}}});  // it stays there
  ExpectPage(kv, 2, 4);
}

TEST_P(PageMoverTest, RandomMovesAgainstAList) {
  KvStorage kv = Storage();
  PageMover mover(ctx_, kv, kHostPages);
  std::mt19937 rng(1);
  std::vector<int> device, host(kHostPages, 0);
  for (int page = 0; page < kPages; ++page) device.push_back(page + 1);
  for (int step = 0; step < 500; ++step) {
    std::vector<PageMove> moves;
    for (auto count = rng() % 6; count > 0; --count) {
      const auto place = [&](bool on_host) {
        return PagePlace{static_cast<int32_t>(rng() % (on_host ? kHostPages : kPages)), on_host};
      };
      const auto kind = rng() % 3;
      const PagePlace from = place(kind == 1), to = place(kind == 2);
      if (from == to) continue;
      moves.push_back({from, to});
      (to.on_host ? host : device)[static_cast<size_t>(to.page)] =
          (from.on_host ? host : device)[static_cast<size_t>(from.page)];
    }
    mover.Move(ctx_, moves);
    for (int64_t page = 0; page < kPages; ++page) ExpectPage(kv, page, device[static_cast<size_t>(page)]);
  }
}

TEST_P(PageMoverTest, Measures) {
  KvStorage kv = Storage();
  EXPECT_EQ(PageMover(ctx_, kv, 0).Measure(ctx_).in, 0);
  const PageMoveMs ms = PageMover(ctx_, kv, kHostPages).Measure(ctx_);
  EXPECT_GT(ms.in, 0);
  EXPECT_GT(ms.out, 0);
  EXPECT_LT(ms.in + ms.out, 1000);
}

TEST(PageMover, WithoutHostPagesPagesAreCopied) {
  KvStorage kv = Storage();
  PageMover mover({}, kv, 0);
  EXPECT_EQ(mover.host_bytes(), 0);
  mover.Move({}, {{{0}, {3}}});
  ExpectPage(kv, 3, 1);
}

TEST(PageMoverDeathTest, ThereIsNoSuchPage) {
  KvStorage kv = Storage();
  PageMover mover({}, kv, kHostPages);
  EXPECT_DEATH(mover.Move({}, {{{0}, {3, true}}}), "row 3 of");
  EXPECT_DEATH(mover.Move({}, {{{0, true}, {1, true}}}), "on_host");
}

INSTANTIATE_TEST_SUITE_P(Threads, PageMoverTest, testing::Values(0, 1, 3));

}  // namespace
}  // namespace fd
