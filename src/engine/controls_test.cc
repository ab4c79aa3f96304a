// Penalties, biases, bans, min_tokens and log-probabilities through the engine, against a statement of the
// rules that knows no steps: whatever the batch, the chunks, a preemption and the kind of loop.
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

constexpr int32_t kVocab = 61, kEnd = kEndToken;

// Logits of every token, by the last token and the length of the context alone.
float Logit(int32_t last, int64_t context, int32_t token) {
  // A favourite, so that without penalties a sequence repeats itself.
  return static_cast<float>(LogitBits(last, context, token) & 0xffff) / 16384.0f - 2.0f +
         (token % 7 == 3 ? 2.0f : 0.0f);
}

struct Outcome {
  Status error;
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  std::vector<std::vector<TokenLogprob>> top;
  bool finished = false;
};

// What a thinking budget puts after these generated tokens; -1: nothing.
int32_t Forced(const ThinkingBudget& budget, const std::vector<int32_t>& output) {
  const int64_t index = std::ssize(output) - budget.max_tokens;
  if (budget.max_tokens == 0 || index < 0 || index >= std::ssize(budget.forced_ids)) return -1;
  const auto end = output.begin() + budget.max_tokens;
  if (std::find(output.begin(), end, budget.end_token_id) != end) return -1;
  return budget.forced_ids[static_cast<size_t>(index)];
}

// The rules once more, in double, for a greedy request.
Outcome Expected(const GenerateRequest& request) {
  const SamplingParams& p = request.sampling;
  std::vector<int32_t> all = request.token_ids, output;
  Outcome out;
  while (static_cast<int64_t>(output.size()) < p.max_tokens) {
    std::vector<double> raw, x;
    for (int32_t v = 0; v < kVocab; ++v)
      raw.push_back(static_cast<double>(Logit(all.back(), static_cast<int64_t>(all.size()), v)));
    x = raw;
    for (int32_t v = 0; v < kVocab; ++v) {
      double& y = x[static_cast<size_t>(v)];
      const auto count = static_cast<double>(std::count(output.begin(), output.end(), v));
      const double r = static_cast<double>(p.repetition_penalty);
      if (std::find(all.begin(), all.end(), v) != all.end()) y = y > 0 ? y / r : y * r;
      if (count > 0)
        y -= static_cast<double>(p.presence_penalty) + count * static_cast<double>(p.frequency_penalty);
    }
    for (const auto& [id, bias] : p.logit_bias) x[static_cast<size_t>(id)] += static_cast<double>(bias);
    if (!p.allowed_token_ids.empty()) {
      for (int32_t v = 0; v < kVocab; ++v) {
        if (std::find(p.allowed_token_ids.begin(), p.allowed_token_ids.end(), v) == p.allowed_token_ids.end())
          x[static_cast<size_t>(v)] = -INFINITY;
      }
    }
    const auto ban = [&](int32_t id) { x[static_cast<size_t>(id)] = -INFINITY; };
    for (const auto& word : p.bad_words) {
      const size_t before = word.size() - 1;
      if (before <= all.size() &&
          std::equal(word.begin(), word.end() - 1, all.end() - static_cast<long>(before)))
        ban(word.back());
    }
    if (static_cast<int64_t>(output.size()) < p.min_tokens) {
      for (int32_t id : p.stop_token_ids) ban(id);
      if (!p.ignore_eos) ban(kEnd);
    }
    auto token = static_cast<int32_t>(std::max_element(x.begin(), x.end()) - x.begin());
    const int32_t forced = Forced(p.thinking, output);
    if (forced >= 0) token = forced;
    double sum = 0;
    for (double y : raw) sum += std::exp(y);
    // A forced token was certain, also where the draw agrees with it.
    out.logprobs.push_back(forced >= 0 ? 0.0f
                                       : static_cast<float>(raw[static_cast<size_t>(token)] - std::log(sum)));
    std::vector<int32_t> order(kVocab);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return raw[static_cast<size_t>(a)] > raw[static_cast<size_t>(b)];
    });
    out.top.emplace_back();
    for (int32_t i = 0; i < p.top_logprobs; ++i) {
      const int32_t id = order[static_cast<size_t>(i)];
      out.top.back().push_back({id, static_cast<float>(raw[static_cast<size_t>(id)] - std::log(sum))});
    }
    all.push_back(token);
    output.push_back(token);
    const bool stop =
        std::find(p.stop_token_ids.begin(), p.stop_token_ids.end(), token) != p.stop_token_ids.end();
    if (stop || (!p.ignore_eos && token == kEnd)) break;
  }
  out.tokens = output;
  return out;
}

