// norm, elementwise, rope, rows: odd sizes, strided rows, aliasing, extreme values.
#include "compute/kernels/reference/rows.h"

#include <algorithm>
#include <cfloat>

#include "compute/ops/attention.h"
#include "compute/ops/elementwise.h"
#include "compute/ops/norm.h"
#include "compute/ops/random.h"
#include "compute/ops/rope.h"
#include "compute/ops/rows.h"
#include "tests/parity/parity.h"

namespace fd {
namespace {

using namespace parity;

const DType kActs[] = {DType::kFloat32, DType::kBFloat16};
const int64_t kSizes[] = {1, 2, 7, 8, 15, 16, 17, 31, 33, 48, 63, 64, 100, 192, 257, 1024, 3071};

// Rows [0, rows) and columns [3, 3 + n) of something wider, so that rows are strided and unaligned.
struct Strided {
  Strided(DType dtype, int64_t rows, int64_t n) : whole(dtype, Device{}, {rows, n + 8}) {
    view = whole.view().Columns(3, n);
  }
  Strided(std::mt19937& rng, DType dtype, int64_t rows, int64_t n, float scale = 1.0f)
      : whole(Random(rng, dtype, {rows, n + 8}, scale)) {
    view = whole.view().Columns(3, n);
  }
  // A second copy with the same values.
  Strided Clone() const {
    Strided copy(whole.view().dtype, whole.view().dim(0), whole.view().dim(1) - 8);
    std::memcpy(copy.whole.view().data, whole.view().data, static_cast<size_t>(whole.size_bytes()));
    return copy;
  }
  // Columns outside the view are as in `other`.
  void ExpectSameOutside(const Strided& other) const {
    const TensorView &a = whole.view(), &b = other.whole.view();
    for (int64_t r = 0; r < a.dim(0); ++r) {
      for (int64_t i = 0; i < a.dim(1); ++i) {
        if (i >= 3 && i < a.dim(1) - 5) continue;
        const float x = Get(a, r * a.row_stride + i), y = Get(b, r * b.row_stride + i);
        ASSERT_EQ(std::memcmp(&x, &y, 4), 0) << "wrote outside its columns at row " << r << " column " << i;
      }
    }
  }
  Tensor whole;
  TensorView view;
};

template <typename Fn>
void ForAll(const Fn& fn) {
  ForEachIsa([&] {
    for (DType act : kActs) {
      for (int64_t n : kSizes) {
        SCOPED_TRACE(testing::Message() << DTypeName(act) << " n=" << n);
        fn(act, n, n > 1000 ? 9 : 5);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  });
}

TEST(Norm, RmsNorm) {
  Cpu cpu;
  std::mt19937 rng(1);
  ForAll([&](DType act, int64_t n, int64_t rows) {
    Strided in(rng, act, rows, n, 3.0f), out(act, rows, n);
    const Tensor weight = Random(rng, act, {n});
    Tensor expected(DType::kFloat32, Device{}, {rows, n});
    reference::RmsNorm(expected, in.view, weight, 1e-5f, act);
    const Strided blank = out.Clone();
    ops::RmsNorm(cpu.ctx, out.view, in.view, weight, 1e-5f);
    // Two roundings of bfloat16, either of which may fall the other way.
    const double relative = act == DType::kFloat32 ? 3e-6 : 1.6e-2;
    ExpectClose(out.view, expected, 1e-6, relative);
    out.ExpectSameOutside(blank);
    // In place gives the same bits.
    ops::RmsNorm(cpu.ctx, in.view, in.view, weight, 1e-5f);
    ExpectSameBits(in.view, out.view);
  });
}

TEST(Norm, RoundsBeforeTheWeight) {
  // bfloat16: 1 / rms = 1 / sqrt(5) gives 0.447... and 0.894...: the rounded values times the weight.
  Cpu cpu;
  ForEachIsa([&] {
    Tensor in(DType::kBFloat16, Device{}, {1, 2}), weight(DType::kBFloat16, Device{}, {2}),
        out(DType::kBFloat16, Device{}, {1, 2});
    Set(in, 0, 1.0f);
    Set(in, 1, 3.0f);
    Set(weight, 0, 1.4140625f);
    Set(weight, 1, 1.4140625f);
    ops::RmsNorm(cpu.ctx, out, in, weight, 0.0f);
    for (int i = 0; i < 2; ++i) {
      const float x = (i == 0 ? 1.0f : 3.0f) / std::sqrt(5.0f);
      const float rounded = ToFloat(ToBFloat16(x));
      EXPECT_EQ(Get(out, i), ToFloat(ToBFloat16(rounded * 1.4140625f)));
    }
  });
}

TEST(Norm, AddRmsNorm) {
  Cpu cpu;
  std::mt19937 rng(2);
  ForAll([&](DType act, int64_t n, int64_t rows) {
    Strided in(rng, act, rows, n), residual(rng, act, rows, n, 2.0f), out(act, rows, n);
    const Tensor weight = Random(rng, act, {n});
    Tensor sum(act, Device{}, {rows, n}), expected(act, Device{}, {rows, n});
    reference::Add(sum, residual.view, in.view);
    ops::RmsNorm(cpu.ctx, expected, sum, weight, 1e-6f);
    const Strided before = residual.Clone();
    ops::AddRmsNorm(cpu.ctx, out.view, residual.view, in.view, weight, 1e-6f);
    ExpectSameBits(residual.view, sum);
    ExpectSameBits(out.view, expected);
    residual.ExpectSameOutside(before);
    // out may be in.
    Strided again = before.Clone();
    ops::AddRmsNorm(cpu.ctx, in.view, again.view, in.view, weight, 1e-6f);
    ExpectSameBits(in.view, out.view);
  });
}

TEST(Norm, LayerNorm) {
  Cpu cpu;
  std::mt19937 rng(3);
  ForAll([&](DType act, int64_t n, int64_t rows) {
    Strided in(rng, act, rows, n), out(act, rows, n);
    for (int64_t r = 0; r < rows; ++r) {  // an offset, so that the mean matters
      for (int64_t i = 0; i < n; ++i) {
        const int64_t at = r * in.view.row_stride + i;
        Set(in.view, at, Get(in.view, at) + 5.0f);
      }
    }
    const Tensor weight = Random(rng, act, {n}), bias = Random(rng, act, {n});
    Tensor expected(DType::kFloat32, Device{}, {rows, n});
    reference::LayerNorm(expected, in.view, weight, bias, 1e-6f);
    const Strided blank = out.Clone();
    ops::LayerNorm(cpu.ctx, out.view, in.view, weight, bias, 1e-6f);
    // Where deviations are tiny (n = 1), the rounding of the mean is magnified by 1 / sqrt(eps).
    ExpectClose(out.view, expected, n < 8 ? 2e-3 : 1e-5, RelativeTolerance(act));
    out.ExpectSameOutside(blank);
    ops::LayerNorm(cpu.ctx, in.view, in.view, weight, bias, 1e-6f);
    ExpectSameBits(in.view, out.view);
  });
}

TEST(Norm, LargeAndTinyValues) {
  Cpu cpu;
  std::mt19937 rng(4);
  ForEachIsa([&] {
    for (DType act : kActs) {
      for (float scale : {1e-30f, 1e-12f, 1e12f, 1e17f}) {
        const int64_t n = 77;
        const Tensor in = Random(rng, act, {2, n}, scale), weight = Random(rng, act, {n});
        Tensor out(act, Device{}, {2, n}), expected(DType::kFloat32, Device{}, {2, n});
        ops::RmsNorm(cpu.ctx, out, in, weight, 1e-5f);
        reference::RmsNorm(expected, in, weight, 1e-5f, act);
        ExpectClose(out, expected, 1e-36, act == DType::kFloat32 ? 3e-6 : 1.6e-2);
      }
    }
  });
}

TEST(Elementwise, Activations) {
  Cpu cpu;
  std::mt19937 rng(5);
  ForAll([&](DType act, int64_t n, int64_t rows) {
    Strided in(rng, act, rows, 2 * n, 4.0f), out(act, rows, n);
    Tensor expected(DType::kFloat32, Device{}, {rows, n});
    const Strided blank = out.Clone();
    reference::SwiGlu(expected, in.view, act);
    ops::SwiGlu(cpu.ctx, out.view, in.view);
    ExpectClose(out.view, expected, 1e-7, act == DType::kFloat32 ? 3e-6 : 1.6e-2);
    const TensorView half = in.view.Columns(0, n);
    reference::QuickGelu(expected, half);
    ops::QuickGelu(cpu.ctx, out.view, half);
    ExpectClose(out.view, expected, 1e-7, RelativeTolerance(act));
    reference::Gelu(expected, half);
    ops::Gelu(cpu.ctx, out.view, half);
    // erfc by a fit of relative error 1.2e-7; the exponent's rounding adds z^2 2^-24.
    ExpectClose(out.view, expected, 2e-7, act == DType::kFloat32 ? 2e-5 : 8e-3);
    out.ExpectSameOutside(blank);
    Strided twin = in.Clone();
    ops::Gelu(cpu.ctx, twin.view.Columns(0, n), twin.view.Columns(0, n));
    ExpectSameBits(twin.view.Columns(0, n), out.view);
    ops::QuickGelu(cpu.ctx, out.view, half);
    ops::QuickGelu(cpu.ctx, half, half);
    ExpectSameBits(half, out.view);
  });
}

TEST(Elementwise, ExtremeValues) {
  Cpu cpu;
  const float inf = INFINITY;
  const std::vector<float> values = {0.0f,   -0.0f, 1e-40f, -1e-40f, 1e-20f, 88.0f,   -88.0f, 104.0f,
                                     -104.f, 500.f, -500.f, 3e38f,   -3e38f, FLT_MAX, inf,    20.0f};
  const int64_t n = static_cast<int64_t>(values.size());
  ForEachIsa([&] {
    for (DType act : kActs) {
      Tensor in(act, Device{}, {1, n}), out(act, Device{}, {1, n}),
          expected(DType::kFloat32, Device{}, {1, n});
      for (int64_t i = 0; i < n; ++i) Set(in, i, values[static_cast<size_t>(i)]);
      ops::QuickGelu(cpu.ctx, out, in);
      reference::QuickGelu(expected, in);
      ExpectClose(out, expected, 1e-30, RelativeTolerance(act));
      ops::Gelu(cpu.ctx, out, in);
      reference::Gelu(expected, in);
      ExpectClose(out, expected, 1e-30, act == DType::kFloat32 ? 1e-3 : 8e-3);
      Set(in, 3, NAN);
      ops::QuickGelu(cpu.ctx, out, in);
      EXPECT_TRUE(std::isnan(Get(out, 3)));
      EXPECT_FALSE(std::isnan(Get(out, 2)));
      ops::Gelu(cpu.ctx, out, in);
      EXPECT_TRUE(std::isnan(Get(out, 3)));
    }
  });
}

TEST(Elementwise, AddInPlaceAndStrided) {
  Cpu cpu;
  std::mt19937 rng(6);
  ForAll([&](DType act, int64_t n, int64_t rows) {
    Strided a(rng, act, rows, n), b(rng, act, rows, n), out(act, rows, n);
    Tensor expected(act, Device{}, {rows, n});
    reference::Add(expected, a.view, b.view);
    ops::Add(cpu.ctx, out.view, a.view, b.view);
    ExpectSameBits(out.view, expected);
    const Strided before = a.Clone();
    ops::Add(cpu.ctx, a.view, a.view, b.view);
    ExpectSameBits(a.view, expected);
    a.ExpectSameOutside(before);
  });
}

TEST(Elementwise, NormalizePixels) {
  Cpu cpu;
  const float mean[] = {0.48145466f, 0.4578275f, 0.40821073f}, std[] = {0.26862954f, 0.2613026f, 0.2757771f};
  ForEachIsa([&] {
    for (DType act : kActs) {
      for (int64_t side : {1, 2, 3, 5, 14, 28}) {
        const int64_t n = 3 * side * side;
        Tensor in(DType::kUInt8, Device{}, {4, n}), out(act, Device{}, {4, n}),
            expected(DType::kFloat32, Device{}, {4, n});
        for (int64_t i = 0; i < 4 * n; ++i) in.view().As<uint8_t>()[i] = static_cast<uint8_t>(i * 37 + i / 7);
        ops::NormalizePixels(cpu.ctx, out, in, mean, std);
        reference::NormalizePixels(expected, in, mean, std);
        ExpectClose(out, expected, 1e-6, RelativeTolerance(act));
      }
    }
  });
}

TEST(Rope, CosSinOfThreeAxes) {
  Cpu cpu;
  const int64_t tokens = 70, half = 12;
  Tensor positions(DType::kInt32, Device{}, {3, tokens}), freq(DType::kFloat32, Device{}, {half}),
      axis(DType::kInt32, Device{}, {half}), found(DType::kFloat32, Device{}, {tokens, 2, half}),
      expected(DType::kFloat32, Device{}, {tokens, 2, half});
  for (int64_t i = 0; i < 3 * tokens; ++i)
    positions.view().As<int32_t>()[i] = static_cast<int32_t>(i * i * 3);
  for (int64_t i = 0; i < half; ++i) {
    freq.view().As<float>()[i] = std::pow(500000.0f, -static_cast<float>(i) / static_cast<float>(half));
    axis.view().As<int32_t>()[i] = i < 8 ? 1 + i % 2 : 0;
  }
  ops::RopeCosSin(cpu.ctx, found, positions, freq, axis);
  reference::RopeCosSin(expected, positions, freq, axis);
  ExpectClose(found, expected, 1e-6, 0);
}

// The angle is a float32 product; its sine and cosine are exact however large it is.
TEST(Rope, LongContextsAndScale) {
  Cpu cpu;
  const int64_t half = 64;
  const std::vector<int32_t> where = {0, 1, 4095, 65535, 131070, 131071, 1 << 24};
  const int64_t tokens = static_cast<int64_t>(where.size());
  Tensor positions(DType::kInt32, Device{}, {1, tokens}), freq(DType::kFloat32, Device{}, {half}),
      axis(DType::kInt32, Device{}, {half}), found(DType::kFloat32, Device{}, {tokens, 2, half});
  std::copy(where.begin(), where.end(), positions.view().As<int32_t>());
  for (int64_t i = 0; i < half; ++i) {
    freq.view().As<float>()[i] = 1.0f / std::pow(500000.0f, static_cast<float>(i) / static_cast<float>(half));
    axis.view().As<int32_t>()[i] = 0;
  }
  for (float scale : {1.0f, 1.3465736f}) {
    Tensor expected(DType::kFloat32, Device{}, {tokens, 2, half});
    ops::RopeCosSin(cpu.ctx, found, positions, freq, axis, scale);
    reference::RopeCosSin(expected, positions, freq, axis, scale);
    ExpectClose(found, expected, 2e-7, 0);
  }
  // Against double precision throughout: the angle at position 131071 is off by at most half a unit of its
  // last place, 2^-8 radians, and by half a unit of the frequency's.
  for (int64_t t = 0; t < tokens - 1; ++t) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle = where[static_cast<size_t>(t)] *
                           std::pow(500000.0, -static_cast<double>(i) / static_cast<double>(half));
      const double bound = 1e-6 + angle * 3e-7;
      EXPECT_NEAR(static_cast<double>(found.view().As<float>()[t * 2 * half + i]) / 1.3465736,
                  std::cos(angle), bound)
          << "position " << where[static_cast<size_t>(t)] << " frequency " << i;
    }
  }
}

TEST(Rope, BothStyles) {
  Cpu cpu;
  std::mt19937 rng(8);
  ForEachIsa([&] {
    for (DType act : kActs) {
      for (int64_t head_dim : {2, 6, 16, 24, 32, 64, 80, 128, 130}) {
        for (bool interleaved : {true, false}) {
          SCOPED_TRACE(testing::Message() << DTypeName(act) << " " << head_dim << " " << interleaved);
          const int64_t tokens = 9, heads = 3;
          Strided x(rng, act, tokens, heads * head_dim);
          const Tensor cos_sin = Random(rng, DType::kFloat32, {tokens, 2, head_dim / 2});
          const TensorView view = x.view.Reshape({tokens, heads, head_dim});
          Tensor expected(DType::kFloat32, Device{}, {tokens, heads, head_dim});
          reference::ApplyRope(expected, view, cos_sin, interleaved);
          const Strided before = x.Clone();
          ops::ApplyRope(cpu.ctx, view, cos_sin,
                         interleaved ? ops::RopeStyle::kInterleaved : ops::RopeStyle::kHalfSplit);
          ExpectClose(view, expected, 1e-6, RelativeTolerance(act));
          x.ExpectSameOutside(before);
        }
      }
    }
  });
}

void CheckRopeWithTheWrite(std::mt19937& rng, const Tensor& slots, int64_t pages) {
  const int64_t tokens = slots.view().dim(0);
  ForEachIsa([&] {
    for (DType act : kActs) {
      for (int64_t head_dim : {2, 6, 24, 64, 128, 130}) {
        for (auto [heads, kv_heads] : {std::pair<int64_t, int64_t>{5, 1}, {4, 4}, {6, 3}}) {
          for (ops::RopeStyle style : {ops::RopeStyle::kInterleaved, ops::RopeStyle::kHalfSplit}) {
            SCOPED_TRACE(testing::Message()
                         << DTypeName(act) << " " << heads << "/" << kv_heads << " x " << head_dim);
            Cpu cpu;
            const int64_t q_width = heads * head_dim, kv_width = kv_heads * head_dim;
            const Strided fused(rng, act, tokens, q_width + 2 * kv_width);
            const Strided plain = fused.Clone();
            const Tensor cos_sin = Random(rng, DType::kFloat32, {tokens, 2, head_dim / 2});
            auto part = [&](const Strided& from, int64_t begin, int64_t count) {
              return from.view.Columns(begin * head_dim, count * head_dim).Reshape({tokens, count, head_dim});
            };
            const Tensor k_pages = Random(rng, act, {pages, kv_heads, 64, head_dim}),
                         v_pages = Random(rng, act, {pages, kv_heads, 64, head_dim});
            Tensor k_expected(act, Device{}, k_pages.view().shape),
                v_expected(act, Device{}, k_pages.view().shape);
            ops::Copy(cpu.ctx, k_expected, k_pages);
            ops::Copy(cpu.ctx, v_expected, v_pages);
            Tensor rotated(DType::kFloat32, Device{}, {tokens, heads, head_dim});
            reference::ApplyRope(rotated, part(plain, 0, heads), cos_sin,
                                 style == ops::RopeStyle::kInterleaved);
            ops::ApplyRope(cpu.ctx, part(plain, 0, heads), cos_sin, style);
            ops::ApplyRope(cpu.ctx, part(plain, heads, kv_heads), cos_sin, style);
            WriteCpuPages(k_expected, part(plain, heads, kv_heads), slots, false);
            WriteCpuPages(v_expected, part(plain, heads + kv_heads, kv_heads), slots, true);
            ops::RopeAndWriteKv(cpu.ctx, part(fused, 0, heads), k_pages, v_pages,
                                part(fused, heads, kv_heads), part(fused, heads + kv_heads, kv_heads),
                                cos_sin, slots, style);
            ExpectSameBits(part(fused, 0, heads), part(plain, 0, heads));
            ExpectSameBits(k_pages, k_expected);
            ExpectSameBits(v_pages, v_expected);
            ExpectClose(part(fused, 0, heads), rotated, 1e-6, RelativeTolerance(act));
            ExpectSameBits(part(fused, heads + kv_heads, kv_heads), part(plain, heads + kv_heads, kv_heads));
            fused.ExpectSameOutside(plain);
          }
        }
      }
    }
  });
}

// The bytes are those of the reference, whatever the instruction set; q as without the write.
void CheckRopeWithTheWriteOfBytes(std::mt19937& rng, const Tensor& slots, int64_t pages) {
  const int64_t tokens = slots.view().dim(0);
  ForEachIsa([&] {
    for (DType act : kActs) {
      for (DType bytes : {DType::kFloat8E4M3, DType::kInt8}) {
        for (int64_t head_dim : {2, 6, 24, 64, 128, 130}) {
          const int64_t heads = 3, kv_heads = 2;
          SCOPED_TRACE(testing::Message() << DTypeName(act) << " " << DTypeName(bytes) << " x " << head_dim);
          Cpu cpu;
          const Strided fused(rng, act, tokens, (heads + 2 * kv_heads) * head_dim);
          auto part = [&](const Strided& from, int64_t begin, int64_t count) {
            return from.view.Columns(begin * head_dim, count * head_dim).Reshape({tokens, count, head_dim});
          };
          // Rows of zeros, of nothing finite, of one large value beside small ones, of tiny values.
          const TensorView v = part(fused, heads + kv_heads, kv_heads);
          for (int64_t i = 0; i < head_dim; ++i) {
            Set(v.Rows(0, 1), i, 0.0f);
            Set(v.Rows(1, 1), i, i == head_dim - 1 ? INFINITY : 1.0f);
            Set(v.Rows(2, 1), i, i == 1 ? -5000.0f : 0.01f * static_cast<float>(i));
            Set(v.Rows(4, 1), i, i == 0 ? NAN : 1.0f);
            Set(v.Rows(5, 1), i, 1e-36f);
          }
          const Strided plain = fused.Clone();
          const Tensor cos_sin = Random(rng, DType::kFloat32, {tokens, 2, head_dim / 2});
          const Shape shape = ops::PagesShape(bytes, pages, kv_heads, head_dim);
          Tensor k_pages(bytes, Device{}, shape), v_pages(bytes, Device{}, shape),
              k_expected(bytes, Device{}, shape), v_expected(bytes, Device{}, shape);
          for (Tensor* t : {&k_pages, &v_pages, &k_expected, &v_expected}) {
            std::memset(t->view().data, 0xa5, static_cast<size_t>(t->size_bytes()));
          }
          ops::ApplyRope(cpu.ctx, part(plain, 0, heads), cos_sin, ops::RopeStyle::kInterleaved);
          ops::ApplyRope(cpu.ctx, part(plain, heads, kv_heads), cos_sin, ops::RopeStyle::kInterleaved);
          WriteBytePages(k_expected, part(plain, heads, kv_heads), slots, false, true);
          WriteBytePages(v_expected, part(plain, heads + kv_heads, kv_heads), slots, true, true);
          ops::RopeAndWriteKv(cpu.ctx, part(fused, 0, heads), k_pages, v_pages, part(fused, heads, kv_heads),
                              v, cos_sin, slots, ops::RopeStyle::kInterleaved);
          ExpectSameBits(part(fused, 0, heads), part(plain, 0, heads));
          ExpectSameBits(k_pages, k_expected);
          ExpectSameBits(v_pages, v_expected);
          fused.ExpectSameOutside(plain);
        }
      }
    }
  });
}

// What ops/attention.h says of a row of bytes, by other words than the reference's.
TEST(Bytes, AScaleIsTheNextBFloat16AndNoElementPassesTheLargestByte) {
  std::mt19937 rng(12);
  std::normal_distribution<float> normal;
  for (DType bytes : {DType::kFloat8E4M3, DType::kInt8}) {
    const float most = bytes == DType::kInt8 ? 127.0f : 448.0f;
    for (float size : {1e-29f, 1e-3f, 1.0f, 3.7e4f, 1e36f}) {
      for (int round = 0; round < 200; ++round) {
        std::vector<float> row(64);
        for (float& x : row) x = normal(rng) * size;
        if (round == 0) row[7] = most * 0.375f;  // of size 1: a scale that is a bfloat16 already
        const float top = std::fabs(*std::max_element(
            row.begin(), row.end(), [](float a, float b) { return std::fabs(a) < std::fabs(b); }));
        const reference::ByteRow found = reference::ToByteRow(row, bytes);
        const BFloat16 scale = ToBFloat16(found.scale);
        ASSERT_EQ(ToFloat(scale), found.scale);
        ASSERT_GE(found.scale, top / most);
        ASSERT_LT(ToFloat({static_cast<uint16_t>(scale.bits - 1)}), top / most);
        for (size_t i = 0; i < row.size(); ++i) {
          const float byte = reference::ByteValue(found.bytes[i], bytes);
          ASSERT_LE(std::fabs(byte), most);
          // Half a step: 1 for int8; of fp8 a sixteenth of the value, 2^-9 at least.
          const float half = bytes == DType::kInt8 ? 0.5f : std::max(std::fabs(byte) / 16, 0.0009765625f);
          ASSERT_LE(std::fabs(row[i] / found.scale - byte), half * 1.0001f) << row[i] << " of " << top;
        }
      }
    }
  }
}

TEST(Rope, WithTheWriteToPages) {
  std::mt19937 rng(9);
  const int64_t pages = 4;
  // Scattered over the pages, every fifth row padding.
  Tensor scattered(DType::kInt32, Device{}, {21});
  for (int32_t t = 0; t < 21; ++t) {
    scattered.view().As<int32_t>()[t] = t % 5 == 3 ? -1 - t : (t * 101) % (64 * 3);
  }
  CheckRopeWithTheWrite(rng, scattered, pages);
  CheckRopeWithTheWriteOfBytes(rng, scattered, pages);
  // A prompt: many tokens in a row, begin and end within a page; a decode beside it.
  Tensor in_a_row(DType::kInt32, Device{}, {151});
  for (int32_t t = 0; t < 150; ++t) in_a_row.view().As<int32_t>()[t] = 13 + t;
  in_a_row.view().As<int32_t>()[150] = 64 * 3 + 5;
  CheckRopeWithTheWrite(rng, in_a_row, pages);
  CheckRopeWithTheWriteOfBytes(rng, in_a_row, pages);
}

TEST(Rows, EmbeddingGatherScatterCopy) {
  Cpu cpu;
  std::mt19937 rng(9);
  ForAll([&](DType act, int64_t n, int64_t) {
    const int64_t vocab = 40, tokens = 23;
    Tensor ids(DType::kInt32, Device{}, {tokens});
    for (int64_t i = 0; i < tokens; ++i) ids.view().As<int32_t>()[i] = static_cast<int32_t>(i * 17 % vocab);
    for (DType stored : kActs) {
      Strided table(rng, stored, vocab, n), out(act, tokens, n);
      ops::Embedding(cpu.ctx, out.view, table.view, ids);
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t i = 0; i < n; ++i) {
          const float value = Get(table.view, ids.view().As<int32_t>()[t] * table.view.row_stride + i);
          ASSERT_EQ(Get(out.view, t * out.view.row_stride + i),
                    act == DType::kFloat32 ? value : ToFloat(ToBFloat16(value)));
        }
      }
      if (stored != act) continue;
      Tensor gathered(act, Device{}, {tokens, n});
      ops::GatherRows(cpu.ctx, gathered, table.view, ids);
      ExpectSameBits(gathered, out.view);
      Strided back(act, vocab, n);
      ops::ScatterRows(cpu.ctx, back.view, gathered, ids);
      for (int64_t t = 0; t < tokens; ++t) {
        const int64_t id = ids.view().As<int32_t>()[t];
        ExpectSameBits(back.view.Rows(id, 1), table.view.Rows(id, 1));
      }
    }
    Strided source(rng, act, tokens, n);
    for (DType to : kActs) {
      Strided strided(to, tokens, n);
      Tensor packed(to, Device{}, {tokens, n});
      ops::Copy(cpu.ctx, strided.view, source.view);
      ops::Copy(cpu.ctx, packed, source.view);
      ExpectSameBits(strided.view, packed);
      Tensor again(to, Device{}, {tokens, n});
      ops::Copy(cpu.ctx, again, packed);
      ExpectSameBits(again, packed);
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t i = 0; i < n; ++i) {
          const float value = Get(source.view, t * source.view.row_stride + i);
          ASSERT_EQ(Get(packed, t * n + i), to == DType::kFloat32 ? value : ToFloat(ToBFloat16(value)));
        }
      }
    }
  });
}

