// The golden prompts through the real Engine in float32: scheduler, pages, uploads, encoder cache and
// sampling together must give transformers' greedy tokens, whatever the token budget and whatever else runs.
#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <mutex>

#include "engine/engine.h"
#include "tests/golden/device_under_test.h"
#include "tests/golden/engine_cases.h"

namespace fd {
namespace {

using golden::GoldenCase;
using golden::kModels;
using golden::TextCases;
using golden::VlCases;

using Logprobs = std::map<size_t, std::vector<float>>;
using Tokens = std::map<size_t, std::vector<int32_t>>;

// All cases, `copies` of each, submitted at once. *logprobs: of what was drawn, by request. tokens, if there:
// filled with what was drawn, which is then compared with nothing.
void RunCasesInto(const std::string& family, const std::vector<GoldenCase>& cases, EngineOptions options,
                  int copies, bool preempts, Logprobs* logprobs, EngineStats* stats,
                  Tokens* tokens = nullptr) {
  SCOPED_TRACE(StrCat(family, ", ", options.max_num_batched_tokens, " tokens a step, ", options.max_num_seqs,
                      " sequences, ", options.num_kv_pages, " pages", options.overlap ? ", overlap" : "",
                      options.cuda_graphs ? ", graphs" : ""));
  ThreadPool threads(2);
  Workspace workspace(golden::DeviceUnderTest(), int64_t{1} << 20);
  ops::Context ctx;
  ctx.device = golden::DeviceUnderTest();
  ctx.stream = golden::StreamUnderTest();
  ctx.threads = &threads;
  ctx.workspace = &workspace;
  LoadOptions load;
  load.dtype = DType::kFloat32;
  auto model = LoadModel(ctx, kModels + family, load);
  ASSERT_TRUE(model.ok()) << model.status().message();
  Engine engine(std::move(*model), ctx, options);
  const Status prepared = engine.Prepare();
  ASSERT_TRUE(prepared.ok()) << prepared.message();

  std::mutex mutex;
  std::condition_variable changed;
  std::map<RequestId, TokenEvent> results;
  size_t finished = 0;
  for (int copy = 0; copy < copies; ++copy) {
    for (size_t i = 0; i < cases.size(); ++i) {
      GenerateRequest r = cases[i].request;
      r.id = copy * cases.size() + i;
      r.sink = [&](TokenEvent&& event) {
        std::lock_guard lock(mutex);
        TokenEvent& all = results[event.request_id];
        all.token_ids.insert(all.token_ids.end(), event.token_ids.begin(), event.token_ids.end());
        all.logprobs.insert(all.logprobs.end(), event.logprobs.begin(), event.logprobs.end());
        all.finish_reason = event.finish_reason;
        finished += event.finish_reason.has_value();
        changed.notify_all();
      };
      Status status = engine.Submit(std::move(r));
      ASSERT_TRUE(status.ok()) << status.message();
    }
  }
  engine.Start();
  {
    std::unique_lock lock(mutex);
    ASSERT_TRUE(
        changed.wait_for(lock, std::chrono::seconds(300), [&] { return finished == copies * cases.size(); }));
  }
  for (const auto& [id, result] : results) {
    if (tokens != nullptr) {
      (*tokens)[id] = result.token_ids;
      continue;
    }
    const GoldenCase& c = cases[id % cases.size()];
    EXPECT_EQ(result.finish_reason, FinishReason::kLength) << c.name;
    EXPECT_EQ(result.token_ids, c.greedy_ids) << c.name;
    ASSERT_EQ(result.logprobs.size(), c.greedy_logprobs.size());
    for (size_t i = 0; i < result.logprobs.size(); ++i) {
      ASSERT_NEAR(result.logprobs[i], c.greedy_logprobs[i], 1e-3) << c.name << " token " << i;
    }
  }
  for (const auto& [id, result] : results) (*logprobs)[id] = result.logprobs;
  if (stats != nullptr) *stats = engine.Stats();
  EXPECT_LE(engine.Stats().max_step_tokens, options.max_num_batched_tokens);
  EXPECT_EQ(engine.Stats().used_pages, 0);
  EXPECT_EQ(engine.Stats().preemptions > 0, preempts);
}

Logprobs RunCases(const std::string& family, const std::vector<GoldenCase>& cases, EngineOptions options,
                  int copies, bool preempts = false, EngineStats* stats = nullptr) {
  Logprobs logprobs;
  RunCasesInto(family, cases, options, copies, preempts, &logprobs, stats);
  return logprobs;
}

EngineOptions Options(int64_t budget, int64_t seqs, int64_t pages) {
  EngineOptions o;
  o.max_num_batched_tokens = budget;
  o.max_num_seqs = seqs;
  o.num_kv_pages = pages;
  o.max_media_tokens = 256;
  o.encoder_cache_tokens = 4096;
  return o;
}

void RunFamily(const std::string& family, const std::vector<GoldenCase>& cases) {
  for (int64_t budget : {7, 64, 4096}) RunCases(family, cases, Options(budget, 16, 100), 2);
  for (const auto& [overlap, graphs] :
       {std::pair{true, false}, std::pair{false, true}, std::pair{true, true}}) {
    EngineOptions o = Options(64, 16, 100);
    o.overlap = overlap;
    o.cuda_graphs = graphs;
    RunCases(family, cases, o, 2);
    o.num_kv_pages = 12;
    o.max_num_batched_tokens = 100;
    RunCases(family, cases, o, 2);
  }
  RunCases(family, cases, Options(64, 1, 4), 1);  // one after the other
  // Several sequences that need their second page while decoding, and too few of them: some start again.
  std::vector<GoldenCase> growing;
  for (const GoldenCase& c : cases) {
    const int64_t prompt = static_cast<int64_t>(c.request.token_ids.size());
    if (prompt <= kKvPageTokens && prompt + c.request.sampling.max_tokens > kKvPageTokens + 1) {
      growing.push_back(c);
    }
  }
  ASSERT_FALSE(growing.empty());
  RunCases(family, growing, Options(200, 16, 5), 6, /*preempts=*/true);
}

// The same tokens and log-probabilities, whether a picture was kept, encoded alone or together with others;
// on the CPU to the bit, which RunCases cannot see, so all runs are compared with each other.
TEST(EngineGolden, KeptAloneOrTogether) {
  const std::vector<GoldenCase> cases = VlCases();
  Logprobs first;
  for (const int64_t cache : {4096, 0}) {
    for (const int64_t batch : {1, 64, 4096}) {
      EngineOptions o = Options(100, 16, 100);
      o.encoder_cache_tokens = cache;
      o.max_encoder_batch_tokens = batch;
      EngineStats stats;
      const Logprobs logprobs = RunCases("ernie4_5_vl_moe", cases, o, 3, false, &stats);
      if (first.empty()) first = logprobs;
      if (golden::DeviceUnderTest().type == DeviceType::kCpu) {
        EXPECT_EQ(logprobs, first) << "cache " << cache << " batch " << batch;
      }
      if (cache > 0) {
        EXPECT_GE(stats.encoder_hits, 2 * stats.encoded_items);  // two of three copies
        EXPECT_GT(stats.encoder_kept_tokens, 0);
      } else {
        EXPECT_EQ(stats.encoder_kept_tokens, 0);
      }
    }
  }
}

// Penalties, biases, bans and log-probabilities: one by one in the plain loop, and the same tokens in every
// company, recorded or not, overlapped or not.
TEST(EngineGolden, ControlsGiveTheSameTokensHoweverTheyRun) {
  std::vector<GoldenCase> cases = TextCases("ernie4_5");
  for (size_t i = 0; i < cases.size(); ++i) {
    SamplingParams& p = cases[i].request.sampling;
    p.max_tokens = 48;
    if (i == 3) continue;  // one without wishes among them
    p.repetition_penalty = 1.1f + 0.1f * static_cast<float>(i);
    p.frequency_penalty = i == 2 ? 0.6f : 0.0f;
    p.presence_penalty = i >= 2 ? 0.4f : 0.0f;
    p.logit_bias = {{static_cast<int32_t>(40 + i), 2.0f}, {7, -100.0f}};
    p.bad_words = {{cases[i].greedy_ids.at(0), cases[i].greedy_ids.at(1)}, {cases[i].greedy_ids.at(2)}};
    p.top_logprobs = static_cast<int32_t>(5 * i);
    if (i == 1) {
      p.temperature = 0.9f;
      p.top_p = 0.9f;
      p.seed = 5;
    }
  }
  Logprobs logprobs;
  Tokens alone;
  RunCasesInto("ernie4_5", cases, Options(4096, 1, 20), 1, false, &logprobs, nullptr, &alone);
  for (size_t i = 0; i < cases.size(); ++i) {
    ASSERT_EQ(alone[i].size(), 48u);
    const std::vector<int32_t> greedy = cases[i].greedy_ids;
    const bool same = std::equal(greedy.begin(), greedy.begin() + 3, alone[i].begin());
    EXPECT_EQ(same, i == 3) << "case " << i;
    cases[i].greedy_ids = alone[i];
    cases[i].greedy_logprobs = logprobs[i];
  }
  for (const auto& [overlap, graphs] :
       {std::pair{false, false}, std::pair{true, false}, std::pair{false, true}, std::pair{true, true}}) {
    for (int64_t budget : {7, 64, 4096}) {
      EngineOptions o = Options(budget, 16, 100);
      o.overlap = overlap;
      o.cuda_graphs = graphs;
      RunCases("ernie4_5", cases, o, 2);
    }
  }
}

TEST(EngineGolden, Dense) { RunFamily("ernie4_5", TextCases("ernie4_5")); }
TEST(EngineGolden, Moe) { RunFamily("ernie4_5_moe", TextCases("ernie4_5_moe")); }
TEST(EngineGolden, VisionLanguage) { RunFamily("ernie4_5_vl_moe", VlCases()); }

}  // namespace
}  // namespace fd
