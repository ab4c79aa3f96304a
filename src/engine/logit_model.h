// A model whose logits are any function of the last token and the length of the context, and an engine around
// it. For tests that state what must be drawn and reported without knowing steps.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine/fake_model.h"

namespace fd {

using LogitFunction = float (*)(int32_t last, int64_t context, int32_t token);

// Random bits of these three.
inline uint64_t LogitBits(int32_t last, int64_t context, int32_t token) {
  uint64_t h = static_cast<uint64_t>(last) * 1000003u + static_cast<uint64_t>(context) * 7919u +
               static_cast<uint64_t>(token) * 104729u;
  h = (h ^ (h >> 15)) * 0x9e3779b97f4a7c15u;
  h = (h ^ (h >> 29)) * 0xbf58476d1ce4e5b9u;
  return h >> 40;
}

class LogitModel : public Model {
 public:
  LogitModel(LogitFunction logit, int64_t vocab) : logit_(logit), config_(FakeConfig()) {
    config_.vocab_size = vocab;
    config_.vision.reset();
  }
  const ModelConfig& config() const override { return config_; }
  DType dtype() const override { return DType::kFloat32; }
  int64_t weight_bytes() const override { return 0; }
  void Forward(const ops::Context&, const TensorView& logits, const ForwardBatch& batch,
               KvStorage&) override {
    const int32_t* offsets = batch.attention.query_offsets.As<int32_t>();
    const auto logits_of = [&](int32_t row, float* out) {
      int64_t s = 0;
      while (offsets[s + 1] <= row) ++s;
      const int64_t context = batch.attention.context_tokens.As<int32_t>()[s] - (offsets[s + 1] - 1 - row);
      for (int32_t v = 0; v < config_.vocab_size; ++v) {
        out[v] = logit_(batch.token_ids.As<int32_t>()[row], context, v);
      }
    };
    for (int64_t out = 0; out < batch.logits_rows.NumElements(); ++out) {
      logits_of(batch.logits_rows.As<int32_t>()[out], logits.As<float>() + out * logits.row_stride);
    }
    ForScoredSlices(batch, config_.vocab_size, logits_of);
  }
  void Encode(const ops::Context&, const TensorView&, const EncodeBatch&) override {}

 private:
  const LogitFunction logit_;
  ModelConfig config_;
};

// All requests at once through an engine of its own, until each has got its last event. on_event: one at a
// time.
inline EngineStats RunOnEngine(std::unique_ptr<Model> model, const EngineOptions& options,
                               std::vector<GenerateRequest> requests,
                               const std::function<void(TokenEvent&)>& on_event) {
  std::mutex mutex;
  std::condition_variable changed;
  size_t finished = 0;
  Workspace workspace(Device{}, 1 << 18);
  ThreadPool threads(2);
  ops::Context ctx;
  ctx.threads = &threads;
  ctx.workspace = &workspace;
  Engine engine(std::move(model), ctx, options);
  for (GenerateRequest& r : requests) {
    r.sink = [&](TokenEvent&& event) {
      std::lock_guard lock(mutex);
      on_event(event);
      if (event.finish_reason) ++finished;
      changed.notify_all();
    };
    const Status status = engine.Submit(std::move(r));
    EXPECT_TRUE(status.ok()) << status.message();
  }
  engine.Start();
  std::unique_lock lock(mutex);
  EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(120), [&] { return finished == requests.size(); }));
  lock.unlock();
  return engine.Stats();
}

}  // namespace fd
