// Stands in for the attention kernels in a build without CUDA.
#include "compute/kernels/cuda/attention.h"
#include "compute/kernels/cuda/not_built.h"

namespace fd::cuda {

int64_t AttentionScratchFloats(const AttentionArgs&) { NotBuilt(__func__); }
void Attention(const AttentionArgs&, void*) { NotBuilt(__func__); }

}  // namespace fd::cuda
