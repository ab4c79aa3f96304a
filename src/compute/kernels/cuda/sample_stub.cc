#include "compute/kernels/cuda/not_built.h"
#include "compute/kernels/cuda/sample.h"

namespace fd::cuda {

int64_t SampleScratchBytes(int64_t) { NotBuilt(__func__); }
void Sample(const SampleArgs&, int32_t*, float*, void*) { NotBuilt(__func__); }
void SampleProbs(const SampleArgs&, float*, int64_t, void*) { NotBuilt(__func__); }

}  // namespace fd::cuda
