// Penalties, biases and bans against the reference, and the record of what sequences have seen. Golden cases:
// sample_test.cc.
#include <limits>

#include "compute/kernels/reference/sample.h"
#include "compute/ops/rows.h"
#include "compute/ops/sample.h"
#include "tests/parity/parity.h"
#include "tests/parity/sampling.h"

namespace fd {
namespace {

using namespace parity;

std::vector<int32_t> Inside(const std::vector<int32_t>& ids, int64_t vocab) {
  std::vector<int32_t> out;
  for (int32_t id : ids)
    if (id >= 0 && id < vocab) out.push_back(id);
  return out;
}

TEST(Penalties, AgainstReference) {
  Cpu cpu(3), one(1);
  std::mt19937 rng(1);
  for (int64_t vocab : {1, 3, 64, 1001, 103424}) {
    const std::vector<History> histories = SomeHistories(rng, vocab);
    const auto rows = static_cast<int64_t>(histories.size());
    const PenaltyTensors params(histories);
    // Columns beyond the vocabulary, as where the head is padded.
    const Tensor raw = Random(rng, DType::kFloat32, {rows, vocab + 5}, 4.0f);
    Tensor logits(DType::kFloat32, Device{}, {rows, vocab + 5}),
        wide(DType::kInt32, Device{}, {rows, vocab + 3});
    ops::Copy(cpu.ctx, logits, raw);
    const TensorView seen = wide.view().Columns(1, vocab);
    for (int64_t r = 0; r < rows; ++r) {
      const History& h = histories[static_cast<size_t>(r)];
      ops::ResetSeen(cpu.ctx, seen, r, Ids(h.prompt), Ids(h.output));
    }
    ops::ApplyPenalties(cpu.ctx, logits, seen, params);
    for (int64_t r = 0; r < rows; ++r) {
      SCOPED_TRACE(testing::Message() << vocab << " tokens, row " << r);
      const History& h = histories[static_cast<size_t>(r)];
      const float* before = raw.view().As<float>() + r * (vocab + 5);
      const float* after = logits.view().As<float>() + r * (vocab + 5);
      reference::Penalties penalties = {static_cast<double>(h.repetition),
                                        static_cast<double>(h.presence),
                                        static_cast<double>(h.frequency),
                                        {}};
      for (const auto& [id, bias] : h.biases)
        if (id >= 0 && id < vocab) penalties.biases.emplace_back(id, static_cast<double>(bias));
      const std::vector<double> expected = reference::Penalize(
          {before, before + vocab}, Inside(h.prompt, vocab), Inside(h.output, vocab), penalties);
      for (int64_t i = 0; i < vocab + 5; ++i) {
        if (i >= vocab) {
          ASSERT_EQ(after[i], before[i]);
        } else if (std::isinf(expected[static_cast<size_t>(i)])) {
          ASSERT_EQ(after[i], -INFINITY);
        } else {
          // The largest term has up to 304 counts; each operation rounds once.
          ASSERT_NEAR(static_cast<double>(after[i]), expected[static_cast<size_t>(i)],
                      2e-7 * (std::abs(static_cast<double>(before[i])) * 2 + 700))
              << "token " << i;
        }
      }
      // Alone, on one thread.
      Tensor single(DType::kFloat32, Device{}, {1, vocab + 5});
      ops::Copy(one.ctx, single, raw.view().Rows(r, 1));
      ops::ApplyPenalties(one.ctx, single, seen.Rows(r, 1), PenaltyTensors({h}));
      ExpectSameBits(single, logits.view().Rows(r, 1));
    }
  }
}

TEST(Penalties, CountsAreThoseOfTheHistory) {
  Cpu cpu;
  const int64_t vocab = 10;
  Tensor seen(DType::kInt32, Device{}, {3, vocab});
  std::fill_n(seen.view().As<int32_t>(), 30, 77);  // of whoever had the slots before
  ops::ResetSeen(cpu.ctx, seen, 1, Ids({4, 4, 9, -1, 10}), Ids({9, 2, 2}));
  ops::ResetSeen(cpu.ctx, seen, 2, TensorView(), TensorView());
  ops::CountTokens(cpu.ctx, seen, Ids({1, 2, -1, 1, 1, 2}), Ids({7, 4, 0, 5, 10, 9, -1}),
                   Ids({1, 2, 3, 4, 5, 6}));
  const int32_t prompt = std::numeric_limits<int32_t>::min();
  const std::vector<int32_t> expected[3] = {std::vector<int32_t>(10, 77),
                                            {0, 0, 2, 0, prompt + 1, 0, 0, 0, 0, prompt + 2},
                                            {1, 0, 0, 0, 0, 0, 0, 0, 0, 0}};
  for (int s = 0; s < 3; ++s) {
    for (int i = 0; i < 10; ++i) {
      EXPECT_EQ(seen.view().As<int32_t>()[s * 10 + i], expected[s][static_cast<size_t>(i)]) << s << " " << i;
    }
  }
}

TEST(Penalties, ExtremeLogits) {
  Cpu cpu;
  const ExtremeLogits extreme;
  Tensor seen(DType::kInt32, Device{}, {1, ExtremeLogits::kTokens});
  ops::ResetSeen(cpu.ctx, seen, 0, TensorView(), extreme.all_ids);
  ops::ApplyPenalties(cpu.ctx, extreme.logits, seen, extreme.params);
  extreme.Expect(extreme.logits);
}

// Chunk by chunk, as a prompt is computed, or at once.
TEST(Penalties, HistoriesEnteredInPieces) {
  Cpu cpu;
  const int64_t vocab = 10;
  Tensor whole(DType::kInt32, Device{}, {1, vocab}), pieces(DType::kInt32, Device{}, {1, vocab});
  std::fill_n(pieces.view().As<int32_t>(), vocab, 77);
  ops::ResetSeen(cpu.ctx, whole, 0, Ids({4, 4, 9, 3}), Ids({9, 2, 2, 4}));
  ops::ResetSeen(cpu.ctx, pieces, 0, Ids({4}), TensorView());
  ops::EnterSeen(cpu.ctx, pieces, 0, Ids({4, 9, -1, 10}), TensorView());
  ops::EnterSeen(cpu.ctx, pieces, 0, Ids({3}), Ids({9, 2}));
  ops::EnterSeen(cpu.ctx, pieces, 0, TensorView(), Ids({2, 4}));
  ExpectSameBits(pieces, whole);
}

TEST(Penalties, BansGoByTheLastToken) {
  Cpu cpu;
  const BanCase bans;
  ops::ApplyPenalties(cpu.ctx, bans.logits, bans.seen, bans.Params());
  bans.Expect(bans.logits);
}

// Everything else is banned, on top of penalties and biases; what is allowed keeps their bits.
TEST(Penalties, OnlyAllowedTokensAreLeft) {
  Cpu cpu(3);
  std::mt19937 rng(6);
  for (int64_t vocab : {1, 3, 31, 64, 1001, 4097, 103424}) {
    std::vector<History> histories = SomeHistories(rng, vocab);
    histories.insert(histories.end(), histories.begin(), histories.begin() + 4);
    const auto rows = static_cast<int64_t>(histories.size());
    const AllowedTokens allowed(rng, rows, vocab);
    const PenaltyTensors edits(histories);
    const Tensor raw = Random(rng, DType::kFloat32, {rows, vocab + 5}, 4.0f);
    raw.view().As<float>()[1 * (vocab + 5)] = NAN;
    Tensor expected(DType::kFloat32, Device{}, {rows, vocab + 5}),
        logits(DType::kFloat32, Device{}, {rows, vocab + 5}), seen(DType::kInt32, Device{}, {rows, vocab});
    ops::Copy(cpu.ctx, expected, raw);
    ops::Copy(cpu.ctx, logits, raw);
    for (int64_t r = 0; r < rows; ++r) {
      const History& h = histories[static_cast<size_t>(r)];
      ops::ResetSeen(cpu.ctx, seen, r, Ids(h.prompt), Ids(h.output));
    }
    ops::PenaltyParams params = edits;
    ops::ApplyPenalties(cpu.ctx, expected, seen, params);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < vocab; ++i) {
        float& x = expected.view().As<float>()[r * (vocab + 5) + i];
        if (!allowed.Allows(r, i) && !std::isnan(x)) x = -INFINITY;
      }
    }
    params.allow_offsets = allowed.offsets;
    params.allow_ids = allowed.ids;
    ops::ApplyPenalties(cpu.ctx, logits, seen, params);
    SCOPED_TRACE(testing::Message() << vocab << " tokens");
    ExpectSameBits(logits, expected);
  }
}

