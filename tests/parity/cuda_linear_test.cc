#include "compute/ops/linear.h"

#include <cstdlib>
#include <cstring>

#include "compute/kernels/cuda/launch.h"
#include "compute/kernels/cuda/linear.h"
#include "compute/kernels/reference/linear.h"
#include "compute/ops/elementwise.h"
#include "compute/ops/linear_cuda.h"
#include "compute/ops/norm.h"
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

TEST(CudaLinearCases, PanelsOfAPackedFolderBecomeRowsAgain) {
  FD_SKIP_WITHOUT_GPU();
  Cpu cpu;
  CudaContext gpu;
  std::mt19937 rng(31);
  const struct {
    int64_t n, k;
  } shapes[] = {{1, 1}, {17, 33}, {200, 588}, {4200, 1025}};  // the last takes several pieces
  for (const auto& [n, k] : shapes) {
    for (DType stored : {DType::kBFloat16, DType::kFloat32}) {
      SCOPED_TRACE(testing::Message() << n << " x " << k << " " << DTypeName(stored));
      const Tensor w = Random(rng, stored, {n, k});
      const ops::LinearWeight host = ops::PackLinear(cpu.ctx, {w});
      Tensor panels(stored, Device{}, ops::PanelsShape(stored, n, k));
      std::memcpy(panels.view().data, host.data.view().data, static_cast<size_t>(panels.size_bytes()));
      const ops::LinearWeight kept = ops::LinearOfPanels(gpu.ctx, panels, n, k);
      const ops::LinearWeight packed = ops::PackLinear(gpu.ctx, {w});
      const auto same = [&](const Tensor& a, const Tensor& b) {
        ASSERT_EQ(a.size_bytes(), b.size_bytes());
        if (a.size_bytes() == 0) return;
        const Tensor x = ToHost(gpu, a), y = ToHost(gpu, b);
        EXPECT_EQ(std::memcmp(x.view().data, y.view().data, static_cast<size_t>(x.size_bytes())), 0);
      };
      same(kept.data, packed.data);
      same(kept.split, packed.split);
      same(kept.padded, packed.padded);
    }
  }
}

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

// The kernel for few rows by itself.
class CudaLinearFew : public testing::TestWithParam<Case> {};