GenerateRequest Request(RequestId id, int64_t prompt_tokens, int64_t max_tokens) {
  GenerateRequest r;
  r.id = id;
  for (int64_t i = 0; i < prompt_tokens; ++i)
    r.token_ids.push_back(static_cast<int32_t>((i * 11 + static_cast<int64_t>(id) * 5) % 40 + 3));
  r.sampling.temperature = 0;
  r.sampling.max_tokens = max_tokens;
  r.sampling.ignore_eos = true;
  return r;
}

// One of everything, and everything at once.
std::vector<GenerateRequest> Requests() {
  std::vector<GenerateRequest> all;
  const auto add = [&](int64_t prompt, int64_t tokens) -> SamplingParams& {
    all.push_back(Request(all.size() + 1, prompt, tokens));
    return all.back().sampling;
  };
  add(40, 150);
  add(70, 120).repetition_penalty = 1.6f;
  add(1, 190).presence_penalty = 1.5f;
  add(33, 160).frequency_penalty = 0.7f;
  add(130, 40).logit_bias = {{5, 3.0f}, {10, -100.0f}, {17, 1.0f}};
  add(20, 170).bad_words = {{3}, {10}, {17, 24}, {24, 24}, {31, 31, 31}};
  add(64, 50).top_logprobs = 0;
  add(65, 50).top_logprobs = 5;
  SamplingParams& everything = add(129, 80);
  everything.repetition_penalty = 1.2f;
  everything.presence_penalty = 0.5f;
  everything.frequency_penalty = 0.25f;
  everything.logit_bias = {{31, 2.5f}, {38, 2.0f}};
  everything.bad_words = {{31, 38}, {38, 38}, {45}, {52, 31}};
  everything.top_logprobs = 20;
  SamplingParams& ends = add(9, 60);
  ends.ignore_eos = false;
  ends.logit_bias = {{kEnd, 50.0f}};  // would be drawn at once
  ends.min_tokens = 7;
  ends.top_logprobs = 2;
  SamplingParams& stops = add(30, 60);
  stops.stop_token_ids = {3, 10, 17, 24, 31, 38, 45, 52, 59};
  stops.min_tokens = 25;
  add(50, 30).repetition_penalty = 0.7f;
  add(31, 90).allowed_token_ids = {0, 7, 8, 9, 33, 60};
  SamplingParams& narrow = add(66, 70);
  narrow.allowed_token_ids = {2, 5, 6, 11, 13, 40};
  narrow.repetition_penalty = 1.4f;
  narrow.frequency_penalty = 0.2f;
  narrow.logit_bias = {{5, 1.5f}, {30, 100.0f}, {2, 9.0f}};  // 30 stays banned
  narrow.bad_words = {{6}, {13, 5}, {11, 11}};
  narrow.min_tokens = 12;
  narrow.ignore_eos = false;
  narrow.top_logprobs = 4;
  add(12, 20).allowed_token_ids = {50};
  // What is counted is what stands there, not what was drawn in its place.
  SamplingParams& thought = add(40, 90);
  thought.frequency_penalty = 2.0f;
  thought.presence_penalty = 2.0f;
  thought.thinking = {20, 58, {10, 10, 17, 10, 10, 58, 10}};
  SamplingParams& closed = add(63, 70);
  closed.repetition_penalty = 2.5f;
  closed.bad_words = {{58, 3}, {24, 58, 10}};
  closed.top_logprobs = 3;
  closed.thinking = {1, 59, {24, 58, 24, 59}};
  SamplingParams& undone = add(5, 60);  // it thinks no longer than it may
  undone.frequency_penalty = 1.0f;
  undone.logit_bias = {{58, 4.0f}};
  undone.thinking = {30, 58, {31, 31}};
  return all;
}