TEST(TokenLogprobs, TheBitsOfSample) {
  Cpu cpu(3);
  std::mt19937 rng(5);
  const int64_t rows = 6, vocab = 5003;
  const Tensor logits = Random(rng, DType::kFloat32, {rows, vocab + 3}, 3.0f);
  logits.view().As<float>()[2 * (vocab + 3) + 7] = INFINITY;
  const ParamTensors params(rows, Params{0.9f});
  Tensor ids(DType::kInt32, Device{}, {rows}), expected(DType::kFloat32, Device{}, {rows}),
      logprobs(DType::kFloat32, Device{}, {rows});
  ops::Sample(cpu.ctx, ids, expected, logits, params, vocab);
  ops::TokenLogprobs(cpu.ctx, logprobs, logits, ids, vocab);
  ExpectSameBits(logprobs, expected);
  logits.view().As<float>()[0] = NAN;
  ids.view().As<int32_t>()[1] = -1;
  ids.view().As<int32_t>()[3] = static_cast<int32_t>(vocab);
  ops::TokenLogprobs(cpu.ctx, logprobs, logits, ids, vocab);
  for (int64_t r = 0; r < rows; ++r)
    EXPECT_EQ(std::isnan(logprobs.view().As<float>()[r]), r == 0 || r == 1 || r == 3) << r;
}

}  // namespace
}  // namespace fd
