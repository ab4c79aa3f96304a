#include "compute/kernels/reference/attention.h"

#include <algorithm>
#include <cmath>

#include "compute/kernels/reference/values.h"

namespace fd::reference {

void AttendRow(const TensorView& out, const TensorView& q, int64_t row, const TensorView& k,
               const TensorView& v, const std::vector<int64_t>& key_rows, float scale) {
  const int64_t heads = q.dim(1), head_dim = q.dim(2), group = heads / k.dim(1);
  for (int64_t h = 0; h < heads; ++h) {
    const int64_t kv = h / group * head_dim;
    std::vector<double> p;
    double top = -INFINITY, sum = 0;
    for (int64_t key : key_rows) {
      double dot = 0;
      for (int64_t i = 0; i < head_dim; ++i) dot += At(q, row, h * head_dim + i) * At(k, key, kv + i);
      p.push_back(dot * static_cast<double>(scale));
      top = std::max(top, p.back());
    }
    for (double& x : p) sum += x = std::exp(x - top);
    for (int64_t i = 0; i < head_dim; ++i) {
      double total = 0;
      for (size_t j = 0; j < p.size(); ++j) total += p[j] / sum * At(v, key_rows[j], kv + i);
      Put(out, row, h * head_dim + i, total);
    }
  }
}

}  // namespace fd::reference
