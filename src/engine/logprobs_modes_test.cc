// What stands for how likely a token is: EngineOptions::logprobs_mode, temp_scaled_logprobs and
// top_p_normalized_logprobs through the engine, against a statement of them that knows no steps.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "engine/logit_model.h"
#include "engine/request_check.h"

namespace fd {
namespace {

constexpr int32_t kVocab = 61;
constexpr int32_t kSampled = 57;  // ids from here on are never drawn

// Of every token, by the last token and the length of the context alone. In steps, so that some are equal.
float Logit(int32_t last, int64_t context, int32_t token) {
  return static_cast<float>(LogitBits(last, context, token) & 0xff) / 32.0f - 4.0f;
}

struct Outcome {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  std::vector<std::vector<TokenLogprob>> top;
  std::vector<PromptLogprob> prompt;
};
using Outcomes = std::map<RequestId, Outcome>;

GenerateRequest Request(RequestId id) {
  GenerateRequest r;
  r.id = id;
  for (int64_t i = 0; i < 20 + static_cast<int64_t>(id) * 9; ++i)
    r.token_ids.push_back(static_cast<int32_t>((i * 11 + static_cast<int64_t>(id) * 5) % 40 + 3));
  r.sampling.max_tokens = 40;
  r.sampling.ignore_eos = true;
  r.sampling.seed = 77 * id;
  return r;
}

// with_fields false: the two fields are cleared.
std::vector<GenerateRequest> Requests(bool with_fields = true) {
  std::vector<GenerateRequest> all;
  const auto add = [&](float temperature, float top_p, int32_t top, bool scaled,
                       bool normalized) -> SamplingParams& {
    all.push_back(Request(all.size() + 1));
    SamplingParams& p = all.back().sampling;
    p.temperature = temperature;
    p.top_p = top_p;
    p.top_logprobs = top;
    p.temp_scaled_logprobs = scaled && with_fields;
    p.top_p_normalized_logprobs = normalized && with_fields;
    return p;
  };
  add(0.9f, 1, -1, true, true);  // nobody reads them
  add(0.7f, 0.9f, 0, false, false);
  add(1.8f, 1, 5, true, false);
  add(0.8f, 0.6f, 20, false, true);
  SamplingParams& both = add(0.6f, 0.9f, 7, true, true);
  both.repetition_penalty = 1.3f;
  both.presence_penalty = 0.5f;
  both.frequency_penalty = 0.25f;
  both.logit_bias = {{31, 2.5f}, {38, -100.0f}};
  add(0, 0.5f, 3, true, true);
  add(1.4f, 0.8f, 2, true, true).prompt_logprobs = 4;
  SamplingParams& narrow = add(1.6f, 0.95f, 10, true, true);
  narrow.allowed_token_ids = {2, 5, 6, 11, 13, 40, 41, 42};
  narrow.bad_words = {{6}, {13, 5}};
  narrow.frequency_penalty = 0.2f;
  add(1, 1, 0, true, true);
  SamplingParams& thought = add(1.2f, 0.7f, 2, true, true);
  thought.thinking = {10, 56, {24, 56}};
  add(2.5f, 0.3f, 20, false, true).top_k = 40;  // draws outside the reported nucleus too
  SamplingParams& other = add(0.3f, 0.7f, 4, false, false);
  other.presence_penalty = -1.5f;
  return all;
}

Outcomes RunAll(const EngineOptions& options, std::vector<GenerateRequest> requests) {
  Outcomes outcomes;
  RunOnEngine(std::make_unique<LogitModel>(Logit, kVocab), options, std::move(requests), [&](TokenEvent& e) {
    Outcome& o = outcomes[e.request_id];
    o.tokens.insert(o.tokens.end(), e.token_ids.begin(), e.token_ids.end());
    o.logprobs.insert(o.logprobs.end(), e.logprobs.begin(), e.logprobs.end());
    o.top.insert(o.top.end(), e.top_logprobs.begin(), e.top_logprobs.end());
    o.prompt.insert(o.prompt.end(), e.prompt_logprobs.begin(), e.prompt_logprobs.end());
    EXPECT_NE(e.finish_reason, FinishReason::kError) << e.error.message();
  });
  return outcomes;
}

EngineOptions Options(bool overlap, LogprobsMode mode, int64_t seqs = 16, int64_t batched = 512,
                      int64_t pages = 100) {
  EngineOptions o;
  o.overlap = overlap;
  o.max_model_len = 512;
  o.max_num_seqs = seqs;
  o.max_num_batched_tokens = batched;
  o.num_kv_pages = pages;
  o.sampled_vocab_size = kSampled;
  o.logprobs_mode = mode;
  return o;
}

std::vector<double> RawLogits(const std::vector<int32_t>& all) {
  std::vector<double> x;
  for (int32_t v = 0; v < kSampled; ++v)
    x.push_back(static_cast<double>(Logit(all.back(), static_cast<int64_t>(all.size()), v)));
  return x;
}

// After penalties, biases and bans, before the temperature.
std::vector<double> EditedLogits(const GenerateRequest& r, const std::vector<int32_t>& all) {
  const SamplingParams& p = r.sampling;
  std::vector<double> x = RawLogits(all);
  for (int32_t v = 0; v < kSampled; ++v) {
    double& y = x[static_cast<size_t>(v)];
    const auto generated =
        static_cast<double>(std::count(all.begin() + std::ssize(r.token_ids), all.end(), v));
    const double repetition = static_cast<double>(p.repetition_penalty);
    if (std::find(all.begin(), all.end(), v) != all.end()) y = y > 0 ? y / repetition : y * repetition;
    if (generated > 0)
      y -= static_cast<double>(p.presence_penalty) + generated * static_cast<double>(p.frequency_penalty);
    const std::vector<int32_t>& allowed = p.allowed_token_ids;
    if (!allowed.empty() && std::find(allowed.begin(), allowed.end(), v) == allowed.end()) y = -INFINITY;
  }
  for (const auto& [id, bias] : p.logit_bias) x[static_cast<size_t>(id)] += static_cast<double>(bias);
  for (const auto& word : p.bad_words) {
    if (std::equal(word.begin(), word.end() - 1, all.end() - std::ssize(word) + 1))
      x[static_cast<size_t>(word.back())] = -INFINITY;
  }
  return x;
}

std::vector<size_t> Order(const std::vector<double>& x) {
  std::vector<size_t> order(x.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return x[a] > x[b]; });
  return order;
}

// Of every token: what is reported of it.
std::vector<double> Values(const SamplingParams& p, LogprobsMode mode, std::vector<double> x) {
  const bool scaled = (p.temp_scaled_logprobs || IsProcessed(mode)) && p.temperature > 0;
  for (double& y : x) y /= scaled ? static_cast<double>(p.temperature) : 1.0;
  if (IsLogits(mode)) return x;
  double sum = 0, before = 0, kept = 0;
  for (double y : x) sum += std::exp(y);
  std::set<size_t> nucleus;
  for (size_t i : Order(x)) {
    const double top_p = p.top_p_normalized_logprobs ? static_cast<double>(p.top_p) : 1.0;
    if (!nucleus.empty() && top_p < 1 && before >= top_p * sum) break;
    before += std::exp(x[i]);
    kept += std::exp(x[i]);
    nucleus.insert(i);
  }
  for (size_t i = 0; i < x.size(); ++i) x[i] = nucleus.contains(i) ? x[i] - std::log(kept) : -INFINITY;
  return x;
}

bool Near(float found, double expected) {
  return static_cast<double>(found) == expected || std::abs(static_cast<double>(found) - expected) < 2e-5;
}

// The tokens are taken as they came; what was reported of them must be as stated.
void ExpectAsStated(const GenerateRequest& r, const Outcome& got, LogprobsMode mode) {
  SCOPED_TRACE(testing::Message() << "request " << r.id);
  const SamplingParams& p = r.sampling;
  ASSERT_EQ(std::ssize(got.tokens), p.max_tokens);
  ASSERT_EQ(got.top.size(), p.top_logprobs > 0 ? got.tokens.size() : 0u);
  std::vector<int32_t> all = r.token_ids;
  for (size_t i = 0; i < got.tokens.size() && p.top_logprobs >= 0; ++i) {
    SCOPED_TRACE(testing::Message() << "output " << i);
    const std::vector<double> x = IsProcessed(mode) ? EditedLogits(r, all) : RawLogits(all);
    const std::vector<double> values = Values(p, mode, x);
    const int64_t in_forced = static_cast<int64_t>(i) - p.thinking.max_tokens;
    if (p.thinking.max_tokens > 0 && in_forced >= 0 && in_forced < std::ssize(p.thinking.forced_ids)) {
      EXPECT_EQ(got.logprobs[i], 0.0f);  // it was certain
    } else {
      ASSERT_TRUE(Near(got.logprobs[i], values[static_cast<size_t>(got.tokens[i])]))
          << got.logprobs[i] << ", expected " << values[static_cast<size_t>(got.tokens[i])];
    }
    std::vector<size_t> listed;
    for (size_t id : Order(x)) {
      if (std::ssize(listed) < p.top_logprobs && x[id] > -INFINITY) listed.push_back(id);
    }
    if (p.top_logprobs > 0) {
      ASSERT_EQ(got.top[i].size(), listed.size());
      for (size_t k = 0; k < listed.size(); ++k) {
        ASSERT_EQ(got.top[i][k].token_id, static_cast<int32_t>(listed[k])) << k;
        ASSERT_TRUE(Near(got.top[i][k].logprob, values[listed[k]]))
            << k << ": " << got.top[i][k].logprob << ", expected " << values[listed[k]];
      }
    }
    all.push_back(got.tokens[i]);
  }
  ASSERT_EQ(got.prompt.size(), p.prompt_logprobs >= 0 ? r.token_ids.size() - 1 : 0u);
  for (size_t n = 0; n < got.prompt.size(); ++n) {
    SCOPED_TRACE(testing::Message() << "prompt " << n);
    const std::vector<double> x =
        RawLogits({r.token_ids.begin(), r.token_ids.begin() + static_cast<int64_t>(n) + 1});
    const std::vector<double> values =
        Values({}, IsLogits(mode) ? LogprobsMode::kRawLogits : LogprobsMode::kRawLogprobs, x);
    EXPECT_TRUE(Near(got.prompt[n].logprob, values[static_cast<size_t>(r.token_ids[n + 1])]));
    const std::vector<size_t> order = Order(x);
    ASSERT_EQ(std::ssize(got.prompt[n].top), p.prompt_logprobs);
    for (size_t k = 0; k < got.prompt[n].top.size(); ++k) {
      EXPECT_EQ(got.prompt[n].top[k].token_id, static_cast<int32_t>(order[k]));
      EXPECT_TRUE(Near(got.prompt[n].top[k].logprob, values[order[k]]));
    }
  }
}

constexpr LogprobsMode kModes[] = {LogprobsMode::kRawLogprobs, LogprobsMode::kProcessedLogprobs,
                                   LogprobsMode::kRawLogits, LogprobsMode::kProcessedLogits};

class Modes : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(PlainAndOverlapped, Modes, testing::Bool());

TEST_P(Modes, AsStatedWhateverTheBatchAndTheChunks) {
  const struct {
    int64_t seqs, batched, pages;
  } shapes[] = {{16, 2048, 100}, {1, 512, 10}, {5, 17, 40}, {12, 64, 9}};
  const Outcomes plain = RunAll(Options(GetParam(), LogprobsMode::kRawLogprobs), Requests(false));
  for (const LogprobsMode mode : kModes) {
    const std::vector<GenerateRequest> requests = Requests(!IsLogits(mode));
    for (const auto& shape : shapes) {
      SCOPED_TRACE(testing::Message() << "mode " << static_cast<int>(mode) << ", " << shape.seqs
                                      << " sequences, " << shape.batched << " tokens a step");
      const Outcomes got =
          RunAll(Options(GetParam(), mode, shape.seqs, shape.batched, shape.pages), requests);
      for (const GenerateRequest& r : requests) {
        ExpectAsStated(r, got.at(r.id), mode);
        // None of it changes what is drawn.
        EXPECT_EQ(got.at(r.id).tokens, plain.at(r.id).tokens);
      }
    }
  }
}

// Who asks for nothing new gets the bits that it gets without such neighbours.
TEST_P(Modes, NeighboursKeepTheirBits) {
  const EngineOptions options = Options(GetParam(), LogprobsMode::kRawLogprobs);
  const Outcomes plain = RunAll(options, Requests(false)), mixed = RunAll(options, Requests());
  int compared = 0;
  for (const GenerateRequest& r : Requests()) {
    const Outcome &a = plain.at(r.id), &b = mixed.at(r.id);
    EXPECT_EQ(a.tokens, b.tokens);
    if (r.sampling.temp_scaled_logprobs || r.sampling.top_p_normalized_logprobs) continue;
    ++compared;
    EXPECT_EQ(a.logprobs, b.logprobs);
    ASSERT_EQ(a.top.size(), b.top.size());
    for (size_t i = 0; i < a.top.size(); ++i) {
      for (size_t k = 0; k < a.top[i].size(); ++k) EXPECT_EQ(a.top[i][k].logprob, b.top[i][k].logprob);
    }
  }
  EXPECT_EQ(compared, 2);
}

// The statement must not be trivially true: each field and each mode changes what is reported.
TEST(ModesTest, EachChangesSomething) {
  const Outcomes plain = RunAll(Options(false, LogprobsMode::kRawLogprobs), Requests(false));
  const Outcomes fields = RunAll(Options(false, LogprobsMode::kRawLogprobs), Requests());
  for (const RequestId id : {3, 4, 5, 6, 7, 8, 10})
    EXPECT_NE(plain.at(id).logprobs, fields.at(id).logprobs) << id;
  for (const RequestId id : {2, 9, 12}) EXPECT_EQ(plain.at(id).logprobs, fields.at(id).logprobs) << id;
  for (const LogprobsMode mode : kModes) {
    if (mode == LogprobsMode::kRawLogprobs) continue;
    const Outcomes other = RunAll(Options(false, mode), Requests(false));
    for (const RequestId id : {2, 3, 5, 8, 12}) EXPECT_NE(plain.at(id).logprobs, other.at(id).logprobs) << id;
  }
}

TEST(ModesTest, LogitsAreNotScaledOrNormalised) {
  const LogitModel model(Logit, kVocab);
  for (const LogprobsMode mode : kModes) {
    const EngineOptions options = Options(false, mode);
    const auto param = [&](bool scaled, bool normalized, int32_t top) {
      GenerateRequest r = Request(1);
      r.sampling.top_logprobs = top;
      r.sampling.temp_scaled_logprobs = scaled;
      r.sampling.top_p_normalized_logprobs = normalized;
      const Status s = CheckRequest(r, model.config(), options);
      return s.ok() ? "ok" : s.param();
    };
    EXPECT_EQ(param(false, false, 5), "ok");
    EXPECT_EQ(param(true, true, -1), "ok");
    EXPECT_EQ(param(true, false, 0), IsLogits(mode) ? "temp_scaled_logprobs" : "ok");
    EXPECT_EQ(param(false, true, 3), IsLogits(mode) ? "top_p_normalized_logprobs" : "ok");
  }
}

}  // namespace
}  // namespace fd
