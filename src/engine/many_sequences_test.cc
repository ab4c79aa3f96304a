// Hundreds of sequences at once, with priorities and paced steps: everybody gets what he gets among few.
#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <mutex>

#include "engine/engine.h"
#include "engine/fake_model.h"

namespace fd {
namespace {

using Outputs = std::map<RequestId, std::vector<int32_t>>;

Outputs RunAll(EngineOptions options, int64_t count) {
  options.max_model_len = 512;
  options.sampled_vocab_size = kNanToken;  // it and those behind it have effects
  options.max_waiting_requests = count;
  Workspace workspace(Device{}, 1 << 20);
  ThreadPool threads(1);
  ops::Context ctx;
  ctx.threads = &threads;
  ctx.workspace = &workspace;
  std::mutex mutex;
  std::condition_variable ended;
  Outputs outputs;
  int64_t num_ended = 0;
  Engine engine(std::make_unique<FakeModel>(std::make_shared<FakeModel::Probe>()), ctx, options);
  EXPECT_TRUE(engine.Prepare().ok());
  engine.Start();
  for (RequestId id = 1; id <= static_cast<RequestId>(count); ++id) {
    GenerateRequest r;
    r.id = id;
    r.priority = static_cast<int64_t>(id % 3);
    for (int32_t i = 0; i < static_cast<int32_t>(1 + id * 7 % 90); ++i) {
      r.token_ids.push_back((static_cast<int32_t>(id) * 3 + i * 5) % kNanToken);
    }
    r.sampling.max_tokens = 1 + static_cast<int64_t>(id * 13 % 200);
    r.sampling.ignore_eos = true;
    r.sampling.temperature = 0.8f;
    r.sampling.seed = id;
    r.sink = [&](TokenEvent&& event) {
      std::lock_guard lock(mutex);
      EXPECT_TRUE(event.error.ok()) << event.error.message();
      auto& tokens = outputs[event.request_id];
      tokens.insert(tokens.end(), event.token_ids.begin(), event.token_ids.end());
      if (event.finish_reason && ++num_ended == count) ended.notify_all();
    };
    EXPECT_TRUE(engine.Submit(std::move(r)).ok());
  }
  std::unique_lock lock(mutex);
  EXPECT_TRUE(ended.wait_for(lock, std::chrono::seconds(120), [&] { return num_ended == count; }));
  const EngineStats stats = engine.Stats();
  EXPECT_LE(stats.max_step_tokens, options.max_num_batched_tokens);
  return outputs;
}

TEST(ManySequences, FiveHundredAndTwelveGetWhatFewGet) {
  EngineOptions few;
  few.max_num_seqs = 3;
  few.num_kv_pages = 100;
  const Outputs expected = RunAll(few, 600);
  ASSERT_EQ(expected.size(), 600u);
  for (const bool overlap : {false, true}) {
    for (const double target_ms : {0.0, 0.01}) {
      EngineOptions many;
      many.max_num_seqs = 512;
      many.num_kv_pages = 3 * 512;
      many.overlap = overlap;
      many.target_step_ms = target_ms;
      EXPECT_EQ(RunAll(many, 600), expected) << overlap << " " << target_ms;
      many.num_kv_pages = 64;  // far too few
      EXPECT_EQ(RunAll(many, 600), expected) << overlap << " " << target_ms;
    }
  }
}

}  // namespace
}  // namespace fd
