#include "engine/engine.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <future>
#include <map>
#include <mutex>
#include <numeric>
#include <random>

#include "base/fault.h"
#include "engine/executor/executor.h"
#include "engine/fake_model.h"

namespace fd {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Collects the events of many requests; any thread waits for them.
class Collector {
 public:
  struct Outcome {
    std::vector<int32_t> tokens;
    std::optional<FinishReason> finish_reason;
    bool stopped_by_end_token = false;
    Status error;
  };
  TokenSink Sink() {
    return [this](TokenEvent&& event) {
      std::lock_guard lock(mutex_);
      Outcome& o = outcomes_[event.request_id];
      EXPECT_FALSE(o.finish_reason.has_value()) << "an event after the last one";
      EXPECT_EQ(event.token_ids.size(), event.logprobs.size());
      o.tokens.insert(o.tokens.end(), event.token_ids.begin(), event.token_ids.end());
      o.finish_reason = event.finish_reason;
      o.stopped_by_end_token = event.stopped_by_end_token;
      o.error = event.error;
      changed_.notify_all();
    };
  }
  Outcome WaitFinished(RequestId id) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(
        changed_.wait_for(lock, seconds(60), [&] { return outcomes_[id].finish_reason.has_value(); }));
    return outcomes_[id];
  }
  void WaitTokens(RequestId id, size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, seconds(60), [&] {
      return outcomes_[id].tokens.size() >= count || outcomes_[id].finish_reason.has_value();
    }));
  }
  bool Finished(RequestId id) {
    std::lock_guard lock(mutex_);
    return outcomes_[id].finish_reason.has_value();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<RequestId, Outcome> outcomes_;
};

struct Harness {
  explicit Harness(EngineOptions options, bool start = true)
      : workspace(Device{}, 1 << 16), threads(1), probe(std::make_shared<FakeModel::Probe>()) {
    ops::Context ctx;
    ctx.threads = &threads;
    ctx.workspace = &workspace;
    engine = std::make_unique<Engine>(std::make_unique<FakeModel>(probe), ctx, options);
    if (start) engine->Start();
  }
  // Waits until nothing runs, then checks that no page is lost.
  void ExpectIdle() {
    const auto deadline = Clock::now() + seconds(10);
    while (engine->Stats().running + engine->Stats().waiting > 0 && Clock::now() < deadline) {
      std::this_thread::sleep_for(milliseconds(1));
    }
    EngineStats stats = engine->Stats();
    EXPECT_EQ(stats.running, 0);
    EXPECT_EQ(stats.waiting, 0);
    EXPECT_EQ(stats.used_pages, 0);
    EXPECT_EQ(stats.free_pages + stats.cached_pages, stats.total_pages);
  }

  Workspace workspace;
  ThreadPool threads;
  std::shared_ptr<FakeModel::Probe> probe;
  Collector collector;
  std::unique_ptr<Engine> engine;
};

// Every test runs with the plain loop and with the one that overlaps.
class EngineLoop : public testing::TestWithParam<bool> {
 protected:
  EngineLoop() { overlap = GetParam(); }
  ~EngineLoop() override { overlap = false; }

 public:
  static inline bool overlap = false;
};
INSTANTIATE_TEST_SUITE_P(PlainAndOverlapped, EngineLoop, testing::Bool());

EngineOptions Options(int64_t seqs, int64_t batched, int64_t pages) {
  EngineOptions o;
  o.overlap = EngineLoop::overlap;
  o.max_model_len = 2048;
  o.max_num_seqs = seqs;
  o.max_num_batched_tokens = batched;
  o.num_kv_pages = pages;
  o.max_media_tokens = 16;
  o.encoder_cache_tokens = 256;
  return o;
}

GenerateRequest Request(Harness& h, RequestId id, int64_t prompt_tokens, int64_t max_tokens) {
  GenerateRequest r;
  r.id = id;
  for (int64_t i = 0; i < prompt_tokens; ++i) r.token_ids.push_back(3 + (i * 7 + id) % 90);
  r.sampling.temperature = 0;
  r.sampling.max_tokens = max_tokens;
  r.sink = h.collector.Sink();
  return r;
}

std::shared_ptr<MediaItem> Picture(int32_t h, int32_t w, int64_t first_token, uint8_t pixel) {
  auto item = std::make_shared<MediaItem>();
  item->grid_h = h;
  item->grid_w = w;
  item->patch_rows.assign(h * w * 588, pixel);
  item->num_tokens = h * w / 4;
  item->first_token = first_token;
  item->content_hash = KeyedHash(StrCat(h, " ", w, " ", pixel));
  return item;
}

