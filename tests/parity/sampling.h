// Parameters of sampling tests and the golden distributions of tests/golden/sampling.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "compute/kernels/reference/sample.h"
#include "compute/ops/sample.h"
#include "tests/parity/parity.h"

namespace fd::parity {

struct Params {
  float temperature = 1;
  int32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
};

// The device tensors of `rows` rows with the same parameters; seed 17, positions 0, 1, ...
struct ParamTensors {
  ParamTensors(int64_t rows, const Params& p)
      : temperature(DType::kFloat32, Device{}, {rows}),
        top_k(DType::kInt32, Device{}, {rows}),
        top_p(DType::kFloat32, Device{}, {rows}),
        min_p(DType::kFloat32, Device{}, {rows}),
        seed(DType::kInt64, Device{}, {rows}),
        position(DType::kInt64, Device{}, {rows}) {
    for (int64_t r = 0; r < rows; ++r) {
      temperature.view().As<float>()[r] = p.temperature;
      top_k.view().As<int32_t>()[r] = p.top_k;
      top_p.view().As<float>()[r] = p.top_p;
      min_p.view().As<float>()[r] = p.min_p;
      seed.view().As<int64_t>()[r] = 17;
      position.view().As<int64_t>()[r] = r;
    }
  }
  operator ops::SampleParams() const { return {temperature, top_k, top_p, min_p, seed, position}; }
  Tensor temperature, top_k, top_p, min_p, seed, position;
};

// Raw bytes of the tensors of tests/golden/sampling/vectors.safetensors.
struct Golden {
  Golden() {
    std::ifstream file("tests/golden/sampling/vectors.safetensors", std::ios::binary);
    std::stringstream all;
    all << file.rdbuf();
    bytes = all.str();
    uint64_t length = 0;
    FD_CHECK(bytes.size() > 8, "run from the source root");
    std::memcpy(&length, bytes.data(), 8);
    header = ParseJson(std::string_view(bytes).substr(8, length)).value();
    base = 8 + length;
    cases = ReadJsonFile("tests/golden/sampling/vectors.json").value();
  }
  template <typename T>
  std::vector<T> Read(const std::string& name) const {
    const Json* entry = header.Find(name);
    FD_CHECK(entry != nullptr, name);
    const JsonArray& span = entry->Find("data_offsets")->as_array();
    const size_t begin = static_cast<size_t>(span[0].as_int()), end = static_cast<size_t>(span[1].as_int());
    std::vector<T> out((end - begin) / sizeof(T));
    std::memcpy(out.data(), bytes.data() + base + begin, end - begin);
    return out;
  }
  std::string bytes;
  size_t base = 0;
  Json header, cases;
};

// What a row has seen and what that does to its logits.
struct History {
  std::vector<int32_t> prompt, output;
  float repetition = 1, presence = 0, frequency = 0;
  std::vector<std::pair<int32_t, float>> biases;
};

// The tensors of ApplyPenalties for rows of which row r has slot r; histories without penalties have none.
struct PenaltyTensors {
  explicit PenaltyTensors(const std::vector<History>& histories) {
    const auto rows = static_cast<int64_t>(histories.size());
    size_t entries = 0;
    for (const History& h : histories) entries += h.biases.size();
    for (Tensor* t : {&repetition, &presence, &frequency}) *t = Tensor(DType::kFloat32, Device{}, {rows});
    slots = Tensor(DType::kInt32, Device{}, {rows});
    bias_offsets = Tensor(DType::kInt32, Device{}, {rows + 1});
    bias_ids = Tensor(DType::kInt32, Device{}, {static_cast<int64_t>(entries)});
    bias_values = Tensor(DType::kFloat32, Device{}, {static_cast<int64_t>(entries)});
    int32_t next = 0;
    for (int64_t r = 0; r < rows; ++r) {
      const History& h = histories[static_cast<size_t>(r)];
      const bool neutral = h.repetition == 1 && h.presence == 0 && h.frequency == 0;
      slots.view().As<int32_t>()[r] = neutral ? -1 : static_cast<int32_t>(r);
      repetition.view().As<float>()[r] = h.repetition;
      presence.view().As<float>()[r] = h.presence;
      frequency.view().As<float>()[r] = h.frequency;
      for (const auto& [id, bias] : h.biases) {
        bias_ids.view().As<int32_t>()[next] = id;
        bias_values.view().As<float>()[next++] = bias;
      }
      bias_offsets.view().As<int32_t>()[r + 1] = next;
    }
  }
  operator ops::PenaltyParams() const {
    return {slots, repetition, presence, frequency, bias_offsets, bias_ids, bias_values};
  }
  Tensor slots, repetition, presence, frequency, bias_offsets, bias_ids, bias_values;
};

// Rows with every kind of penalty and bias, tokens repeated and outside the vocabulary among them.
inline std::vector<History> SomeHistories(std::mt19937& rng, int64_t vocab) {
  std::vector<History> rows(9);
  const auto n = static_cast<int32_t>(vocab);
  for (size_t r = 0; r < rows.size(); ++r) {
    for (int i = 0; i < 40; ++i)
      rows[r].prompt.push_back(static_cast<int32_t>(rng() % static_cast<uint32_t>(n)));
    for (int i = 0; i < 30; ++i)
      rows[r].output.push_back(static_cast<int32_t>(rng() % static_cast<uint32_t>(n)));
    for (int i = 0; i < 300; ++i) rows[r].output.push_back(n / 2);
    rows[r].prompt.insert(rows[r].prompt.end(), {n, -1, n + 1000, 0});
    rows[r].output.insert(rows[r].output.end(), {n, -1, n + 1000, n - 1});
  }
  rows[1].repetition = 1.3f;
  rows[2].presence = 0.7f;
  rows[3].frequency = -1.9f;
  rows[4].biases = {{0, 1.5f}};
  if (n > 1) rows[4].biases.emplace_back(n - 1, -100);  // a token has one bias
  rows[5].repetition = 0.6f;
  rows[5].presence = -2;
  rows[5].frequency = 0.013f;
  rows[6].repetition = 2;
  rows[6].biases = {{n / 2, -INFINITY}, {n, 5}, {-1, 5}};
  rows[8] = {{}, {}, 1.1f, 1, 1, {}};
  if (vocab > 2) {  // several blocks' worth of biases
    for (int32_t i = 0; i < std::min(n, 3000); i += 2)
      rows[7].biases.emplace_back(i, 0.001f * static_cast<float>(i));
    rows[7].frequency = 0.3f;
  }
  return rows;
}

// Rows with many equal logits and columns beyond the valid ones, and tokens of them from everywhere.
struct RankRows {
  RankRows(std::mt19937& rng, int64_t valid, float spread)
      : valid(valid), logits(Random(rng, DType::kFloat32, {kRows, valid + 3}, spread)) {
    for (int64_t i = 0; i < logits.view().NumElements(); ++i) {
      float& x = logits.view().As<float>()[i];
      x = i % (valid + 3) >= valid ? 1e6f : std::round(x * 64) / 64;
    }
    for (int64_t r = 0; r < kRows; ++r) {
      tokens.push_back(static_cast<int32_t>(rng() % static_cast<uint32_t>(valid)));
    }
    tokens[0] = 0;
    tokens[1] = static_cast<int32_t>(valid) - 1;
    tokens[2] = static_cast<int32_t>(valid);  // three without a rank
    tokens[3] = -1;
    logits.view().As<float>()[4 * (valid + 3) + valid / 2] = NAN;
    logits.view().As<float>()[5 * (valid + 3) + valid + 1] = NAN;  // nobody looks there
    for (const int64_t at : {valid / 3, valid / 2})
      logits.view().As<float>()[6 * (valid + 3) + at] = INFINITY;
    tokens[6] = static_cast<int32_t>(valid / 2);
    std::fill_n(logits.view().As<float>() + 7 * (valid + 3), valid, -INFINITY);
  }
  void Expect(const TensorView& ranks) const {
    for (int64_t r = 0; r < kRows; ++r) {
      const float* row = logits.view().As<float>() + r * (valid + 3);
      const int32_t token = tokens[static_cast<size_t>(r)];
      const int32_t expected =
          r >= 2 && r <= 4 ? 0 : reference::TokenRank({row, row + valid}, static_cast<size_t>(token));
      ASSERT_EQ(ranks.As<int32_t>()[r], expected) << "row " << r << " token " << token << " of " << valid;
    }
  }
  static constexpr int64_t kRows = 40;
  int64_t valid;
  Tensor logits;
  std::vector<int32_t> tokens;
};

inline Tensor Ids(const std::vector<int32_t>& ids) {
  Tensor t(DType::kInt32, Device{}, {static_cast<int64_t>(ids.size())});
  std::copy(ids.begin(), ids.end(), t.view().As<int32_t>());
  return t;
}

// Allowed tokens of rows: none said (all), one, the ends, many, everything, and ids outside the vocabulary.
struct AllowedTokens {
  AllowedTokens(std::mt19937& rng, int64_t rows, int64_t vocab) : lists(static_cast<size_t>(rows)) {
    const auto n = static_cast<int32_t>(vocab);
    for (size_t r = 0; r < lists.size(); ++r) {
      std::vector<int32_t>& list = lists[r];
      switch (r % 6) {
        case 0:
          break;
        case 1:
          list = {n / 2};
          break;
        case 2:
          list = {0, n - 1};
          break;
        case 3:
          for (int i = 0; i < 1024; ++i)
            list.push_back(static_cast<int32_t>(rng() % static_cast<uint32_t>(n)));
          break;
        case 4:
          for (int32_t i = 0; i < n; ++i) list.push_back(i);
          break;
        default:
          list = {-7, n / 3, n, n + 1000};
      }
      std::sort(list.begin(), list.end());
      list.erase(std::unique(list.begin(), list.end()), list.end());
    }
    std::vector<int32_t> ends = {0}, all;
    for (const auto& list : lists) {
      all.insert(all.end(), list.begin(), list.end());
      ends.push_back(static_cast<int32_t>(all.size()));
    }
    offsets = Tensor(DType::kInt32, Device{}, {rows + 1});
    std::copy(ends.begin(), ends.end(), offsets.view().As<int32_t>());
    ids = Tensor(DType::kInt32, Device{}, {static_cast<int64_t>(all.size())});
    std::copy(all.begin(), all.end(), ids.view().As<int32_t>());
  }
  bool Allows(int64_t row, int64_t token) const {
    const auto& list = lists[static_cast<size_t>(row)];
    return list.empty() || std::binary_search(list.begin(), list.end(), static_cast<int32_t>(token));
  }
  std::vector<std::vector<int32_t>> lists;
  Tensor offsets, ids;
};

// Bans with and without a condition, on top of biases, on rows whose last tokens lie anywhere in the step.
struct BanCase {
  static constexpr int64_t kRows = 4, kTokens = 5000;  // more than one block of the CUDA kernel
  BanCase()
      : logits(DType::kFloat32, Device{}, {kRows, kTokens}),
        seen(DType::kInt32, Device{}, {1, kTokens}),
        edits(std::vector<History>{{{}, {}, 1, 0, 0, {{3, 2.0f}, {4, 1.0f}, {4999, 5.0f}}}, {}, {}, {}}),
        ban_offsets(Ids({0, 6, 8, 8, 10})),
        ban_ids(Ids({3, 3, 4, 4998, -1, 5000, 7, 8, 9, 9})),
        ban_after(Ids({-1, 11, 12, 11, -1, -1, 21, 22, 40, 41})),
        tokens(Ids({90, 11, 91, 92, 22, 23, 41})),
        token_rows(Ids({1, 4, 5, 6})) {
    std::fill_n(logits.view().As<float>(), kRows * kTokens, 1.0f);
    logits.view().As<float>()[3 * kTokens + 9] = NAN;
    std::fill_n(seen.view().As<int32_t>(), kTokens, 0);
  }
  ops::PenaltyParams Params() const {
    ops::PenaltyParams p = edits;
    p.ban_offsets = ban_offsets;
    p.ban_ids = ban_ids;
    p.ban_after = ban_after;
    p.tokens = tokens;
    p.token_rows = token_rows;
    return p;
  }
  void Expect(const TensorView& got) const {
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t i = 0; i < kTokens; ++i) {
        float expected = 1;
        if (r == 0 && (i == 3 || i == 4998)) expected = -INFINITY;
        if (r == 0 && i == 4) expected = 2;
        if (r == 0 && i == 4999) expected = 6;
        if (r == 1 && i == 8) expected = -INFINITY;
        if (r == 3 && i == 9) {  // what is no number stays so
          ASSERT_TRUE(std::isnan(got.As<float>()[r * kTokens + i]));
          continue;
        }
        ASSERT_EQ(got.As<float>()[r * kTokens + i], expected) << "row " << r << " token " << i;
      }
    }
  }
  Tensor logits, seen;
  PenaltyTensors edits;
  Tensor ban_offsets, ban_ids, ban_after, tokens, token_rows;
};

