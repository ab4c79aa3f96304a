#include "compute/ops/random.h"

#include "base/rng.h"
#include "compute/kernels/cuda/rows.h"
#include "compute/ops/row_ranges.h"

namespace fd::ops {

void FillRandom(const Context& ctx, const TensorView& out, uint64_t key, int64_t first_index, float scale) {
  CheckAct(out, "out");
  FD_CHECK(out.IsContiguous());
  const int64_t n = out.NumElements();
  if (out.device.type == DeviceType::kCuda) {
    CheckOnDevice(ctx, {&out});
    return cuda::FillRandom(out.dtype, out.data, n, key, first_index, scale, ctx.stream);
  }
  ctx.threads->ParallelFor(n, 65536, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const uint32_t bits = FillBits(key, static_cast<uint64_t>(first_index + i));
      const BFloat16 value = ToBFloat16(static_cast<float>(static_cast<int32_t>(bits)) * 0x1p-31f * scale);
      if (out.dtype == DType::kBFloat16) {
        out.As<BFloat16>()[i] = value;
      } else {
        out.As<float>()[i] = ToFloat(value);
      }
    }
  });
}

}  // namespace fd::ops
