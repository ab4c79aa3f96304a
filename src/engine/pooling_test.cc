// An engine that pools, over the fake model: whatever the chunks and the company, each prompt's vector is the
// one that its tokens say.
#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <mutex>

#include "engine/engine.h"
#include "engine/fake_model.h"

namespace fd {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

struct Setting {
  PoolingType type;
  bool overlap;
};

EngineOptions Options(Setting setting, int64_t seqs, int64_t batched, int64_t pages) {
  EngineOptions o;
  o.overlap = setting.overlap;
  o.pooling = setting.type;
  o.max_model_len = 2048;
  o.max_num_seqs = seqs;
  o.max_num_batched_tokens = batched;
  o.num_kv_pages = pages;
  o.max_media_tokens = 16;
  o.encoder_cache_tokens = 256;
  return o;
}

class Harness {
 public:
  explicit Harness(const EngineOptions& options, bool start = true)
      : workspace_(Device{}, 1 << 16), threads_(1), probe(std::make_shared<FakeModel::Probe>()) {
    ops::Context ctx;
    ctx.threads = &threads_;
    ctx.workspace = &workspace_;
    ModelConfig config = FakeConfig();
    config.has_head = false;
    engine = std::make_unique<Engine>(std::make_unique<FakeModel>(probe, config), ctx, options);
    if (start) engine->Start();
  }
  Status Submit(RequestId id, std::vector<int32_t> ids) {
    GenerateRequest r;
    r.id = id;
    r.token_ids = std::move(ids);
    return Submit(std::move(r));
  }
  Status Submit(GenerateRequest r) {
    r.sink = [this](TokenEvent&& event) {
      std::lock_guard lock(mutex_);
      EXPECT_TRUE(event.token_ids.empty() && event.logprobs.empty());
      EXPECT_TRUE(event.finish_reason.has_value()) << "more than one event";
      EXPECT_TRUE(events_.emplace(event.request_id, std::move(event)).second)
          << "an event after the last one";
      changed_.notify_all();
    };
    return engine->Submit(std::move(r));
  }
  TokenEvent Wait(RequestId id) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, seconds(60), [&] { return events_.contains(id); }));
    return events_[id];
  }
  void ExpectIdle() {
    const auto deadline = Clock::now() + seconds(10);
    while (engine->Stats().running + engine->Stats().waiting > 0 && Clock::now() < deadline) {
      std::this_thread::sleep_for(milliseconds(1));
    }
    const EngineStats stats = engine->Stats();
    EXPECT_EQ(stats.running + stats.waiting, 0);
    EXPECT_EQ(stats.used_pages, 0) << "pages are kept";
    EXPECT_EQ(stats.free_pages + stats.cached_pages, stats.total_pages);
    EXPECT_EQ(stats.generated_tokens, 0);
  }

 private:
  Workspace workspace_;
  ThreadPool threads_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<RequestId, TokenEvent> events_;

 public:
  const std::shared_ptr<FakeModel::Probe> probe;
  std::unique_ptr<Engine> engine;
};

std::vector<int32_t> Ids(int64_t tokens, int64_t salt) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < tokens; ++i) ids.push_back(static_cast<int32_t>(3 + (i * 7 + salt * 11) % 90));
  return ids;
}

// The hidden state of the fake model at each token of a text.
std::vector<std::vector<float>> HiddenStates(const std::vector<int32_t>& ids) {
  std::vector<std::vector<float>> out;
  uint64_t hash = 1;
  for (size_t i = 0; i < ids.size(); ++i) {
    for (uint64_t v :
         {static_cast<uint64_t>(ids[i]), uint64_t{i}, uint64_t{i}, uint64_t{i}, uint64_t{0}, uint64_t{0}})
      hash = FakeModel::Mix(hash, v);
    out.push_back(FakeModel::EmbeddingOf(hash));
  }
  return out;
}