// The parameters of a golden case.
struct GoldenCase {
  explicit GoldenCase(const Json& c) {
    const auto ids = [](const Json& list) {
      std::vector<int32_t> out;
      for (const Json& id : list.as_array()) out.push_back(static_cast<int32_t>(id.as_int()));
      return out;
    };
    history.prompt = ids(*c.Find("prompt"));
    history.output = ids(*c.Find("output"));
    std::vector<int32_t> banned;
    for (const auto& [key, value] : c.Find("params")->as_object()) {
      if (key == "temperature") {
        params.temperature = static_cast<float>(value.as_double());
      } else if (key == "top_k") {
        params.top_k = static_cast<int32_t>(value.as_int());
      } else if (key == "top_p") {
        params.top_p = static_cast<float>(value.as_double());
      } else if (key == "min_p") {
        params.min_p = static_cast<float>(value.as_double());
      } else if (key == "repetition_penalty") {
        history.repetition = static_cast<float>(value.as_double());
      } else if (key == "presence_penalty") {
        history.presence = static_cast<float>(value.as_double());
      } else if (key == "frequency_penalty") {
        history.frequency = static_cast<float>(value.as_double());
      } else if (key == "logit_bias") {
        for (const auto& [token, bias] : value.as_object()) {
          history.biases.emplace_back(std::stoi(token), static_cast<float>(bias.as_double()));
        }
      } else if (key == "bad_words") {
        for (const Json& word : value.as_array()) Ban(ids(word), &banned);
      } else if (key == "eos") {
        const Json* min_tokens = c.Find("params")->Find("min_tokens");
        if (min_tokens != nullptr && static_cast<int64_t>(history.output.size()) < min_tokens->as_int()) {
          for (int32_t id : ids(value)) banned.push_back(id);
        }
      } else {
        FD_CHECK(key == "min_tokens", key);
      }
    }
    for (int32_t id : banned) {
      std::erase_if(history.biases, [id](const auto& bias) { return bias.first == id; });
      history.biases.emplace_back(id, -INFINITY);
    }
    edits =
        history.repetition != 1 || history.presence != 0 || history.frequency != 0 || !history.biases.empty();
  }
  // The last token of a word is banned where the ones before it have just been said.
  void Ban(const std::vector<int32_t>& word, std::vector<int32_t>* banned) const {
    std::vector<int32_t> said = history.prompt;
    said.insert(said.end(), history.output.begin(), history.output.end());
    const size_t before = word.size() - 1;
    if (before <= said.size() &&
        std::equal(word.begin(), word.end() - 1, said.end() - static_cast<long>(before))) {
      banned->push_back(word.back());
    }
  }
  Params params;
  History history;
  bool edits = false;  // something changes the logits before the distribution is formed
};

