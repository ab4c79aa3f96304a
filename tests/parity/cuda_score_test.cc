// ScoreTokens on the GPU, against the reference; the same bits for a row alone and among others.
#include "tests/parity/cuda_parity.h"
#include "tests/parity/scores.h"

namespace fd {
namespace {

using namespace parity;

TEST(CudaScoreTokens, AgainstReference) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(12);
  for (int64_t vocab : {1, 2, 19, 33, 1000, 8193, 103424}) {
    for (float spread : {0.0f, 0.05f, 3.0f}) {
      SCOPED_TRACE(testing::Message() << vocab << " spread " << spread);
      const ScoreRows rows(rng, vocab, spread);
      const Tensor logits = ToDevice(gpu, rows.logits), drawn = ToDevice(gpu, rows.drawn),
                   listed = ToDevice(gpu, rows.listed), wanted = ToDevice(gpu, rows.wanted),
                   temperature = ToDevice(gpu, rows.temperature), top_p = ToDevice(gpu, rows.top_p);
      for (const bool as_logits : {false, true}) {
        const ScoreOutputs untouched;
        const Tensor drawn_scores = ToDevice(gpu, untouched.drawn),
                     listed_scores = ToDevice(gpu, untouched.listed), alone = ToDevice(gpu, untouched.drawn);
        const auto columns = [](const Tensor& t) { return t.view().Columns(1, ScoreRows::kListed); };
        ops::ScoreTokens(gpu.ctx, {drawn, drawn_scores}, {columns(listed), columns(listed_scores)}, logits,
                         {wanted, temperature, top_p, as_logits}, vocab);
        EXPECT_EQ(gpu.workspace.Mark(), 0);
        rows.Expect(ToHost(gpu, drawn_scores), ToHost(gpu, columns(listed_scores)), as_logits);
        ops::ScoreTokens(
            gpu.ctx, {drawn.view().Rows(3, 1), alone.view().Rows(0, 1)}, {}, logits.view().Rows(3, 1),
            {wanted.view().Rows(3, 1), temperature.view().Rows(3, 1), top_p.view().Rows(3, 1), as_logits},
            vocab);
        ExpectSameBits(ToHost(gpu, alone.view().Rows(0, 1)), ToHost(gpu, drawn_scores.view().Rows(3, 1)));
      }
    }
  }
}

TEST(CudaScoreTokens, TheBitsOfTokenLogprobsWhereNothingIsAsked) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(13);
  const ScoreRows rows(rng, 5003, 2.0f);
  const Tensor logits = ToDevice(gpu, rows.logits), drawn = ToDevice(gpu, rows.drawn),
               expected = PoisonedOnDevice(gpu, DType::kFloat32, {ScoreRows::kRows}),
               scores = PoisonedOnDevice(gpu, DType::kFloat32, {ScoreRows::kRows, 1});
  ops::TokenLogprobs(gpu.ctx, expected, logits, drawn.view().Reshape({ScoreRows::kRows}), 5003);
  ops::ScoreTokens(gpu.ctx, {drawn, scores}, {}, logits, {}, 5003);
  // Of kNothing, whose logits are all -inf, every token is impossible here, and equally likely to Sample.
  ExpectSameBits(ToHost(gpu, scores.view().Reshape({ScoreRows::kRows}).Rows(0, ScoreRows::kNothing)),
                 ToHost(gpu, expected.view().Rows(0, ScoreRows::kNothing)));
}

}  // namespace
}  // namespace fd