// Text and pictures mixed, some pictures equal.
std::vector<GenerateRequest> MixedRequests(Harness& h, int count, int64_t max_tokens) {
  std::mt19937 rng(3);
  std::vector<GenerateRequest> requests;
  for (int i = 1; i <= count; ++i) {
    GenerateRequest r = Request(h, i, 5 + rng() % 120, max_tokens);
    if (i % 2 == 0) {
      const int64_t n = static_cast<int64_t>(r.token_ids.size());
      r.vision_expert.assign(n, 0);
      int64_t at = rng() % 4;
      while (at + 12 <= n) {
        auto item = Picture(6, 8, at, rng() % 3);
        std::fill_n(r.vision_expert.begin() + at, 12, 1);
        r.media.push_back(item);
        at += 12 + rng() % 30;
      }
      for (int axis = 0; axis < 3; ++axis) {
        for (int64_t k = 0; k < n; ++k) r.positions.push_back(static_cast<int32_t>(k / (axis + 1)));
      }
      r.position_delta = -3;
    }
    requests.push_back(std::move(r));
  }
  return requests;
}

TEST_P(EngineLoop, SameTokensWhateverRunsBesides) {
  std::map<RequestId, std::vector<int32_t>> alone;
  {
    Harness h(Options(1, 4096, 40));
    for (GenerateRequest& r : MixedRequests(h, 12, 150)) {
      const RequestId id = r.id;
      ASSERT_TRUE(h.engine->Submit(std::move(r)).ok());
      alone[id] = h.collector.WaitFinished(id).tokens;
      EXPECT_EQ(alone[id].size(), 150u);
    }
    h.ExpectIdle();
  }
  // A budget inside pictures, a roomy one, and too few pages, so that sequences are preempted.
  for (EngineOptions o : {Options(12, 7, 100), Options(12, 384, 100), Options(5, 64, 6)}) {
    Harness h(o, /*start=*/false);
    for (GenerateRequest& r : MixedRequests(h, 12, 150)) ASSERT_TRUE(h.engine->Submit(std::move(r)).ok());
    EXPECT_EQ(h.engine->Stats().waiting, 12);
    h.engine->Start();
    for (RequestId id = 1; id <= 12; ++id) {
      Collector::Outcome outcome = h.collector.WaitFinished(id);
      EXPECT_EQ(outcome.tokens, alone[id]) << id << " budget " << o.max_num_batched_tokens;
      EXPECT_EQ(outcome.finish_reason, FinishReason::kLength);
    }
    EXPECT_LE(h.probe->max_tokens, o.max_num_batched_tokens);
    EXPECT_EQ(h.engine->Stats().max_step_tokens, h.probe->max_tokens);
    EXPECT_EQ(h.engine->Stats().preemptions > 0, o.num_kv_pages == 6);
    EXPECT_EQ(h.engine->Stats().generated_tokens, 12 * 150);
    EXPECT_EQ(h.engine->Stats().preempted, 0);
    const StepSizes sizes = h.engine->Stats().step_sizes;
    EXPECT_EQ(sizes.num_steps, h.engine->Stats().steps);
    EXPECT_EQ(std::accumulate(sizes.steps.begin(), sizes.steps.end(), int64_t{0}), sizes.num_steps);
    EXPECT_GE(sizes.num_tokens, 12 * 149);
    h.ExpectIdle();
  }
}

// Nothing kept, hardly more than the largest picture kept, everything kept; one picture a step or all.
TEST_P(EngineLoop, SameTokensWhateverTheEncoderKeepsAndWhateverIsEncodedTogether) {
  std::map<RequestId, std::vector<int32_t>> alone;
  for (int64_t cache : {256, 0, 13, 30}) {
    for (int64_t batch : {1, 24, 1000}) {
      for (int64_t step_tokens : {9, 64}) {
        EngineOptions o = Options(12, step_tokens, 100);
        o.max_media_tokens = cache == 0 ? 12 : 1;
        o.encoder_cache_tokens = cache;
        o.max_encoder_batch_tokens = batch;
        Harness h(o, /*start=*/false);
        int64_t pictures = 0;
        for (GenerateRequest& r : MixedRequests(h, 12, 20)) {
          pictures += static_cast<int64_t>(r.media.size());
          ASSERT_TRUE(h.engine->Submit(std::move(r)).ok());
        }
        h.engine->Start();
        for (RequestId id = 1; id <= 12; ++id) {
          const std::vector<int32_t> tokens = h.collector.WaitFinished(id).tokens;
          if (!alone.contains(id)) alone[id] = tokens;
          EXPECT_EQ(tokens, alone[id]) << id << " cache " << cache << " batch " << batch;
        }
        h.ExpectIdle();
        const EngineStats stats = h.engine->Stats();
        EXPECT_EQ(stats.encoder_capacity_tokens, o.EncoderSlabTokens());
        EXPECT_LE(stats.encoder_kept_tokens, cache == 0 ? 0 : stats.encoder_capacity_tokens);
        EXPECT_LE(h.probe->encodes, stats.encoded_items);
        if (batch < 24) {
          EXPECT_EQ(h.probe->encodes, stats.encoded_items);
        }
        EXPECT_GT(stats.encoded_items, 1);
        if (cache == 256) {
          EXPECT_LE(stats.encoded_items, 3);  // as many as there are different ones
        }
        EXPECT_EQ(stats.encoded_tokens, 12 * stats.encoded_items);
        EXPECT_EQ(stats.encoder_hits + stats.encoded_items, pictures);
      }
    }
  }
}

