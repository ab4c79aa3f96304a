// Quantised linear layers: the stored bytes against the rule in plain loops, the products against exact sums.
#include "compute/kernels/cpu/linear_quant.h"

#include "compute/kernels/reference/linear.h"
#include "compute/ops/linear.h"
#include "compute/ops/moe.h"
#include "tests/parity/parity.h"

namespace fd {
namespace {

using namespace parity;

const ops::QuantScheme kSchemes[] = {{8, 0}, {4, 0}, {8, 32}, {4, 32}, {4, 64}, {4, 128}};

float Bits16(uint32_t bits) {
  bits <<= 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}
// Nearest even bfloat16, by comparing the two neighbours.
float NearestBf16(float v) {
  uint32_t u;
  std::memcpy(&u, &v, 4);
  const float low = Bits16(u >> 16), high = Bits16((u >> 16) + 1);
  const double to_low = std::abs(double{v} - low), to_high = std::abs(double{high} - v);
  if (to_low != to_high) return to_low < to_high ? low : high;
  return (u >> 16) % 2 == 0 ? low : high;
}

// The rule, once more: q [n][k] and scales [n][groups].
struct Rule {
  std::vector<int> q;
  std::vector<float> scales;
};
Rule QuantizeByRule(const TensorView& w, const ops::QuantScheme& scheme) {
  const int64_t n = w.dim(0), k = w.dim(1), length = scheme.group_size == 0 ? k : scheme.group_size;
  const int limit = scheme.bits == 8 ? 127 : 7;
  Rule rule;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t begin = 0; begin < k; begin += length) {
      const int64_t end = std::min(begin + length, k);
      float most = 0;
      for (int64_t j = begin; j < end; ++j) most = std::max(most, std::abs(Get(w, i * k + j)));
      const float scale = NearestBf16(most / static_cast<float>(limit));
      rule.scales.push_back(scale);
      for (int64_t j = begin; j < end; ++j) {
        const float share = Get(w, i * k + j) / most;
        const float v = scale == 0 ? 0.0f : std::round(share * static_cast<float>(limit));
        rule.q.push_back(static_cast<int>(v));
      }
    }
  }
  return rule;
}
Tensor Dequantized(const TensorView& w, const ops::QuantScheme& scheme) {
  const Rule rule = QuantizeByRule(w, scheme);
  const int64_t k = w.dim(1), length = scheme.group_size == 0 ? k : scheme.group_size;
  const int64_t groups = (k + length - 1) / length;
  Tensor out(DType::kFloat32, Device{}, w.shape);
  for (int64_t i = 0; i < w.NumElements(); ++i) {
    out.view().As<float>()[i] = static_cast<float>(rule.q[static_cast<size_t>(i)]) *
                                rule.scales[static_cast<size_t>(i / k * groups + i % k / length)];
  }
  return out;
}
// The activations as the kernels round them: values and scale of each block of a row.
Tensor RoundedRows(const TensorView& in, const ops::QuantScheme& scheme) {
  const int64_t k = in.dim(1), length = scheme.group_size == 0 ? cpu::kQuantRowBlock : scheme.group_size;
  Tensor out(DType::kFloat32, Device{}, in.shape);
  for (int64_t r = 0; r < in.dim(0); ++r) {
    for (int64_t begin = 0; begin < k; begin += length) {
      const int64_t end = std::min(begin + length, k);
      float most = 0;
      for (int64_t j = begin; j < end; ++j) most = std::max(most, std::abs(Get(in, r * in.row_stride + j)));
      for (int64_t j = begin; j < end; ++j) {
        const float q = most == 0 ? 0 : std::nearbyint(Get(in, r * in.row_stride + j) * (127.0f / most));
        out.view().As<float>()[r * k + j] = q * (most / 127.0f);
      }
    }
  }
  return out;
}

struct Case {
  int64_t m, n, k;
};
const Case kCases[] = {{1, 1, 1},     {1, 16, 2},    {2, 17, 3},     {3, 48, 64},  {7, 47, 33},
                       {8, 49, 128},  {9, 96, 255},  {13, 100, 257}, {1, 515, 96}, {5, 70, 40},
                       {64, 33, 513}, {129, 50, 40}, {200, 31, 1600}};

class QuantParity : public testing::TestWithParam<Case> {};

