#include "compute/kernels/cuda/pool.h"

#include "compute/kernels/cuda/values.cuh"

namespace fd::cuda {
namespace {

constexpr int kThreads = 128;

// A thread owns one component of one sequence, so that its rows are added in order.
__global__ void AddRows(float* sums, int64_t sums_stride, int64_t slots_count, const float* rows,
                        int64_t rows_stride, int64_t m, int64_t n, const int32_t* offsets,
                        const int32_t* slots, const int32_t* fresh) {
  const int64_t s = blockIdx.y, c = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  const int64_t slot = slots[s], first = offsets[s], last = offsets[s + 1];
  if (c >= n || slot < 0 || slot >= slots_count || first < 0 || last > m) return;
  float* at = sums + slot * sums_stride + c;
  const bool begins = fresh[s] != 0;
  float sum = begins ? 0.0f : at[0], lost = begins ? 0.0f : at[n];
  const float* row = rows + first * rows_stride + c;
#pragma unroll 8
  for (int64_t r = first; r < last; ++r, row += rows_stride) {
    const float add = __fsub_rn(*row, lost);
    const float total = __fadd_rn(sum, add);
    lost = __fsub_rn(__fsub_rn(total, sum), add);
    sum = total;
  }
  at[0] = sum;
  at[n] = lost;
}

}  // namespace

void AddToSums(float* sums, int64_t sums_stride, int64_t slots_count, const float* rows, int64_t rows_stride,
               int64_t m, int64_t n, const int32_t* offsets, const int32_t* slots, const int32_t* fresh,
               int64_t sequences, void* stream) {
  if (sequences == 0 || n == 0) return;
  const dim3 blocks(static_cast<unsigned>((n + kThreads - 1) / kThreads), static_cast<unsigned>(sequences));
  AddRows<<<blocks, kThreads, 0, AsStream(stream)>>>(sums, sums_stride, slots_count, rows, rows_stride, m, n,
                                                     offsets, slots, fresh);
  FD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace fd::cuda