TEST_P(EngineLoop, AFailedStepsPicturesAreEncodedAgain) {
  Harness h(Options(1, 64, 40));
  GenerateRequest broken = Request(h, 1, 30, 4);
  broken.media = {Picture(6, 8, 2, 9)};
  broken.token_ids[20] = kThrowToken;
  ASSERT_TRUE(h.engine->Submit(std::move(broken)).ok());
  EXPECT_EQ(h.collector.WaitFinished(1).finish_reason, FinishReason::kError);
  EXPECT_EQ(h.engine->Stats().encoder_kept_tokens, 0);
  GenerateRequest r = Request(h, 2, 30, 4);
  r.media = {Picture(6, 8, 2, 9)};
  ASSERT_TRUE(h.engine->Submit(std::move(r)).ok());
  EXPECT_EQ(h.collector.WaitFinished(2).finish_reason, FinishReason::kLength);
  EXPECT_EQ(h.probe->encodes, 2);
  h.ExpectIdle();
}

// A step with several small pictures is one call of the encoder.
TEST_P(EngineLoop, PicturesOfAStepAreEncodedInOneCall) {
  Harness h(Options(4, 200, 40), /*start=*/false);
  for (RequestId id = 1; id <= 3; ++id) {
    GenerateRequest r = Request(h, id, 40, 4);
    for (int i = 0; i < 3; ++i)
      r.media.push_back(Picture(4, 4, 1 + 10 * i, static_cast<uint8_t>(10 * id + i)));
    ASSERT_TRUE(h.engine->Submit(std::move(r)).ok());
  }
  h.engine->Start();
  for (RequestId id = 1; id <= 3; ++id) h.collector.WaitFinished(id);
  EXPECT_EQ(h.probe->encodes, 1);
  EXPECT_EQ(h.engine->Stats().encoded_items, 9);
  h.ExpectIdle();
}

TEST_P(EngineLoop, APictureIsEncodedOnceForAllChunksAndSequences) {
  Harness h(Options(4, 5, 40), /*start=*/false);
  for (RequestId id = 1; id <= 3; ++id) {
    GenerateRequest r = Request(h, id, 30, 4);
    r.media = {Picture(6, 8, 2, 9), Picture(6, 8, 16, 9)};  // the same picture twice
    r.vision_expert.assign(30, 0);
    ASSERT_TRUE(h.engine->Submit(std::move(r)).ok());
  }
  h.engine->Start();
  for (RequestId id = 1; id <= 3; ++id) h.collector.WaitFinished(id);
  EXPECT_EQ(h.probe->encodes, 1);
  GenerateRequest later = Request(h, 4, 30, 4);  // after all of them have ended
  later.media = {Picture(6, 8, 7, 9)};
  ASSERT_TRUE(h.engine->Submit(std::move(later)).ok());
  h.collector.WaitFinished(4);
  EXPECT_EQ(h.probe->encodes, 1);
  const EngineStats stats = h.engine->Stats();
  EXPECT_EQ(stats.encoded_items, 1);
  EXPECT_EQ(stats.encoder_hits, 6);
  EXPECT_EQ(stats.encoder_hit_tokens, 6 * 12);
  EXPECT_EQ(stats.encoder_kept_tokens, 12);
  EXPECT_GT(stats.encode_ms, 0);
  h.ExpectIdle();
}

TEST_P(EngineLoop, EndTokensStopTokensAndIgnoreEos) {
  Harness h(Options(4, 64, 40));
  ASSERT_TRUE(h.engine->Submit(Request(h, 1, 10, 20)).ok());
  std::vector<int32_t> tokens = h.collector.WaitFinished(1).tokens;
  ASSERT_EQ(tokens.size(), 20u);

  GenerateRequest r = Request(h, 2, 10, 20);
  r.token_ids = Request(h, 1, 10, 20).token_ids;  // the same prompt as before
  r.sampling.stop_token_ids = {1, tokens[5]};
  const size_t first = std::find(tokens.begin(), tokens.end(), tokens[5]) - tokens.begin();
  ASSERT_TRUE(h.engine->Submit(std::move(r)).ok());
  Collector::Outcome outcome = h.collector.WaitFinished(2);
  EXPECT_EQ(outcome.finish_reason, FinishReason::kStop);
  EXPECT_TRUE(outcome.stopped_by_end_token);
  EXPECT_EQ(outcome.tokens, std::vector<int32_t>(tokens.begin(), tokens.begin() + first + 1));
  h.ExpectIdle();
}

