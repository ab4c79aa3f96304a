#include "compute/kernels/cuda/launch.h"

#include "compute/kernels/cuda/not_built.h"

namespace fd::cuda {

void SetLaunchOverlap(bool) { NotBuilt(__func__); }

}  // namespace fd::cuda
