#include "compute/kernels/cpu/roofline.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "compute/kernels/cpu/isa.h"
#include "compute/tensor/tensor.h"

namespace fd::cpu {

namespace avx2 {
extern const RooflineKernels kRooflineKernels;
}
namespace avx512 {
extern const RooflineKernels kRooflineKernels;
}
namespace avx512_bf16 {
extern const RooflineKernels kRooflineKernels;
}

namespace {

constexpr int kRepeats = 20;
constexpr int64_t kReadFloats = int64_t{128} << 20;
constexpr int64_t kChunkFloats = 1 << 18;
constexpr int64_t kRounds = 1 << 21;

const RooflineKernels& Kernels() {
  switch (CurrentIsa()) {
    case Isa::kAvx2:
      return avx2::kRooflineKernels;
    case Isa::kAvx512:
      return avx512::kRooflineKernels;
    case Isa::kAvx512Bf16:
      return avx512_bf16::kRooflineKernels;
  }
  return avx2::kRooflineKernels;
}

template <typename Fn>
double BestSeconds(const Fn& fn) {
  double best = 1e30;
  for (int i = 0; i < kRepeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    fn();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

double FlopPerSecond(ThreadPool& threads, double (*loop)(int64_t rounds)) {
  std::atomic<double> operations{0};
  const double seconds = BestSeconds([&] {
    operations = 0;
    threads.Run([&](int) { operations.fetch_add(loop(kRounds)); });
  });
  return operations / seconds;
}

}  // namespace

Roofline MeasureRoofline(ThreadPool& threads) {
  const RooflineKernels& kernels = Kernels();
  Roofline roofline;
  {
    const Tensor data(DType::kFloat32, Device{}, {kReadFloats});
    float* floats = data.view().As<float>();
    // Chunks are handed out as threads get there, so that a thread that was held up does not set the time.
    threads.ParallelFor(kReadFloats, kChunkFloats,
                        [&](int64_t i, int64_t end) { std::fill(floats + i, floats + end, 1.0f); });
    std::atomic<int> reached{0};
    const double seconds = BestSeconds([&] {
      threads.ParallelFor(kReadFloats, kChunkFloats, [&](int64_t i, int64_t end) {
        reached += kernels.read(floats + i, end - i) > 0.0f;
      });
    });
    FD_CHECK_GT(reached.load(), 0);
    roofline.read_bytes_per_s = 4.0 * kReadFloats / seconds;
  }
  roofline.bf16_flop_per_s = FlopPerSecond(threads, kernels.bf16_dots);
  roofline.fp32_flop_per_s = FlopPerSecond(threads, kernels.fp32_fmas);
  roofline.int8_op_per_s = FlopPerSecond(threads, kernels.int8_dots);
  return roofline;
}

}  // namespace fd::cpu