TEST(Rows, ConversionKeepsSpecialValues) {
  Cpu cpu;
  std::vector<uint32_t> bits;
  for (uint32_t high : {0u, 1u, 0x007fu, 0x0080u, 0x3f80u, 0x3f81u, 0x7f7fu, 0x7f80u, 0x7fc0u, 0x7f81u}) {
    for (uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      bits.push_back(high << 16 | low);
      bits.push_back(1u << 31 | high << 16 | low);
    }
  }
  const int64_t n = static_cast<int64_t>(bits.size());
  ForEachIsa([&] {
    Tensor in(DType::kFloat32, Device{}, {1, n}), out(DType::kBFloat16, Device{}, {1, n});
    std::memcpy(in.view().data, bits.data(), bits.size() * 4);
    ops::Copy(cpu.ctx, out, in);
    for (int64_t i = 0; i < n; ++i) {
      EXPECT_EQ(out.view().As<BFloat16>()[i].bits, ToBFloat16(in.view().As<float>()[i]).bits)
          << std::hex << bits[static_cast<size_t>(i)];
    }
  });
}

TEST(Rows, DrawnTokensReplaceOnlyRowsWithASource) {
  Cpu cpu;
  int32_t ids[] = {10, 11, 12, 13, 14}, source[] = {-1, 2, 0, -1, 1}, drawn[] = {70, -1, 72};
  const auto ints = [](int32_t* p, int64_t n) { return TensorView(p, DType::kInt32, Device{}, {n}); };
  ops::TakeDrawnTokens(cpu.ctx, ints(ids, 5), ints(source, 5), ints(drawn, 3));
  EXPECT_EQ(std::vector<int32_t>(ids, ids + 5), (std::vector<int32_t>{10, 72, 70, 13, 0}));
}

TEST(FillRandom, AFunctionOfKeyAndIndexUniformInTheScale) {
  Cpu cpu;
  const int64_t n = 200000;
  Tensor all(DType::kFloat32, Device{}, {n}), part(DType::kBFloat16, Device{}, {1000}),
      other(DType::kFloat32, Device{}, {n});
  ops::FillRandom(cpu.ctx, all, 7, 0, 0.5f);
  ops::FillRandom(cpu.ctx, part, 7, 77777, 0.5f);
  ops::FillRandom(cpu.ctx, other, 8, 0, 0.5f);
  double sum = 0, squares = 0, product = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double x = Get(all, i);
    ASSERT_LE(std::abs(x), 0.5);
    if (i >= 77777 && i < 78777) {
      ASSERT_EQ(x, Get(part, i - 77777));
    }
    sum += x;
    squares += x * x;
    product += x * Get(other, i);
  }
  EXPECT_NEAR(sum / n, 0, 0.003);
  EXPECT_NEAR(squares / n, 0.25 / 3, 0.001);
  EXPECT_NEAR(product / n, 0, 0.002);
}

}  // namespace
}  // namespace fd