class Controls : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(PlainAndOverlapped, Controls, testing::Bool());

std::map<RequestId, Outcome> RunAll(const EngineOptions& options, std::vector<GenerateRequest> requests,
                                    EngineStats* stats = nullptr) {
  std::map<RequestId, Outcome> outcomes;
  const EngineStats seen = RunOnEngine(
      std::make_unique<LogitModel>(Logit, kVocab), options, std::move(requests), [&](TokenEvent& e) {
        Outcome& o = outcomes[e.request_id];
        o.tokens.insert(o.tokens.end(), e.token_ids.begin(), e.token_ids.end());
        o.logprobs.insert(o.logprobs.end(), e.logprobs.begin(), e.logprobs.end());
        o.top.insert(o.top.end(), e.top_logprobs.begin(), e.top_logprobs.end());
        if (e.finish_reason == FinishReason::kError) o.error = e.error;
      });
  if (stats != nullptr) *stats = seen;
  return outcomes;
}

EngineOptions Options(bool overlap, int64_t seqs, int64_t batched, int64_t pages) {
  EngineOptions o;
  o.overlap = overlap;
  o.max_model_len = 512;
  o.max_num_seqs = seqs;
  o.max_num_batched_tokens = batched;
  o.num_kv_pages = pages;
  return o;
}

void ExpectAsStated(const std::map<RequestId, Outcome>& outcomes) {
  for (const GenerateRequest& r : Requests()) {
    SCOPED_TRACE(testing::Message() << "request " << r.id);
    const Outcome expected = Expected(r), &got = outcomes.at(r.id);
    ASSERT_EQ(got.tokens, expected.tokens);
    if (r.sampling.top_logprobs < 0) continue;
    ASSERT_EQ(got.logprobs.size(), expected.logprobs.size());
    for (size_t i = 0; i < got.logprobs.size(); ++i)
      ASSERT_NEAR(static_cast<double>(got.logprobs[i]), static_cast<double>(expected.logprobs[i]), 1e-5);
    if (r.sampling.top_logprobs == 0) {
      EXPECT_TRUE(got.top.empty());
      continue;
    }
    ASSERT_EQ(got.top.size(), expected.top.size());
    for (size_t i = 0; i < got.top.size(); ++i) {
      ASSERT_EQ(got.top[i].size(), expected.top[i].size());
      for (size_t k = 0; k < got.top[i].size(); ++k) {
        EXPECT_EQ(got.top[i][k].token_id, expected.top[i][k].token_id);
        EXPECT_NEAR(static_cast<double>(got.top[i][k].logprob),
                    static_cast<double>(expected.top[i][k].logprob), 1e-5);
      }
    }
  }
}

TEST_P(Controls, AsTheRulesSayWhateverTheBatchAndTheChunks) {
  const struct {
    int64_t seqs, batched, pages;
    bool preempts;
  } shapes[] = {
      {16, 2048, 100, false}, {1, 512, 10, false}, {5, 17, 40, false}, {3, 3, 40, false}, {12, 64, 9, true}};
  for (const auto& shape : shapes) {
    SCOPED_TRACE(testing::Message() << shape.seqs << " sequences, " << shape.batched << " tokens a step, "
                                    << shape.pages << " pages");
    EngineStats stats;
    ExpectAsStated(RunAll(Options(GetParam(), shape.seqs, shape.batched, shape.pages), Requests(), &stats));
    EXPECT_EQ(stats.preemptions > 0, shape.preempts);
  }
}

// The statement must not be trivially true: every wish changes its request's tokens.
TEST(ControlsTest, EveryWishChangesSomething) {
  for (const GenerateRequest& r : Requests()) {
    const SamplingParams& p = r.sampling;
    if (!p.HasPenalties() && p.logit_bias.empty() && p.bad_words.empty() && p.min_tokens == 0 &&
        p.allowed_token_ids.empty())
      continue;
    GenerateRequest plain = r;
    plain.sampling = {};
    plain.sampling.temperature = 0;
    plain.sampling.max_tokens = p.max_tokens;
    plain.sampling.ignore_eos = p.ignore_eos;
    plain.sampling.stop_token_ids = p.stop_token_ids;
    plain.sampling.thinking = p.thinking;
    EXPECT_NE(Expected(plain).tokens, Expected(r).tokens) << "request " << r.id;
  }
}

