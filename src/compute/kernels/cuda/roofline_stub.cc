// Stands in for roofline.cu in a build without CUDA.
#include "compute/kernels/cuda/roofline.h"

#include "compute/kernels/cuda/not_built.h"

namespace fd::cuda {
bool MeasureRoofline(int, void*, Roofline*) { NotBuilt(__func__); }
}  // namespace fd::cuda
