// Rows for tests of ScoreTokens, on any device: parameters of every kind, broken rows, and what must come
// out.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/parity/sampling.h"

namespace fd::parity {

// Row r of logits [kRows, vocab + 3]; the columns from vocab on are the largest and may not count. Logits go
// in steps, so that many are equal.
struct ScoreRows {
  enum {
    kPlain,
    kHot,
    kCold,
    kNucleus,
    kBoth,
    kNarrow,
    kUnwanted,
    kNan,
    kInfinity,
    kBanned,
    kNothing,
    kRows
  };
  static constexpr int64_t kListed = 9;

  ScoreRows(std::mt19937& rng, int64_t vocab, float spread)
      : vocab(vocab),
        logits(Random(rng, DType::kFloat32, {kRows, vocab + 3}, spread)),
        drawn(DType::kInt32, Device{}, {kRows, 1}),
        listed(DType::kInt32, Device{}, {kRows, kListed + 2}),
        wanted(DType::kInt32, Device{}, {kRows}),
        temperature(DType::kFloat32, Device{}, {kRows}),
        top_p(DType::kFloat32, Device{}, {kRows}) {
    for (int64_t i = 0; i < logits.view().NumElements(); ++i) {
      float& x = logits.view().As<float>()[i];
      x = i % (vocab + 3) >= vocab ? 1e6f : std::round(x * 64) / 64;
    }
    const auto random_id = [&] { return static_cast<int32_t>(rng() % static_cast<uint32_t>(vocab)); };
    const float temperatures[kRows] = {1, 1.9f, 0.3f, 1, 0.7f, 2.5f, 0.5f, 0.5f, 0.5f, 1.5f, 1.5f};
    const float top_ps[kRows] = {1, 1, 1, 0.8f, 0.6f, 1e-5f, 0.5f, 0.5f, 0.9f, 0.9f, 0.9f};
    for (int r = 0; r < kRows; ++r) {
      wanted.view().As<int32_t>()[r] = r == kUnwanted ? 0 : 1;
      temperature.view().As<float>()[r] = temperatures[r];
      top_p.view().As<float>()[r] = top_ps[r];
      drawn.view().As<int32_t>()[r] = random_id();
      int32_t* ids = listed.view().As<int32_t>() + r * (kListed + 2) + 1;
      for (int64_t i = 0; i < kListed; ++i) ids[i] = random_id();
      // The likeliest, both ends, and three that are no tokens.
      ids[0] = static_cast<int32_t>(std::max_element(Row(r), Row(r) + vocab) - Row(r));
      ids[1] = 0;
      ids[2] = static_cast<int32_t>(vocab) - 1;
      ids[3] = -1;
      ids[4] = static_cast<int32_t>(vocab);
      ids[5] = static_cast<int32_t>(vocab) + 2;
    }
    Row(kNan)[vocab / 2] = NAN;
    Row(kInfinity)[vocab / 3] = INFINITY;
    for (int64_t i = 0; i < vocab; i += 2) Row(kBanned)[i] = -INFINITY;
    std::fill_n(Row(kNothing), vocab, -INFINITY);
  }
  float* Row(int r) const { return logits.view().As<float>() + r * (vocab + 3); }
  ops::ScoreParams Params(bool as_logits) const { return {wanted, temperature, top_p, as_logits}; }
  ops::ScoreParams ParamsOfRow(int64_t r, bool as_logits) const {
    return {wanted.view().Rows(r, 1), temperature.view().Rows(r, 1), top_p.view().Rows(r, 1), as_logits};
  }

  // drawn_scores [kRows, 1], listed_scores [kRows, kListed], which held kUntouched.
  static constexpr float kUntouched = 123;
  void Expect(const TensorView& drawn_scores, const TensorView& listed_scores, bool as_logits) const {
    for (int r = 0; r < kRows; ++r) {
      SCOPED_TRACE(testing::Message() << "row " << r << (as_logits ? ", logits" : ""));
      const float t = temperature.view().As<float>()[r], p = top_p.view().As<float>()[r];
      std::vector<float> row(Row(r), Row(r) + vocab);
      for (float& x : row)
        x = std::fmin(x, 3.4028234663852886e38f);  // keeps -infinity; NaN is looked at below
      const std::vector<double> logprobs =
          reference::Logprobs(row, static_cast<double>(t), static_cast<double>(p));
      const auto expect = [&](int32_t id, float found) {
        SCOPED_TRACE(testing::Message() << "token " << id << ": " << found);
        if (r == kUnwanted) {
          EXPECT_EQ(found, kUntouched);
        } else if (id < 0 || id >= vocab || r == kNan) {
          EXPECT_TRUE(std::isnan(found));
        } else if (as_logits) {
          EXPECT_EQ(found, Row(r)[id] / t);
        } else if (std::isinf(Row(r)[id]) && Row(r)[id] < 0) {
          EXPECT_EQ(found, -INFINITY);
        } else {
          const double expected = logprobs[static_cast<size_t>(id)];
          EXPECT_TRUE(static_cast<double>(found) == static_cast<double>(static_cast<float>(expected)) ||
                      std::abs(static_cast<double>(found) - expected) <= 1e-5 + 1e-6 * std::abs(expected))
              << "expected " << expected;
        }
      };
      expect(drawn.view().As<int32_t>()[r], drawn_scores.As<float>()[r * drawn_scores.row_stride]);
      for (int64_t i = 0; i < kListed; ++i) {
        expect(listed.view().As<int32_t>()[r * (kListed + 2) + 1 + i],
               listed_scores.As<float>()[r * listed_scores.row_stride + i]);
      }
    }
  }

  int64_t vocab;
  Tensor logits, drawn, listed;  // listed: kListed columns of something wider
  Tensor wanted, temperature, top_p;
};

// Where scores go; columns of something wider.
struct ScoreOutputs {
  ScoreOutputs()
      : drawn(DType::kFloat32, Device{}, {ScoreRows::kRows, 1}),
        listed(DType::kFloat32, Device{}, {ScoreRows::kRows, ScoreRows::kListed + 4}) {
    for (const Tensor* t : {&drawn, &listed})
      std::fill_n(t->view().As<float>(), t->view().NumElements(), ScoreRows::kUntouched);
  }
  ops::TokenScores Drawn(const ScoreRows& rows) const { return {rows.drawn, drawn}; }
  ops::TokenScores DrawnRow(const ScoreRows& rows, int64_t r) const {
    return {rows.drawn.view().Rows(r, 1), drawn.view().Rows(0, 1)};
  }
  ops::TokenScores Listed(const ScoreRows& rows) const {
    return {rows.listed.view().Columns(1, ScoreRows::kListed), listed.view().Columns(1, ScoreRows::kListed)};
  }
  Tensor drawn, listed;
};

}  // namespace fd::parity