// Twice the same and then everything that begins as the others do: what the prefix tree has is counted as
// what is computed.
TEST_P(Controls, AsTheRulesSayWithAPrefixThatWasFound) {
  for (const int64_t seqs : {1, 3, 12}) {
    SCOPED_TRACE(testing::Message() << seqs << " sequences");
    EngineOptions options = Options(GetParam(), seqs, 64, 100);
    options.max_model_len = 256;  // so many found tokens a step
    std::vector<GenerateRequest> all;
    std::map<RequestId, GenerateRequest> asked;
    for (int round = 0; round < 3; ++round) {
      for (GenerateRequest r : Requests()) {
        r.id += static_cast<RequestId>(100 * round);
        if (round == 2) {  // another turn
          const Outcome before = Expected(r);
          r.token_ids.insert(r.token_ids.end(), before.tokens.begin(), before.tokens.end());
          if (std::ssize(r.token_ids) > 200) r.token_ids.resize(200);
          r.sampling.max_tokens = 30;
          r.sampling.min_tokens = std::min<int64_t>(r.sampling.min_tokens, 30);
        }
        asked[r.id] = r;
        all.push_back(std::move(r));
      }
    }
    EngineStats stats;
    const auto outcomes = RunAll(options, all, &stats);
    for (const auto& [id, r] : asked)
      EXPECT_EQ(outcomes.at(id).tokens, Expected(r).tokens) << "request " << id;
    if (seqs == 1) {  // the rest depends on who ends when
      int64_t least = 0;
      for (const auto& [id, r] : asked) least += id > 100 ? std::ssize(r.token_ids) - 1 : 0;
      EXPECT_GE(stats.prefix_hit_tokens, least - 18);  // the last token of an answer was not computed
    }
    EXPECT_GT(stats.prefix_hit_tokens, 0);
  }
}

// Seeds reproduce in any company, with penalties too.
TEST_P(Controls, ASeedGivesTheSameTokensAloneAndAmongOthers) {
  std::vector<GenerateRequest> requests = Requests();
  for (GenerateRequest& r : requests) {
    r.sampling.temperature = 1.3f;
    r.sampling.top_p = 0.9f;
    r.sampling.top_k = 30;
    r.sampling.seed = 1000 + r.id;
  }
  const auto together = RunAll(Options(GetParam(), 12, 64, 9), requests);
  for (const GenerateRequest& r : requests) {
    const auto alone = RunAll(Options(GetParam(), 1, 512, 10), {r});
    EXPECT_EQ(alone.at(r.id).tokens, together.at(r.id).tokens) << "request " << r.id;
    EXPECT_EQ(alone.at(r.id).logprobs, together.at(r.id).logprobs) << "request " << r.id;
  }
}

