#include "compute/ops/linear.h"

#include "compute/kernels/reference/linear.h"
#include "tests/parity/cuda_parity.h"

namespace fd {
namespace {

using namespace parity;

struct Case {
  int64_t m, n, k;
};
const Case kCases[] = {{1, 1, 1},       {1, 16, 2},       {2, 17, 3},     {3, 48, 64},    {7, 47, 33},
                       {8, 49, 128},    {9, 96, 255},     {13, 100, 257}, {1, 515, 96},   {64, 33, 513},
                       {65, 50, 40},    {200, 31, 999},   {1, 64, 2560},  {33, 64, 2560}, {300, 320, 1024},
                       {130, 64, 2560}, {200, 1280, 588}, {66, 64, 33}};

class CudaLinear : public testing::TestWithParam<Case> {};

TEST_P(CudaLinear, EveryTypeOfInputWeightAndOutput) {
  FD_SKIP_WITHOUT_GPU();
  const auto [m, n, k] = GetParam();
  CudaContext gpu;
  std::mt19937 rng(7);
  for (DType act : {DType::kFloat32, DType::kBFloat16}) {
    for (DType stored : {DType::kBFloat16, DType::kFloat32}) {
      const Tensor in = Random(rng, act, {m, k}), w = Random(rng, stored, {n, k});
      const ops::LinearWeight packed = ops::PackLinear(gpu.ctx, {w});
      const Tensor x = ToDevice(gpu, in);
      for (DType bias_type : {DType::kFloat32, DType::kBFloat16}) {
        const Tensor bias = Random(rng, bias_type, {n});
        const Tensor b = ToDevice(gpu, bias);
        for (bool with_bias : {false, true}) {
          Tensor expected(DType::kFloat32, Device{}, {m, n});
          reference::Linear(expected, in, w, with_bias ? bias.view() : TensorView{});
          // Tensor cores cut off where they add. Float32 inputs are held to their full precision: rounding
          // them to bfloat16 or TF32 errs by a thousand times more.
          const bool tensor_cores = act == DType::kBFloat16 && (stored == DType::kBFloat16 || m > 64);
          const double absolute = (tensor_cores ? 2e-5 : 3e-6) * std::sqrt(static_cast<double>(k)) + 1e-6;
          for (DType out_type : {DType::kFloat32, act}) {
            SCOPED_TRACE(testing::Message() << DTypeName(act) << " x " << DTypeName(stored) << " -> "
                                            << DTypeName(out_type) << (with_bias ? " + bias" : ""));
            Tensor out = PoisonedOnDevice(gpu, out_type, {m, n});
            ops::Linear(gpu.ctx, out, x, packed, with_bias ? b.view() : TensorView{});
            ExpectClose(ToHost(gpu, out), expected, absolute, RelativeTolerance(out_type));
          }
        }
      }
    }
  }
  EXPECT_EQ(gpu.workspace.Mark(), 0);
}

INSTANTIATE_TEST_SUITE_P(OddSizes, CudaLinear, testing::ValuesIn(kCases));

TEST(CudaLinearCases, StackedTransposedAndStridedOperands) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(11);
  const int64_t m = 5, k = 37;
  for (DType stored : {DType::kBFloat16, DType::kFloat32}) {
    const Tensor a = Random(rng, stored, {19, k}), b = Random(rng, stored, {64, k});
    const Tensor wide_in = Random(rng, DType::kBFloat16, {m, k + 9});
    const Tensor device_in = ToDevice(gpu, wide_in);
    Tensor expected(DType::kFloat32, Device{}, {m, 83});
    reference::Linear(expected.view().Columns(0, 19), wide_in.view().Columns(4, k), a, {});
    reference::Linear(expected.view().Columns(19, 64), wide_in.view().Columns(4, k), b, {});
    Tensor a_t(stored, Device{}, {k, 19}), b_t(stored, Device{}, {k, 64});
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t j = 0; j < 19; ++j) Set(a_t, i * 19 + j, Get(a, j * k + i));
      for (int64_t j = 0; j < 64; ++j) Set(b_t, i * 64 + j, Get(b, j * k + i));
    }
    for (bool transposed : {false, true}) {
      const ops::LinearWeight w =
          transposed ? ops::PackLinear(gpu.ctx, {a_t, b_t}, true) : ops::PackLinear(gpu.ctx, {a, b});
      Tensor wide_out = PoisonedOnDevice(gpu, DType::kFloat32, {m, 100});
      ops::Linear(gpu.ctx, wide_out.view().Columns(3, 83), device_in.view().Columns(4, k), w);
      const Tensor out = ToHost(gpu, wide_out);
      ExpectClose(out.view().Columns(3, 83), expected, 3e-5, 2e-6);
      for (int64_t r = 0; r < m; ++r) {
        EXPECT_TRUE(std::isnan(out.view().As<float>()[r * 100 + 2]));
        EXPECT_TRUE(std::isnan(out.view().As<float>()[r * 100 + 86]));
      }
    }
  }
}

// The same call gives the same bits, also when other row counts of its class came between.
TEST(CudaLinearCases, IsDeterministic) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(3);
  const int64_t n = 512, k = 1024;
  const Tensor in = ToDevice(gpu, Random(rng, DType::kBFloat16, {300, k}));
  const ops::LinearWeight w = ops::PackLinear(gpu.ctx, {Random(rng, DType::kBFloat16, {n, k})});
  for (int64_t m : {1, 17, 150, 300}) {
    Tensor first = PoisonedOnDevice(gpu, DType::kBFloat16, {m, n}),
           second = PoisonedOnDevice(gpu, DType::kBFloat16, {m, n}),
           other = PoisonedOnDevice(gpu, DType::kBFloat16, {std::max<int64_t>(1, m - 1), n});
    ops::Linear(gpu.ctx, first, in.view().Rows(0, m), w);
    ops::Linear(gpu.ctx, other, in.view().Rows(0, other.view().dim(0)), w);
    ops::Linear(gpu.ctx, second, in.view().Rows(0, m), w);
    ExpectSameBits(ToHost(gpu, first), ToHost(gpu, second));
  }
}

TEST(CudaLinearCases, ExtremeValues) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  const float inf = INFINITY;
  for (DType act : {DType::kBFloat16, DType::kFloat32}) {
    Tensor in(act, Device{}, {3, 8}), w(DType::kBFloat16, Device{}, {2, 8});
    const float rows[3][4] = {{1e38f, 1e38f, 0, 0}, {inf, 1, 1, 1}, {1, NAN, 0, 0}};
    for (int i = 0; i < 12; ++i) Set(in, i / 4 * 8 + i % 4, rows[i / 4][i % 4]);
    for (int i = 0; i < 8; ++i) {
      Set(w, i, 2.0f);
      Set(w, 8 + i, 0.5f);
    }
    Tensor out = PoisonedOnDevice(gpu, DType::kFloat32, {3, 2});
    ops::Linear(gpu.ctx, out, ToDevice(gpu, in), ops::PackLinear(gpu.ctx, {w}));
    const Tensor host = ToHost(gpu, out);
    const float* o = host.view().As<float>();
    EXPECT_EQ(o[0], inf);
    EXPECT_NEAR(o[1], 1e38f, 1e36f);
    EXPECT_EQ(o[2], inf);
    EXPECT_TRUE(std::isnan(o[4]) && std::isnan(o[5]));
  }
}

}  // namespace
}  // namespace fd
