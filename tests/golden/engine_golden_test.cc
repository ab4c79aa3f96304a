// The golden prompts through the real Engine in float32: scheduler, pages, uploads, encoder cache and
// sampling together must give transformers' greedy tokens, whatever the token budget and whatever else runs.
#include <gtest/gtest.h>

#include <cmath>
#include <condition_variable>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>

#include "engine/engine.h"
#include "engine/executor/executor.h"
#include "model/weights/safetensors.h"
#include "tests/golden/device_under_test.h"
#include "tests/golden/engine_cases.h"

namespace fd {
namespace {

using golden::GoldenCase;
using golden::kCases;
using golden::kModels;
using golden::Read;
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
  golden::TestContext context_under_test;
  ops::Context& ctx = context_under_test.ctx;
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
      o.prefix_caching = false;  // with it the second copy needs no picture
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

// What transformers said of each greedy token must be said of it as a token of the prompt: the prompts with
// their 24 greedy tokens behind them, of which nothing is drawn, and the stored rows of logits.
using PromptScores = std::map<size_t, std::vector<PromptLogprob>>;

std::vector<GoldenCase> ScoredCases(std::vector<GoldenCase> cases) {
  for (GoldenCase& c : cases) {
    GenerateRequest& r = c.request;
    const auto prompt = std::ssize(r.token_ids), more = std::ssize(c.greedy_ids);
    r.token_ids.insert(r.token_ids.end(), c.greedy_ids.begin(), c.greedy_ids.end());
    if (!r.positions.empty()) {
      std::vector<int32_t> positions;
      for (int64_t axis = 0; axis < 3; ++axis) {
        const auto begin = r.positions.begin() + axis * prompt;
        positions.insert(positions.end(), begin, begin + prompt);
        for (int64_t i = 0; i < more; ++i)
          positions.push_back(static_cast<int32_t>(prompt + i + r.position_delta));
      }
      r.positions = positions;
    }
    if (!r.vision_expert.empty()) r.vision_expert.resize(r.token_ids.size(), 0);
    r.sampling.max_tokens = 0;
    r.sampling.prompt_logprobs = 5;
  }
  return cases;
}

PromptScores ScorePrompts(const std::string& family, const std::vector<GoldenCase>& cases,
                          const EngineOptions& options, DType dtype = DType::kFloat32) {
  golden::TestContext context_under_test(1);
  ops::Context& ctx = context_under_test.ctx;
  LoadOptions load;
  load.dtype = dtype;
  auto model = LoadModel(ctx, kModels + family, load);
  FD_CHECK(model.ok(), model.status().message());
  // As much scratch as the memory plan has for such steps, and no more may be taken.
  const ModelConfig config = (*model)->config();
  const int64_t context = PagesForTokens(options.max_model_len) * kKvPageTokens;
  const int64_t planned = std::max({ForwardScratchBytes(ctx, config, dtype, options.max_num_batched_tokens,
                                                        options.MaxStepSequences(), context),
                                    SampleStepScratchBytes(ctx, config, options),
                                    EncodeStepScratchBytes(ctx, config, dtype, options)});
  Workspace step_workspace(golden::DeviceUnderTest(), planned);
  ctx.workspace = &step_workspace;
  auto engine = std::make_unique<Engine>(std::move(*model), ctx, options);
  FD_CHECK(engine->Prepare().ok());
  std::mutex mutex;
  std::condition_variable changed;
  PromptScores scores;
  size_t finished = 0;
  for (size_t i = 0; i < cases.size(); ++i) {
    GenerateRequest r = cases[i].request;
    r.id = i;
    r.sink = [&](TokenEvent&& event) {
      std::lock_guard lock(mutex);
      std::vector<PromptLogprob>& all = scores[event.request_id];
      EXPECT_TRUE(event.token_ids.empty() || event.request_id % 3 == 1);
      std::move(event.prompt_logprobs.begin(), event.prompt_logprobs.end(), std::back_inserter(all));
      finished += event.finish_reason.has_value();
      changed.notify_all();
    };
    if (i % 3 == 1) r.sampling.max_tokens = 5;  // some go on
    const Status status = engine->Submit(std::move(r));
    FD_CHECK(status.ok(), status.message());
  }
  engine->Start();
  std::unique_lock lock(mutex);
  EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(300), [&] { return finished == cases.size(); }));
  lock.unlock();
  engine = nullptr;
  EXPECT_LE(step_workspace.peak_bytes(), planned);
  return scores;
}

