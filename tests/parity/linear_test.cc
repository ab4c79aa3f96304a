#include "compute/ops/linear.h"

#include "compute/kernels/reference/linear.h"
#include "compute/ops/elementwise.h"
#include "tests/parity/parity.h"

namespace fd {
namespace {

using namespace parity;

struct Case {
  int64_t m, n, k;
};
const Case kCases[] = {{1, 1, 1},    {1, 16, 2},    {2, 17, 3},    {3, 48, 64},
                       {7, 47, 33},  {8, 49, 128},  {9, 96, 255},  {13, 100, 257},
                       {1, 515, 96}, {64, 33, 513}, {129, 50, 40}, {200, 31, 1000}};

class LinearParity : public testing::TestWithParam<Case> {};

TEST_P(LinearParity, EveryTypeOfInputWeightAndOutput) {
  const auto [m, n, k] = GetParam();
  Cpu cpu;
  std::mt19937 rng(7);
  for (DType act : {DType::kFloat32, DType::kBFloat16}) {
    for (DType stored : {DType::kBFloat16, DType::kFloat32}) {
      const Tensor in = Random(rng, act, {m, k}), w = Random(rng, stored, {n, k}),
                   bias = Random(rng, act, {n});
      Tensor expected(DType::kFloat32, Device{}, {m, n});
      reference::Linear(expected, in, w, bias);
      const double absolute = 3e-6 * std::sqrt(static_cast<double>(k)) + 1e-6;
      ForEachIsa([&] {
        const ops::LinearWeight packed = ops::PackLinear(cpu.ctx, {w});
        for (DType out_type : {DType::kFloat32, act}) {
          Tensor out(out_type, Device{}, {m, n});
          ops::Linear(cpu.ctx, out, in, packed, bias);
          ExpectClose(out, expected, absolute, RelativeTolerance(out_type));
        }
        EXPECT_EQ(cpu.workspace.Mark(), 0);
      });
    }
  }
}

INSTANTIATE_TEST_SUITE_P(OddSizes, LinearParity, testing::ValuesIn(kCases));

TEST(Linear, StackedTransposedAndStridedOperands) {
  Cpu cpu;
  std::mt19937 rng(11);
  const int64_t m = 5, k = 37;
  for (DType stored : {DType::kBFloat16, DType::kFloat32}) {
    const Tensor a = Random(rng, stored, {19, k}), b = Random(rng, stored, {64, k});
    const Tensor wide_in = Random(rng, DType::kBFloat16, {m, k + 9});
    const TensorView in = wide_in.view().Columns(4, k);
    Tensor expected(DType::kFloat32, Device{}, {m, 83});
    reference::Linear(expected.view().Columns(0, 19), in, a, {});
    reference::Linear(expected.view().Columns(19, 64), in, b, {});
    Tensor a_t(stored, Device{}, {k, 19}), b_t(stored, Device{}, {k, 64});
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t j = 0; j < 19; ++j) Set(a_t, i * 19 + j, Get(a, j * k + i));
      for (int64_t j = 0; j < 64; ++j) Set(b_t, i * 64 + j, Get(b, j * k + i));
    }
    ForEachIsa([&] {
      for (bool transposed : {false, true}) {
        const ops::LinearWeight w =
            transposed ? ops::PackLinear(cpu.ctx, {a_t, b_t}, true) : ops::PackLinear(cpu.ctx, {a, b});
        Tensor wide_out(DType::kFloat32, Device{}, {m, 100});
        ops::Linear(cpu.ctx, wide_out.view().Columns(3, 83), in, w);
        ExpectClose(wide_out.view().Columns(3, 83), expected, 3e-5, 2e-6);
        EXPECT_EQ(wide_out.view().As<float>()[2], 0.0f);
        EXPECT_EQ(wide_out.view().As<float>()[86], 0.0f);
      }
    });
  }
}

