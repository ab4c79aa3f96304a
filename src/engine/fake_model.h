// A model whose "mathematics" is a hash of everything a sequence's block table leads to: ids, positions,
// expert sets and picture rows. A wrong slot, offset, row or upload changes the tokens. For tests of the
// engine without weights.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "model/model.h"

namespace fd {

// Prompt ids with an effect.
inline constexpr int32_t kNanToken = 97;    // the logits of this sequence are not numbers
inline constexpr int32_t kThrowToken = 98;  // the step throws
inline constexpr int32_t kEndToken = 2;

inline ModelConfig FakeConfig() {
  ModelConfig c;
  c.family = "fake";
  c.vocab_size = 101;
  c.hidden_size = 8;
  c.num_layers = 1;
  c.num_heads = 1;
  c.num_kv_heads = 1;
  c.head_dim = 8;
  c.max_position_embeddings = 4096;
  c.eos_token_ids = {kEndToken};
  c.vision.emplace();
  return c;
}

// What a model owes to ForwardBatch::scored_rows. logits_of(row, logits) fills one row.
template <typename Fn>
void ForScoredSlices(const ForwardBatch& batch, int64_t vocab, const Fn& logits_of) {
  const int64_t scored = batch.scored_rows.empty() ? 0 : batch.scored_rows.dim(0);
  constexpr int64_t kSlice = 5;
  Tensor slice(DType::kFloat32, Device{}, {kSlice, vocab});
  for (int64_t begin = 0; begin < scored; begin += kSlice) {
    const int64_t count = std::min(kSlice, scored - begin);
    for (int64_t i = 0; i < count; ++i) {
      logits_of(batch.scored_rows.As<int32_t>()[begin + i], slice.view().As<float>() + i * vocab);
    }
    batch.on_scored(begin, slice.view().Rows(0, count));
  }
}

class FakeModel : public Model {
 public:
  struct Probe {  // shared with the test; outlives the model
    std::atomic<int64_t> forwards{0};
    std::atomic<int64_t> encodes{0};
    std::atomic<int64_t> max_tokens{0};
    std::atomic<int64_t> sleep_us{0};
  };
  // Without a head (config.has_head) its last hidden states are EmbeddingOf the same hash.
  explicit FakeModel(std::shared_ptr<Probe> probe, ModelConfig config = FakeConfig())
      : config_(std::move(config)), probe_(std::move(probe)) {}

  const ModelConfig& config() const override { return config_; }
  DType dtype() const override { return DType::kFloat32; }
  int64_t weight_bytes() const override { return 0; }

  static std::vector<float> EmbeddingOf(uint64_t hash) {
    std::vector<float> out;
    for (uint64_t k = 0; k < 8; ++k) out.push_back(static_cast<float>(Mix(hash, k) % 2001) / 1000.0f - 1.0f);
    return out;
  }
  static uint64_t Mix(uint64_t h, uint64_t v) {
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ (h >> 29);
  }