void ExpectGolden(const std::string& family, const std::vector<GoldenCase>& cases,
                  const PromptScores& scores) {
  auto file = SafetensorsFile::Open(StrCat(kCases, family, ".safetensors"));
  FD_CHECK(file.ok(), file.status().message());
  for (size_t i = 0; i < cases.size(); ++i) {
    const GoldenCase& c = cases[i];
    SCOPED_TRACE(c.name);
    const std::vector<PromptLogprob>& got = scores.at(i);
    ASSERT_EQ(got.size() + 1, c.request.token_ids.size());
    for (size_t n = 0; n < got.size(); ++n) {
      ASSERT_EQ(got[n].token_id, c.request.token_ids[n + 1]);
      ASSERT_TRUE(got[n].logprob <= 0 && got[n].rank >= 1) << n;
      ASSERT_EQ(got[n].top.size(), 5u);
    }
    const auto top_ids = Read<int32_t>(**file, c.name + ".top5_ids");
    const auto top_logprobs = Read<float>(**file, c.name + ".top5_logprobs");
    const size_t first = got.size() - c.greedy_ids.size();
    for (size_t k = 0; k < c.greedy_ids.size(); ++k) {
      const PromptLogprob& p = got[first + k];
      ASSERT_NEAR(p.logprob, c.greedy_logprobs[k], 1e-3) << "greedy token " << k;
      ASSERT_EQ(p.rank, 1);
      ASSERT_EQ(p.top[0].token_id, c.greedy_ids[k]);
      ASSERT_EQ(p.top[0].logprob, p.logprob);
      for (size_t j = 0; j < 5; ++j) ASSERT_NEAR(p.top[j].logprob, top_logprobs[5 * k + j], 1e-3);
      ASSERT_EQ(top_ids[5 * k], c.greedy_ids[k]);
    }
    if ((*file)->Find(c.name + ".positions") == nullptr) continue;
    // Rows inside the prompt: log-softmax and place of whatever token follows.
    const auto positions = Read<int32_t>(**file, c.name + ".positions");
    const auto logits = Read<float>(**file, c.name + ".logits");
    const size_t vocab = logits.size() / positions.size();
    for (size_t row = 0; row < positions.size(); ++row) {
      const PromptLogprob& p = got[static_cast<size_t>(positions[row])];
      const float* x = logits.data() + row * vocab;
      double sum = 0, own = static_cast<double>(x[p.token_id]);
      int larger = 0, near = 0;
      for (size_t v = 0; v < vocab; ++v) {
        sum += std::exp(static_cast<double>(x[v]) - own);
        larger += static_cast<double>(x[v]) > own + 1e-3;
        near += std::abs(static_cast<double>(x[v]) - own) <= 1e-3;
      }
      EXPECT_NEAR(static_cast<double>(p.logprob), -std::log(sum), 1e-3) << "row " << positions[row];
      EXPECT_GT(p.rank, larger);
      EXPECT_LE(p.rank, larger + near);
    }
  }
}

bool SameScores(const PromptScores& a, const PromptScores& b) {
  const auto same = [](const PromptLogprob& x, const PromptLogprob& y) {
    return x.token_id == y.token_id && x.logprob == y.logprob && x.rank == y.rank &&
           std::equal(x.top.begin(), x.top.end(), y.top.begin(), y.top.end(),
                      [](const TokenLogprob& s, const TokenLogprob& t) {
                        return s.token_id == t.token_id && s.logprob == t.logprob;
                      });
  };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [&](const auto& x, const auto& y) {
    return std::equal(x.second.begin(), x.second.end(), y.second.begin(), y.second.end(), same);
  });
}

TEST(EngineGolden, PromptLogprobs) {
  for (const char* family : {"ernie4_5", "ernie4_5_moe", "ernie4_5_vl_moe"}) {
    SCOPED_TRACE(family);
    const bool vl = std::string_view(family) == "ernie4_5_vl_moe";
    const std::vector<GoldenCase> cases = ScoredCases(vl ? VlCases() : TextCases(family));
    PromptScores first;
    for (const int64_t chunk : {4096, 64, 7, 1}) {
      if (vl && chunk == 1) continue;  // a picture a token costs too long; 7 cuts them too
      for (const bool overlap : {false, true}) {
        SCOPED_TRACE(StrCat("chunks of ", chunk, overlap ? ", overlap" : ""));
        EngineOptions o = Options(chunk, 16, 100);
        o.overlap = o.cuda_graphs = overlap;
        const PromptScores scores = ScorePrompts(family, cases, o);
        ExpectGolden(family, cases, scores);
        if (first.empty()) first = scores;
        if (golden::DeviceUnderTest().type == DeviceType::kCpu) {
          EXPECT_TRUE(SameScores(scores, first)) << "other bits";
        }
      }
    }
  }
}

// Chunks change no bit in bfloat16 either; on CUDA products of other shapes add in another order.
TEST(EngineGolden, PromptLogprobsInBFloat16) {
  if (golden::DeviceUnderTest().type != DeviceType::kCpu) GTEST_SKIP();
  const std::vector<GoldenCase> cases = ScoredCases(TextCases("ernie4_5_moe"));
  const PromptScores whole = ScorePrompts("ernie4_5_moe", cases, Options(4096, 16, 100), DType::kBFloat16);
  for (const int64_t chunk : {64, 7, 1}) {
    EXPECT_TRUE(
        SameScores(ScorePrompts("ernie4_5_moe", cases, Options(chunk, 16, 100), DType::kBFloat16), whole))
        << chunk;
  }
}

}  // namespace
}  // namespace fd