// Strided rows between others of NaN, every type of output and bias; every number of rows gives the
// same bits.
TEST_P(CudaLinearFew, MatchesTheReferenceAndKeepsARowsBits) {
  FD_SKIP_WITHOUT_GPU();
  const auto [max_m, n, k] = GetParam();
  CudaContext gpu;
  std::mt19937 rng(5);
  Tensor wide_in = Random(rng, DType::kBFloat16, {max_m + 1, k + 16});
  for (int64_t i = 0; i < k + 16; ++i) Set(wide_in, max_m * (k + 16) + i, NAN);  // a row too many
  for (int64_t r = 0; r < max_m; ++r) {
    for (int64_t i = 0; i < 8; ++i) Set(wide_in, r * (k + 16) + i, NAN);  // and columns before and behind
    for (int64_t i = k + 8; i < k + 16; ++i) Set(wide_in, r * (k + 16) + i, NAN);
  }
  const Tensor w = Random(rng, DType::kBFloat16, {n, k});
  const Tensor device_in = ToDevice(gpu, wide_in), device_w = ToDevice(gpu, w);
  const TensorView in = device_in.view().Columns(8, k);
  for (int with_bias : {0, 1, 2}) {
    const DType bias_type = with_bias == 1 ? DType::kFloat32 : DType::kBFloat16;
    const Tensor bias = Random(rng, bias_type, {n});
    const Tensor device_bias = ToDevice(gpu, bias);
    const TensorView b = with_bias != 0 ? device_bias.view() : TensorView{};
    Tensor expected(DType::kFloat32, Device{}, {max_m, n});
    reference::Linear(expected, wide_in.view().Rows(0, max_m).Columns(8, k), w,
                      with_bias != 0 ? bias.view() : TensorView{});
    for (DType out_type : {DType::kFloat32, DType::kBFloat16}) {
      SCOPED_TRACE(testing::Message() << "bias " << with_bias << " -> " << DTypeName(out_type));
      Tensor first;
      for (int64_t m = max_m; m >= 1; --m) {
        SCOPED_TRACE(testing::Message() << m << " rows");
        Tensor wide_out = PoisonedOnDevice(gpu, out_type, {m + 1, n + 5});
        const TensorView out = wide_out.view().Rows(0, m).Columns(3, n);
        ASSERT_TRUE(cuda::LinearFew(ops::CudaLinearArgs(out, in.Rows(0, m), device_w, b), gpu.stream));
        const Tensor found = ToHost(gpu, wide_out);
        const TensorView rows = found.view().Rows(0, m).Columns(3, n);
        if (first.view().data == nullptr) {
          ExpectClose(rows, expected, 2e-5 * std::sqrt(static_cast<double>(k)) + 1e-6,
                      RelativeTolerance(out_type));
          first = ToHost(gpu, wide_out);
        }
        ExpectSameBits(rows, first.view().Rows(0, m).Columns(3, n));
        for (int64_t r = 0; r <= m; ++r) {  // nothing else was written
          for (int64_t i = 0; i < n + 5; ++i) {
            if (r < m && i >= 3 && i < n + 3) continue;
            ASSERT_TRUE(std::isnan(Get(found, r * (n + 5) + i))) << r << ", " << i;
          }
        }
      }
      // A row alone, wherever it lies in the batch.
      for (int64_t r : {max_m / 2, max_m - 1}) {
        Tensor out = PoisonedOnDevice(gpu, out_type, {1, n});
        ASSERT_TRUE(cuda::LinearFew(ops::CudaLinearArgs(out, in.Rows(r, 1), device_w, b), gpu.stream));
        ExpectSameBits(ToHost(gpu, out), first.view().Rows(r, 1).Columns(3, n));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tails, CudaLinearFew,
                         testing::ValuesIn(std::vector<Case>{{16, 1, 8},
                                                             {16, 7, 24},
                                                             {3, 16, 64},
                                                             {16, 33, 72},
                                                             {8, 47, 456},
                                                             {16, 100, 520},
                                                             {9, 64, 1032},
                                                             {16, 65, 2560},
                                                             {16, 31, 3080},
                                                             {2, 160, 12288}}));

// One kernel or two, any number of rows: the same bits.
TEST(CudaLinearCases, LinearSwiGluGivesTheBitsOfItsTwoSteps) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(10);
  const Case cases[] = {{17, 1, 8}, {17, 20, 72}, {16, 47, 520}, {16, 96, 1024}, {16, 1536, 2560}};
  for (const auto& [max_m, width, k] : cases) {
    const Tensor wide_in = ToDevice(gpu, Random(rng, DType::kBFloat16, {max_m, k + 8}));
    const TensorView in = wide_in.view().Columns(8, k);
    const ops::LinearWeight w =
        ops::PackLinear(gpu.ctx, {Random(rng, DType::kBFloat16, {2 * width, k}, 0.1f)});
    for (int64_t m = 1; m <= max_m; ++m) {
      SCOPED_TRACE(testing::Message() << m << " rows of " << width << " x " << k);
      Tensor product = PoisonedOnDevice(gpu, DType::kBFloat16, {m, 2 * width}),
             expected = PoisonedOnDevice(gpu, DType::kBFloat16, {m, width});
      ops::Linear(gpu.ctx, product, in.Rows(0, m), w);
      ops::SwiGlu(gpu.ctx, expected, product);
      const Tensor two_steps = ToHost(gpu, expected);
      for (float v : Values(two_steps)) ASSERT_FALSE(std::isnan(v));
      Tensor wide_out = PoisonedOnDevice(gpu, DType::kBFloat16, {m + 1, width + 3});
      ops::LinearSwiGlu(gpu.ctx, wide_out.view().Rows(0, m).Columns(1, width), in.Rows(0, m), w);
      const Tensor found = ToHost(gpu, wide_out);
      ExpectSameBits(found.view().Rows(0, m).Columns(1, width), two_steps);
      for (int64_t r = 0; r <= m; ++r) {
        for (int64_t i = 0; i < width + 3; ++i) {
          if (r < m && i >= 1 && i <= width) continue;
          ASSERT_TRUE(std::isnan(Get(found, r * (width + 3) + i))) << r << ", " << i;
        }
      }
      if (m > 16) continue;
      Tensor out = PoisonedOnDevice(gpu, DType::kBFloat16, {m, width});
      cuda::LinearArgs args = ops::CudaLinearArgs(out, in.Rows(0, m), w.data, {});
      ASSERT_TRUE(cuda::LinearFewSwiGlu(args, gpu.stream));
      ExpectSameBits(ToHost(gpu, out), two_steps);
    }
  }
  EXPECT_EQ(gpu.workspace.Mark(), 0);
}

TEST(CudaLinearCases, FewRowsOfRealWeightsHaveTheSameBitsInEveryBatch) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(6);
  for (const auto& [m, n, k] : {Case{16, 2560, 2560}, Case{16, 8200, 1024}}) {
    const Tensor in = ToDevice(gpu, Random(rng, DType::kBFloat16, {m, k}));
    const ops::LinearWeight w = ops::PackLinear(gpu.ctx, {Random(rng, DType::kBFloat16, {n, k}, 0.02f)});
    Tensor all = PoisonedOnDevice(gpu, DType::kFloat32, {m, n});
    ops::Linear(gpu.ctx, all, in, w);
    const Tensor expected = ToHost(gpu, all);
    for (int64_t rows = 1; rows < m; ++rows) {
      for (int64_t first : {int64_t{0}, m - rows}) {
        Tensor out = PoisonedOnDevice(gpu, DType::kFloat32, {rows, n});
        ops::Linear(gpu.ctx, out, in.view().Rows(first, rows), w);
        ExpectSameBits(ToHost(gpu, out), expected.view().Rows(first, rows));
      }
    }
  }
}

TEST(CudaLinearCases, FewRowsLeavesToOthersWhatItDoesNotTake) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  const Tensor in(DType::kBFloat16, kGpu, {17, 72}), w(DType::kBFloat16, kGpu, {8, 64}),
      f32(DType::kFloat32, kGpu, {8, 64}), out(DType::kFloat32, kGpu, {17, 8});
  const auto takes = [&](int64_t rows, int64_t column, int64_t k, const TensorView& weight) {
    cuda::LinearArgs a =
        ops::CudaLinearArgs(out.view().Rows(0, rows), in.view().Rows(0, rows).Columns(column, k), weight, {});
    a.k = k;
    return cuda::LinearFew(a, gpu.stream);
  };
  EXPECT_TRUE(takes(16, 0, 64, w));
  EXPECT_FALSE(takes(17, 0, 64, w));
  EXPECT_FALSE(takes(16, 1, 64, w));  // rows off 16 bytes
  EXPECT_FALSE(takes(16, 0, 63, w));  // k not a multiple of 8
  EXPECT_FALSE(takes(16, 0, 64, f32));
  EXPECT_TRUE(takes(1, 8, 64, w));
  cuda::Synchronize(gpu.stream);
}

