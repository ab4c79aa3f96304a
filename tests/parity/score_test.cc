// ScoreTokens: log-probabilities after a temperature and within top-p, and logits, against the reference.
#include <algorithm>

#include "tests/parity/scores.h"

namespace fd {
namespace {

using namespace parity;

TEST(ScoreTokens, AgainstReference) {
  Cpu one(1), four(4);
  std::mt19937 rng(12);
  for (int64_t vocab : {1, 2, 19, 33, 1000, 103424}) {
    for (float spread : {0.0f, 0.05f, 3.0f}) {
      SCOPED_TRACE(testing::Message() << vocab << " spread " << spread);
      const ScoreRows rows(rng, vocab, spread);
      ForEachIsa([&] {
        for (const bool as_logits : {false, true}) {
          const ScoreOutputs out;
          ops::ScoreTokens(four.ctx, out.Drawn(rows), out.Listed(rows), rows.logits, rows.Params(as_logits),
                           vocab);
          EXPECT_EQ(four.workspace.Mark(), 0);
          rows.Expect(out.drawn, out.listed.view().Columns(1, ScoreRows::kListed), as_logits);
          // A row alone has the bits that it has among others.
          const ScoreOutputs alone;
          ops::ScoreTokens(one.ctx, alone.DrawnRow(rows, 3), {}, rows.logits.view().Rows(3, 1),
                           rows.ParamsOfRow(3, as_logits), vocab);
          ExpectSameBits(alone.drawn.view().Rows(0, 1), out.drawn.view().Rows(3, 1));
        }
      });
    }
  }
}

TEST(ScoreTokens, TheBitsOfTokenLogprobsWhereNothingIsAsked) {
  Cpu cpu;
  std::mt19937 rng(13);
  const ScoreRows rows(rng, 5003, 2.0f);
  Tensor ones(DType::kFloat32, Device{}, {ScoreRows::kRows}),
      expected(DType::kFloat32, Device{}, {ScoreRows::kRows});
  std::fill_n(ones.view().As<float>(), ScoreRows::kRows, 1.0f);
  ForEachIsa([&] {
    ops::TokenLogprobs(cpu.ctx, expected, rows.logits, rows.drawn.view().Reshape({ScoreRows::kRows}), 5003);
    const ops::ScoreParams params[] = {{}, {{}, ones, {}}, {{}, {}, ones}, {{}, ones, ones}};
    for (const ops::ScoreParams& p : params) {
      const ScoreOutputs out;
      ops::ScoreTokens(cpu.ctx, out.Drawn(rows), {}, rows.logits, p, 5003);
      ExpectSameBits(out.drawn.view().Reshape({ScoreRows::kRows}), expected);
    }
  });
}

// With both, what is reported is what Sample draws from.
TEST(ScoreTokens, OfTheDistributionThatIsDrawnFrom) {
  Cpu cpu;
  std::mt19937 rng(14);
  const int64_t vocab = 2003;
  const Tensor logits = Random(rng, DType::kFloat32, {1, vocab}, 3.0f);
  Tensor ids(DType::kInt32, Device{}, {1, vocab}), scores(DType::kFloat32, Device{}, {1, vocab}),
      probs(DType::kFloat32, Device{}, {1, vocab});
  for (int32_t i = 0; i < vocab; ++i) ids.view().As<int32_t>()[i] = i;
  for (float temperature : {0.2f, 1.0f, 1.7f}) {
    for (float top_p : {0.01f, 0.5f, 0.97f, 1.0f}) {
      const ParamTensors params(1, {temperature, 0, top_p, 0});
      ForEachIsa([&] {
        ops::SampleProbs(cpu.ctx, probs, logits, params, vocab);
        ops::ScoreTokens(cpu.ctx, {ids, scores}, {}, logits, {{}, params.temperature, params.top_p}, vocab);
        for (int64_t i = 0; i < vocab; ++i) {
          const double p = static_cast<double>(probs.view().As<float>()[i]);
          const double found = static_cast<double>(scores.view().As<float>()[i]);
          if (top_p < 1) {  // else a probability may be too small for a float32
            ASSERT_EQ(std::isinf(found), p == 0) << i;
          }
          if (p > 1e-30) {
            ASSERT_NEAR(found, std::log(p), 1e-5) << i;
          }
        }
      });
    }
  }
}

}  // namespace
}  // namespace fd
