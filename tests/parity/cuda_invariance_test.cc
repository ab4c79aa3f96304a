// Products under Context::batch_invariant: a row has the same bits in a batch of one and of hundreds,
// wherever it lies there. What attention does is in cuda_attention_test.cc.
#include "compute/kernels/cuda/linear.h"
#include "compute/kernels/reference/linear.h"
#include "compute/ops/linear.h"
#include "compute/ops/linear_cuda.h"
#include "compute/ops/moe.h"
#include "tests/parity/cuda_parity.h"

namespace fd {
namespace {

using namespace parity;

constexpr int64_t kMost = 300;

struct Shape2 {
  int64_t n, k;
};
// Steps of 64 k: fewer than eight, as many, more, with and without a rest; features in tiles that are full or
// not.
const Shape2 kShapes[] = {{1, 8},    {17, 64},    {33, 456},  {128, 512}, {130, 520},
                          {64, 960}, {300, 1032}, {65, 2560}, {160, 4096}};

// Each kernel takes the bits of LinearFew, 16 rows at a time.
TEST(CudaInvariance, TheBitsOfLinearFewForEveryNumberOfRows) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  for (const auto& [n, k] : kShapes) {
    std::mt19937 rng(static_cast<unsigned>(n + k));
    const Tensor in_host = Random(rng, DType::kBFloat16, {kMost, k}),
                 w_host = Random(rng, DType::kBFloat16, {n, k}), b_host = Random(rng, DType::kBFloat16, {n});
    const Tensor in = ToDevice(gpu, in_host), w = ToDevice(gpu, w_host), b = ToDevice(gpu, b_host);
    for (DType out_type : {DType::kFloat32, DType::kBFloat16}) {
      const Tensor few = PoisonedOnDevice(gpu, out_type, {kMost, n});
      for (int64_t row = 0; row < kMost; row += 16) {
        const int64_t m = std::min<int64_t>(16, kMost - row);
        ASSERT_TRUE(cuda::LinearFew(
            ops::CudaLinearArgs(few.view().Rows(row, m), in.view().Rows(row, m), w, b), gpu.stream));
      }
      const Tensor expected = ToHost(gpu, few);
      for (int64_t m : {1, 16, 17, 63, 64, 65, 129, 300}) {
        SCOPED_TRACE(testing::Message() << m << " x " << n << " x " << k << " -> " << DTypeName(out_type));
        const int64_t first = (kMost - m) / 2;
        const Tensor out = PoisonedOnDevice(gpu, out_type, {m + 1, n + 3});
        ASSERT_TRUE(cuda::LinearInvariant(
            ops::CudaLinearArgs(out.view().Rows(0, m).Columns(2, n), in.view().Rows(first, m), w, b),
            gpu.stream));
        const Tensor found = ToHost(gpu, out);
        ExpectSameBits(found.view().Rows(0, m).Columns(2, n), expected.view().Rows(first, m));
        for (int64_t i = 0; i < n + 3; ++i)  // nothing else was written
          ASSERT_TRUE(std::isnan(Get(found, m * (n + 3) + i))) << i;
        ASSERT_TRUE(std::isnan(Get(found, 0)) && std::isnan(Get(found, n + 2)));
      }
    }
  }
}

// Rows of a product in batches of several sizes against those of the largest.
template <typename Product>
void ExpectRowsKeepTheirBits(CudaContext& gpu, const TensorView& in, int64_t columns, DType out_type,
                             const Product& product) {
  const Tensor all = PoisonedOnDevice(gpu, out_type, {kMost, columns});
  product(all.view(), in);
  const Tensor expected = ToHost(gpu, all);
  for (int64_t m : {1, 2, 7, 16, 17, 64, 65, 129}) {
    for (int64_t first : {int64_t{0}, kMost - m}) {
      SCOPED_TRACE(testing::Message() << m << " rows from " << first);
      const Tensor out = PoisonedOnDevice(gpu, out_type, {m, columns});
      product(out.view(), in.Rows(first, m));
      ExpectSameBits(ToHost(gpu, out), expected.view().Rows(first, m));
    }
  }
}

TEST(CudaInvariance, RowsOfEveryKindOfWeight) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  gpu.ctx.batch_invariant = true;
  for (const auto& [n, k] : {Shape2{96, 2560}, Shape2{600, 588}, Shape2{64, 1032}}) {
    std::mt19937 rng(static_cast<unsigned>(n));
    for (DType act : {DType::kBFloat16, DType::kFloat32}) {
      const Tensor in = ToDevice(gpu, Random(rng, act, {kMost, k}));
      for (DType type : {DType::kBFloat16, DType::kFloat32}) {
        SCOPED_TRACE(testing::Message()
                     << n << " x " << k << " " << DTypeName(act) << " x " << DTypeName(type));
        const ops::LinearWeight w = ops::PackLinear(gpu.ctx, {Random(rng, type, {n, k})});
        for (DType out_type : {act, DType::kFloat32}) {
          ExpectRowsKeepTheirBits(gpu, in, n, out_type, [&](const TensorView& out, const TensorView& rows) {
            ops::Linear(gpu.ctx, out, rows, w);
          });
        }
        ExpectRowsKeepTheirBits(gpu, in, n / 2, act, [&](const TensorView& out, const TensorView& rows) {
          ops::LinearSwiGlu(gpu.ctx, out, rows, w);
        });
      }
      for (const ops::QuantScheme& scheme : {ops::QuantScheme{8, 0}, {4, 0}, {4, 128}}) {
        SCOPED_TRACE(testing::Message()
                     << n << " x " << k << " " << DTypeName(act) << " x " << scheme.bits << " bits");
        const ops::LinearWeight w =
            ops::QuantizeLinear(gpu.ctx, {Random(rng, DType::kBFloat16, {n, k})}, false, scheme);
        ExpectRowsKeepTheirBits(gpu, in, n, act, [&](const TensorView& out, const TensorView& rows) {
          ops::Linear(gpu.ctx, out, rows, w);
        });
        ExpectRowsKeepTheirBits(gpu, in, n / 2, act, [&](const TensorView& out, const TensorView& rows) {
          ops::LinearSwiGlu(gpu.ctx, out, rows, w);
        });
      }
    }
  }
}