// A model that always draws its end token.
class EndingModel : public FakeModel {
 public:
  using FakeModel::FakeModel;
  void Forward(const ops::Context& ctx, const TensorView& logits, const ForwardBatch& batch,
               KvStorage& kv) override {
    FakeModel::Forward(ctx, logits, batch, kv);
    for (int64_t i = 0; i < logits.dim(0); ++i) logits.As<float>()[i * logits.row_stride + kEndToken] = 100;
  }
};

TEST_P(EngineLoop, EosEndsUnlessIgnored) {
  Workspace workspace(Device{}, 1 << 16);
  ThreadPool threads(1);
  ops::Context ctx;
  ctx.threads = &threads;
  ctx.workspace = &workspace;
  Engine engine(std::make_unique<EndingModel>(std::make_shared<FakeModel::Probe>()), ctx, Options(2, 64, 10));
  engine.Start();
  Collector collector;
  for (bool ignore : {false, true}) {
    GenerateRequest r;
    r.id = 1 + ignore;
    r.token_ids = {5, 6, 7};
    r.sampling.temperature = 0;
    r.sampling.max_tokens = 6;
    r.sampling.ignore_eos = ignore;
    r.sink = collector.Sink();
    ASSERT_TRUE(engine.Submit(std::move(r)).ok());
    Collector::Outcome outcome = collector.WaitFinished(1 + ignore);
    EXPECT_EQ(outcome.tokens.size(), ignore ? 6u : 1u);
    EXPECT_EQ(outcome.finish_reason, ignore ? FinishReason::kLength : FinishReason::kStop);
    EXPECT_EQ(outcome.stopped_by_end_token, !ignore);
  }
}

TEST_P(EngineLoop, AbortLeavesWithinOneStep) {
  Harness h(Options(2, 64, 40));
  h.probe->sleep_us = 2000;
  ASSERT_TRUE(h.engine->Submit(Request(h, 1, 10, 1500)).ok());
  ASSERT_TRUE(h.engine->Submit(Request(h, 2, 10, 50)).ok());
  ASSERT_TRUE(h.engine->Submit(Request(h, 3, 10, 1500)).ok());  // waits
  h.collector.WaitTokens(1, 3);
  const int64_t steps = h.probe->forwards;
  h.engine->Abort(1);
  h.engine->Abort(3);
  h.engine->Abort(12345);  // unknown: ignored
  EXPECT_EQ(h.collector.WaitFinished(1).finish_reason, FinishReason::kAborted);
  EXPECT_LE(h.probe->forwards - steps, 2 + overlap);
  EXPECT_EQ(h.collector.WaitFinished(3).finish_reason, FinishReason::kAborted);
  EXPECT_EQ(h.collector.WaitFinished(2).tokens.size(), 50u);
  h.engine->Abort(2);  // finished: ignored
  h.ExpectIdle();
}

TEST_P(EngineLoop, SixtyFourStreamsHalfOfThemAborted) {
  Harness h(Options(16, 48, 60));
  h.probe->sleep_us = 50;
  std::vector<std::thread> clients;
  for (RequestId id = 1; id <= 64; ++id) {
    clients.emplace_back([&h, id] {
      GenerateRequest r = Request(h, id, 20 + id, 60);
      if (id % 3 == 0) r.media = {Picture(6, 8, 4, id % 5)};
      ASSERT_TRUE(h.engine->Submit(std::move(r)).ok());
      if (id % 2 == 0) {
        h.collector.WaitTokens(id, id % 7);
        h.engine->Abort(id);
      }
      h.collector.WaitFinished(id);
    });
  }
  for (auto& c : clients) c.join();
  for (RequestId id = 1; id <= 64; id += 2) EXPECT_EQ(h.collector.WaitFinished(id).tokens.size(), 60u);
  EXPECT_EQ(h.engine->Stats().running, 0);  // the last event comes after the numbers
  h.ExpectIdle();
}

TEST_P(EngineLoop, RefusesWhenTheQueueIsFull) {
  EngineOptions o = Options(2, 64, 40);
  o.max_waiting_requests = 3;
  Harness h(o, /*start=*/false);
  for (RequestId id = 1; id <= 5; ++id) ASSERT_TRUE(h.engine->Submit(Request(h, id, 10, 5)).ok());
  Status status = h.engine->Submit(Request(h, 6, 10, 5));
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_NE(status.message().find("--max-waiting-requests"), std::string::npos) << status.message();
  h.engine->Start();
  for (RequestId id = 1; id <= 5; ++id) h.collector.WaitFinished(id);
  h.ExpectIdle();
  EXPECT_TRUE(h.engine->Submit(Request(h, 6, 10, 5)).ok());
  EXPECT_EQ(h.collector.WaitFinished(6).tokens.size(), 5u);
}