// Batch invariance: what a row gives alone it gives in every company and with every number of threads.
TEST(Linear, PanelsKeptFromAnEarlierPacking) {
  Cpu cpu;
  std::mt19937 rng(29);
  for (const auto& [m, n, k] : kCases) {
    for (DType stored : {DType::kBFloat16, DType::kFloat32}) {
      SCOPED_TRACE(testing::Message() << n << " x " << k << " " << DTypeName(stored));
      const Tensor w = Random(rng, stored, {n, k}), in = Random(rng, DType::kBFloat16, {m, k});
      const ops::LinearWeight packed = ops::PackLinear(cpu.ctx, {w});
      Tensor panels(stored, Device{}, ops::PanelsShape(stored, n, k));
      ASSERT_EQ(panels.size_bytes(), packed.data.size_bytes());
      std::memcpy(panels.view().data, packed.data.view().data, static_cast<size_t>(panels.size_bytes()));
      const ops::LinearWeight kept = ops::LinearOfPanels(cpu.ctx, panels, n, k);
      EXPECT_EQ(kept.data.view().data, panels.view().data) << "no copy";
      Tensor a(DType::kFloat32, Device{}, {m, n}), b(DType::kFloat32, Device{}, {m, n});
      ops::Linear(cpu.ctx, a, in, packed);
      ops::Linear(cpu.ctx, b, in, kept);
      EXPECT_EQ(std::memcmp(a.view().data, b.view().data, static_cast<size_t>(a.size_bytes())), 0);
      // What a GPU gets: the rows again, in pieces that begin and end inside a panel.
      const int64_t row_bytes = k * DTypeBytes(stored);
      for (int64_t first = 0; first < n; first += 21) {
        const int64_t rows = std::min<int64_t>(21, n - first);
        const Tensor plain = ops::RowsOfPanels(cpu.ctx, panels, k, first, rows);
        EXPECT_EQ(std::memcmp(plain.view().data, static_cast<const char*>(w.view().data) + first * row_bytes,
                              static_cast<size_t>(rows * row_bytes)),
                  0);
      }
    }
  }
}

TEST(Linear, ARowDoesNotDependOnTheOthers) {
  std::mt19937 rng(3);
  const int64_t m = 150, n = 200, k = 600;
  for (DType act : {DType::kFloat32, DType::kBFloat16}) {
    const Tensor in = Random(rng, act, {m, k}), w = Random(rng, DType::kBFloat16, {n, k});
    ForEachIsa([&] {
      Cpu one(1), three(3);
      const ops::LinearWeight packed = ops::PackLinear(one.ctx, {w});
      Tensor all(act, Device{}, {m, n});
      ops::Linear(three.ctx, all, in, packed);
      for (int64_t rows : {1, 2, 5, 8, 11, 130}) {
        Tensor some(act, Device{}, {rows, n});
        ops::Linear(one.ctx, some, in.view().Rows(m - rows, rows), packed);
        ExpectSameBits(some, all.view().Rows(m - rows, rows));
      }
    });
  }
}

TEST(Linear, ExtremeValues) {
  Cpu cpu;
  const float inf = INFINITY;
  Tensor in(DType::kBFloat16, Device{}, {3, 4}), w(DType::kBFloat16, Device{}, {2, 4});
  const float rows[3][4] = {{1e38f, 1e38f, 0, 0}, {inf, 1, 1, 1}, {1, NAN, 0, 0}};
  for (int i = 0; i < 12; ++i) Set(in, i, rows[i / 4][i % 4]);
  for (int i = 0; i < 8; ++i) Set(w, i, i < 4 ? 2.0f : 0.5f);
  ForEachIsa([&] {
    Tensor out(DType::kFloat32, Device{}, {3, 2});
    ops::Linear(cpu.ctx, out, in, ops::PackLinear(cpu.ctx, {w}));
    const float* o = out.view().As<float>();
    EXPECT_EQ(o[0], inf);
    EXPECT_NEAR(o[1], 1e38f, 1e36f);
    EXPECT_EQ(o[2], inf);
    EXPECT_TRUE(std::isnan(o[4]) && std::isnan(o[5]));
  });
}

TEST(Linear, SwiGluOfAProductIsItsTwoSteps) {
  Cpu cpu;
  std::mt19937 rng(4);
  const int64_t m = 9, width = 37, k = 50;
  for (DType act : {DType::kFloat32, DType::kBFloat16}) {
    const Tensor in = Random(rng, act, {m, k});
    const ops::LinearWeight w =
        ops::PackLinear(cpu.ctx, {Random(rng, DType::kBFloat16, {2 * width, k}, 0.2f)});
    Tensor product(act, Device{}, {m, 2 * width}), expected(act, Device{}, {m, width}),
        out(act, Device{}, {m, width});
    ops::Linear(cpu.ctx, product, in, w);
    ops::SwiGlu(cpu.ctx, expected, product);
    ops::LinearSwiGlu(cpu.ctx, out, in, w);
    ExpectSameBits(out, expected);
    EXPECT_EQ(cpu.workspace.Mark(), 0);
  }
}

}  // namespace
}  // namespace fd