TEST(CudaInvariance, RowsOfExperts) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  gpu.ctx.batch_invariant = true;
  constexpr int64_t kExperts = 8, kTopK = 3, kHidden = 256, kWidth = 128;
  std::mt19937 rng(7);
  const Tensor in = ToDevice(gpu, Random(rng, DType::kBFloat16, {kMost, kHidden}));
  Tensor ids(DType::kInt32, Device{}, {kMost, kTopK}), weights(DType::kFloat32, Device{}, {kMost, kTopK});
  for (int64_t i = 0; i < kMost; ++i) {
    for (int64_t j = 0; j < kTopK; ++j) {
      ids.view().As<int32_t>()[i * kTopK + j] = static_cast<int32_t>((i * i + 3 * j) % kExperts);
      weights.view().As<float>()[i * kTopK + j] = 0.25f + 0.125f * static_cast<float>(j);
    }
  }
  const Tensor ids_gpu = ToDevice(gpu, ids), weights_gpu = ToDevice(gpu, weights);
  for (int bits : {0, 8, 4}) {
    SCOPED_TRACE(testing::Message() << bits << " bits");
    ops::ExpertWeights experts;
    for (int64_t e = 0; e < kExperts; ++e) {
      for (auto* list : {&experts.gate_up, &experts.down}) {
        const bool up = list == &experts.gate_up;
        const Tensor w =
            Random(rng, DType::kBFloat16, {up ? 2 * kWidth : kHidden, up ? kHidden : kWidth}, 0.1f);
        list->push_back(bits == 0 ? ops::PackLinear(gpu.ctx, {w})
                                  : ops::QuantizeLinear(gpu.ctx, {w}, false, {bits, 0}));
      }
    }
    ops::FinishExperts(gpu.ctx, &experts);
    cuda::Synchronize(gpu.stream);
    const char* base = in.view().As<char>();
    ExpectRowsKeepTheirBits(
        gpu, in, kHidden, DType::kBFloat16, [&](const TensorView& out, const TensorView& rows) {
          const int64_t first = (static_cast<const char*>(rows.data) - base) / (kHidden * 2);
          ops::MoeExperts(gpu.ctx, out, rows, experts, ids_gpu.view().Rows(first, rows.dim(0)),
                          weights_gpu.view().Rows(first, rows.dim(0)));
        });
  }
}

}  // namespace
}  // namespace fd
