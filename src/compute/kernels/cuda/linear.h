// out = in W^T (+ bias) with float32 accumulation; W row-major [n, k]. A row has the same bits in every batch
// of up to 16 rows; beyond that the sum's order depends on the shape, unlike on the CPU, unless
// LinearArgs::invariant asks for the same bits in every batch. Weights and biases
// must be complete before the first product is given to the stream (synchronise after loading): kernels may
// begin to read weights while the work before them still runs.
#pragma once

#include <cstdint>

#include "compute/tensor/dtype.h"

namespace fd::cuda {

struct LinearArgs {
  void* out = nullptr;
  const void* in = nullptr;
  const void* weight = nullptr;
  const void* bias = nullptr;  // [n] or null
  DType out_type = DType::kFloat32, in_type = DType::kFloat32, weight_type = DType::kFloat32,
        bias_type = DType::kFloat32;
  int64_t m = 0, n = 0, k = 0;
  int64_t out_stride = 0, in_stride = 0;  // elements
  bool invariant = false;                 // a row's bits may not depend on the other rows or their number
};

// One of those below.
void Linear(const LinearArgs& args, void* stream);

// Our own kernel for at most 16 rows of bfloat16 on 16 bytes, k a multiple of 8. False: it does not take
// this, nothing was launched. A row's result does not depend on the other rows or their number.
bool LinearFew(const LinearArgs& args, void* stream);
// The same of gate rows over up rows, n / 2 each: out [m, n / 2] bfloat16 = silu(gate) * up, to the bit what
// LinearFew and SwiGlu give one after the other. Without bias.
bool LinearFewSwiGlu(const LinearArgs& args, void* stream);
// Any number of rows, each to the bit as LinearFew gives it; the same conditions.
bool LinearInvariant(const LinearArgs& args, void* stream);
// Row counts share an algorithm by classes: asking for one and loading it takes 10 ms and more, so they are
// few and an engine goes through all of them before it serves. The least class of at least m.
constexpr int64_t LinearRowClass(int64_t m) {
  const int64_t step = m <= 8 ? 1 : m <= 64 ? 8 : m <= 512 ? 32 : m <= 1024 ? 128 : m <= 2048 ? 256 : 1024;
  return (m + step - 1) / step * step;
}
// cuBLASLt where it multiplies without loss: in and weight of one type, bias of out's type, rows of bfloat16
// on 16 bytes. Its algorithm is chosen once for a class of shapes and kept. False: it cannot, nothing was
// launched. The first call of a stream allocates 32 MiB that stay with it (see PrepareLinear).
bool LinearLt(const LinearArgs& args, void* stream);
// Our own kernels: any mix of float32 and bfloat16, products of the values as they are. With args.invariant
// the choice among them goes by n and the types alone.
void LinearSimple(const LinearArgs& args, void* stream);
// parts [3, n, k] bfloat16 whose sum over the first dimension is weight [n, k] float32, to its last bit:
// bfloat16 rows times float32 weights become three products on the tensor cores.
void SplitFloat32(void* parts, const void* weight, int64_t n, int64_t k, void* stream);
// out = the three parts of each result (parts [m, 3, n] float32) added, plus bias; args' in and weight are
// unused.
void AddSplitParts(const LinearArgs& args, const float* parts, void* stream);
// Makes the library's handle and its 32 MiB for this stream, so that no step has to.
void PrepareLinear(void* stream);

}  // namespace fd::cuda
