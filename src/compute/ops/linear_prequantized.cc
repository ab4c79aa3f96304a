#include "compute/ops/linear_prequantized.h"

#include "compute/kernels/cpu/linear_quant.h"
#include "compute/ops/row_ranges.h"

namespace fd::ops {
namespace {

constexpr int64_t kPanel = cpu::kPanelFeatures;

// Bytes lie in blocks of 64 inputs of 2 features, each block 64 bytes of the one and 64 of the other; inputs
// i and i + 8 of 16 are neighbours.
void ReadInt8(int8_t* q, const uint8_t* data, int64_t feature, int64_t k) {
  const uint8_t* pair = data + feature / 2 * 2 * k + feature % 2 * 64;
  for (int64_t i = 0; i < k; ++i) {
    const int64_t in_block = i % 64 / 16 * 16 + i % 8 * 2 + i % 16 / 8;
    q[i] = static_cast<int8_t>(pair[i / 64 * 128 + in_block] - 128);
  }
}

// Blocks of 64 inputs of 4 features, 32 bytes each. Of 32 inputs, byte pairs (inputs 2 j and 2 j + 1, low and
// high) are dealt out to four words, pair j to byte j / 4 of word j % 4; within a word the even nibbles come
// first.
void ReadInt4(int8_t* q, const uint8_t* data, int64_t feature, int64_t k) {
  const uint8_t* quad = data + feature / 4 * 2 * k + feature % 4 * 32;
  for (int64_t i = 0; i < k; ++i) {
    const int64_t pair = i % 32 / 2, nibble = pair / 4 * 2 + i % 2;  // in the word before the evens are first
    const int64_t at = nibble / 2 + nibble % 2 * 4;
    const uint8_t byte = quad[i / 64 * 128 + i % 64 / 32 * 16 + pair % 4 * 4 + at / 2];
    q[i] = static_cast<int8_t>((byte >> (at % 2 * 4) & 15) - 8);
  }
}

}  // namespace

LinearWeight PackPrequantized(const Context& ctx, const std::vector<PrequantizedPart>& parts, int64_t k,
                              int bits) {
  FD_CHECK(bits == 8 || bits == 4, bits);
  FD_CHECK(k >= 1 && k % kPrequantizedInputs == 0 && k <= kMaxQuantizedFeatures, k);
  int64_t total = 0;
  for (const PrequantizedPart& part : parts) {
    const int64_t n = part.scales.NumElements();
    FD_CHECK_EQ(n % PrequantizedFeatures(bits), 0);
    FD_CHECK_EQ(part.data.NumElements(), n * k * bits / 8);
    total += n;
  }
  // Panels are made on the host; a GPU gets their bytes.
  const QuantScheme scheme = {bits, 0};
  const auto make = [&](DType dtype, const Shape& shape) {
    return OnCuda(ctx) ? Tensor(dtype, Device{}, shape) : NewTensor(ctx, dtype, shape);
  };
  const Tensor panels = make(DType::kUInt8, QuantPanelsShape(total, k, scheme));
  const Tensor scales = make(DType::kBFloat16, QuantScalesShape(total, k, scheme));
  uint8_t* packed = panels.view().As<uint8_t>();
  int64_t first = 0;
  for (const PrequantizedPart& part : parts) {
    const uint8_t* data = static_cast<const uint8_t*>(part.data.data);
    const int64_t rows = part.scales.NumElements();
    ctx.threads->ParallelFor(rows, 64, [&](int64_t begin, int64_t end) {
      std::vector<int8_t> q(static_cast<size_t>(k));
      for (int64_t i = begin; i < end; ++i) {
        if (bits == 8) {
          ReadInt8(q.data(), data, i, k);
        } else {
          ReadInt4(q.data(), data, i, k);
        }
        cpu::PackQuantized(packed, first + i, q.data(), k, bits);
        scales.view().As<BFloat16>()[first + i] = part.scales.dtype == DType::kFloat32
                                                      ? ToBFloat16(part.scales.As<float>()[i])
                                                      : part.scales.As<BFloat16>()[i];
      }
    });
    first += rows;
  }
  return LinearOfPanels(ctx, panels, scales, total, k, scheme);
}

}  // namespace fd::ops
