// Log-probabilities of prompts through the engine, against a statement of them that knows no steps: whatever
// the chunks, the batch, a preemption and the kind of loop, each token once and before what is drawn.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "engine/logit_model.h"
#include "engine/request_check.h"

namespace fd {
namespace {

constexpr int32_t kVocab = 61;
constexpr int32_t kSampled = 57;  // ids from here on are never drawn
constexpr int32_t kBroken = 60;   // after it the logits are not numbers

// Of every token, by the last token and the length of the context alone. In steps, so that some are equal.
float Logit(int32_t last, int64_t context, int32_t token) {
  if (last == kBroken) return NAN;
  return static_cast<float>(LogitBits(last, context, token) & 0xff) / 32.0f - 4.0f;
}

std::vector<PromptLogprob> Expected(const GenerateRequest& request) {
  std::vector<PromptLogprob> all;
  for (size_t n = 1; n < request.token_ids.size(); ++n) {
    std::vector<double> x;
    double sum = 0;
    for (int32_t v = 0; v < kSampled; ++v) {
      x.push_back(static_cast<double>(Logit(request.token_ids[n - 1], static_cast<int64_t>(n), v)));
      sum += std::exp(x.back());
    }
    std::vector<int32_t> order(kSampled);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return x[static_cast<size_t>(a)] > x[static_cast<size_t>(b)];
    });
    const auto logprob = [&](int32_t id) {
      return static_cast<float>(x[static_cast<size_t>(id)] - std::log(sum));
    };
    const int32_t id = request.token_ids[n];
    PromptLogprob p{id, -INFINITY, kSampled + 1, {}};
    if (id < kSampled) {
      p.logprob = logprob(id);
      p.rank = 1 + static_cast<int32_t>(std::find(order.begin(), order.end(), id) - order.begin());
    }
    for (int32_t k = 0; k < request.sampling.prompt_logprobs; ++k) {
      p.top.push_back({order[static_cast<size_t>(k)], logprob(order[static_cast<size_t>(k)])});
    }
    all.push_back(std::move(p));
  }
  return all;
}

struct Outcome {
  std::vector<PromptLogprob> prompt;
  std::vector<int32_t> tokens;
  std::optional<FinishReason> finish_reason;
  Status error;
};

GenerateRequest Request(RequestId id, int64_t prompt_tokens, int64_t max_tokens, int32_t prompt_logprobs) {
  GenerateRequest r;
  r.id = id;
  for (int64_t i = 0; i < prompt_tokens; ++i) {
    r.token_ids.push_back(static_cast<int32_t>((i * 11 + static_cast<int64_t>(id) * 5) % kVocab));
    if (r.token_ids.back() == kBroken) r.token_ids.back() = 4;
  }
  r.sampling.temperature = 0;
  r.sampling.max_tokens = max_tokens;
  r.sampling.ignore_eos = true;
  r.sampling.prompt_logprobs = prompt_logprobs;
  return r;
}

std::vector<GenerateRequest> Requests() {
  std::vector<GenerateRequest> all;
  for (const auto& [prompt, tokens, top] :
       std::initializer_list<std::tuple<int64_t, int64_t, int32_t>>{{40, 100, 3},
                                                                    {1, 70, 2},
                                                                    {2, 0, 20},
                                                                    {64, 60, 0},
                                                                    {65, 0, 0},
                                                                    {130, 9, 20},
                                                                    {33, 120, -1},
                                                                    {129, 0, 1},
                                                                    {1, 0, 5},
                                                                    {90, 90, 7},
                                                                    {63, 80, 1},
                                                                    {5, 0, -1},
                                                                    {200, 3, 4}}) {
    all.push_back(Request(all.size() + 1, prompt, tokens, top));
  }
  all[6].sampling.repetition_penalty = 1.3f;  // others' wishes beside it
  all[9].sampling.top_logprobs = 6;
  return all;
}

std::map<RequestId, Outcome> RunAll(const EngineOptions& options, std::vector<GenerateRequest> requests,
                                    int64_t* preemptions = nullptr) {
  std::map<RequestId, Outcome> outcomes;
  const EngineStats stats = RunOnEngine(
      std::make_unique<LogitModel>(Logit, kVocab), options, std::move(requests), [&](TokenEvent& e) {
        Outcome& o = outcomes[e.request_id];
        EXPECT_TRUE(e.prompt_logprobs.empty() || o.tokens.empty()) << "the prompt after the first token";
        EXPECT_TRUE(e.prompt_logprobs.empty() || e.token_ids.empty());
        EXPECT_LE(std::ssize(e.prompt_logprobs), options.max_num_batched_tokens);
        std::move(e.prompt_logprobs.begin(), e.prompt_logprobs.end(), std::back_inserter(o.prompt));
        o.tokens.insert(o.tokens.end(), e.token_ids.begin(), e.token_ids.end());
        o.finish_reason = e.finish_reason;
        o.error = e.error;
      });
  if (preemptions != nullptr) *preemptions = stats.preemptions;
  EXPECT_EQ(stats.used_pages, 0);
  return outcomes;
}

EngineOptions Options(bool overlap, int64_t seqs, int64_t batched, int64_t pages) {
  EngineOptions o;
  o.overlap = overlap;
  o.max_model_len = 512;
  o.max_num_seqs = seqs;
  o.max_num_batched_tokens = batched;
  o.num_kv_pages = pages;
  o.sampled_vocab_size = kSampled;
  return o;
}

