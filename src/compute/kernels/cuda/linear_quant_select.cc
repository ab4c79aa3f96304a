// Which kernel multiplies quantised weights.
#include "compute/kernels/cuda/linear_quant.h"

namespace fd::cuda {

void LinearQuant(const QuantLinear& args, void* stream) {
  if (args.linear.m == 0 || args.linear.n == 0) return;
  const bool few = !args.linear.invariant && LinearQuantFew(args, false, stream);
  if (!few && !LinearQuantTiled(args, false, stream)) LinearQuantSimple(args, stream);
}

bool QuantSwiGluUsable(DType act, int64_t n, int64_t k) {
  return act == DType::kBFloat16 && k % 8 == 0 && n % 32 == 0;  // gate and up in panels of their own
}

bool LinearQuantSwiGlu(const QuantLinear& args, void* stream) {
  return args.linear.out_type == DType::kBFloat16 && args.linear.bias == nullptr &&
         ((!args.linear.invariant && LinearQuantFew(args, true, stream)) ||
          LinearQuantTiled(args, true, stream));
}

}  // namespace fd::cuda
