#include "engine/executor/encoder_cache.h"

#include <iterator>

#include "base/check.h"
#include "compute/ops/rows.h"

namespace fd {

EncoderCache::EncoderCache(Model& model, const ops::Context& ctx, int64_t max_tokens, int64_t slab_tokens)
    : model_(model), max_tokens_(max_tokens) {
  if (!model.config().vision || slab_tokens == 0) return;
  slab_ = ops::NewTensor(ctx, model.dtype(), {slab_tokens, model.config().hidden_size});
  free_[0] = slab_tokens;
}

void EncoderCache::Drop(const Hash128& content_hash) {
  auto it = entries_.find(content_hash);
  if (it != entries_.end()) Erase(it);  // or pushed out earlier
}

// What is overwritten later is overwritten in stream order, after the steps that read it.
void EncoderCache::Erase(Entries::iterator entry) {
  const int64_t tokens = entry->second.embeddings.dim(0), begin = entry->second.slab_begin;
  kept_tokens_ -= tokens;
  entries_.erase(entry);
  if (begin < 0) return;
  auto here = free_.emplace(begin, tokens).first;
  if (auto next = std::next(here); next != free_.end() && begin + tokens == next->first) {
    here->second += next->second;
    free_.erase(next);
  }
  if (here == free_.begin()) return;
  if (auto before = std::prev(here); before->first + before->second == begin) {
    before->second += here->second;
    free_.erase(here);
  }
}

// False when all that is left belongs to this step.
bool EncoderCache::DropOldest(int64_t step) {
  auto oldest = entries_.end();
  for (auto it = entries_.begin(); it != entries_.end(); ++it) {
    if (it->second.last_step == step) continue;
    if (oldest == entries_.end() || it->second.last_step < oldest->second.last_step) oldest = it;
  }
  if (oldest == entries_.end()) return false;
  Erase(oldest);
  return true;
}

// The first tokens of a free range, or -1.
int64_t EncoderCache::TakeSlab(int64_t tokens) {
  for (auto it = free_.begin(); it != free_.end(); ++it) {
    const auto [begin, count] = *it;
    if (count < tokens) continue;
    free_.erase(it);
    if (count > tokens) free_[begin + tokens] = count - tokens;
    return begin;
  }
  return -1;
}

EncoderCache::Entry EncoderCache::Place(const ops::Context& ctx, int64_t tokens, int64_t step) {
  while (kept_tokens_ + tokens > max_tokens_ && DropOldest(step)) {
  }
  Entry entry;
  entry.last_step = step;
  while ((entry.slab_begin = TakeSlab(tokens)) < 0 && DropOldest(step)) {
  }
  if (entry.slab_begin >= 0) {
    entry.embeddings = slab_.view().Rows(entry.slab_begin, tokens);
  } else {
    entry.own = Tensor(model_.dtype(), ctx.device, {tokens, model_.config().hidden_size});
    entry.embeddings = entry.own;
  }
  return entry;
}

void EncoderCache::Encode(const ops::Context& ctx, const StepPlan& plan) {
  // First mark what is there, so that room for a new item is never made by dropping one of this step.
  for (const SequenceStep& s : plan.sequences) {
    for (const MediaSlice& slice : s.media) {
      auto it = entries_.find(slice.item->content_hash);
      if (it != entries_.end()) it->second.last_step = plan.step;
    }
  }
  for (const SequenceStep& s : plan.sequences) {
    for (const MediaSlice& slice : s.media) {
      const MediaItem& item = *slice.item;
      if (entries_.contains(item.content_hash)) continue;
      const int64_t patches = int64_t{item.grid_t} * item.grid_h * item.grid_w;
      const int64_t row_bytes = static_cast<int64_t>(item.patch_rows.size()) / patches;
      Entry entry = Place(ctx, item.num_tokens, plan.step);
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
  return it->second.embeddings;
}

}  // namespace fd
