// Order of work on the device: uploads, recorded graphs, the side line; and what is made there instead of
// copied.
#include <numeric>

#include "compute/ops/elementwise.h"
#include "compute/ops/linear.h"
#include "compute/ops/random.h"
#include "compute/ops/stream.h"
#include "compute/ops/upload.h"
#include "compute/tensor/device_error.h"
#include "tests/parity/cuda_parity.h"

namespace fd::parity {
namespace {

Tensor Ints(const std::vector<int32_t>& values) {
  Tensor t(DType::kInt32, Device{}, {static_cast<int64_t>(values.size())});
  std::copy(values.begin(), values.end(), t.view().As<int32_t>());
  return t;
}

TEST(CudaUploader, EveryByteArrivesAndTheSourceMayGo) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  ops::Uploader uploader(gpu.ctx);
  for (int64_t bytes : {int64_t{1}, int64_t{4097}, int64_t{8} << 20, (int64_t{37} << 20) + 13}) {
    std::vector<uint8_t> source(static_cast<size_t>(bytes));
    for (size_t i = 0; i < source.size(); ++i) source[i] = static_cast<uint8_t>(i * 2654435761u >> 13);
    const std::vector<uint8_t> kept = source;
    const Tensor to = PoisonedOnDevice(gpu, DType::kUInt8, {bytes});
    uploader.Copy(to.view().data, source.data(), bytes);
    std::fill(source.begin(), source.end(), uint8_t{0});
    const Tensor found = ToHost(gpu, to);
    EXPECT_TRUE(std::equal(kept.begin(), kept.end(), found.view().As<uint8_t>())) << bytes;
  }
}

TEST(CudaGraph, ReplaysOnNewContentsOfTheSameAddresses) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(1);
  const Tensor a = ToDevice(gpu, Random(rng, DType::kFloat32, {3, 64})), out(DType::kFloat32, kGpu, {3, 64});
  ops::Add(gpu.ctx, out, a, a);
  const ops::Graph graph(gpu.ctx, [&] { ops::Add(gpu.ctx, out, a, a); });
  const Tensor b = Random(rng, DType::kFloat32, {3, 64});
  ops::Copy(gpu.ctx, a, b);
  ops::Event begin(gpu.ctx), end(gpu.ctx);
  begin.Record(gpu.ctx);
  graph.Launch(gpu.ctx);
  end.Record(gpu.ctx);
  end.Wait();
  EXPECT_GT(ops::Event::MillisecondsBetween(begin, end), 0);
  const Tensor found = ToHost(gpu, out);
  for (int64_t i = 0; i < 3 * 64; ++i) {
    ASSERT_EQ(found.view().As<float>()[i], 2 * b.view().As<float>()[i]) << i;
  }
}

// A long product on the side line, read after Join; launched and recorded.
TEST(CudaSideLine, JoinWaitsForWhatRunsBeside) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(2);
  const int64_t k = 4096, n = 4096, m = 8;
  const ops::LinearWeight weight = ops::RandomLinear(gpu.ctx, DType::kBFloat16, {{n, 77}}, k, 0.02f);
  const Tensor in = ToDevice(gpu, Random(rng, DType::kBFloat16, {m, k})),
               expected(DType::kBFloat16, kGpu, {m, n}), beside(DType::kBFloat16, kGpu, {m, n}),
               sum(DType::kBFloat16, kGpu, {m, n}), zero(DType::kBFloat16, kGpu, {m, n});
  ops::Linear(gpu.ctx, expected, in, weight);
  ops::SideLine side(gpu.ctx);
  const auto run = [&] {
    Poison(gpu, beside);
    side.Fork(gpu.ctx);
    ops::Linear(side.context(gpu.ctx), beside, in, weight);
    side.Join(gpu.ctx);
    ops::Add(gpu.ctx, sum, beside, zero);
  };
  run();
  ExpectSameBits(ToHost(gpu, sum), ToHost(gpu, expected));
  const ops::Graph graph(gpu.ctx, run);
  for (int i = 0; i < 20; ++i) {
    Poison(gpu, sum);
    graph.Launch(gpu.ctx);
    ExpectSameBits(ToHost(gpu, sum), ToHost(gpu, expected));
  }
}

TEST(CudaTakeDrawnTokens, OnlyRowsWithASourceAreReplaced) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  const Tensor ids = ToDevice(gpu, Ints({10, 11, 12, 13, 14})),
               source = ToDevice(gpu, Ints({-1, 2, 0, -1, 1})), drawn = ToDevice(gpu, Ints({70, -1, 72}));
  ops::TakeDrawnTokens(gpu.ctx, ids, source, drawn);
  const Tensor found = ToHost(gpu, ids);
  const std::vector<int32_t> expected = {10, 72, 70, 13, 0};
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), found.view().As<int32_t>()));
}

TEST(CudaFillRandom, TheValuesOfTheCpu) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  ops::Context cpu;
  cpu.threads = &gpu.threads;
  for (DType type : {DType::kBFloat16, DType::kFloat32}) {
    for (int64_t first : {int64_t{0}, int64_t{1023}, int64_t{5} << 32}) {
      const Tensor expected(type, Device{}, {100003}), made = PoisonedOnDevice(gpu, type, {100003});
      ops::FillRandom(cpu, expected, 42, first, 0.37f);
      ops::FillRandom(gpu.ctx, made, 42, first, 0.37f);
      ExpectSameBits(ToHost(gpu, made), expected);
    }
  }
}

TEST(CudaArena, ZeroedAndTooMuchIsAnAnswer) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  auto arena = Arena::Allocate(kGpu, int64_t{1} << 20);
  ASSERT_NE(arena, nullptr);
  const Tensor taken = ToHost(gpu, arena->Take(DType::kUInt8, {1 << 19}));
  EXPECT_EQ(std::accumulate(taken.view().As<uint8_t>(), taken.view().As<uint8_t>() + (1 << 19), 0), 0);
  EXPECT_EQ(Arena::Allocate(kGpu, int64_t{1} << 50), nullptr);
}

// Last in its program's order of names would not do: the device is lost to the process, so a child has to do
// it.
TEST(CudaFaultDeathTest, AnInjectedFaultIsADeviceError) {
  FD_SKIP_WITHOUT_GPU();
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        CudaContext gpu;
        try {
          ops::InjectFault(gpu.ctx);
          ops::Synchronize(gpu.ctx);
        } catch (const DeviceError& e) {
          std::fputs(e.what(), stderr);
          std::_Exit(7);
        }
        std::_Exit(0);
      },
      testing::ExitedWithCode(7), "cudaError");
}

}  // namespace
}  // namespace fd::parity