std::vector<float> Expected(PoolingType type, const std::vector<int32_t>& ids) {
  const auto states = HiddenStates(ids);
  if (type != PoolingType::kMean) return type == PoolingType::kLast ? states.back() : states.front();
  std::vector<float> mean;
  for (size_t k = 0; k < 8; ++k) {
    double sum = 0;
    for (const auto& state : states) sum += state[k];
    mean.push_back(static_cast<float>(sum / static_cast<double>(states.size())));
  }
  return mean;
}

class Pooling : public testing::TestWithParam<Setting> {};
INSTANTIATE_TEST_SUITE_P(Types, Pooling,
                         testing::Values(Setting{PoolingType::kLast, false},
                                         Setting{PoolingType::kLast, true},
                                         Setting{PoolingType::kMean, false},
                                         Setting{PoolingType::kMean, true}, Setting{PoolingType::kCls, false},
                                         Setting{PoolingType::kCls, true}));

TEST_P(Pooling, TheVectorOfItsTokensWhateverTheChunksAndTheCompany) {
  const int64_t lengths[] = {1, 2, 63, 64, 65, 128, 129, 300, 1, 700, 5};
  std::map<RequestId, std::vector<float>> first;
  for (const auto& [seqs, batched] : {std::pair{16, 4096}, {16, 7}, {3, 100}, {1, 1}, {2, 64}}) {
    SCOPED_TRACE(StrCat(seqs, " sequences, ", batched, " tokens a step"));
    Harness h(Options(GetParam(), seqs, batched, 100), false);
    RequestId id = 0;
    for (int64_t n : lengths) {
      ++id;
      ASSERT_TRUE(h.Submit(id, Ids(n, static_cast<int64_t>(id))).ok());
    }
    h.engine->Start();
    id = 0;
    for (int64_t n : lengths) {
      const TokenEvent event = h.Wait(++id);
      EXPECT_EQ(event.finish_reason, FinishReason::kStop);
      const std::vector<float> expected = Expected(GetParam().type, Ids(n, static_cast<int64_t>(id)));
      ASSERT_EQ(event.embedding.size(), 8u);
      for (size_t k = 0; k < 8; ++k) EXPECT_NEAR(event.embedding[k], expected[k], 1e-6f) << n << " tokens";
      const auto [it, is_new] = first.emplace(id, event.embedding);
      if (!is_new) {
        EXPECT_EQ(event.embedding, it->second) << "other bits than in other chunks, " << n << " tokens";
      }
    }
    EXPECT_LE(h.probe->max_tokens.load(), batched);
    h.ExpectIdle();
  }
}

TEST_P(Pooling, ManyInputsShareAStep) {
  Harness h(Options(GetParam(), 64, 4096, 100), false);
  for (RequestId id = 1; id <= 40; ++id) ASSERT_TRUE(h.Submit(id, Ids(50, static_cast<int64_t>(id))).ok());
  h.engine->Start();
  for (RequestId id = 1; id <= 40; ++id) h.Wait(id);
  h.ExpectIdle();
  EXPECT_EQ(h.probe->forwards.load(), 1);
  EXPECT_EQ(h.engine->Stats().prompt_tokens, GetParam().type == PoolingType::kCls ? 40 : 2000);
}

TEST_P(Pooling, APictureChangesTheVector) {
  for (int64_t batched : {4096, 5}) {
    Harness h(Options(GetParam(), 8, batched, 100));
    std::vector<float> vectors[2];
    for (int k : {0, 1}) {
      GenerateRequest r;
      r.id = static_cast<RequestId>(k + 1);
      r.token_ids = Ids(40, 1);
      auto item = std::make_shared<MediaItem>();
      item->grid_h = item->grid_w = 4;
      item->patch_rows.assign(16 * 588, static_cast<uint8_t>(k));
      item->num_tokens = 4;
      item->first_token = 36;  // the prompt ends with it
      item->content_hash = KeyedHash(StrCat("picture ", k));
      r.media.push_back(item);
      ASSERT_TRUE(h.Submit(std::move(r)).ok());
      const TokenEvent event = h.Wait(static_cast<RequestId>(k + 1));
      EXPECT_EQ(event.finish_reason, FinishReason::kStop) << event.error.message();
      vectors[k] = event.embedding;
    }
    EXPECT_EQ(vectors[0] == vectors[1], GetParam().type == PoolingType::kCls);
    h.ExpectIdle();
  }
}

