// Sums of rows against double precision, and their bits against the cutting into steps.
#include "compute/kernels/reference/rows.h"
#include "tests/parity/pooling.h"

namespace fd {
namespace {

using namespace parity;

Tensor Clone(const TensorView& t) {
  Tensor copy(t.dtype, Device{}, t.shape);
  std::memcpy(copy.view().data, t.data, static_cast<size_t>(copy.size_bytes()));
  return copy;
}

TEST(Pool, SumsAreExactToTheirLastBitsWhateverTheSteps) {
  std::mt19937 rng(1);
  for (int64_t n : {1, 7, 64, 255, 256, 300, 1025}) {
    std::vector<Tensor> whole;
    for (int64_t rows : {1, 2, 63, 500, 7}) whole.push_back(Random(rng, DType::kFloat32, {rows, n}, 100.0f));
    Tensor first;
    for (int threads : {1, 2}) {
      Cpu cpu(threads);
      for (int64_t chunk : {int64_t{1}, int64_t{3}, int64_t{64}, int64_t{1000}}) {
        SCOPED_TRACE(testing::Message() << "n=" << n << " chunk=" << chunk << " threads=" << threads);
        const Tensor sums = SumInSteps(cpu.ctx, whole, chunk, Clone, Clone);
        for (size_t i = 0; i < whole.size(); ++i) {
          const std::vector<double> expected = reference::SumOfRows(whole[i], 0, whole[i].view().dim(0));
          for (int64_t c = 0; c < n; ++c) {
            const double sum = static_cast<double>(sums.view().As<float>()[static_cast<int64_t>(i) * n + c]);
            ASSERT_NEAR(sum, expected[static_cast<size_t>(c)], 2e-7 * std::abs(sum) + 2e-4);
          }
        }
        if (first.view().empty()) {
          first = Clone(sums);
        } else {
          ASSERT_EQ(std::memcmp(sums.view().data, first.view().data, static_cast<size_t>(sums.size_bytes())),
                    0);
        }
      }
    }
  }
}

// A hundred thousand tokens: plain float32 addition is off in the fourth digit here.
TEST(Pool, LongInputsKeepTheirPrecision) {
  constexpr int64_t kRows = 131072;
  Tensor rows(DType::kFloat32, Device{}, {kRows, 1});
  for (int64_t i = 0; i < kRows; ++i) rows.view().As<float>()[i] = i % 2 == 0 ? 1000.1f : -999.9f;
  Cpu cpu;
  std::vector<Tensor> whole;
  whole.push_back(Clone(rows));
  const Tensor sums = SumInSteps(cpu.ctx, whole, 2048, Clone, Clone);
  const double expected = reference::SumOfRows(rows, 0, kRows)[0];
  EXPECT_NEAR(static_cast<double>(sums.view().As<float>()[0]) / expected, 1.0, 1e-6);
}

}  // namespace
}  // namespace fd
