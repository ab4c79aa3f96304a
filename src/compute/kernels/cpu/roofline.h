// What this machine can do at most, measured now: the floor under every kernel's time. For benchmarks.
#pragma once

#include "base/thread_pool.h"

namespace fd::cpu {

struct Roofline {
  double read_bytes_per_s = 0;  // streaming read of memory far larger than the caches, all threads
  double bf16_flop_per_s =
      0;  // bfloat16 dot products (float32 FMA on widened values where there are none); 2 per multiply-add
  double fp32_flop_per_s = 0;  // float32 FMA
  double int8_op_per_s = 0;    // vpdpbusd where there is VNNI, else widened to 16 bits; 2 per multiply-add
};
// The best of several runs on CurrentIsa(); takes about a second and 512 MiB.
Roofline MeasureRoofline(ThreadPool& threads);

struct RooflineKernels {
  float (*read)(const float* data, int64_t count);  // count is a multiple of 256
  double (*bf16_dots)(int64_t rounds);              // returns the operations done
  double (*fp32_fmas)(int64_t rounds);
  double (*int8_dots)(int64_t rounds);
};

}  // namespace fd::cpu
