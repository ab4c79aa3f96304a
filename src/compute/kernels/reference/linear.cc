#include "compute/kernels/reference/linear.h"

#include <algorithm>
#include <cmath>

namespace fd::reference {

namespace {

float At(const TensorView& t, int64_t row, int64_t column) {
  const int64_t i = row * t.row_stride + column;
  return t.dtype == DType::kFloat32 ? t.As<float>()[i] : ToFloat(t.As<BFloat16>()[i]);
}

float Round(double v, DType act) {
  const float f = static_cast<float>(v);
  return act == DType::kFloat32 ? f : ToFloat(ToBFloat16(f));
}

}  // namespace

void Linear(const TensorView& out, const TensorView& in, const TensorView& weight, const TensorView& bias) {
  for (int64_t i = 0; i < in.dim(0); ++i) {
    for (int64_t j = 0; j < weight.dim(0); ++j) {
      double sum = 0.0;
      for (int64_t p = 0; p < in.dim(1); ++p) sum += static_cast<double>(At(in, i, p)) * At(weight, j, p);
      if (bias.data != nullptr) sum += At(bias.Reshape({1, bias.NumElements()}), 0, j);
      out.As<float>()[i * out.row_stride + j] = static_cast<float>(sum);
    }
  }
}

void RouteSoftmax(const TensorView& expert_ids, const TensorView& expert_weights, const TensorView& logits,
                  const TensorView& bias, float norm_min, bool round_weights) {
  const int64_t experts = logits.dim(1), top_k = expert_ids.dim(1);
  for (int64_t t = 0; t < logits.dim(0); ++t) {
    std::vector<double> p(experts);
    double largest = -INFINITY, sum = 0.0;
    for (int64_t e = 0; e < experts; ++e) largest = std::max<double>(largest, At(logits, t, e));
    for (int64_t e = 0; e < experts; ++e) sum += p[e] = std::exp(At(logits, t, e) - largest);
    for (double& v : p) v = static_cast<float>(v / sum);
    std::vector<int32_t> order(experts);
    for (int64_t e = 0; e < experts; ++e) order[e] = static_cast<int32_t>(e);
    const auto score = [&](int32_t e) {
      return static_cast<float>(p[e]) + (bias.data ? bias.As<float>()[e] : 0.0f);
    };
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return score(a) > score(b); });
    std::sort(order.begin(), order.begin() + top_k);
    double chosen = 0.0;
    for (int64_t j = 0; j < top_k; ++j) chosen += p[order[j]];
    for (int64_t j = 0; j < top_k; ++j) {
      expert_ids.As<int32_t>()[t * top_k + j] = order[j];
      expert_weights.As<float>()[t * top_k + j] = Round(p[order[j]] / std::max<double>(chosen, norm_min),
                                                        round_weights ? DType::kBFloat16 : DType::kFloat32);
    }
  }
}

void MoeExperts(const TensorView& out, const TensorView& in, const std::vector<Tensor>& gate_up,
                const std::vector<Tensor>& down, const TensorView& expert_ids,
                const TensorView& expert_weights, DType act) {
  const int64_t hidden = in.dim(1), top_k = expert_ids.dim(1);
  for (int64_t t = 0; t < in.dim(0); ++t) {
    float* to = out.As<float>() + t * hidden;
    std::fill(to, to + hidden, 0.0f);
    for (int64_t j = 0; j < top_k; ++j) {
      const int32_t e = expert_ids.As<int32_t>()[t * top_k + j];
      const int64_t width = down[e].view().dim(1);
      Tensor both(DType::kFloat32, Device{}, {1, 2 * width}), one(DType::kFloat32, Device{}, {1, width}),
          result(DType::kFloat32, Device{}, {1, hidden});
      Linear(both, in.Rows(t, 1), gate_up[e], {});
      for (int64_t i = 0; i < width; ++i) {
        const double gate = Round(both.view().As<float>()[i], act),
                     up = Round(both.view().As<float>()[width + i], act);
        one.view().As<float>()[i] = Round(Round(gate / (1.0 + std::exp(-gate)), act) * up, act);
      }
      Linear(result, one, down[e], {});
      for (int64_t i = 0; i < hidden; ++i)
        to[i] += expert_weights.As<float>()[t * top_k + j] * Round(result.view().As<float>()[i], act);
    }
  }
}

}  // namespace fd::reference