  void Forward(const ops::Context& ctx, const TensorView& logits, const ForwardBatch& batch,
               KvStorage& kv) override {
    ++probe_->forwards;
    if (batch.num_tokens > probe_->max_tokens) probe_->max_tokens = batch.num_tokens;
    if (int64_t us = probe_->sleep_us) std::this_thread::sleep_for(std::chrono::microseconds(us));
    const int64_t tokens = batch.num_tokens;
    const int32_t* ids = batch.token_ids.As<int32_t>();
    const int32_t* positions = batch.positions.As<int32_t>();
    const int32_t* slots = batch.attention.slots.As<int32_t>();
    // k page: [1 head, 64 tokens, 8] floats: id, t, h, w, vision, picture.
    float* cache = kv.k.at(0).view().As<float>();
    std::set<int32_t> rows_seen;
    for (int64_t i = 0; i < tokens; ++i) {
      if (ids[i] == kThrowToken) throw std::runtime_error("thrown by the test");
      float* slot = cache + slots[i] * int64_t{8};
      slot[0] = static_cast<float>(ids[i]);
      for (int axis = 0; axis < 3; ++axis) slot[1 + axis] = static_cast<float>(positions[axis * tokens + i]);
      slot[4] = 0;
      slot[5] = 0;
    }
    auto each = [](const TensorView& rows, auto fn) {
      for (int64_t i = 0; i < rows.NumElements(); ++i) fn(i, rows.As<int32_t>()[i]);
    };
    each(batch.vision_rows, [&](int64_t, int32_t row) {
      cache[slots[row] * int64_t{8} + 4] = 1;
      FD_CHECK(rows_seen.insert(row).second);
    });
    each(batch.text_rows, [&](int64_t, int32_t row) { FD_CHECK(rows_seen.insert(row).second); });
    FD_CHECK(rows_seen.empty() || static_cast<int64_t>(rows_seen.size()) == tokens, "rows are no partition");
    each(batch.media_rows, [&](int64_t i, int32_t row) {
      cache[slots[row] * int64_t{8} + 5] = batch.media_embeddings.As<float>()[i * 8];
    });

    const int32_t* offsets = batch.attention.query_offsets.As<int32_t>();
    const int32_t* table_offsets = batch.attention.table_offsets.As<int32_t>();
    const auto logits_of = [&](int32_t row, float* row_logits) {
      int64_t s = 0;
      while (offsets[s + 1] <= row) ++s;
      const int32_t* table = batch.attention.block_tables.As<int32_t>() + table_offsets[s];
      const int64_t context = batch.attention.context_tokens.As<int32_t>()[s] - (offsets[s + 1] - 1 - row);
      uint64_t hash = 1;
      bool nan = false;
      for (int64_t i = 0; i < context; ++i) {
        const float* slot = cache + (table[i / 64] * int64_t{64} + i % 64) * 8;
        for (int k = 0; k < 6; ++k) hash = Mix(hash, static_cast<uint64_t>(static_cast<int64_t>(slot[k])));
        nan |= slot[0] == static_cast<float>(kNanToken);
      }
      if (!config_.has_head) {
        const std::vector<float> hidden = EmbeddingOf(hash);
        for (int64_t k = 0; k < 8; ++k) {
          row_logits[k] = nan ? std::numeric_limits<float>::quiet_NaN() : hidden[static_cast<size_t>(k)];
        }
        return;
      }
      for (int64_t v = 0; v < config_.vocab_size; ++v) row_logits[v] = 0;
      // One of 3 .. 92: never an end token or one with an effect.
      row_logits[3 + hash % 90] = nan ? std::numeric_limits<float>::quiet_NaN() : 10.0f;
    };
    for (int64_t out = 0; out < batch.logits_rows.NumElements(); ++out) {
      logits_of(batch.logits_rows.As<int32_t>()[out], logits.As<float>() + out * logits.row_stride);
    }
    ForScoredSlices(batch, config_.vocab_size, logits_of);
  }

  void Encode(const ops::Context& ctx, const TensorView& embeddings, const EncodeBatch& batch) override {
    ++probe_->encodes;
    FD_CHECK_EQ(embeddings.dim(0), batch.OutputTokens());
    const uint8_t* pixels = batch.patch_rows.As<uint8_t>();
    float* out = embeddings.As<float>();
    for (const EncodeBatch::Grid& g : batch.grids) {
      const int64_t bytes = g.t * g.h * g.w * batch.patch_rows.dim(1),
                    tokens = g.h * g.w / 4 * ((g.t + 1) / 2);
      uint64_t hash = 7;
      for (int64_t i = 0; i < bytes; ++i) hash = Mix(hash, pixels[i]);
      for (int64_t i = 0; i < tokens; ++i) out[i * 8] = static_cast<float>(Mix(hash, i) % 100000);
      pixels += bytes;
      out += tokens * 8;
    }
  }

 private:
  ModelConfig config_;
  std::shared_ptr<Probe> probe_;
};

}  // namespace fd
