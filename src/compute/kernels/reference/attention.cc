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

float ByteValue(uint8_t byte, DType bytes) {
  if (bytes == DType::kInt8) return static_cast<float>(static_cast<int8_t>(byte));
  FD_CHECK(bytes == DType::kFloat8E4M3, DTypeName(bytes));
  const int exponent = byte >> 3 & 15, mantissa = byte & 7;
  const float sign = byte >= 128 ? -1.0f : 1.0f;
  if (exponent == 15 && mantissa == 7) return NAN;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -9);
  return sign * std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
}

namespace {

// The nearest of the values that a byte without its sign can have, ties to the even byte.
uint8_t NearestFloat8(float magnitude) {
  static const std::vector<float> values = [] {  // ascending, of bytes 0 to 126
    std::vector<float> v;
    for (uint8_t b = 0; b < 127; ++b) v.push_back(ByteValue(b, DType::kFloat8E4M3));
    return v;
  }();
  const auto above = std::upper_bound(values.begin(), values.end(), magnitude);
  const auto below = static_cast<uint8_t>(above - values.begin() - 1);
  if (above == values.end()) return below;
  const double down = static_cast<double>(magnitude) - static_cast<double>(*(above - 1));
  const double up = static_cast<double>(*above) - static_cast<double>(magnitude);
  return down < up || (down == up && below % 2 == 0) ? below : static_cast<uint8_t>(below + 1);
}

}  // namespace

ByteRow ToByteRow(const std::vector<float>& row, DType bytes) {
  const float most = bytes == DType::kInt8 ? 127.0f : 448.0f;
  ByteRow out{std::vector<uint8_t>(row.size()), 0};
  float top = 0;
  for (float x : row) {
    if (!std::isfinite(x)) {
      out.scale = NAN;
      return out;
    }
    top = std::max(top, std::fabs(x));
  }
  if (top < 1e-30f) return out;
  BFloat16 scale = ToBFloat16(top / most);
  if (ToFloat(scale) < top / most) ++scale.bits;  // the next larger one
  out.scale = ToFloat(scale);
  const float inverse = 1.0f / out.scale;
  for (size_t i = 0; i < row.size(); ++i) {
    const float wanted = row[i] * inverse;
    if (bytes == DType::kInt8) {
      out.bytes[i] = static_cast<uint8_t>(static_cast<int8_t>(std::nearbyint(wanted)));
    } else {
      out.bytes[i] =
          static_cast<uint8_t>(NearestFloat8(std::fabs(wanted)) | (std::signbit(wanted) ? 0x80 : 0));
    }
  }
  return out;
}

}  // namespace fd::reference