TEST_P(EngineLoop, DrainLetsRequestsFinish) {
  Harness h(Options(2, 64, 40));
  h.probe->sleep_us = 200;
  for (RequestId id = 1; id <= 4; ++id) ASSERT_TRUE(h.engine->Submit(Request(h, id, 10, 20)).ok());
  h.engine->Drain(Clock::now() + seconds(30));
  for (RequestId id = 1; id <= 4; ++id) {
    ASSERT_TRUE(h.collector.Finished(id));
    EXPECT_EQ(h.collector.WaitFinished(id).finish_reason, FinishReason::kLength);
  }
  EXPECT_EQ(h.engine->Submit(Request(h, 9, 10, 20)).code(), StatusCode::kUnavailable);
}

TEST_P(EngineLoop, DrainAbortsAtTheDeadline) {
  Harness h(Options(2, 64, 100));
  h.probe->sleep_us = 1000;
  for (RequestId id = 1; id <= 4; ++id) ASSERT_TRUE(h.engine->Submit(Request(h, id, 10, 2000)).ok());
  const auto start = Clock::now();
  h.engine->Drain(start + milliseconds(50));
  EXPECT_LT(Clock::now() - start, seconds(5));
  for (RequestId id = 1; id <= 4; ++id) {
    ASSERT_TRUE(h.collector.Finished(id));
    EXPECT_EQ(h.collector.WaitFinished(id).finish_reason, FinishReason::kAborted);
  }
  h.ExpectIdle();
}

TEST_P(EngineLoop, DestructionEndsEveryRequest) {
  for (bool start : {true, false}) {
    Harness h(Options(2, 64, 100), start);
    h.probe->sleep_us = 1000;
    for (RequestId id = 1; id <= 4; ++id) ASSERT_TRUE(h.engine->Submit(Request(h, id, 10, 2000)).ok());
    h.engine.reset();
    for (RequestId id = 1; id <= 4; ++id) {
      ASSERT_TRUE(h.collector.Finished(id));
      EXPECT_EQ(h.collector.WaitFinished(id).finish_reason, FinishReason::kAborted);
    }
  }
}

TEST_P(EngineLoop, NanEndsThatRequestOnly) {
  Harness h(Options(4, 64, 40), /*start=*/false);
  ASSERT_TRUE(h.engine->Submit(Request(h, 1, 10, 20)).ok());
  GenerateRequest r = Request(h, 2, 10, 20);
  r.token_ids[4] = kNanToken;
  ASSERT_TRUE(h.engine->Submit(std::move(r)).ok());
  h.engine->Start();
  Collector::Outcome outcome = h.collector.WaitFinished(2);
  EXPECT_EQ(outcome.finish_reason, FinishReason::kError);
  EXPECT_FALSE(outcome.error.ok());
  EXPECT_TRUE(outcome.tokens.empty());
  EXPECT_EQ(h.collector.WaitFinished(1).tokens.size(), 20u);
  h.ExpectIdle();
}

TEST_P(EngineLoop, AFailedStepFailsWhatRunsAndTheNextRequestWorks) {
  Harness h(Options(2, 64, 40), /*start=*/false);
  ASSERT_TRUE(h.engine->Submit(Request(h, 1, 10, 20)).ok());
  GenerateRequest r = Request(h, 2, 10, 20);
  r.token_ids[4] = kThrowToken;
  ASSERT_TRUE(h.engine->Submit(std::move(r)).ok());
  ASSERT_TRUE(h.engine->Submit(Request(h, 3, 10, 20)).ok());  // waits: it goes on
  h.engine->Start();
  for (RequestId id : {1, 2}) {
    Collector::Outcome outcome = h.collector.WaitFinished(id);
    EXPECT_EQ(outcome.finish_reason, FinishReason::kError);
    EXPECT_NE(outcome.error.message().find("thrown by the test"), std::string::npos);
  }
  EXPECT_EQ(h.collector.WaitFinished(3).tokens.size(), 20u);
  h.ExpectIdle();
}

