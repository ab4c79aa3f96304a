#include "compute/kernels/cuda/linear.h"

#include "compute/kernels/cuda/not_built.h"

namespace fd::cuda {

void Linear(const LinearArgs&, void*) { NotBuilt(__func__); }
bool LinearFew(const LinearArgs&, void*) { NotBuilt(__func__); }
bool LinearFewSwiGlu(const LinearArgs&, void*) { NotBuilt(__func__); }
bool LinearInvariant(const LinearArgs&, void*) { NotBuilt(__func__); }
bool LinearLt(const LinearArgs&, void*) { NotBuilt(__func__); }
void LinearSimple(const LinearArgs&, void*) { NotBuilt(__func__); }
void SplitFloat32(void*, const void*, int64_t, int64_t, void*) { NotBuilt(__func__); }
void AddSplitParts(const LinearArgs&, const float*, void*) { NotBuilt(__func__); }
void PrepareLinear(void*) { NotBuilt(__func__); }

}  // namespace fd::cuda
