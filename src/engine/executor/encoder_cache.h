// Encoder outputs by content hash: a picture is encoded once, whatever chunks or sequences use it. Engine
// thread.
#pragma once

#include <unordered_map>

#include "engine/plan/step_plan.h"
#include "model/model.h"

namespace fd {

class EncoderCache {
 public:
  // Keeps at most max_tokens between steps, least recently used out first; what a step needs stays for it.
  EncoderCache(Model& model, int64_t max_tokens) : model_(model), max_tokens_(max_tokens) {}

  void Drop(const Hash128& content_hash);
  // Makes sure that every item of the plan is there. Uses the whole workspace and gives it back.
  void Encode(const ops::Context& ctx, const StepPlan& plan);
  // [item tokens, hidden] act; the item is of the plan that was encoded last.
  const TensorView& Get(const Hash128& content_hash) const;
  int64_t kept_tokens() const { return kept_tokens_; }

 private:
  struct Entry {
    Tensor embeddings;  // [tokens, hidden] act
    int64_t last_step = 0;
  };
  void MakeRoom(int64_t tokens, int64_t step);

  Model& model_;
  const int64_t max_tokens_;
  int64_t kept_tokens_ = 0;
  std::unordered_map<Hash128, Entry, Hash128Hasher> entries_;
};

}  // namespace fd