TEST_P(EngineLoop, ALostDeviceEndsEveryRequestAndRefusesNewOnes) {
  ASSERT_TRUE(SetFaults("device_error@at=4").ok());
  Harness h(Options(2, 64, 40), /*start=*/false);
  std::promise<Status> lost;
  h.engine->OnDeviceLost([&] { lost.set_value(h.engine->DeviceStatus()); });
  EXPECT_TRUE(h.engine->DeviceStatus().ok());
  for (RequestId id = 1; id <= 3; ++id) ASSERT_TRUE(h.engine->Submit(Request(h, id, 10, 20)).ok());
  h.engine->Start();
  for (RequestId id = 1; id <= 3; ++id) {  // the third one waits
    Collector::Outcome outcome = h.collector.WaitFinished(id);
    EXPECT_EQ(outcome.finish_reason, FinishReason::kError);
    EXPECT_EQ(outcome.error.code(), StatusCode::kUnavailable);
    EXPECT_NE(outcome.error.message().find("step 4"), std::string::npos) << outcome.error.message();
    EXPECT_EQ(outcome.tokens.size(), id == 3 ? 0u : 3u);
  }
  EXPECT_EQ(lost.get_future().get().code(), StatusCode::kUnavailable);
  EXPECT_EQ(h.engine->Submit(Request(h, 4, 10, 20)).code(), StatusCode::kUnavailable);
  h.ExpectIdle();
  ASSERT_TRUE(SetFaults("").ok());
}

TEST_P(EngineLoop, MalformedRequestsAreRefusedAtTheDoor) {
  Harness h(Options(2, 64, 40));
  auto refused = [&](auto change, const std::string& part) {
    GenerateRequest r = Request(h, 7, 30, 5);
    r.media = {Picture(6, 8, 4, 1)};
    change(r);
    Status status = h.engine->Submit(std::move(r));
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << part;
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
  };
  auto picture = [](GenerateRequest& r) { return std::const_pointer_cast<MediaItem>(r.media[0]); };
  refused([](auto& r) { r.token_ids.clear(); }, "no tokens");
  refused([](auto& r) { r.token_ids[3] = 101; }, "0 to 100");
  refused([](auto& r) { r.token_ids[3] = -1; }, "-1");
  refused([](auto& r) { r.sampling.max_tokens = 2019; }, "2048");
  refused([](auto& r) { r.sampling.max_tokens = -1; }, "max_tokens");
  refused([](auto& r) { r.sampling.temperature = NAN; }, "temperature");
  refused([](auto& r) { r.sampling.temperature = -1; }, "temperature");
  refused([](auto& r) { r.sampling.top_p = 0; }, "top_p");
  refused([](auto& r) { r.sampling.min_p = NAN; }, "min_p");
  refused([](auto& r) { r.sampling.top_k = -1; }, "top_k");
  refused([](auto& r) { r.positions.assign(89, 0); }, "89");
  refused([](auto& r) { r.position_delta = INT64_MIN + 1; }, "delta");
  refused([](auto& r) { r.vision_expert.assign(29, 0); }, "29");
  refused([&](auto& r) { picture(r)->grid_h = 0; }, "grid");
  refused([&](auto& r) { picture(r)->grid_h = 3; }, "even");
  refused([&](auto& r) { picture(r)->grid_w = INT32_MAX; }, "grid");
  refused([&](auto& r) { picture(r)->patch_rows.assign(picture(r)->patch_rows.size() - 1, 0); }, "bytes");
  refused([&](auto& r) { picture(r)->num_tokens = 11; }, "12 tokens");
  refused([&](auto& r) { picture(r)->first_token = 19; }, "inside the prompt");
  refused([&](auto& r) { picture(r)->first_token = -1; }, "inside the prompt");
  refused([&](auto& r) { r.media.push_back(r.media[0]); }, "follow");
  refused(
      [&](auto& r) {
        r.media = {Picture(40, 40, 0, 1)};
        r.token_ids.assign(500, 5);
      },
      "--encoder-cache-tokens 400");
  refused([](auto& r) { r.media[0] = nullptr; }, "missing");
  GenerateRequest r = Request(h, 7, 30, 5);
  EXPECT_TRUE(h.engine->Submit(std::move(r)).ok());
  EXPECT_EQ(h.collector.WaitFinished(7).tokens.size(), 5u);
}

TEST_P(EngineLoop, AnIdleLoopSleepsAndShowsThatItIsAlive) {
  Harness h(Options(2, 64, 40));
  std::this_thread::sleep_for(milliseconds(50));
  timespec before, after;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
  std::this_thread::sleep_for(milliseconds(600));
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
  const double cpu_ms = (after.tv_sec - before.tv_sec) * 1e3 + (after.tv_nsec - before.tv_nsec) * 1e-6;
  EXPECT_LT(cpu_ms, 100.0);
  EXPECT_LT(Clock::now() - h.engine->last_heartbeat(), milliseconds(500));
}