// The tokens of many seeds at one place are distributed as softmax(logits / T) under top-p says.
TEST_P(Controls, TokensOfManySeedsFollowTheDistribution) {
  constexpr int kDraws = 6000;
  std::vector<GenerateRequest> requests;
  for (int i = 0; i < kDraws; ++i) {
    requests.push_back(Request(static_cast<RequestId>(i + 1), 4, 1));
    requests.back().token_ids = {7, 8, 9, 10};
    requests.back().sampling.temperature = 0.8f;
    requests.back().sampling.top_p = 0.8f;
    requests.back().sampling.seed = static_cast<uint64_t>(i);
    requests.back().sampling.logit_bias = {{10, -100.0f}};
  }
  EngineOptions options = Options(GetParam(), 64, 512, 100);
  options.max_waiting_requests = kDraws;
  std::map<int32_t, int> counts;
  for (const auto& [id, outcome] : RunAll(options, requests)) ++counts[outcome.tokens.at(0)];
  std::vector<std::pair<double, int32_t>> p;
  double sum = 0;
  for (int32_t v = 0; v < kVocab; ++v) {
    const double x = static_cast<double>(Logit(10, 4, v)) - (v == 10 ? 100 : 0);
    p.emplace_back(std::exp(x / 0.8), v);
    sum += p.back().first;
  }
  std::sort(p.rbegin(), p.rend());
  double before = 0, kept = 0;
  size_t n = 0;
  while (n < p.size() && before < 0.8 * sum) before += p[n++].first;
  for (size_t i = 0; i < n; ++i) kept += p[i].first;
  double chi_square = 0;
  int seen = 0;
  for (size_t i = 0; i < n; ++i) {
    const double expected = p[i].first / kept * kDraws;
    const double difference = counts[p[i].second] - expected;
    chi_square += difference * difference / expected;
    seen += counts[p[i].second];
  }
  EXPECT_EQ(seen, kDraws) << "a token outside the nucleus";
  const double degrees = static_cast<double>(n) - 1;
  ASSERT_GT(degrees, 5);
  EXPECT_LT(chi_square, degrees + 4 * std::sqrt(2 * degrees));  // four deviations: the seeds are fixed
}

TEST(ControlsTest, TheDoorRefusesWhatIsOutOfRange) {
  const LogitModel model(Logit, kVocab);
  EngineOptions options = Options(false, 4, 64, 20);
  options.max_logit_bias = 2;
  options.max_banned_tokens = 3;
  options.max_allowed_token_ids = 4;
  const auto refused = [&](auto change) {
    GenerateRequest r = Request(1, 4, 8);
    change(r.sampling);
    const Status s = CheckRequest(r, model.config(), options);
    return s.ok() ? "ok" : s.param();
  };
  using P = SamplingParams;
  EXPECT_EQ(refused([](P&) {}), "ok");
  for (float bad : {0.0f, -1.0f, NAN, INFINITY})
    EXPECT_EQ(refused([bad](P& p) { p.repetition_penalty = bad; }), "repetition_penalty");
  for (float bad : {-2.1f, 2.1f, NAN, INFINITY}) {
    EXPECT_EQ(refused([bad](P& p) { p.presence_penalty = bad; }), "presence_penalty");
    EXPECT_EQ(refused([bad](P& p) { p.frequency_penalty = bad; }), "frequency_penalty");
  }
  EXPECT_EQ(refused([](P& p) { p.logit_bias = {{1, 1}, {2, 1}}; }), "ok");
  EXPECT_EQ(refused([](P& p) { p.logit_bias = {{1, 1}, {2, 1}, {3, 1}}; }), "logit_bias");
  EXPECT_EQ(refused([](P& p) { p.logit_bias = {{1, 1}, {1, 1}}; }), "logit_bias");
  EXPECT_EQ(refused([](P& p) { p.logit_bias = {{kVocab, 1}}; }), "logit_bias");
  EXPECT_EQ(refused([](P& p) { p.logit_bias = {{-1, 1}}; }), "logit_bias");
  EXPECT_EQ(refused([](P& p) { p.logit_bias = {{1, NAN}}; }), "logit_bias");
  EXPECT_EQ(refused([](P& p) { p.logit_bias = {{1, 101}}; }), "logit_bias");
  EXPECT_EQ(refused([](P& p) { p.bad_words = {{1, 2}, {3}}; }), "ok");
  EXPECT_EQ(refused([](P& p) { p.bad_words = {{1, 2}, {3, 4}}; }), "bad_words");
  EXPECT_EQ(refused([](P& p) { p.bad_words = {{}}; }), "bad_words");
  EXPECT_EQ(refused([](P& p) { p.bad_words = {{kVocab}}; }), "bad_words");
  EXPECT_EQ(refused([](P& p) { p.allowed_token_ids = {0, kVocab - 1}; }), "ok");
  EXPECT_EQ(refused([](P& p) { p.allowed_token_ids = {kVocab}; }), "allowed_token_ids");
  EXPECT_EQ(refused([](P& p) { p.allowed_token_ids = {-1}; }), "allowed_token_ids");
  EXPECT_EQ(refused([](P& p) { p.allowed_token_ids = {4, 4}; }), "allowed_token_ids");
  EXPECT_EQ(refused([](P& p) { p.allowed_token_ids = {5, 4}; }), "allowed_token_ids");
  EXPECT_EQ(refused([](P& p) { p.allowed_token_ids = {1, 2, 3, 4, 5}; }), "allowed_token_ids");
  EXPECT_EQ(refused([](P& p) {
              p.allowed_token_ids = {4, 5};
              p.bad_words = {{4}, {5, 5}};
            }),
            "ok");
  EXPECT_EQ(refused([](P& p) {
              p.allowed_token_ids = {4, 5};
              p.bad_words = {{4}, {5}};
            }),
            "allowed_token_ids");
  EXPECT_EQ(refused([](P& p) {
              p.allowed_token_ids = {kEnd, 4, 5};
              p.stop_token_ids = {5};
              p.bad_words = {{4}};
              p.min_tokens = 1;
              p.ignore_eos = false;
            }),
            "allowed_token_ids");
  EXPECT_EQ(refused([](P& p) { p.min_tokens = 8; }), "ok");
  EXPECT_EQ(refused([](P& p) { p.min_tokens = 9; }), "min_tokens");
  EXPECT_EQ(refused([](P& p) { p.min_tokens = -1; }), "min_tokens");
  EXPECT_EQ(refused([](P& p) {
              p.min_tokens = 1;
              p.bad_words = {{1, 2}};
              p.stop_token_ids = {4};
            }),
            "bad_words");
  EXPECT_EQ(refused([](P& p) { p.top_logprobs = 20; }), "ok");
  EXPECT_EQ(refused([](P& p) { p.top_logprobs = 21; }), "top_logprobs");
  EXPECT_EQ(refused([](P& p) { p.top_logprobs = -2; }), "top_logprobs");
}