TEST_P(QuantParity, StoredBytesAreTheRules) {
  const auto [m, n, k] = GetParam();
  Cpu cpu;
  std::mt19937 rng(static_cast<unsigned>(n + k));
  for (DType stored : {DType::kBFloat16, DType::kFloat32}) {
    const Tensor w = Random(rng, stored, {n, k});
    for (int64_t j = 0; j < k; ++j) Set(w, (n - 1) * k + j, 0.0f);  // the last feature is all zeros
    for (const ops::QuantScheme& scheme : kSchemes) {
      const Rule rule = QuantizeByRule(w, scheme);
      const int64_t groups = cpu::QuantGroups(k, scheme.group_size);
      ForEachIsa([&] {
        const ops::LinearWeight packed = ops::QuantizeLinear(cpu.ctx, {w}, false, scheme);
        EXPECT_EQ(
            Arena::PaddedBytes(packed.data.size_bytes()) + Arena::PaddedBytes(packed.scales.size_bytes()),
            ops::LinearWeightBytes(cpu.ctx, stored, n, k, scheme));
        const uint8_t* bytes = packed.data.view().As<uint8_t>();
        for (int64_t i = 0; i < n; ++i) {
          const uint8_t* panel = bytes + i / 16 * cpu::QuantPanelBytes(k, scheme.bits);
          for (int64_t j = 0; j < k; ++j) {
            const uint8_t byte = scheme.bits == 8 ? panel[j / 4 * 64 + i % 16 * 4 + j % 4]
                                                  : panel[j / 8 * 64 + i % 16 * 4 + j % 4];
            const int q = scheme.bits == 8 ? byte - 128 : (j / 4 % 2 == 0 ? byte & 15 : byte >> 4) - 8;
            ASSERT_EQ(q, rule.q[static_cast<size_t>(i * k + j)]) << i << " " << j;
          }
          for (int64_t g = 0; g < groups; ++g) {
            ASSERT_EQ(Get(packed.scales, (i / 16 * groups + g) * 16 + i % 16),
                      rule.scales[static_cast<size_t>(i * groups + g)]);
          }
        }
      });
    }
  }
}

TEST_P(QuantParity, ProductsOfBothInputTypes) {
  const auto [m, n, k] = GetParam();
  Cpu cpu;
  std::mt19937 rng(7);
  for (const ops::QuantScheme& scheme : kSchemes) {
    for (DType act : {DType::kFloat32, DType::kBFloat16}) {
      const Tensor in = Random(rng, act, {m, k}), w = Random(rng, DType::kBFloat16, {n, k}),
                   bias = Random(rng, act, {n});
      Tensor expected(DType::kFloat32, Device{}, {m, n});
      reference::Linear(expected, act == DType::kBFloat16 ? RoundedRows(in, scheme) : in,
                        Dequantized(w, scheme), bias);
      const double absolute = 3e-6 * std::sqrt(static_cast<double>(k)) + 2e-6;
      Tensor first;
      ForEachIsa([&] {
        const ops::LinearWeight packed = ops::QuantizeLinear(cpu.ctx, {w}, false, scheme);
        for (DType out_type : {DType::kFloat32, act}) {
          Tensor out(out_type, Device{}, {m, n});
          ops::Linear(cpu.ctx, out, in, packed, bias);
          ExpectClose(out, expected, absolute, RelativeTolerance(out_type));
          if (act != DType::kBFloat16 || out_type != DType::kFloat32) continue;
          if (first.view().data == nullptr) first = out;
          ExpectSameBits(out, first);  // exact sums: every instruction set gives the same
        }
        EXPECT_EQ(cpu.workspace.Mark(), 0);
      });
    }
  }
}

INSTANTIATE_TEST_SUITE_P(OddSizes, QuantParity, testing::ValuesIn(kCases));

