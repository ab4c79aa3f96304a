// The attention part of bench_ops.
#pragma once

#include "compute/kernels/cpu/roofline.h"
#include "compute/ops/context.h"

namespace fd {

// Prints a line for each shape: steps of bfloat16 prefill and decode with so many heads, and the vision
// tower's segments. Keys and values once are the bytes, multiply-adds of visible pairs the operations.
void BenchAttention(const ops::Context& ctx, const cpu::Roofline& roofline, int64_t heads, int64_t kv_heads,
                    int64_t head_dim);

}  // namespace fd
