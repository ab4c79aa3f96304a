// Answers of ops/attention, in double precision.
#pragma once

#include <vector>

#include "compute/tensor/tensor.h"

namespace fd::reference {

// Row `row` of out: q's row attends to the listed rows of k and v. out, q [*, heads, head_dim]; k, v
// [*, kv_heads, head_dim].
void AttendRow(const TensorView& out, const TensorView& q, int64_t row, const TensorView& k,
               const TensorView& v, const std::vector<int64_t>& key_rows, float scale);

}  // namespace fd::reference