class PromptLogprobs : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(PlainAndOverlapped, PromptLogprobs, testing::Bool());

TEST_P(PromptLogprobs, AsStatedWhateverTheBatchAndTheChunks) {
  const struct {
    int64_t seqs, batched, pages;
  } shapes[] = {{16, 2048, 100}, {1, 512, 10}, {1, 1, 10},  {5, 7, 40},
                {16, 64, 100},   {3, 3, 40},   {12, 64, 6}, {12, 13, 7}};
  std::map<RequestId, Outcome> first;
  int64_t all_preemptions = 0;
  for (const auto& shape : shapes) {
    SCOPED_TRACE(testing::Message() << shape.seqs << " sequences, " << shape.batched << " tokens a step, "
                                    << shape.pages << " pages");
    int64_t preemptions = 0;
    const auto outcomes =
        RunAll(Options(GetParam(), shape.seqs, shape.batched, shape.pages), Requests(), &preemptions);
    all_preemptions += preemptions;
    if (first.empty()) first = outcomes;
    for (const GenerateRequest& r : Requests()) {
      SCOPED_TRACE(testing::Message() << "request " << r.id);
      const Outcome& got = outcomes.at(r.id);
      EXPECT_EQ(got.finish_reason, FinishReason::kLength);
      EXPECT_EQ(std::ssize(got.tokens), r.sampling.max_tokens);
      EXPECT_EQ(got.tokens, first.at(r.id).tokens);
      if (r.sampling.prompt_logprobs < 0) {
        EXPECT_TRUE(got.prompt.empty());
        continue;
      }
      const std::vector<PromptLogprob> expected = Expected(r);
      ASSERT_EQ(got.prompt.size(), expected.size());
      for (size_t i = 0; i < expected.size(); ++i) {
        const PromptLogprob &e = expected[i], &g = got.prompt[i], &f = first.at(r.id).prompt[i];
        ASSERT_EQ(g.token_id, e.token_id) << i;
        ASSERT_EQ(g.rank, e.rank) << i;
        ASSERT_EQ(g.logprob, f.logprob) << "other bits in other company";
        if (std::isinf(e.logprob)) {
          ASSERT_EQ(g.logprob, e.logprob) << i;
        } else {
          ASSERT_NEAR(static_cast<double>(g.logprob), static_cast<double>(e.logprob), 1e-5) << i;
        }
        ASSERT_EQ(g.top.size(), e.top.size()) << i;
        for (size_t k = 0; k < e.top.size(); ++k) {
          ASSERT_EQ(g.top[k].token_id, e.top[k].token_id) << i;
          ASSERT_NEAR(static_cast<double>(g.top[k].logprob), static_cast<double>(e.top[k].logprob), 1e-5);
          ASSERT_EQ(g.top[k].logprob, f.top[k].logprob);
          if (g.rank == static_cast<int32_t>(k) + 1) {
            ASSERT_EQ(g.top[k].logprob, g.logprob);
          }
        }
      }
    }
  }
  EXPECT_GT(all_preemptions, 0);
}

// The same token stream with and without them.
TEST_P(PromptLogprobs, ChangeNoToken) {
  std::vector<GenerateRequest> plain = Requests();
  for (GenerateRequest& r : plain) r.sampling.prompt_logprobs = -1;
  const auto without = RunAll(Options(GetParam(), 5, 64, 40), plain);
  for (const auto& [id, outcome] : RunAll(Options(GetParam(), 5, 64, 40), Requests())) {
    EXPECT_EQ(outcome.tokens, without.at(id).tokens);
  }
}

TEST_P(PromptLogprobs, WhatIsNoNumberEndsThatRequestOnly) {
  std::vector<GenerateRequest> requests = {Request(1, 100, 0, 2), Request(2, 100, 5, 2)};
  requests[0].token_ids[50] = kBroken;
  const auto outcomes = RunAll(Options(GetParam(), 4, 16, 20), requests);
  EXPECT_EQ(outcomes.at(1).finish_reason, FinishReason::kError);
  EXPECT_NE(outcomes.at(1).error.message().find("valid logits"), std::string::npos);
  EXPECT_LT(outcomes.at(1).prompt.size(), 51u);
  EXPECT_EQ(outcomes.at(2).prompt.size(), 99u);
  EXPECT_EQ(outcomes.at(2).tokens.size(), 5u);
}

TEST(PromptLogprobsTest, TheDoorRefusesWhatIsOutOfRange) {
  const LogitModel model(Logit, kVocab);
  const EngineOptions options = Options(false, 4, 64, 20);
  for (const int32_t top : {-2, 21, 1 << 30}) {
    const Status s = CheckRequest(Request(1, 4, 8, top), model.config(), options);
    ASSERT_FALSE(s.ok());
    EXPECT_EQ(s.param(), "prompt_logprobs");
    EXPECT_NE(s.message().find("--max-logprobs"), std::string::npos);
  }
  EXPECT_TRUE(CheckRequest(Request(1, 4, 0, 20), model.config(), options).ok());
  // The whole room for the prompt alone.
  EXPECT_TRUE(CheckRequest(Request(1, 512, 0, 0), model.config(), options).ok());
  EXPECT_FALSE(CheckRequest(Request(1, 513, 0, 0), model.config(), options).ok());
  EXPECT_FALSE(CheckRequest(Request(1, 4, -1, 0), model.config(), options).ok());
}

}  // namespace
}  // namespace fd