TEST(QuantLinear, StackedTransposedAndStridedOperands) {
  Cpu cpu;
  std::mt19937 rng(11);
  const int64_t m = 5, k = 37;
  const Tensor a = Random(rng, DType::kBFloat16, {19, k}), b = Random(rng, DType::kBFloat16, {64, k});
  Tensor a_t(DType::kBFloat16, Device{}, {k, 19}), b_t(DType::kBFloat16, Device{}, {k, 64});
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = 0; j < 19; ++j) Set(a_t, i * 19 + j, Get(a, j * k + i));
    for (int64_t j = 0; j < 64; ++j) Set(b_t, i * 64 + j, Get(b, j * k + i));
  }
  const Tensor wide_in = Random(rng, DType::kBFloat16, {m, k + 9});
  const TensorView in = wide_in.view().Columns(4, k);
  for (const ops::QuantScheme& scheme : kSchemes) {
    Tensor expected(DType::kFloat32, Device{}, {m, 83});
    reference::Linear(expected.view().Columns(0, 19), RoundedRows(in, scheme), Dequantized(a, scheme), {});
    reference::Linear(expected.view().Columns(19, 64), RoundedRows(in, scheme), Dequantized(b, scheme), {});
    ForEachIsa([&] {
      for (bool transposed : {false, true}) {
        const ops::LinearWeight w = transposed ? ops::QuantizeLinear(cpu.ctx, {a_t, b_t}, true, scheme)
                                               : ops::QuantizeLinear(cpu.ctx, {a, b}, false, scheme);
        Tensor wide_out(DType::kFloat32, Device{}, {m, 100});
        ops::Linear(cpu.ctx, wide_out.view().Columns(3, 83), in, w);
        ExpectClose(wide_out.view().Columns(3, 83), expected, 3e-5, 2e-6);
        EXPECT_EQ(wide_out.view().As<float>()[2], 0.0f);
        EXPECT_EQ(wide_out.view().As<float>()[86], 0.0f);
      }
    });
  }
}

TEST(QuantLinear, ARowDoesNotDependOnTheOthers) {
  std::mt19937 rng(3);
  const int64_t m = 150, n = 200, k = 1600;
  for (const ops::QuantScheme& scheme : kSchemes) {
    for (DType act : {DType::kFloat32, DType::kBFloat16}) {
      const Tensor in = Random(rng, act, {m, k}), w = Random(rng, DType::kBFloat16, {n, k});
      ForEachIsa([&] {
        Cpu one(1), three(3);
        const ops::LinearWeight packed = ops::QuantizeLinear(one.ctx, {w}, false, scheme);
        Tensor all(act, Device{}, {m, n});
        ops::Linear(three.ctx, all, in, packed);
        for (int64_t rows : {1, 2, 5, 8, 11, 130}) {
          Tensor some(act, Device{}, {rows, n});
          ops::Linear(one.ctx, some, in.view().Rows(m - rows, rows), packed);
          ExpectSameBits(some, all.view().Rows(m - rows, rows));
        }
      });
    }
  }
}

// More than eight rows of so many inputs pass slice by slice, fewer at once.
TEST(QuantLinear, SlicesAddUpToTheWhole) {
  Cpu cpu;
  std::mt19937 rng(5);
  const int64_t m = 19, n = 50, k = 17000;
  const Tensor in = Random(rng, DType::kBFloat16, {m, k}), w = Random(rng, DType::kBFloat16, {n, k});
  for (const ops::QuantScheme& scheme : kSchemes) {
    ForEachIsa([&] {
      const ops::LinearWeight packed = ops::QuantizeLinear(cpu.ctx, {w}, false, scheme);
      Tensor all(DType::kFloat32, Device{}, {m, n});
      ops::Linear(cpu.ctx, all, in, packed);
      for (int64_t row = 0; row < m; ++row) {
        Tensor one(DType::kFloat32, Device{}, {1, n});
        ops::Linear(cpu.ctx, one, in.view().Rows(row, 1), packed);
        ExpectSameBits(one, all.view().Rows(row, 1));
      }
    });
  }
}

// The largest sums, with every product at its limit; rows of zeros and rows that are not finite.
TEST(QuantLinear, ExtremeValues) {
  Cpu cpu;
  const int64_t k = 4099, n = 18;
  Tensor in(DType::kBFloat16, Device{}, {6, k}), w(DType::kBFloat16, Device{}, {n, k});
  for (int64_t i = 0; i < w.view().NumElements(); ++i) Set(w, i, i / k % 2 == 0 ? 1.0f : -1.0f);
  const float values[] = {3.0f, -3.0f, 0.0f, INFINITY, NAN, 1e-39f};
  for (int64_t r = 0; r < 6; ++r)
    for (int64_t j = 0; j < k; ++j)
      Set(in, r * k + j, r == 3 || r == 4 ? (j == 77 ? values[r] : 1) : values[r]);
  for (const ops::QuantScheme& scheme : kSchemes) {
    ForEachIsa([&] {
      Tensor out(DType::kFloat32, Device{}, {6, n});
      ops::Linear(cpu.ctx, out, in, ops::QuantizeLinear(cpu.ctx, {w}, false, scheme));
      const float* o = out.view().As<float>();
      const float expected = 3.0f * static_cast<float>(k);
      for (int64_t j = 0; j < n; ++j) {
        const float sign = j % 2 == 0 ? 1.0f : -1.0f;
        EXPECT_NEAR(o[j], sign * expected, expected * 4e-3f);  // the bfloat16 scale
        EXPECT_NEAR(o[n + j], -sign * expected, expected * 4e-3f);
        EXPECT_EQ(o[2 * n + j], 0.0f);
        EXPECT_TRUE(std::isnan(o[3 * n + j]) && std::isnan(o[4 * n + j]));
        EXPECT_EQ(o[5 * n + j], 0.0f);
      }
    });
  }
}