// Pages go to the host and come back, with a step in flight or not: their bytes decide what is drawn.
TEST_P(EngineLoop, TheSameTokensFromPagesOnTheHost) {
  const auto answers = [](EngineOptions options, EngineStats* stats) {
    Harness h(options);
    std::vector<std::vector<int32_t>> all;
    RequestId id = 0;
    for (int round = 0; round < 2; ++round) {
      for (RequestId prompt = 1; prompt <= 8; prompt += 2) {  // two at once
        for (RequestId i = prompt; i < prompt + 2; ++i) {
          GenerateRequest r = Request(h, i, 150 + 10 * static_cast<int64_t>(i), 40);
          r.id = ++id;
          EXPECT_TRUE(h.engine->Submit(std::move(r)).ok());
        }
        for (RequestId i = id - 1; i <= id; ++i) all.push_back(h.collector.WaitFinished(i).tokens);
      }
    }
    h.ExpectIdle();
    *stats = h.engine->Stats();
    return all;
  };
  EngineStats roomy, swapping, small;
  const auto expected = answers(Options(2, 64, 100), &roomy);
  EngineOptions options = Options(2, 64, 10);
  EXPECT_EQ(answers(options, &small), expected);
  EXPECT_EQ(small.pages_moved_out + small.pages_moved_in + small.total_host_pages, 0);
  options.num_host_pages = 60;
  EXPECT_EQ(answers(options, &swapping), expected);
  EXPECT_EQ(swapping.total_host_pages, 60);
  EXPECT_LT(swapping.free_host_pages, 60);
  EXPECT_GT(swapping.pages_moved_out, 0);
  EXPECT_GT(swapping.pages_moved_in, 0);
  EXPECT_GT(swapping.prefix_host_hit_tokens, 0);
  EXPECT_LT(swapping.prompt_tokens, small.prompt_tokens);
  EXPECT_GE(swapping.prefix_saved_ms, swapping.prefix_host_saved_ms);
  EngineStats dear;
  options.page_in_ms = 1e9;  // so computing is cheaper, once it is known what that takes
  EXPECT_EQ(answers(options, &dear), expected);
  EXPECT_EQ(dear.pages_moved_out + dear.pages_moved_in, 0);
  EXPECT_GT(dear.prompt_tokens, swapping.prompt_tokens);
}

TEST(Executor, MeasuresMovingAPage) {
  Workspace workspace(Device{}, 1 << 16);
  ThreadPool threads(1);
  ops::Context ctx;
  ctx.threads = &threads;
  ctx.workspace = &workspace;
  FakeModel model(std::make_shared<FakeModel::Probe>());
  EngineOptions o = Options(4, 64, 40);
  Executor without(model, ctx, o);
  ASSERT_TRUE(without.Prepare().ok());
  EXPECT_EQ(without.page_move_ms().in, 0);
  o.num_host_pages = 9;
  Executor with(model, ctx, o);
  EXPECT_EQ(with.page_move_ms().in, 0);
  ASSERT_TRUE(with.Prepare().ok());
  EXPECT_GT(with.page_move_ms().in, 0);
  EXPECT_GT(with.page_move_ms().out, 0);
  o.page_in_ms = 7;
  Executor given(model, ctx, o);
  ASSERT_TRUE(given.Prepare().ok());
  EXPECT_EQ(given.page_move_ms().in, 7);
}

TEST(Executor, TakesExactlyWhatWasPlanned) {
  EngineOptions o = Options(4, 64, 40);
  o.num_host_pages = 7;  // not from the arena
  o.max_media_tokens = 12;
  const ModelConfig config = FakeConfig();
  const int64_t bytes = o.num_kv_pages * KvBytesPerPage(config, DType::kFloat32) +
                        ExecutorBytes(config, DType::kFloat32, o) +
                        EncoderSlabBytes(config, DType::kFloat32, o);
  auto arena = Arena::Allocate(Device{}, bytes);
  Workspace workspace(Device{}, 1 << 16);
  ThreadPool threads(1);
  ops::Context ctx;
  ctx.threads = &threads;
  ctx.workspace = &workspace;
  ctx.arena = arena.get();
  FakeModel model(std::make_shared<FakeModel::Probe>());
  Executor executor(model, ctx, o);
  EXPECT_EQ(arena->used_bytes(), arena->capacity_bytes());
}

TEST(Executor, DecodeStepsAreRecordedForPowersOfTwoAndStepsOfEight) {
  EXPECT_EQ(DecodeGraphRows(Options(1, 64, 40)), std::vector<int64_t>{1});
  EXPECT_EQ(DecodeGraphRows(Options(5, 64, 40)), (std::vector<int64_t>{1, 2, 4, 5}));
  EXPECT_EQ(DecodeGraphRows(Options(32, 64, 40)), (std::vector<int64_t>{1, 2, 4, 8, 16, 24, 32}));
  EXPECT_EQ(DecodeGraphRows(Options(100, 20, 40)), (std::vector<int64_t>{1, 2, 4, 8, 16, 20}));
}

