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
void TakeDrawnTokens(int32_t*, const int32_t*, const int32_t*, int64_t, int64_t, void*) {
  NotBuilt(__func__);
}
void FillRandom(DType, void*, int64_t, uint64_t, int64_t, float, void*) { NotBuilt(__func__); }

void RmsNorm(DType, void*, int64_t, void*, int64_t, const void*, int64_t, const void*, int64_t, int64_t,
             float, void*) {
  NotBuilt(__func__);
}
void LayerNorm(DType, void*, int64_t, const void*, int64_t, const void*, const void*, int64_t, int64_t, float,
               void*) {
  NotBuilt(__func__);
}
void SwiGlu(DType, void*, int64_t, const void*, int64_t, int64_t, int64_t, void*) { NotBuilt(__func__); }
void QuickGelu(DType, void*, int64_t, const void*, int64_t, int64_t, int64_t, void*) { NotBuilt(__func__); }
void Gelu(DType, void*, int64_t, const void*, int64_t, int64_t, int64_t, void*) { NotBuilt(__func__); }
void Add(DType, void*, int64_t, const void*, int64_t, const void*, int64_t, int64_t, int64_t, void*) {
  NotBuilt(__func__);
}
void NormalizePixels(DType, void*, int64_t, const uint8_t*, int64_t, int64_t, int64_t, const float*,
                     const float*, void*) {
  NotBuilt(__func__);
}
void RopeCosSin(float*, const int32_t*, int64_t, const float*, const int32_t*, int64_t, int64_t, float,
                void*) {
  NotBuilt(__func__);
}
void Rope(DType, const RopeArgs&, void*) { NotBuilt(__func__); }
void RouteSoftmax(int32_t*, int64_t, float*, int64_t, const float*, int64_t, const float*, int64_t, int64_t,
                  int64_t, float, bool, void*) {
  NotBuilt(__func__);
}

}  // namespace fd::cuda
