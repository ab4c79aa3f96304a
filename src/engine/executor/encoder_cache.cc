#include "engine/executor/encoder_cache.h"

#include "base/check.h"
#include "compute/ops/rows.h"

namespace fd {

void EncoderCache::Drop(const Hash128& content_hash) {
  auto it = entries_.find(content_hash);
  if (it == entries_.end()) return;  // pushed out earlier
  kept_tokens_ -= it->second.embeddings.view().dim(0);
  entries_.erase(it);
}

void EncoderCache::MakeRoom(int64_t tokens, int64_t step) {
  while (kept_tokens_ + tokens > max_tokens_) {
    auto oldest = entries_.end();
    for (auto it = entries_.begin(); it != entries_.end(); ++it) {
      if (it->second.last_step == step) continue;
      if (oldest == entries_.end() || it->second.last_step < oldest->second.last_step) oldest = it;
    }
    if (oldest == entries_.end()) return;  // all that is left belongs to this step
    kept_tokens_ -= oldest->second.embeddings.view().dim(0);
    entries_.erase(oldest);
  }
}

void EncoderCache::Encode(const ops::Context& ctx, const StepPlan& plan) {
  // First mark what is there, so that room for a new item is never made by dropping one of this step.
  for (const SequenceStep& s : plan.sequences) {
    for (const MediaSlice& slice : s.media) {
      auto it = entries_.find(slice.item->content_hash);
      if (it != entries_.end()) it->second.last_step = plan.step;
    }
  }
  const ModelConfig& config = model_.config();
  for (const SequenceStep& s : plan.sequences) {
    for (const MediaSlice& slice : s.media) {
      const MediaItem& item = *slice.item;
      if (entries_.contains(item.content_hash)) continue;
      const int64_t patches = int64_t{item.grid_t} * item.grid_h * item.grid_w;
      const int64_t row_bytes = static_cast<int64_t>(item.patch_rows.size()) / patches;
      MakeRoom(item.num_tokens, plan.step);
      Entry entry;
      entry.embeddings = Tensor(model_.dtype(), ctx.device, {item.num_tokens, config.hidden_size});
      entry.last_step = plan.step;
      // One item a call: the scratch memory is that of the largest picture, not of a step full of them.
      EncodeBatch batch;
      batch.grids = {{item.grid_t, item.grid_h, item.grid_w}};
      batch.patch_rows = ctx.workspace->Take(DType::kUInt8, {patches, row_bytes});
      ops::Copy(ctx, batch.patch_rows,
                TensorView(const_cast<uint8_t*>(item.patch_rows.data()), DType::kUInt8, Device{},
                           {patches, row_bytes}));
      model_.Encode(ctx, entry.embeddings, batch);
      ctx.workspace->Reset();
      kept_tokens_ += item.num_tokens;
      entries_.emplace(item.content_hash, std::move(entry));
    }
  }
}

const TensorView& EncoderCache::Get(const Hash128& content_hash) const {
  auto it = entries_.find(content_hash);
  FD_CHECK(it != entries_.end(), "a media item that was not encoded");
  return it->second.embeddings.view();
}

}  // namespace fd