// Rows with infinities and NaN leave the others alone; sums that overflow are infinite.
TEST(CudaLinearCases, FewRowsWithExtremeValues) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(8);
  const int64_t m = 12, n = 48, k = 640;
  const Tensor w = Random(rng, DType::kBFloat16, {n, k});
  Tensor calm = Random(rng, DType::kBFloat16, {m, k});
  Tensor wild = Random(rng, DType::kBFloat16, {m, k});
  std::memcpy(wild.view().data, calm.view().data, static_cast<size_t>(calm.size_bytes()));
  Set(wild, 1 * k + 5, NAN);
  Set(wild, 9 * k + 639, INFINITY);
  for (int64_t i = 0; i < k; ++i)
    Set(wild, 4 * k + i, 3e38f * (Get(w, i) < 0 ? -1.0f : 1.0f));  // along feature 0
  const ops::LinearWeight packed = ops::PackLinear(gpu.ctx, {w});
  Tensor quiet = PoisonedOnDevice(gpu, DType::kFloat32, {m, n}),
         loud = PoisonedOnDevice(gpu, DType::kFloat32, {m, n});
  ops::Linear(gpu.ctx, quiet, ToDevice(gpu, calm), packed);
  const Tensor device_wild = ToDevice(gpu, wild);
  ops::Linear(gpu.ctx, loud, device_wild, packed);
  const Tensor a = ToHost(gpu, quiet), b = ToHost(gpu, loud);
  for (int64_t r = 0; r < m; ++r) {
    if (r != 1 && r != 4 && r != 9) ExpectSameBits(a.view().Rows(r, 1), b.view().Rows(r, 1));
  }
  for (int64_t j = 0; j < n; ++j) {
    EXPECT_TRUE(std::isnan(Get(b, 1 * n + j)));
    EXPECT_EQ(Get(b, 9 * n + j), Get(w, j * k + 639) < 0 ? -INFINITY : INFINITY);
  }
  EXPECT_EQ(Get(b, 4 * n), INFINITY);
}

