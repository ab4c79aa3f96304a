// Quantised weights on the GPU: their bytes against the CPU's, products against exact sums over what they
// stand for.
#include <cstdlib>

#include "compute/kernels/cuda/launch.h"
#include "compute/kernels/reference/linear.h"
#include "compute/ops/elementwise.h"
#include "compute/ops/linear.h"
#include "compute/ops/linear_prequantized.h"
#include "compute/ops/norm.h"
#include "tests/parity/cuda_parity.h"
#include "tests/parity/quant.h"

namespace fd {
namespace {

using namespace parity;

const ops::QuantScheme kSchemes[] = {{8, 0}, {4, 0}, {8, 32}, {4, 32}, {4, 96}, {8, 128}, {4, 128}};

testing::Message Name(const ops::QuantScheme& s) {
  return testing::Message() << s.bits << " bits, groups of " << s.group_size;
}
ops::LinearWeight ToHost(CudaContext& gpu, const ops::LinearWeight& device) {
  ops::LinearWeight w = device;
  w.data = parity::ToHost(gpu, device.data);
  w.scales = parity::ToHost(gpu, device.scales);
  return w;
}
using parity::ToHost;

struct Case {
  int64_t m, n, k;
};
// Few rows and many, on 16 bytes and off.
const Case kCases[] = {{1, 1, 8},      {1, 1, 1},       {3, 17, 72},     {16, 100, 520},   {9, 64, 1032},
                       {8, 47, 456},   {16, 65, 2560},  {2, 160, 4096},  {17, 130, 264},   {64, 33, 512},
                       {65, 50, 40},   {130, 300, 328}, {200, 31, 1600}, {1930, 1030, 40}, {7, 47, 33},
                       {13, 100, 257}, {65, 50, 999},   {2, 17, 3}};

class CudaQuantLinear : public testing::TestWithParam<Case> {};

TEST_P(CudaQuantLinear, EveryTypeOfInputAndOutput) {
  FD_SKIP_WITHOUT_GPU();
  const auto [m, n, k] = GetParam();
  CudaContext gpu;
  std::mt19937 rng(static_cast<unsigned>(m + n + k));
  const Tensor w = Random(rng, DType::kBFloat16, {n, k});
  for (const ops::QuantScheme& scheme : kSchemes) {
    const ops::LinearWeight packed = ops::QuantizeLinear(gpu.ctx, {w}, false, scheme);
    EXPECT_EQ(Arena::PaddedBytes(packed.data.size_bytes()) + Arena::PaddedBytes(packed.scales.size_bytes()),
              ops::LinearWeightBytes(gpu.ctx, DType::kBFloat16, n, k, scheme));
    Cpu cpu;
    const ops::LinearWeight host = ops::QuantizeLinear(cpu.ctx, {w}, false, scheme);
    ExpectSameQuantized(ToHost(gpu, packed), host);
    const Tensor exact = Dequantized(host);
    for (DType act : {DType::kFloat32, DType::kBFloat16}) {
      const Tensor in = Random(rng, act, {m, k}), bias = Random(rng, act, {n});
      const Tensor x = ToDevice(gpu, in), b = ToDevice(gpu, bias);
      for (bool with_bias : {false, true}) {
        Tensor expected(DType::kFloat32, Device{}, {m, n});
        reference::Linear(expected, in, exact, with_bias ? bias.view() : TensorView{});
        // Tensor cores cut off where they add. Float32 inputs are held to their full precision.
        const double absolute =
            (act == DType::kBFloat16 ? 2e-5 : 5e-6) * std::sqrt(static_cast<double>(k)) + 1e-6;
        for (DType out_type : {DType::kFloat32, act}) {
          SCOPED_TRACE(Name(scheme) << ", " << DTypeName(act) << " -> " << DTypeName(out_type)
                                    << (with_bias ? " + bias" : ""));
          Tensor out = PoisonedOnDevice(gpu, out_type, {m, n});
          ops::Linear(gpu.ctx, out, x, packed, with_bias ? b.view() : TensorView{});
          ExpectClose(ToHost(gpu, out), expected, absolute, RelativeTolerance(out_type));
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
  EXPECT_EQ(gpu.workspace.Mark(), 0);
}

INSTANTIATE_TEST_SUITE_P(OddSizes, CudaQuantLinear, testing::ValuesIn(kCases));

// 16 features x 32 k of distinct values: a wrong place in a fragment shows as a wrong value by itself.
TEST(CudaQuantLinearCases, WeightsThatComeQuantisedHaveTheCpusBytes) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  Cpu cpu;
  std::mt19937 rng(3);
  const int64_t k = 128;
  for (int bits : {8, 4}) {
    std::vector<Tensor> data, scales;
    std::vector<ops::PrequantizedPart> parts;
    for (int64_t n : {20, 64}) {
      data.emplace_back(DType::kUInt8, Device{}, Shape{n * bits / 8, k});
      for (int64_t i = 0; i < data.back().size_bytes(); ++i)
        data.back().view().As<uint8_t>()[i] = static_cast<uint8_t>(rng());
      scales.push_back(Random(rng, DType::kBFloat16, {n}));
    }
    for (size_t i = 0; i < data.size(); ++i) parts.push_back({data[i].view(), scales[i].view()});
    const ops::LinearWeight device = ops::PackPrequantized(gpu.ctx, parts, k, bits);
    ExpectSameQuantized(ToHost(gpu, device), ops::PackPrequantized(cpu.ctx, parts, k, bits));
  }
}

TEST(CudaQuantLinearCases, EveryWeightIsInItsPlace) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  const int64_t n = 32, k = 128;
  for (int bits : {8, 4}) {
    Tensor w(DType::kFloat32, Device{}, {n, k});
    const int limit = bits == 8 ? 127 : 7;
    for (int64_t i = 0; i < n * k; ++i)
      Set(w, i, static_cast<float>((i * 37 + i / k * 11) % (2 * limit + 1) - limit));
    for (int64_t i = 0; i < n; ++i) Set(w, i * k + i % k, static_cast<float>(limit));  // every scale is 1
    const ops::LinearWeight packed = ops::QuantizeLinear(gpu.ctx, {w}, false, {bits, 0});
    for (int64_t m : {16, 128}) {  // row r asks for k = r
      SCOPED_TRACE(testing::Message() << bits << " bits, " << m << " rows");
      Tensor in(DType::kBFloat16, Device{}, {m, k});
      for (int64_t i = 0; i < m * k; ++i) Set(in, i, i / k == i % k ? 1.0f : 0.0f);
      Tensor out = PoisonedOnDevice(gpu, DType::kFloat32, {m, n});
      ops::Linear(gpu.ctx, out, ToDevice(gpu, in), packed);
      const Tensor found = ToHost(gpu, out);
      for (int64_t r = 0; r < m; ++r)
        for (int64_t i = 0; i < n; ++i)
          ASSERT_EQ(Get(found, r * n + i), Get(w, i * k + r)) << "feature " << i << " k " << r;
    }
  }
}

TEST(CudaQuantLinearCases, StackedTransposedAndRandomWeightsHaveTheCpusBytes) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  Cpu cpu;
  std::mt19937 rng(11);
  for (int64_t k : {37, 200, 1000}) {
    const Tensor a = Random(rng, DType::kBFloat16, {k, 19}), b = Random(rng, DType::kBFloat16, {k, 64});
    for (const ops::QuantScheme& scheme : kSchemes) {
      SCOPED_TRACE(Name(scheme) << ", k " << k);
      ExpectSameQuantized(ToHost(gpu, ops::QuantizeLinear(gpu.ctx, {a, b}, true, scheme)),
                          ops::QuantizeLinear(cpu.ctx, {a, b}, true, scheme));
      const std::vector<ops::RandomRows> rows = {{19, 5}, {64, 6}, {1, 7}};
      const ops::LinearWeight random = ops::RandomLinear(gpu.ctx, DType::kBFloat16, rows, k, 0.05f, scheme);
      ExpectSameQuantized(ToHost(gpu, random),
                          ops::RandomLinear(cpu.ctx, DType::kBFloat16, rows, k, 0.05f, scheme));
    }
  }
}

// Strided rows between others of NaN; every number of rows up to 16 gives the same bits, and so do those
// beyond.
class CudaQuantRows : public testing::TestWithParam<Case> {};

TEST_P(CudaQuantRows, KeepTheirBits) {
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
  const Tensor device_in = ToDevice(gpu, wide_in);
  const TensorView in = device_in.view().Columns(8, k);
  const Tensor w = Random(rng, DType::kBFloat16, {n, k});
  for (const ops::QuantScheme& scheme : kSchemes) {
    const ops::LinearWeight packed = ops::QuantizeLinear(gpu.ctx, {w}, false, scheme);
    for (DType out_type : {DType::kFloat32, DType::kBFloat16}) {
      Tensor most;
      for (int64_t m = max_m; m >= 1; m = m > 40 ? m * 3 / 4 : m - 1) {
        SCOPED_TRACE(Name(scheme) << ", " << m << " rows -> " << DTypeName(out_type));
        if (m == 16) most = Tensor();
        Tensor wide_out = PoisonedOnDevice(gpu, out_type, {m + 1, n + 5});
        ops::Linear(gpu.ctx, wide_out.view().Rows(0, m).Columns(3, n), in.Rows(0, m), packed);
        const Tensor found = ToHost(gpu, wide_out);
        const TensorView rows = found.view().Rows(0, m).Columns(3, n);
        if (most.view().data == nullptr) most = found;
        for (float v : Values(rows)) ASSERT_TRUE(std::isfinite(v));
        ExpectSameBits(rows, most.view().Rows(0, m).Columns(3, n));
        for (int64_t r = 0; r <= m; ++r) {  // nothing else was written
          for (int64_t i = 0; i < n + 5; ++i) {
            if (r < m && i >= 3 && i < n + 3) continue;
            ASSERT_TRUE(std::isnan(Get(found, r * (n + 5) + i))) << r << ", " << i;
          }
        }
        if (testing::Test::HasFatalFailure() || m != 16) continue;
        for (int64_t first : {3, 8, 15}) {  // wherever a row lies in the batch
          Tensor out = PoisonedOnDevice(gpu, out_type, {16 - first, n});
          ops::Linear(gpu.ctx, out, in.Rows(first, 16 - first), packed);
          ExpectSameBits(ToHost(gpu, out), most.view().Rows(first, 16 - first).Columns(3, n));
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Tails, CudaQuantRows,
    testing::ValuesIn(std::vector<Case>{
        {16, 7, 24}, {20, 33, 72}, {16, 65, 1032}, {300, 31, 520}, {2600, 135, 64}, {1930, 1030, 72}}));

// One kernel or two, any number of rows: the same bits.
TEST(CudaQuantLinearCases, LinearSwiGluGivesTheBitsOfItsTwoSteps) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(10);
  const Case cases[] = {{17, 1, 8}, {70, 20, 72}, {150, 48, 520}, {70, 160, 1024}};
  for (const auto& [max_m, width, k] : cases) {
    const Tensor wide_in = ToDevice(gpu, Random(rng, DType::kBFloat16, {max_m, k + 8}));
    const TensorView in = wide_in.view().Columns(8, k);
    const Tensor stored = Random(rng, DType::kBFloat16, {2 * width, k}, 0.1f);
    for (const ops::QuantScheme& scheme : kSchemes) {
      const ops::LinearWeight w = ops::QuantizeLinear(gpu.ctx, {stored}, false, scheme);
      for (int64_t m : {int64_t{1}, int64_t{8}, int64_t{9}, int64_t{16}, int64_t{17}, max_m}) {
        SCOPED_TRACE(Name(scheme) << ", " << m << " rows of " << width << " x " << k);
        Tensor product = PoisonedOnDevice(gpu, DType::kBFloat16, {m, 2 * width}),
               expected = PoisonedOnDevice(gpu, DType::kBFloat16, {m, width});
        ops::Linear(gpu.ctx, product, in.Rows(0, m), w);
        ops::SwiGlu(gpu.ctx, expected, product);
        Tensor wide_out = PoisonedOnDevice(gpu, DType::kBFloat16, {m + 1, width + 3});
        ops::LinearSwiGlu(gpu.ctx, wide_out.view().Rows(0, m).Columns(1, width), in.Rows(0, m), w);
        const Tensor found = ToHost(gpu, wide_out);
        ExpectSameBits(found.view().Rows(0, m).Columns(1, width), ToHost(gpu, expected));
        for (int64_t r = 0; r <= m; ++r) {
          for (int64_t i = 0; i < width + 3; ++i) {
            if (r < m && i >= 1 && i <= width) {
              ASSERT_FALSE(std::isnan(Get(found, r * (width + 3) + i)));
            } else {
              ASSERT_TRUE(std::isnan(Get(found, r * (width + 3) + i))) << r << ", " << i;
            }
          }
        }
      }
    }
  }
  EXPECT_EQ(gpu.workspace.Mark(), 0);
}

// Rows with infinities and NaN leave the others alone; features of zeros give zero, features that are not
// finite NaN.
TEST(CudaQuantLinearCases, ExtremeValues) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(8);
  const int64_t n = 48, k = 640;
  const Tensor w = Random(rng, DType::kBFloat16, {n, k});
  for (int64_t i = 0; i < k; ++i) {
    Set(w, 5 * k + i, 0.0f);
    Set(w, 7 * k + i, 1e-3f);  // the largest sum, every q at its limit
  }
  Set(w, 6 * k + 9, INFINITY);
  for (int64_t m : {12, 70}) {
    const Tensor calm = Random(rng, DType::kBFloat16, {m, k});
    const Tensor wild(DType::kBFloat16, Device{}, {m, k});
    std::memcpy(wild.view().data, calm.view().data, static_cast<size_t>(calm.size_bytes()));
    Set(wild, 1 * k + 5, NAN);
    Set(wild, 9 * k + 639, INFINITY);
    for (int64_t i = 0; i < k; ++i) Set(wild, 4 * k + i, 1e30f);
    for (const ops::QuantScheme& scheme : kSchemes) {
      SCOPED_TRACE(Name(scheme) << ", " << m << " rows");
      const ops::LinearWeight packed = ops::QuantizeLinear(gpu.ctx, {w}, false, scheme);
      Tensor quiet = PoisonedOnDevice(gpu, DType::kFloat32, {m, n}),
             loud = PoisonedOnDevice(gpu, DType::kFloat32, {m, n});
      ops::Linear(gpu.ctx, quiet, ToDevice(gpu, calm), packed);
      ops::Linear(gpu.ctx, loud, ToDevice(gpu, wild), packed);
      const Tensor a = ToHost(gpu, quiet), b = ToHost(gpu, loud);
      for (int64_t r = 0; r < m; ++r) {
        if (r != 1 && r != 4 && r != 9) ExpectSameBits(a.view().Rows(r, 1), b.view().Rows(r, 1));
        EXPECT_EQ(Get(a, r * n + 5), 0.0f);
        EXPECT_TRUE(std::isnan(Get(a, r * n + 6)));
      }
      for (int64_t j = 0; j < n; ++j) {
        EXPECT_TRUE(std::isnan(Get(b, 1 * n + j)));
        EXPECT_FALSE(std::isfinite(Get(b, 9 * n + j)));
      }
      EXPECT_NEAR(Get(b, 4 * n + 7) / 6.4e29f, 1.0f, 1e-2f);
      EXPECT_EQ(Get(b, 4 * n + 5), 0.0f);
    }
  }
}

// As OverlappedLaunchesGiveTheBitsOfSeparateOnes in cuda_linear_test.cc.
TEST(CudaQuantLinearCases, OverlappedLaunchesGiveTheBitsOfSeparateOnes) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(9);
  const int64_t hidden = 512, width = 1536, layers = 8;
  for (const ops::QuantScheme& scheme : {ops::QuantScheme{8, 0}, ops::QuantScheme{4, 64}}) {
    std::vector<ops::LinearWeight> up, down;
    for (int64_t i = 0; i < layers; ++i) {
      up.push_back(ops::QuantizeLinear(gpu.ctx, {Random(rng, DType::kBFloat16, {2 * width, hidden}, 0.05f)},
                                       false, scheme));
      down.push_back(ops::QuantizeLinear(gpu.ctx, {Random(rng, DType::kBFloat16, {hidden, width}, 0.05f)},
                                         false, scheme));
    }
    const Tensor norm = ToDevice(gpu, Random(rng, DType::kBFloat16, {hidden}));
    for (int64_t m : {1, 16, 40}) {
      SCOPED_TRACE(Name(scheme) << ", " << m << " rows");
      const Tensor start = ToDevice(gpu, Random(rng, DType::kBFloat16, {m, hidden}));
      Tensor x(DType::kBFloat16, kGpu, {m, hidden}), y(DType::kBFloat16, kGpu, {m, hidden}),
          h(DType::kBFloat16, kGpu, {m, hidden}), act(DType::kBFloat16, kGpu, {m, width});
      const auto step = [&] {
        ops::Copy(gpu.ctx, x, start);
        ops::Copy(gpu.ctx, y, start);
        for (size_t i = 0; i < up.size(); ++i) {
          ops::AddRmsNorm(gpu.ctx, h, x, y, norm, 1e-5f);
          ops::LinearSwiGlu(gpu.ctx, act, h, up[i]);
          ops::Linear(gpu.ctx, y, act, down[i]);
          ops::Add(gpu.ctx, y, y, h);
        }
      };
      const auto poison = [&] {
        for (const Tensor* t : {&x, &y, &h, &act}) Poison(gpu, *t);
      };
      poison();
      cuda::SetLaunchOverlap(false);
      step();
      cuda::SetLaunchOverlap(true);
      const Tensor expected_x = ToHost(gpu, x), expected_y = ToHost(gpu, y);
      for (float v : Values(expected_y)) ASSERT_TRUE(std::isfinite(v));
      cuda::BeginCapture(gpu.stream);
      step();
      void* graph = cuda::EndCapture(gpu.stream);
      const char* fewer = std::getenv("FASTDEPLOY_TEST_REPEATS");  // under a sanitizer every launch is slow
      const int repeats = fewer != nullptr ? std::atoi(fewer) : 20;
      for (int repeat = 0; repeat < repeats; ++repeat) {
        poison();
        if (repeat % 2 == 0) {
          cuda::LaunchGraph(graph, gpu.stream);
        } else {
          step();
        }
        ExpectSameBits(ToHost(gpu, x), expected_x);
        ExpectSameBits(ToHost(gpu, y), expected_y);
      }
      cuda::DestroyGraph(graph);
    }
  }
}

}  // namespace
}  // namespace fd
