// Kernels of a decode step last a few microseconds, as long as the gap between two of them. On Hopper a
// kernel may start while the one before it still runs (programmatic dependent launch, in streams and in
// captured graphs): launch.cuh has the rules a kernel keeps for it.
#pragma once

namespace fd::cuda {

// For measuring: off, kernels launched from now on wait for the end of the one before them, as on older
// devices. On by default; affects every thread. Graphs keep what they were captured with.
void SetLaunchOverlap(bool on);

}  // namespace fd::cuda