// Kernels that begin before the one ahead of them has ended must see what it wrote and not disturb what it
// reads: small buffers used again at once, in a graph and outside, give the bits of kernels one by one.
TEST(CudaLinearCases, OverlappedLaunchesGiveTheBitsOfSeparateOnes) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(9);
  const int64_t hidden = 512, width = 1536, layers = 12;
  std::vector<ops::LinearWeight> up, down, router;
  for (int64_t i = 0; i < layers; ++i) {
    up.push_back(ops::PackLinear(gpu.ctx, {Random(rng, DType::kBFloat16, {2 * width, hidden}, 0.05f)}));
    down.push_back(ops::PackLinear(gpu.ctx, {Random(rng, DType::kBFloat16, {hidden, width}, 0.05f)}));
    router.push_back(ops::PackLinear(gpu.ctx, {Random(rng, DType::kFloat32, {64, hidden}, 0.05f)}));
  }
  const Tensor norm = ToDevice(gpu, Random(rng, DType::kBFloat16, {hidden}));
  for (int64_t m : {1, 5, 16}) {
    SCOPED_TRACE(m);
    const Tensor start = ToDevice(gpu, Random(rng, DType::kBFloat16, {m, hidden}));
    Tensor x(DType::kBFloat16, kGpu, {m, hidden}), y(DType::kBFloat16, kGpu, {m, hidden}),
        h(DType::kBFloat16, kGpu, {m, hidden}), gate_up(DType::kBFloat16, kGpu, {m, 2 * width}),
        act(DType::kBFloat16, kGpu, {m, width}), logits(DType::kFloat32, kGpu, {m, 64});
    const auto step = [&] {
      ops::Copy(gpu.ctx, x, start);
      ops::Copy(gpu.ctx, y, start);
      for (size_t i = 0; i < up.size(); ++i) {
        ops::AddRmsNorm(gpu.ctx, h, x, y, norm, 1e-5f);
        ops::Linear(gpu.ctx, logits, h, router[i]);
        ops::Linear(gpu.ctx, gate_up, h, up[i]);
        ops::SwiGlu(gpu.ctx, act, gate_up);
        ops::Linear(gpu.ctx, y, act, down[i]);
        ops::Add(gpu.ctx, y, y, h);
      }
    };
    const auto poison = [&] {
      for (const Tensor* t : {&x, &y, &h, &gate_up, &act, &logits}) Poison(gpu, *t);
    };
    poison();
    cuda::SetLaunchOverlap(false);
    step();
    cuda::SetLaunchOverlap(true);
    const Tensor expected_x = ToHost(gpu, x), expected_y = ToHost(gpu, y),
                 expected_logits = ToHost(gpu, logits);
    for (float v : Values(expected_y)) ASSERT_TRUE(std::isfinite(v));
    cuda::BeginCapture(gpu.stream);
    step();
    void* graph = cuda::EndCapture(gpu.stream);
    const char* fewer = std::getenv("FASTDEPLOY_TEST_REPEATS");  // under a sanitizer every launch is slow
    const int repeats = fewer != nullptr ? std::atoi(fewer) : 40;
    for (int repeat = 0; repeat < repeats; ++repeat) {
      poison();
      if (repeat % 2 == 0) {
        cuda::LaunchGraph(graph, gpu.stream);
      } else {
        step();
      }
      ExpectSameBits(ToHost(gpu, x), expected_x);
      ExpectSameBits(ToHost(gpu, y), expected_y);
      ExpectSameBits(ToHost(gpu, logits), expected_logits);
    }
    cuda::DestroyGraph(graph);
  }
}

}  // namespace
}  // namespace fd
