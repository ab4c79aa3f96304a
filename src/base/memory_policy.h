// On which memory nodes large host allocations lie, and what becomes of freed ones. Process-wide choices,
// made once, the first before anything large is allocated; any thread may allocate afterwards.
#pragma once

#include <cstddef>
#include <vector>

namespace fd {

// From now on PlacePages spreads pages over these nodes in turn, so that threads of every node read weights
// and keys at the sum of the nodes' bandwidths. Fewer than two nodes: nothing is spread. Nothing either, and
// false, where whoever started this process has set a policy (numactl) or the system does not tell.
bool SetInterleavedNodes(const std::vector<int>& nodes);

// For a mapping that nobody has touched yet. A refusal (a container's filter) is logged once and changes
// nothing.
void PlacePages(void* data, size_t size_bytes);

// The call itself: false and errno when the system refuses. data: on a page boundary.
bool InterleavePages(void* data, size_t size_bytes, const std::vector<int>& nodes);

// From now on freed blocks below 16 MiB stay with the process, up to 16 MiB at the end of each heap, instead
// of going back to the system. Buffers of pictures come and go with every request: taking their pages anew
// costs as much as decoding them.
void KeepFreedMemory();

// Gives back now what was allocated and freed before: once, when loading has ended.
void ReleaseFreedMemory();

}  // namespace fd