// A row of NaN, infinities and limits of float32, all of it generated once, and what penalties make of it.
struct ExtremeLogits {
  static constexpr int64_t kTokens = 10;
  ExtremeLogits()
      : logits(DType::kFloat32, Device{}, {1, kTokens}),
        all_ids(Ids({0, 1, 2, 3, 4, 5, 6, 7, 8, 9})),
        params(std::vector<History>{
            {{},
             {},
             2,
             1,
             0.5f,
             {{1, 3}, {2, -INFINITY}, {4, -INFINITY}, {6, -INFINITY}, {8, INFINITY}, {9, NAN}}}}) {
    const float largest = 3.4028234663852886e38f;
    const float values[kTokens] = {NAN, INFINITY, INFINITY, -INFINITY, NAN, largest, -largest, -0.0f, 1, 1};
    std::copy(values, values + kTokens, logits.view().As<float>());
  }
  void Expect(const TensorView& found) const {
    const float expected[kTokens] = {NAN,       INFINITY, -INFINITY, -INFINITY, NAN, 1.7014117331926443e38f,
                                     -INFINITY, -1.5f,    INFINITY,  NAN};
    for (int64_t i = 0; i < kTokens; ++i) {
      const float x = found.As<float>()[i];
      EXPECT_TRUE(std::isnan(expected[i]) ? std::isnan(x) : x == expected[i])
          << "token " << i << ": " << x << ", expected " << expected[i];
    }
  }
  Tensor logits, all_ids;
  PenaltyTensors params;
};

