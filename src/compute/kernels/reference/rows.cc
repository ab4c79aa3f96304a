#include "compute/kernels/reference/rows.h"

#include <cmath>

#include "compute/kernels/reference/values.h"

namespace fd::reference {

void RmsNorm(const TensorView& out, const TensorView& in, const TensorView& weight, float eps, DType act) {
  const int64_t n = in.dim(1);
  for (int64_t r = 0; r < in.dim(0); ++r) {
    double squares = 0;
    for (int64_t i = 0; i < n; ++i) squares += At(in, r, i) * At(in, r, i);
    const double scale = 1.0 / std::sqrt(squares / static_cast<double>(n) + static_cast<double>(eps));
    for (int64_t i = 0; i < n; ++i) Put(out, r, i, Rounded(At(in, r, i) * scale, act) * At(weight, i, 0));
  }
}

void LayerNorm(const TensorView& out, const TensorView& in, const TensorView& weight, const TensorView& bias,
               float eps) {
  const int64_t n = in.dim(1);
  for (int64_t r = 0; r < in.dim(0); ++r) {
    double mean = 0, var = 0;
    for (int64_t i = 0; i < n; ++i) mean += At(in, r, i) / static_cast<double>(n);
    for (int64_t i = 0; i < n; ++i) var += std::pow(At(in, r, i) - mean, 2) / static_cast<double>(n);
    for (int64_t i = 0; i < n; ++i) {
      const double x = (At(in, r, i) - mean) / std::sqrt(var + static_cast<double>(eps));
      Put(out, r, i, x * At(weight, i, 0) + At(bias, i, 0));
    }
  }
}

void SwiGlu(const TensorView& out, const TensorView& gate_up, DType act) {
  const int64_t n = out.dim(1);
  for (int64_t r = 0; r < out.dim(0); ++r) {
    for (int64_t i = 0; i < n; ++i) {
      const double gate = At(gate_up, r, i);
      Put(out, r, i, Rounded(gate / (1.0 + std::exp(-gate)), act) * At(gate_up, r, n + i));
    }
  }
}

void QuickGelu(const TensorView& out, const TensorView& in) {
  for (int64_t r = 0; r < in.dim(0); ++r) {
    for (int64_t i = 0; i < in.dim(1); ++i) {
      const double x = At(in, r, i);
      Put(out, r, i, x / (1.0 + std::exp(-1.702 * x)));
    }
  }
}

void Gelu(const TensorView& out, const TensorView& in) {
  for (int64_t r = 0; r < in.dim(0); ++r) {
    for (int64_t i = 0; i < in.dim(1); ++i) {
      const double x = At(in, r, i);
      Put(out, r, i, 0.5 * x * std::erfc(-x / std::sqrt(2.0)));
    }
  }
}

void Add(const TensorView& out, const TensorView& a, const TensorView& b) {
  for (int64_t r = 0; r < a.dim(0); ++r)
    for (int64_t i = 0; i < a.dim(1); ++i) Put(out, r, i, At(a, r, i) + At(b, r, i));
}

std::vector<double> SumOfRows(const TensorView& rows, int64_t first, int64_t last) {
  std::vector<double> sum(static_cast<size_t>(rows.dim(1)));
  for (int64_t r = first; r < last; ++r) {
    for (size_t c = 0; c < sum.size(); ++c)
      sum[c] += static_cast<double>(rows.As<float>()[r * rows.row_stride + static_cast<int64_t>(c)]);
  }
  return sum;
}

void NormalizePixels(const TensorView& out, const TensorView& in, const float* mean, const float* std) {
  const int64_t plane = in.dim(1) / 3;
  for (int64_t r = 0; r < in.dim(0); ++r) {
    for (int64_t i = 0; i < in.dim(1); ++i) {
      const int64_t c = i / plane;
      Put(out, r, i,
          (At(in, r, i) - 255.0 * static_cast<double>(mean[c])) / (255.0 * static_cast<double>(std[c])));
    }
  }
}

void RopeCosSin(const TensorView& cos_sin, const TensorView& positions, const TensorView& inv_freq,
                const TensorView& axis, float scale) {
  const int64_t half = inv_freq.dim(0);
  for (int64_t t = 0; t < positions.dim(1); ++t) {
    for (int64_t i = 0; i < half; ++i) {
      // The angle itself is a float32 product.
      const float position = static_cast<float>(At(positions, axis.As<int32_t>()[i], t));
      const double angle = static_cast<double>(inv_freq.As<float>()[i] * position);
      Put(cos_sin, t, i, static_cast<double>(scale) * std::cos(angle));
      Put(cos_sin, t, half + i, static_cast<double>(scale) * std::sin(angle));
    }
  }
}

void ApplyRope(const TensorView& out, const TensorView& x, const TensorView& cos_sin, bool interleaved) {
  const int64_t heads = x.dim(1), head_dim = x.dim(2), half = head_dim / 2;
  for (int64_t t = 0; t < x.dim(0); ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t i = 0; i < half; ++i) {
        const int64_t first = h * head_dim + (interleaved ? 2 * i : i);
        const int64_t second = first + (interleaved ? 1 : half);
        const double c = At(cos_sin, t, i), s = At(cos_sin, t, half + i);
        const double a = At(x, t, first), b = At(x, t, second);
        Put(out, t, first, a * c - b * s);
        Put(out, t, second, b * c + a * s);
      }
    }
  }
}

}  // namespace fd::reference
