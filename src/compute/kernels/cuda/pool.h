// ops/pool on the device. Strides are in elements from row to row.
#pragma once

#include <cstdint>

namespace fd::cuda {

// A slot outside [0, slots_count) or rows outside [0, m) touch nothing.
void AddToSums(float* sums, int64_t sums_stride, int64_t slots_count, const float* rows, int64_t rows_stride,
               int64_t m, int64_t n, const int32_t* offsets, const int32_t* slots, const int32_t* fresh,
               int64_t sequences, void* stream);

}  // namespace fd::cuda