// Rows for TopLogprobs with NaN and infinities, 4 tokens each, and what must come out.
struct TopRows {
  enum { kNan, kNothing, kTwo, kInfinity, kNanBeyond, kHuge, kZeros, kRows };
  static constexpr int64_t kVocab = 75, kValid = 70;
  TopRows() : logits(DType::kFloat32, Device{}, {kRows, kVocab}), k(DType::kInt32, Device{}, {kRows}) {
    std::fill_n(logits.view().As<float>(), kRows * kVocab, -INFINITY);
    std::fill_n(k.view().As<int32_t>(), kRows, 4);
    Row(kNan)[3] = 1;
    Row(kNan)[69] = NAN;
    Row(kTwo)[69] = -1e30f;
    Row(kTwo)[0] = -1e30f;
    std::fill_n(Row(kInfinity), 10, 1.0f);
    Row(kInfinity)[60] = Row(kInfinity)[33] = INFINITY;
    Row(kInfinity)[50] = 3.4028234663852886e38f;
    Row(kNanBeyond)[7] = 5;
    Row(kNanBeyond)[72] = NAN;
    Row(kNanBeyond)[71] = 100;
    std::fill_n(Row(kHuge), kValid, -3.4028234663852886e38f);
    Row(kHuge)[20] = 3.4028234663852886e38f;
    std::fill_n(Row(kZeros), kValid, -1.0f);
    Row(kZeros)[5] = -0.0f;
    Row(kZeros)[9] = 0.0f;
    Row(kZeros)[2] = -0.0f;
  }
  float* Row(int r) const { return logits.view().As<float>() + r * kVocab; }
  void Expect(const TensorView& ids, const TensorView& values) const {
    const std::vector<int32_t> expected[kRows] = {
        {}, {}, {0, 69}, {33, 50, 60, 0}, {7}, {20, 0, 1, 2}, {2, 5, 9, 0}};
    const float half = std::log(0.5f), third = -std::log(3 + 67 * std::exp(-1.0f));
    const std::vector<float> logprobs[kRows] = {
        {},
        {},
        {half, half},
        {-std::log(3.0f), -std::log(3.0f), -std::log(3.0f), -3.4028234663852886e38f},
        {0},
        {0, -INFINITY, -INFINITY, -INFINITY},
        {third, third, third, third - 1}};
    for (int r = 0; r < kRows; ++r) {
      for (size_t i = 0; i < 4; ++i) {
        SCOPED_TRACE(testing::Message() << "row " << r << " entry " << i);
        const int32_t id = ids.As<int32_t>()[r * 4 + static_cast<int>(i)];
        const float value = values.As<float>()[r * 4 + static_cast<int>(i)];
        if (i >= expected[r].size()) {
          EXPECT_EQ(id, -1);
          EXPECT_TRUE(std::isnan(value));
          continue;
        }
        EXPECT_EQ(id, expected[r][i]);
        EXPECT_TRUE(value == logprobs[r][i] || std::abs(value - logprobs[r][i]) <= 2e-6f)
            << value << ", expected " << logprobs[r][i];
      }
    }
  }
  Tensor logits, k;
};

}  // namespace fd::parity
