// A host to load models on, and what a model answers to one token (logits, or without a head its last hidden
// state): to see that two of them are the same.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/thread_pool.h"
#include "model/model.h"

namespace fd {

struct Host {
  ThreadPool threads{2};
  Workspace workspace{Device{}, 1 << 20};
  ops::Context ctx;
  Host() {
    ctx.threads = &threads;
    ctx.workspace = &workspace;
  }
};

// edit: of the batch, before it runs.
inline std::vector<float> LogitsOf(Host& host, Model& model,
                                   const std::function<void(ForwardBatch&)>& edit = nullptr) {
  KvStorage kv = MakeKvStorage(model.config(), model.dtype(), ops::Context{}, 1);
  int32_t id = 7, zero = 0, one[3] = {0, 0, 0}, offsets[2] = {0, 1}, context = 1;
  auto ints = [](int32_t* p, Shape shape) { return TensorView(p, DType::kInt32, Device{}, shape); };
  ForwardBatch batch;
  batch.num_tokens = 1;
  batch.token_ids = ints(&id, {1});
  batch.positions = ints(one, {3, 1});
  batch.attention = {
      ints(offsets, {2}), ints(&context, {1}), ints(offsets, {2}), ints(&zero, {1}), ints(&zero, {1}), 1, 1};
  batch.logits_rows = ints(&zero, {1});
  if (edit) edit(batch);
  Tensor logits(DType::kFloat32, Device{}, {1, model.config().OutputFeatures()});
  model.Forward(host.ctx, logits, batch, kv);
  const float* p = logits.view().As<float>();
  return {p, p + model.config().OutputFeatures()};
}

}  // namespace fd