TEST_P(Pooling, LengthLimits) {
  EngineOptions options = Options(GetParam(), 2, 512, 40);
  options.max_model_len = 1000;
  Harness h(options);
  ASSERT_TRUE(h.Submit(1, Ids(1000, 1)).ok()) << "all of --max-model-len may be input";
  EXPECT_EQ(h.Wait(1).finish_reason, FinishReason::kStop);
  const Status longer = h.Submit(2, Ids(1001, 1));
  EXPECT_EQ(longer.code(), StatusCode::kInvalidArgument);
  for (const char* part : {"1001 tokens", "--max-model-len is 1000", "truncate_prompt_tokens"}) {
    EXPECT_NE(longer.message().find(part), std::string::npos) << longer.message();
  }
  EXPECT_EQ(h.Submit(3, {}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(h.Submit(4, {5, 101}).code(), StatusCode::kInvalidArgument) << "beyond the vocabulary";

  options.max_model_len = 2048;
  options.num_kv_pages = 2;
  Harness small(options);
  const Status pages = small.Submit(1, Ids(129, 1));
  EXPECT_NE(pages.message().find("--num-kv-pages 2"), std::string::npos) << pages.message();
  ASSERT_TRUE(small.Submit(2, Ids(128, 1)).ok());
  EXPECT_EQ(small.Wait(2).finish_reason, FinishReason::kStop);
}

TEST_P(Pooling, WhatIsNotANumberIsAnError) {
  Harness h(Options(GetParam(), 4, 64, 40));
  std::vector<int32_t> ids = Ids(80, 1);
  ids[0] = kNanToken;
  ASSERT_TRUE(h.Submit(1, ids).ok());
  ASSERT_TRUE(h.Submit(2, Ids(80, 2)).ok());
  EXPECT_EQ(h.Wait(1).finish_reason, FinishReason::kError);
  EXPECT_EQ(h.Wait(1).error.code(), StatusCode::kInternal);
  EXPECT_EQ(h.Wait(2).finish_reason, FinishReason::kStop);
  h.ExpectIdle();
}

TEST_P(Pooling, AStepThatFailsAndAbortsLeaveNothing) {
  Harness h(Options(GetParam(), 3, 16, 100));
  h.probe->sleep_us = 2000;
  for (RequestId id = 1; id <= 12; ++id) ASSERT_TRUE(h.Submit(id, Ids(200, static_cast<int64_t>(id))).ok());
  for (RequestId id : {2, 5, 12}) h.engine->Abort(id);
  for (RequestId id = 1; id <= 12; ++id) h.Wait(id);
  EXPECT_EQ(h.Wait(12).finish_reason, FinishReason::kAborted);
  EXPECT_TRUE(h.Wait(12).embedding.empty());
  h.ExpectIdle();
  ASSERT_TRUE(h.Submit(20, {kThrowToken}).ok());
  EXPECT_EQ(h.Wait(20).finish_reason, FinishReason::kError);
  // A sum that an ended sequence left behind is nobody's.
  for (RequestId id = 30; id <= 40; ++id) ASSERT_TRUE(h.Submit(id, Ids(90, static_cast<int64_t>(id))).ok());
  for (RequestId id = 30; id <= 40; ++id) {
    const std::vector<float> expected = Expected(GetParam().type, Ids(90, static_cast<int64_t>(id)));
    const TokenEvent event = h.Wait(id);
    ASSERT_EQ(event.embedding.size(), 8u) << event.error.message();
    for (size_t k = 0; k < 8; ++k) EXPECT_NEAR(event.embedding[k], expected[k], 1e-6f);
  }
  h.ExpectIdle();
}

}  // namespace
}  // namespace fd
