#include <algorithm>

#include "compute/kernels/cpu/linear_quant.h"
#include "compute/ops/linear.h"
#include "compute/ops/linear_cuda.h"
#include "compute/ops/row_ranges.h"
#include "compute/ops/upload.h"

namespace fd::ops {

static_assert(kMaxQuantizedFeatures == cpu::kMaxQuantDepth);

namespace {

constexpr int64_t kPanel = cpu::kPanelFeatures;

// Feature i of a part in float32.
void ReadRow(float* to, const TensorView& part, bool transposed, int64_t i, int64_t k) {
  const int64_t first = transposed ? i : i * part.row_stride, step = transposed ? part.row_stride : 1;
  if (part.dtype == DType::kFloat32) {
    for (int64_t j = 0; j < k; ++j) to[j] = part.As<float>()[first + j * step];
  } else {
    for (int64_t j = 0; j < k; ++j) to[j] = ToFloat(part.As<BFloat16>()[first + j * step]);
  }
}

// Without its bytes.
LinearWeight QuantizedOf(int64_t n, int64_t k, const QuantScheme& scheme) {
  LinearWeight weight;
  weight.kind = scheme.bits == 8 ? WeightKind::kInt8 : WeightKind::kInt4;
  weight.n = n;
  weight.k = k;
  weight.group_size = scheme.group_size;
  return weight;
}

LinearWeight NewQuantized(const Context& ctx, int64_t n, int64_t k, const QuantScheme& scheme) {
  LinearWeight weight = QuantizedOf(n, k, scheme);
  const int64_t panels = (n + kPanel - 1) / kPanel;
  weight.data = NewTensor(ctx, DType::kUInt8, {panels, cpu::QuantPanelBytes(k, scheme.bits)});
  weight.scales = NewTensor(ctx, DType::kBFloat16, {panels, cpu::QuantGroups(k, scheme.group_size) * kPanel});
  return weight;
}

}  // namespace

LinearWeight QuantizeLinear(const Context& ctx, const std::vector<TensorView>& parts, bool transposed,
                            const QuantScheme& scheme, const PartDone& done) {
  FD_CHECK(!parts.empty(), "a weight needs at least one part");
  FD_CHECK(scheme.bits == 8 || scheme.bits == 4, scheme.bits);
  FD_CHECK(scheme.group_size >= 0 && scheme.group_size % 32 == 0, scheme.group_size);
  const int64_t k = parts[0].dim(transposed ? 0 : 1), groups = cpu::QuantGroups(k, scheme.group_size);
  FD_CHECK(k >= 1 && k <= kMaxQuantizedFeatures, k);
  int64_t n = 0;
  for (const TensorView& part : parts) {
    FD_CHECK_EQ(part.rank(), 2);
    FD_CHECK(part.dtype == parts[0].dtype, "parts of one weight have one type");
    FD_CHECK(part.dtype == DType::kBFloat16 || part.dtype == DType::kFloat32, DTypeName(part.dtype));
    FD_CHECK_EQ(part.dim(transposed ? 0 : 1), k);
    n += part.dim(transposed ? 1 : 0);
  }
  LinearWeight weight = NewQuantized(ctx, n, k, scheme);
  if (OnCuda(ctx)) {  // made on the host: the same bytes
    Context host;
    host.threads = ctx.threads;
    const LinearWeight packed = QuantizeLinear(host, parts, transposed, scheme, done);
    CopyToDevice(ctx, weight.data.view().data, packed.data.view().data, packed.data.size_bytes());
    CopyToDevice(ctx, weight.scales.view().data, packed.scales.view().data, packed.scales.size_bytes());
    return weight;
  }
  uint8_t* packed = weight.data.view().As<uint8_t>();
  BFloat16* packed_scales = weight.scales.view().As<BFloat16>();
  int64_t first = 0;
  for (size_t p = 0; p < parts.size(); ++p) {
    const TensorView& part = parts[p];
    const int64_t rows = part.dim(transposed ? 1 : 0);
    // A feature has bytes of its own, also where two parts meet in a panel.
    ctx.threads->ParallelFor(rows, 64, [&](int64_t begin, int64_t end) {
      std::vector<float> row(static_cast<size_t>(k));
      std::vector<int8_t> q(static_cast<size_t>(cpu::QuantOctets(k) * 8));
      std::vector<BFloat16> scales(static_cast<size_t>(groups));
      for (int64_t i = begin; i < end; ++i) {
        ReadRow(row.data(), part, transposed, i, k);
        cpu::GetQuantKernels().quantize_weights(q.data(), scales.data(), row.data(), k, scheme.bits,
                                                scheme.group_size);
        const int64_t feature = first + i;
        cpu::PackQuantized(packed, feature, q.data(), k, scheme.bits);
        for (int64_t g = 0; g < groups; ++g) {
          packed_scales[(feature / kPanel * groups + g) * kPanel + feature % kPanel] =
              scales[static_cast<size_t>(g)];
        }
      }
    });
    first += rows;
    if (done) done(p);
  }
  return weight;
}

LinearWeight RandomQuantized(const Context& ctx, const std::vector<RandomRows>& parts, int64_t k, float scale,
                             const QuantScheme& scheme) {
  int64_t n = 0;
  for (const RandomRows& part : parts) n += part.rows;
  LinearWeight weight = NewQuantized(ctx, n, k, scheme);
  int64_t first = 0;
  for (const RandomRows& part : parts) {
    cuda::QuantizeRandom(weight.data.view().data, weight.scales.view().data, first, part.rows, k, scheme.bits,
                         scheme.group_size, part.key, scale, ctx.stream);
    first += part.rows;
  }
  return weight;
}

Shape QuantPanelsShape(int64_t n, int64_t k, const QuantScheme& scheme) {
  return {(n + kPanel - 1) / kPanel, cpu::QuantOctets(k), kPanel * scheme.bits};
}

Shape QuantScalesShape(int64_t n, int64_t k, const QuantScheme& scheme) {
  return {(n + kPanel - 1) / kPanel, cpu::QuantGroups(k, scheme.group_size), kPanel};
}

LinearWeight LinearOfPanels(const Context& ctx, const Tensor& panels, const Tensor& scales, int64_t n,
                            int64_t k, const QuantScheme& scheme) {
  const TensorView &data = panels, &factors = scales;
  FD_CHECK(scheme.bits == 8 || scheme.bits == 4, scheme.bits);
  FD_CHECK(data.dtype == DType::kUInt8 && data.shape == QuantPanelsShape(n, k, scheme),
           data.shape.ToString());
  FD_CHECK(factors.dtype == DType::kBFloat16 && factors.shape == QuantScalesShape(n, k, scheme),
           factors.shape.ToString());
  if (!OnCuda(ctx)) {
    FD_CHECK_EQ(reinterpret_cast<uintptr_t>(data.data) % 64, 0u);
    LinearWeight weight = QuantizedOf(n, k, scheme);
    weight.data = panels;
    weight.scales = scales;
    return weight;
  }
  LinearWeight weight = NewQuantized(ctx, n, k, scheme);
  CopyToDevice(ctx, weight.data.view().data, data.data, panels.size_bytes());
  CopyToDevice(ctx, weight.scales.view().data, factors.data, scales.size_bytes());
  return weight;
}

}  // namespace fd::ops
