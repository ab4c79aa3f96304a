// Which kernel multiplies what.
#include "compute/kernels/cuda/linear.h"

namespace fd::cuda {

void Linear(const LinearArgs& args, void* stream) {
  if (args.m == 0 || args.n == 0) return;
  if (args.invariant) {
    if (!LinearInvariant(args, stream)) LinearSimple(args, stream);
    return;
  }
  if (!LinearFew(args, stream) && !LinearLt(args, stream)) LinearSimple(args, stream);
}

}  // namespace fd::cuda