// Words of several tokens may forbid the last allowed one on the way; that is the client's mistake.
TEST_P(Controls, AnErrorOfTheClientWhereNothingIsLeft) {
  GenerateRequest stuck = Request(1, 8, 20), fine = Request(2, 8, 20);
  stuck.token_ids.back() = 9;
  stuck.sampling.allowed_token_ids = {4, 5};
  stuck.sampling.bad_words = {{4, 4}, {5, 5}, {4, 5}, {5, 4}};
  fine.sampling.allowed_token_ids = {4, 5};
  const auto outcomes = RunAll(Options(GetParam(), 4, 64, 20), {stuck, fine});
  EXPECT_EQ(outcomes.at(1).tokens.size(), 1u);
  EXPECT_EQ(outcomes.at(1).error.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(outcomes.at(1).error.param(), "allowed_token_ids");
  EXPECT_EQ(outcomes.at(2).tokens, Expected(fine).tokens);
  EXPECT_EQ(outcomes.at(2).tokens.size(), 20u);
}

// Words and records have the room that the options say, for every sequence at once.
TEST_P(Controls, TheMostThatTheOptionsAllowForEverySequence) {
  EngineOptions options = Options(GetParam(), 6, 64, 60);
  options.max_logit_bias = 50;
  options.max_banned_tokens = 50;
  options.max_allowed_token_ids = (kVocab + 1) / 2;
  std::vector<GenerateRequest> requests;
  for (RequestId id = 1; id <= 6; ++id) {
    GenerateRequest r = Request(id, 20, 30);
    for (int32_t t = 0; t < 50; ++t) r.sampling.logit_bias.emplace_back(t, 0.01f * static_cast<float>(t));
    for (int32_t t = 5; t < 55; ++t) r.sampling.bad_words.push_back({t});
    for (int32_t t = 0; t < kVocab; t += 2) r.sampling.allowed_token_ids.push_back(t);
    r.sampling.top_logprobs = 20;
    r.sampling.frequency_penalty = 2;
    requests.push_back(r);
  }
  const auto outcomes = RunAll(options, requests);
  for (const GenerateRequest& r : requests) EXPECT_EQ(outcomes.at(r.id).tokens, Expected(r).tokens);
}

}  // namespace
}  // namespace fd