TEST(Executor, BytesArePlanned) {
  EngineOptions o = Options(4, 64, 40);
  const int64_t bytes = ExecutorBytes(FakeConfig(), DType::kFloat32, o);
  EXPECT_GT(bytes, 4 * 101 * 4 + 2 * 64 * 8 * 4);
  o.max_num_batched_tokens = 4096;
  EXPECT_GT(ExecutorBytes(FakeConfig(), DType::kFloat32, o), bytes + 4000 * 8 * 4);
  EXPECT_EQ(EncoderSlabBytes(FakeConfig(), DType::kFloat32, o), (4096 + 16) * 8 * 4);
  o.encoder_cache_tokens = 8192;
  EXPECT_EQ(EncoderSlabBytes(FakeConfig(), DType::kFloat32, o), 8192 * 8 * 4);
  o.max_media_tokens = 0;  // no pictures at all
  EXPECT_EQ(EncoderSlabBytes(FakeConfig(), DType::kFloat32, o), 0);
}

// The budget's tokens stand where it ends, whatever was drawn, and what follows is drawn from them: the same
// as when the prompt had held them. With a roomy and with a tight cache (preemption), alone and in company.
TEST_P(EngineLoop, ThinkingBudget) {
  const auto generate = [](int64_t pages, const std::vector<GenerateRequest>& requests) {
    Harness h(Options(8, 40, pages));
    std::vector<std::vector<int32_t>> tokens;
    for (GenerateRequest r : requests) {
      r.sink = h.collector.Sink();
      EXPECT_TRUE(h.engine->Submit(r).ok());
    }
    for (const GenerateRequest& r : requests) tokens.push_back(h.collector.WaitFinished(r.id).tokens);
    h.ExpectIdle();
    return tokens;
  };
  const auto request = [](RequestId id, int64_t max_tokens) {
    GenerateRequest r;
    r.id = id;
    for (int64_t i = 0; i < 50; ++i) r.token_ids.push_back(static_cast<int32_t>(3 + (i * 7 + id) % 90));
    r.sampling.temperature = 0;
    r.sampling.max_tokens = max_tokens;
    return r;
  };
  constexpr int32_t kEnd = 94;  // never drawn
  std::vector<GenerateRequest> limited;
  std::vector<std::vector<int32_t>> expected;
  for (RequestId id = 1; id <= 6; ++id) {
    const int64_t budget = static_cast<int64_t>(id) * id;
    const std::vector<int32_t> forced =
        id % 2 == 0 ? std::vector<int32_t>{kEnd} : std::vector<int32_t>{95, kEnd, 95, 96};
    GenerateRequest r = request(id, 60);
    r.sampling.thinking = {budget, kEnd, forced};
    limited.push_back(r);
    // Free up to the budget, then a prompt that holds the forced tokens.
    std::vector<int32_t> want = generate(40, {request(id, budget)})[0];
    want.insert(want.end(), forced.begin(), forced.end());
    GenerateRequest rest = request(id, 60 - std::ssize(want));
    rest.token_ids.insert(rest.token_ids.end(), want.begin(), want.end());
    const std::vector<int32_t> tail = generate(40, {rest})[0];
    want.insert(want.end(), tail.begin(), tail.end());
    expected.push_back(want);
  }
  EXPECT_EQ(generate(40, limited), expected);
  EXPECT_EQ(generate(5, limited), expected);
  // A thought that has ended by itself is left alone, also when it ends with its last allowed token, which in
  // the overlapped loop is still being drawn when the next step is planned.
  for (int64_t budget : {1, 4, 9}) {
    const std::vector<int32_t> open = generate(40, {request(9, 30)})[0];
    for (int64_t at : {budget - 1, budget}) {
      GenerateRequest r = request(9, 30);
      r.sampling.thinking = {budget, open[static_cast<size_t>(at)], {95, 96}};
      const bool natural = std::find(open.begin(), open.begin() + budget, open[static_cast<size_t>(at)]) !=
                           open.begin() + budget;
      EXPECT_EQ(natural, at < budget);
      const std::vector<int32_t> got = generate(40, {r})[0];
      if (natural) {
        EXPECT_EQ(got, open);
      } else {
        EXPECT_EQ(got[static_cast<size_t>(budget)], 95);
        EXPECT_EQ(got[static_cast<size_t>(budget) + 1], 96);
      }
    }
  }
  // Tokens that a forced one replaces end nothing; a forced end token does.
  GenerateRequest r = request(9, 30);
  r.sampling.stop_token_ids = {95};
  r.sampling.thinking = {5, kEnd, {95}};
  EXPECT_EQ(generate(40, {r})[0].size(), 6u);
  GenerateRequest wrong = request(9, 30);
  wrong.sampling.thinking = {5, kEnd, {}};
  Harness h(Options(8, 40, 40));
  EXPECT_FALSE(h.engine->Submit(wrong).ok());
}

}  // namespace
}  // namespace fd
