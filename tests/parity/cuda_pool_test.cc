// The sums of rows have the bits of the CPU's.
#include "tests/parity/cuda_parity.h"
#include "tests/parity/pooling.h"

namespace fd {
namespace {

using namespace parity;

TEST(CudaPool, SumsHaveTheBitsOfTheCpu) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  Cpu cpu;
  std::mt19937 rng(1);
  const auto clone = [](const TensorView& t) {
    Tensor copy(t.dtype, Device{}, t.shape);
    std::memcpy(copy.view().data, t.data, static_cast<size_t>(copy.size_bytes()));
    return copy;
  };
  for (int64_t n : {1, 7, 128, 300, 1025}) {
    std::vector<Tensor> whole;
    for (int64_t rows : {1, 2, 63, 500, 7}) whole.push_back(Random(rng, DType::kFloat32, {rows, n}, 100.0f));
    const Tensor expected = SumInSteps(cpu.ctx, whole, 64, clone, clone);
    for (int64_t chunk : {1, 7, 1000}) {
      const Tensor sums = SumInSteps(
          gpu.ctx, whole, chunk, [&](const TensorView& t) { return ToDevice(gpu, t); },
          [&](const TensorView& t) { return ToHost(gpu, t); });
      EXPECT_EQ(std::memcmp(sums.view().data, expected.view().data, static_cast<size_t>(sums.size_bytes())),
                0)
          << "n=" << n << " chunk=" << chunk;
    }
  }
}

}  // namespace
}  // namespace fd