TEST(QuantLinear, AWeightThatIsNotFiniteMakesItsFeatureNan) {
  Cpu cpu;
  std::mt19937 rng(1);
  const int64_t k = 70;
  const Tensor in = Random(rng, DType::kBFloat16, {2, k}), w = Random(rng, DType::kBFloat16, {3, k});
  Set(w, k + 5, INFINITY);
  for (const ops::QuantScheme& scheme : kSchemes) {
    ForEachIsa([&] {
      Tensor out(DType::kFloat32, Device{}, {2, 3});
      ops::Linear(cpu.ctx, out, in, ops::QuantizeLinear(cpu.ctx, {w}, false, scheme));
      for (int i = 0; i < 6; ++i) EXPECT_EQ(std::isnan(out.view().As<float>()[i]), i % 3 == 1) << i;
    });
  }
}

TEST(QuantMoe, ExpertsAreWhatTheirLinearLayersGive) {
  std::mt19937 rng(9);
  const int64_t tokens = 37, experts = 5, top_k = 2, hidden = 70, width = 36;
  for (DType act : {DType::kFloat32, DType::kBFloat16}) {
    for (const ops::QuantScheme& scheme : kSchemes) {
      std::vector<Tensor> gate_up, down;
      for (int64_t e = 0; e < experts; ++e) {
        gate_up.push_back(Random(rng, DType::kBFloat16, {2 * width, hidden}, 0.12f));
        down.push_back(Random(rng, DType::kBFloat16, {hidden, width}, 0.17f));
      }
      const Tensor in = Random(rng, act, {tokens, hidden});
      Tensor ids(DType::kInt32, Device{}, {tokens, top_k}),
          weights(DType::kFloat32, Device{}, {tokens, top_k});
      for (int64_t t = 0; t < tokens; ++t) {
        ids.view().As<int32_t>()[2 * t] = static_cast<int32_t>(t % 3);
        ids.view().As<int32_t>()[2 * t + 1] = static_cast<int32_t>(3 + t % 2);
        weights.view().As<float>()[2 * t] = 0.25f;
        weights.view().As<float>()[2 * t + 1] = 0.75f;
      }
      ForEachIsa([&] {
        Cpu cpu(2), one(1);
        ops::ExpertWeights packed;
        for (int64_t e = 0; e < experts; ++e) {
          packed.gate_up.push_back(
              ops::QuantizeLinear(cpu.ctx, {gate_up[static_cast<size_t>(e)]}, false, scheme));
          packed.down.push_back(ops::QuantizeLinear(cpu.ctx, {down[static_cast<size_t>(e)]}, false, scheme));
        }
        Tensor out(act, Device{}, {tokens, hidden});
        ops::MoeExperts(cpu.ctx, out, in, packed, ids, weights);
        // Each token alone, expert by expert.
        for (int64_t t = 0; t < tokens; ++t) {
          Tensor expected(act, Device{}, {1, hidden});
          std::vector<float> sum(static_cast<size_t>(hidden), 0.0f);
          for (int64_t j = 0; j < top_k; ++j) {
            const size_t e = static_cast<size_t>(ids.view().As<int32_t>()[2 * t + j]);
            Tensor activated(act, Device{}, {1, width}), value(act, Device{}, {1, hidden});
            ops::LinearSwiGlu(one.ctx, activated, in.view().Rows(t, 1), packed.gate_up[e]);
            ops::Linear(one.ctx, value, activated, packed.down[e]);
            for (int64_t i = 0; i < hidden; ++i)
              sum[static_cast<size_t>(i)] += weights.view().As<float>()[2 * t + j] * Get(value, i);
          }
          for (int64_t i = 0; i < hidden; ++i) Set(expected, i, sum[static_cast<size_t>(i)]);
          ExpectSameBits(out.view().Rows(t, 1), expected);
        }
      });
    }
  }
}

}  // namespace
}  // namespace fd
