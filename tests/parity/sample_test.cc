// Sampling: the golden distributions, the reference on a real vocabulary, and draws that follow the
// distribution.
#include "compute/ops/sample.h"

#include <algorithm>

#include "base/rng.h"
#include "compute/kernels/reference/sample.h"
#include "tests/parity/parity.h"
#include "tests/parity/sampling.h"

namespace fd {
namespace {

using namespace parity;

std::vector<float> Probs(Cpu& cpu, const std::vector<float>& logits, const Params& p, int64_t valid) {
  const int64_t vocab = static_cast<int64_t>(logits.size());
  Tensor in(DType::kFloat32, Device{}, {1, vocab}), out(DType::kFloat32, Device{}, {1, vocab});
  std::copy(logits.begin(), logits.end(), in.view().As<float>());
  ops::SampleProbs(cpu.ctx, out, in, ParamTensors(1, p), valid);
  return Values(out);
}

std::vector<float> Penalized(Cpu& cpu, const std::vector<float>& logits, const History& history) {
  const int64_t vocab = static_cast<int64_t>(logits.size());
  Tensor row(DType::kFloat32, Device{}, {1, vocab}), seen(DType::kInt32, Device{}, {1, vocab});
  std::copy(logits.begin(), logits.end(), row.view().As<float>());
  ops::ResetSeen(cpu.ctx, seen, 0, Ids(history.prompt), Ids(history.output));
  ops::ApplyPenalties(cpu.ctx, row, seen, PenaltyTensors({history}));
  return Values(row);
}

void ExpectProbs(const std::vector<float>& found, const std::vector<double>& expected) {
  ASSERT_GE(found.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(found[i] > 0, static_cast<float>(expected[i]) > 0) << "token " << i << ": " << expected[i];
    ASSERT_NEAR(static_cast<double>(found[i]), expected[i], 1e-6 * expected[i] + 1e-30) << "token " << i;
  }
  for (size_t i = expected.size(); i < found.size(); ++i) ASSERT_EQ(found[i], 0.0f);
}

TEST(Sample, GoldenDistributions) {
  const Golden golden;
  Cpu cpu;
  ForEachIsa([&] {
    int edited = 0;
    for (const Json& c : golden.cases.Find("cases")->as_array()) {
      const GoldenCase golden_case(c);
      const Params& p = golden_case.params;
      const std::string id = std::to_string(c.Find("id")->as_int());
      SCOPED_TRACE("case " + id);
      std::vector<float> logits = golden.Read<float>(c.Find("logits")->as_string() + ".logits");
      const std::vector<float> raw = logits;
      if (golden_case.edits) logits = Penalized(cpu, logits, golden_case.history);
      edited += golden_case.edits && logits != raw;
      const std::vector<int32_t> ids = golden.Read<int32_t>(id + ".ids");
      const std::vector<double> probs = golden.Read<double>(id + ".probs");
      // The stored numbers were computed with the decimal temperature, ours is its float32 neighbour: at a
      // distance z from the largest logit that is a relative difference of z 2^-24.
      const float largest = *std::max_element(logits.begin(), logits.end());
      const std::vector<float> found = Probs(cpu, logits, p, static_cast<int64_t>(logits.size()));
      size_t kept = 0;
      for (size_t i = 0; i < ids.size(); ++i) {
        const size_t token = static_cast<size_t>(ids[i]);
        kept += probs[i] > 1e-40;
        const double z =
            p.temperature > 0 ? (largest - logits[token]) / static_cast<double>(p.temperature) : 0.0;
        // So do penalties: their float32 neighbours and a rounding each.
        const double edit =
            golden_case.edits && p.temperature > 0
                ? (std::abs(static_cast<double>(raw[token])) + std::abs(static_cast<double>(largest)) + 10) *
                      2.5e-7 / static_cast<double>(p.temperature)
                : 0.0;
        EXPECT_NEAR(static_cast<double>(found[token]), probs[i], (1e-6 + z * 6e-8 + edit) * probs[i] + 1e-40);
      }
      const auto positive = [](float x) { return x > 1e-40f; };
      EXPECT_EQ(static_cast<size_t>(std::count_if(found.begin(), found.end(), positive)), kept);
    }
    EXPECT_GE(edited, 100);
  });
}

TEST(Sample, AgainstReferenceOnARealVocabulary) {
  Cpu cpu;
  std::mt19937 rng(3);
  for (int64_t vocab : {1, 2, 17, 1000, 103424}) {
    for (float spread : {0.0f, 1.0f, 4.0f}) {
      std::vector<float> logits(static_cast<size_t>(vocab + 5),
                                1e6f);  // columns beyond valid_vocab are large
      std::normal_distribution<float> normal(-3.0f, 1.0f);
      for (int64_t i = 0; i < vocab; ++i) logits[static_cast<size_t>(i)] = spread * normal(rng);
      const std::vector<float> valid(logits.begin(), logits.begin() + vocab);
      for (const Params& p : {Params{}, Params{0.7f}, Params{0}, Params{1, 1}, Params{0.9f, 50},
                              Params{1, 0, 0.9f}, Params{1.3f, 200, 0.8f, 0.01f}, Params{1, 0, 1, 0.2f}}) {
        const std::vector<double> expected =
            reference::SampleProbs(valid, static_cast<double>(p.temperature), p.top_k,
                                   static_cast<double>(p.top_p), static_cast<double>(p.min_p));
        ForEachIsa([&] {
          SCOPED_TRACE(testing::Message() << vocab << " spread " << spread << " T " << p.temperature << " k "
                                          << p.top_k << " p " << p.top_p << " min " << p.min_p);
          ExpectProbs(Probs(cpu, logits, p, vocab), expected);
        });
      }
    }
  }
}

TEST(Sample, DrawsFollowTheDistribution) {
  // Chi-square over 20000 positions; the 99.9 % quantile of k degrees is below k + 3.3 sqrt(2k) + 8.
  Cpu cpu;
  const int64_t rows = 20000, vocab = 37;
  std::mt19937 rng(4);
  const Tensor one = Random(rng, DType::kFloat32, {1, vocab}, 1.5f);
  Tensor logits(DType::kFloat32, Device{}, {rows, vocab});
  for (int64_t r = 0; r < rows; ++r)
    std::memcpy(logits.view().Rows(r, 1).data, one.view().data, static_cast<size_t>(one.size_bytes()));
  for (const Params& p : {Params{}, Params{0.6f}, Params{1, 10, 0.9f}, Params{1.5f, 0, 1, 0.1f}}) {
    Tensor ids(DType::kInt32, Device{}, {rows}), logprobs(DType::kFloat32, Device{}, {rows});
    ops::Sample(cpu.ctx, ids, logprobs, logits, ParamTensors(rows, p), vocab);
    const std::vector<float> probs = Probs(cpu, Values(one), p, vocab);
    const std::vector<float> plain = Probs(cpu, Values(one), Params{}, vocab);
    std::vector<double> count(static_cast<size_t>(vocab), 0.0);
    for (int64_t r = 0; r < rows; ++r) {
      const int32_t id = ids.view().As<int32_t>()[r];
      ASSERT_TRUE(id >= 0 && id < vocab);
      count[static_cast<size_t>(id)] += 1;
      ASSERT_NEAR(logprobs.view().As<float>()[r], std::log(plain[static_cast<size_t>(id)]), 1e-5f);
    }
    double chi = 0, degrees = -1;
    for (size_t i = 0; i < count.size(); ++i) {
      const double expected = static_cast<double>(probs[i]) * rows;
      if (expected == 0) {
        ASSERT_EQ(count[i], 0) << "a dropped token was drawn";
        continue;
      }
      chi += (count[i] - expected) * (count[i] - expected) / expected;
      degrees += 1;
    }
    EXPECT_LT(chi, degrees + 3.3 * std::sqrt(2 * degrees) + 8) << degrees << " degrees";
    EXPECT_GT(chi, 0.1 * degrees);
  }
}

TEST(Sample, DependsOnSeedAndPositionAlone) {
  Cpu one(1), four(4);
  const int64_t rows = 12, vocab = 5003;
  std::mt19937 rng(5);
  const Tensor logits = Random(rng, DType::kFloat32, {rows, vocab}, 2.0f);
  const ParamTensors params(rows, Params{0.8f, 0, 0.95f});
  ForEachIsa([&] {
    Tensor ids(DType::kInt32, Device{}, {rows}), logprobs(DType::kFloat32, Device{}, {rows});
    ops::Sample(four.ctx, ids, logprobs, logits, params, vocab);
    EXPECT_EQ(four.workspace.Mark(), 0);
    int changed = 0;
    for (int64_t r = 0; r < rows; ++r) {
      ParamTensors single(1, Params{0.8f, 0, 0.95f});
      single.position.view().As<int64_t>()[0] = r;
      Tensor id(DType::kInt32, Device{}, {1}), logprob(DType::kFloat32, Device{}, {1});
      ops::Sample(one.ctx, id, logprob, logits.view().Rows(r, 1), single, vocab);
      EXPECT_EQ(id.view().As<int32_t>()[0], ids.view().As<int32_t>()[r]);
      ExpectSameBits(logprob, logprobs.view().Rows(r, 1));
      single.seed.view().As<int64_t>()[0] = -1;  // all bits of a uint64
      ops::Sample(one.ctx, id, logprob, logits.view().Rows(r, 1), single, vocab);
      changed += id.view().As<int32_t>()[0] != ids.view().As<int32_t>()[r];
    }
    EXPECT_GT(changed, rows / 2);
  });
}

TEST(Sample, GreedyTiesAndBrokenRows) {
  Cpu cpu;
  const int64_t vocab = 75;
  enum { kTie, kNan, kAllMinusInf, kInfinity, kOneFinite, kNanBeyond, kLastColumn, kRows };
  Tensor logits(DType::kFloat32, Device{}, {kRows, vocab});
  auto row = [&](int r) { return logits.view().As<float>() + r * vocab; };
  for (int r = 0; r < kRows; ++r) std::fill(row(r), row(r) + vocab, r == kTie ? 2.0f : -INFINITY);
  row(kTie)[40] = row(kTie)[11] = row(kTie)[69] = 3.0f;
  row(kNan)[5] = 1;
  row(kNan)[68] = NAN;
  std::fill(row(kInfinity), row(kInfinity) + 60, -1.0f);
  row(kInfinity)[33] = INFINITY;
  row(kOneFinite)[50] = -1e30f;
  row(kNanBeyond)[7] = 0;
  row(kNanBeyond)[72] = NAN;
  row(kLastColumn)[69] = 0;
  row(kLastColumn)[70] = 100;
  const int32_t expected[kRows] = {11, -1, -1, 33, 50, 7, 69};
  ForEachIsa([&] {
    for (float temperature : {0.0f, 1.0f}) {
      Tensor ids(DType::kInt32, Device{}, {kRows}), logprobs(DType::kFloat32, Device{}, {kRows});
      ops::Sample(cpu.ctx, ids, logprobs, logits, ParamTensors(kRows, Params{temperature}), 70);
      for (int r = temperature > 0 ? 1 : 0; r < kRows; ++r) {
        EXPECT_EQ(ids.view().As<int32_t>()[r], expected[r]) << "row " << r << " T " << temperature;
        if (expected[r] >= 0 && r != kTie) {
          EXPECT_NEAR(logprobs.view().As<float>()[r], 0.0f, 1e-6f) << r;
        }
      }
    }
  });
}

TEST(TopLogprobs, AgainstReferenceAndSample) {
  Cpu one(1), four(4);
  std::mt19937 rng(6);
  for (int64_t vocab : {1, 2, 19, 33, 1000, 103424}) {
    for (float spread : {0.0f, 0.05f, 3.0f}) {
      const int64_t rows = 6, max_k = 32;
      const Tensor logits = Random(rng, DType::kFloat32, {rows, vocab + 3}, spread);
      // Steps, so that many are equal; the columns beyond valid_vocab are the largest.
      for (int64_t i = 0; i < logits.view().NumElements(); ++i) {
        float& x = logits.view().As<float>()[i];
        x = i % (vocab + 3) >= vocab ? 1e6f : std::round(x * 64) / 64;
      }
      const Tensor k = Ids({0, 1, 5, 20, 32, 99});
      ForEachIsa([&] {
        SCOPED_TRACE(testing::Message() << vocab << " spread " << spread);
        // Columns of something wider.
        Tensor ids(DType::kInt32, Device{}, {rows, max_k + 2}),
            values(DType::kFloat32, Device{}, {rows, max_k + 1});
        const TensorView top = ids.view().Columns(1, max_k), logprobs = values.view().Columns(1, max_k);
        ops::TopLogprobs(four.ctx, top, logprobs, logits, k, vocab);
        EXPECT_EQ(four.workspace.Mark(), 0);
        Tensor greedy(DType::kInt32, Device{}, {rows}), greedy_logprobs(DType::kFloat32, Device{}, {rows});
        ops::Sample(four.ctx, greedy, greedy_logprobs, logits, ParamTensors(rows, Params{0}), vocab);
        for (int64_t r = 0; r < rows; ++r) {
          const float* row = logits.view().As<float>() + r * (vocab + 3);
          const int64_t wanted = std::min<int64_t>(k.view().As<int32_t>()[r], max_k);
          const auto expected = reference::TopLogprobs({row, row + vocab}, static_cast<size_t>(wanted));
          for (int64_t i = 0; i < max_k; ++i) {
            const int32_t id = top.As<int32_t>()[r * top.row_stride + i];
            const float found = logprobs.As<float>()[r * logprobs.row_stride + i];
            if (i >= static_cast<int64_t>(expected.size())) {
              ASSERT_EQ(id, -1) << "row " << r << " entry " << i;
              ASSERT_TRUE(std::isnan(found));
              continue;
            }
            ASSERT_EQ(id, expected[static_cast<size_t>(i)].first) << "row " << r << " entry " << i;
            ASSERT_NEAR(static_cast<double>(found), expected[static_cast<size_t>(i)].second, 1e-5);
          }
          if (wanted == 0) continue;
          EXPECT_EQ(top.As<int32_t>()[r * top.row_stride], greedy.view().As<int32_t>()[r]);
          EXPECT_EQ(logprobs.As<float>()[r * logprobs.row_stride], greedy_logprobs.view().As<float>()[r]);
          Tensor id(DType::kInt32, Device{}, {1, max_k}), value(DType::kFloat32, Device{}, {1, max_k});
          ops::TopLogprobs(one.ctx, id, value, logits.view().Rows(r, 1), k.view().Rows(r, 1), vocab);
          ExpectSameBits(id, top.Rows(r, 1));
          ExpectSameBits(value, logprobs.Rows(r, 1));
        }
      });
    }
  }
}

TEST(TopLogprobs, ExtremeAndBrokenRows) {
  Cpu cpu;
  const TopRows rows;
  ForEachIsa([&] {
    Tensor ids(DType::kInt32, Device{}, {TopRows::kRows, 4}),
        values(DType::kFloat32, Device{}, {TopRows::kRows, 4});
    ops::TopLogprobs(cpu.ctx, ids, values, rows.logits, rows.k, TopRows::kValid);
    rows.Expect(ids, values);
  });
}

TEST(TokenRanks, AgainstReferenceAndTopLogprobs) {
  Cpu one(1), four(4);
  std::mt19937 rng(8);
  for (int64_t vocab : {1, 2, 19, 33, 1000, 103424}) {
    for (float spread : {0.0f, 0.05f, 3.0f}) {
      const RankRows rows(rng, vocab, spread);
      Tensor ranks(DType::kInt32, Device{}, {RankRows::kRows});
      ForEachIsa([&] {
        ops::TokenRanks(four.ctx, ranks, rows.logits, Ids(rows.tokens), vocab);
        rows.Expect(ranks);
        Tensor alone(DType::kInt32, Device{}, {1});
        ops::TokenRanks(one.ctx, alone, rows.logits.view().Rows(9, 1), Ids({rows.tokens[9]}), vocab);
        EXPECT_EQ(alone.view().As<int32_t>()[0], ranks.view().As<int32_t>()[9]);
      });
      // The list's tokens have ranks 1, 2, ...
      Tensor ids(DType::kInt32, Device{}, {1, 32}), values(DType::kFloat32, Device{}, {1, 32});
      const TensorView row = rows.logits.view().Rows(8, 1);
      ops::TopLogprobs(one.ctx, ids, values, row, Ids({32}), vocab);
      for (int32_t i = 0; i < std::min<int64_t>(32, vocab); ++i) {
        Tensor rank(DType::kInt32, Device{}, {1});
        ops::TokenRanks(one.ctx, rank, row, Ids({ids.view().As<int32_t>()[i]}), vocab);
        EXPECT_EQ(rank.view().As<int32_t>()[0], i + 1);
      }
    }
  }
}

}  // namespace
}  // namespace fd
