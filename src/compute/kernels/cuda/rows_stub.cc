#include "compute/kernels/cuda/rows.h"

#include "compute/kernels/cuda/not_built.h"

namespace fd::cuda {

void GatherRows(void*, DType, int64_t, const void*, DType, int64_t, int64_t, const int32_t*, int64_t, int64_t,
                void*) {
  NotBuilt(__func__);
}
void ScatterRows(void*, int64_t, int64_t, const void*, int64_t, DType, const int32_t*, int64_t, int64_t,
                 void*) {
  NotBuilt(__func__);
}

}  // namespace fd::cuda
