// Kernels that work row by row. Strides are in elements from row to row; `act` is float32 or bfloat16 unless
// said otherwise. All operands lie on the device of the calling thread.
#pragma once

#include <cstdint>

#include "compute/tensor/dtype.h"

namespace fd::cuda {

// out[i] = in[rows[i]] (rows null: in[i]), converted. Both types float32 or bfloat16, or one and the same
// type. A row index outside [0, in_rows) gives NaN (0xff bytes), never a wild read.
void GatherRows(void* out, DType out_type, int64_t out_stride, const void* in, DType in_type,
                int64_t in_stride, int64_t in_rows, const int32_t* rows, int64_t m, int64_t n, void* stream);
// out[rows[i]] = in[i]; an index outside [0, out_rows) writes nothing.
void ScatterRows(void* out, int64_t out_stride, int64_t out_rows, const void* in, int64_t in_stride,
                 DType type, const int32_t* rows, int64_t m, int64_t n, void* stream);

}  // namespace fd::cuda
