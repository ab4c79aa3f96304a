// What this GPU can do at most, measured now: the floors under a benchmark's times.
#pragma once

#include <cstdint>

namespace fd::cuda {

struct Roofline {
  double read_bytes_per_s = 0;  // a kernel that only reads
  double copy_bytes_per_s = 0;  // read and written bytes together: the faster of a kernel and cudaMemcpy
  double bf16_flop_per_s = 0;   // cuBLASLt, 8192 x 8192 x 8192 on random values; 2 per multiply-add
  int64_t bytes = 0;            // of the buffer that was read
};

// Medians over CUDA events; takes under a second and up to 4 GiB, given back on return. False when less than
// 512 MiB can be had. `stream` belongs to `device`, which becomes the thread's; cuBLASLt's scratch stays with
// the stream.
bool MeasureRoofline(int device, void* stream, Roofline* roofline);

}  // namespace fd::cuda
