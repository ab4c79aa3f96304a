// Encoder outputs by content hash: a picture is encoded once, whatever chunks or sequences use it. Engine
// thread.
#pragma once

#include <map>
#include <unordered_map>

#include "engine/plan/step_plan.h"
#include "model/model.h"

namespace fd {

class EncoderCache {
 public:
  // Keeps at most max_tokens between steps, least recently used out first; what a step needs stays for it.
  // Lies in a slab of slab_tokens; only what does not fit there is allocated alone. Empty for text models.
  EncoderCache(Model& model, const ops::Context& ctx, int64_t max_tokens, int64_t slab_tokens);

  void Drop(const Hash128& content_hash);
  // Makes sure that every item of the plan is there. Uses the whole workspace and gives it back.
  void Encode(const ops::Context& ctx, const StepPlan& plan);
  // [item tokens, hidden] act; the item is of the plan that was encoded last.
  const TensorView& Get(const Hash128& content_hash) const;
  int64_t kept_tokens() const { return kept_tokens_; }

 private:
  struct Entry {
    TensorView embeddings;  // [tokens, hidden] act
    Tensor own;             // its memory when it lies outside the slab
    int64_t slab_begin = -1;
    int64_t last_step = 0;
  };
  using Entries = std::unordered_map<Hash128, Entry, Hash128Hasher>;
  Entry Place(const ops::Context& ctx, int64_t tokens, int64_t step);
  int64_t TakeSlab(int64_t tokens);
  void Erase(Entries::iterator entry);
  bool DropOldest(int64_t step);

  Model& model_;
  const int64_t max_tokens_;
  int64_t kept_tokens_ = 0;
  Entries entries_;
  Tensor slab_;                      // [slab tokens, hidden] act
  std::map<int64_t, int64_t> free_;  // first token -> tokens; no two touch
};

}  // namespace fd
