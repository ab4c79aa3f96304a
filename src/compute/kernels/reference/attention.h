// Answers of ops/attention, in double precision.
#pragma once

#include <vector>

#include "compute/tensor/tensor.h"

namespace fd::reference {

// Row `row` of out: q's row attends to the listed rows of k and v. out, q [*, heads, head_dim]; k, v
// [*, kv_heads, head_dim].
void AttendRow(const TensorView& out, const TensorView& q, int64_t row, const TensorView& k,
               const TensorView& v, const std::vector<int64_t>& key_rows, float scale);

// A row of keys or values as pages of `bytes` (kFloat8E4M3 or kInt8) hold it: the rule of ops/attention.h;
// fp8 by search among all values that a byte can have.
struct ByteRow {
  std::vector<uint8_t> bytes;
  float scale = 0;  // a bfloat16
};
ByteRow ToByteRow(const std::vector<float>& row, DType bytes);
// What a byte stands for, before the scale.
float ByteValue(uint8_t byte, DType bytes);

}  // namespace fd::reference
