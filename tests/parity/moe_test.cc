#include "compute/ops/moe.h"

#include "compute/kernels/reference/linear.h"
#include "tests/parity/parity.h"

namespace fd {
namespace {

using namespace parity;

TEST(RouteSoftmax, MatchesReference) {
  Cpu cpu;
  std::mt19937 rng(5);
  for (int64_t experts : {1, 2, 6, 8, 64, 129}) {
    for (int64_t top_k : {1, 2, 3, 6}) {
      if (top_k > experts) continue;
      const int64_t tokens = 67;
      const Tensor logits = Random(rng, DType::kFloat32, {tokens, experts}, 3.0f);
      const Tensor bias = Random(rng, DType::kFloat32, {experts}, 0.2f);
      for (bool with_bias : {false, true}) {
        for (bool round : {false, true}) {
          Tensor ids(DType::kInt32, Device{}, {tokens, top_k}),
              weights(DType::kFloat32, Device{}, {tokens, top_k});
          Tensor want_ids = Tensor(DType::kInt32, Device{}, {tokens, top_k});
          Tensor want(DType::kFloat32, Device{}, {tokens, top_k});
          const TensorView b = with_bias ? bias.view() : TensorView{};
          ops::RouteSoftmax(cpu.ctx, ids, weights, logits, b, 1e-12f, round);
          reference::RouteSoftmax(want_ids, want, logits, b, 1e-12f, round);
          ExpectSameBits(ids, want_ids);
          ExpectClose(weights, want, 1e-6, round ? 8e-3 : 1e-5);
        }
      }
    }
  }
}

TEST(RouteSoftmax, TiesTakeTheLowerIndexAndBrokenLogitsGiveValidIds) {
  Cpu cpu;
  const int64_t experts = 5;
  Tensor logits(DType::kFloat32, Device{}, {3, experts});
  for (int64_t e = 0; e < experts; ++e) {
    logits.view().As<float>()[e] = 1.0f;
    logits.view().As<float>()[experts + e] = e == 2 ? NAN : 0.0f;
    logits.view().As<float>()[2 * experts + e] = e == 4 ? INFINITY : -INFINITY;
  }
  Tensor ids(DType::kInt32, Device{}, {3, 2}), weights(DType::kFloat32, Device{}, {3, 2});
  ops::RouteSoftmax(cpu.ctx, ids, weights, logits, {}, 1e-12f, false);
  EXPECT_EQ(ids.view().As<int32_t>()[0], 0);
  EXPECT_EQ(ids.view().As<int32_t>()[1], 1);
  EXPECT_FLOAT_EQ(weights.view().As<float>()[0], 0.5f);
  for (int i = 0; i < 3; ++i) {
    const int32_t a = ids.view().As<int32_t>()[2 * i], b = ids.view().As<int32_t>()[2 * i + 1];
    EXPECT_TRUE(0 <= a && a < b && b < experts) << a << " " << b;
  }
}

struct Experts {
  std::vector<Tensor> gate_up, down;
  ops::ExpertWeights packed;
};
Experts MakeExperts(const ops::Context& ctx, std::mt19937& rng, int64_t count, int64_t hidden,
                    int64_t width) {
  Experts e;
  for (int64_t i = 0; i < count; ++i) {
    e.gate_up.push_back(
        Random(rng, DType::kBFloat16, {2 * width, hidden}, 1.0f / std::sqrt(static_cast<float>(hidden))));
    e.down.push_back(
        Random(rng, DType::kBFloat16, {hidden, width}, 1.0f / std::sqrt(static_cast<float>(width))));
    e.packed.gate_up.push_back(ops::PackLinear(ctx, {e.gate_up.back()}));
    e.packed.down.push_back(ops::PackLinear(ctx, {e.down.back()}));
  }
  return e;
}

TEST(MoeExperts, MatchesReference) {
  Cpu cpu;
  std::mt19937 rng(9);
  struct {
    int64_t tokens, experts, top_k, hidden, width;
  } cases[] = {{1, 4, 2, 48, 24}, {5, 6, 2, 192, 40}, {33, 3, 3, 50, 17}, {300, 8, 2, 64, 33}};
  for (const auto& c : cases) {
    const Experts e = MakeExperts(cpu.ctx, rng, c.experts, c.hidden, c.width);
    const Tensor logits = Random(rng, DType::kFloat32, {c.tokens, c.experts}, 2.0f);
    Tensor ids(DType::kInt32, Device{}, {c.tokens, c.top_k}),
        weights(DType::kFloat32, Device{}, {c.tokens, c.top_k});
    reference::RouteSoftmax(ids, weights, logits, {}, 1e-12f, false);
    for (DType act : {DType::kFloat32, DType::kBFloat16}) {
      const Tensor in = Random(rng, act, {c.tokens, c.hidden});
      Tensor expected(DType::kFloat32, Device{}, {c.tokens, c.hidden});
      reference::MoeExperts(expected, in, e.gate_up, e.down, ids, weights, act);
      ForEachIsa([&] {
        Tensor out(act, Device{}, {c.tokens, c.hidden});
        ops::MoeExperts(cpu.ctx, out, in, e.packed, ids, weights);
        // Three roundings to bfloat16 on the way; values are of the order of 0.3.
        ExpectClose(out, expected, act == DType::kFloat32 ? 2e-6 : 1e-2,
                    act == DType::kFloat32 ? 1e-5 : 1.6e-2);
        EXPECT_EQ(cpu.workspace.Mark(), 0);
        // Batch invariance.
        Tensor last(act, Device{}, {1, c.hidden});
        ops::MoeExperts(cpu.ctx, last, in.view().Rows(c.tokens - 1, 1), e.packed,
                        ids.view().Rows(c.tokens - 1, 1), weights.view().Rows(c.tokens - 1, 1));
        ExpectSameBits(last, out.view().Rows(c.tokens - 1, 1));
      });
    }
  }
}

}  // namespace
}  // namespace fd
