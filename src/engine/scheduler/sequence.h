// One request on its way through the engine. Owned by the scheduler, touched by the engine thread alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <limits>
#include <memory>
#include <tuple>
#include <vector>

#include "engine/plan/request.h"

namespace fd {

inline constexpr int64_t kMostUrgent = std::numeric_limits<int64_t>::min();

struct Sequence {
  GenerateRequest request;      // as submitted; its token_ids moved into `tokens`
  std::vector<int32_t> tokens;  // prompt, then what was generated: all that is known
  int64_t prompt_tokens = 0;
  // Its place among all: by priority, then by arrival; lower comes first. kMostUrgent: it runs, and was
  // preempted for more urgent ones as often as anybody may be.
  int64_t rank_priority = 0;
  int64_t arrival = 0;
  int64_t urgent_preemptions = 0;  // preemptions for a more urgent one
  int64_t preempted_step = 0;      // the step in which it was preempted last
  int64_t planned_step = 0;        // the last step that computes something of it
  bool running = false;
  // Tokens whose keys and values lie in the cache once the planned steps have run. A preemption sets it to 0;
  // what the next admission does not find in the prefix tree is then computed again in chunks, generated
  // tokens like a prompt's.
  int64_t computed_tokens = 0;
  // Tokens that planned steps draw and that are not in `tokens` yet, and the output row of the last such
  // step.
  int64_t pending_tokens = 0;
  int32_t pending_row = -1;
  // While it waits: pages of the prefix tree that it will find, held so that they stay.
  std::vector<int32_t> block_table;
  std::vector<Hash128> page_hashes;  // chain hashes of its whole pages, as far as somebody asked
  int64_t published_pages = 0;       // whole pages of block_table that the prefix tree was told of
  int64_t cached_tokens = 0;         // prompt tokens that its first admission found in the prefix tree
  int64_t cached_host_tokens = 0;    // of them, those that lay on the host
  int64_t next_media = 0;            // first media item not wholly computed
  int64_t media_row = -1;            // computed_tokens lies inside it: its pinned rows in the encoder slab
  // Where the engine pools by mean, while it runs: its sum on the device, of which there are as many.
  // With penalties, while it runs: its record of seen tokens on the device, and how many of its tokens
  // (pending ones included) are entered there once the planned steps have run.
  int32_t seen_slot = -1;
  int64_t seen_tokens = 0;
  // Prompt tokens whose log-probabilities planned steps compute; a preemption does not take them back.
  int64_t scored_tokens = 1;          // nothing is before the first
  int64_t counted_prompt_tokens = 0;  // prompt tokens computed at least once, for the statistics
  Clock::time_point scheduled_at{};   // first time in a step

  bool Before(const Sequence& other) const {
    return std::tie(rank_priority, arrival) < std::tie(other.rank_priority, other.arrival);
  }
  // Pending ones included.
  int64_t num_tokens() const { return static_cast<int64_t>(tokens.size()) + pending_tokens; }
  int64_t generated_tokens() const { return static_cast<int64_t>(tokens.size()) - prompt_tokens; }
  int64_t remaining_tokens() const { return num_tokens() - computed_tokens; }
  // Only its newest token is missing from the cache, and no picture ends with it, so this step draws the next
  // one.
  bool IsDecode() const {
    return computed_tokens > 0 && remaining_tokens() == 1 && request.sampling.max_tokens > 0 &&
           next_media == static_cast<int64_t>(request.media.size());
  }
  // A part of what is known is still to be computed before anything can be drawn.
  bool InPrefill() const { return remaining_tokens() > 0 && !IsDecode() && !AwaitsLastToken(); }
  // The token that the thinking budget puts at this index of the generated ones in place of the drawn one;
  // -1: none. All generated tokens before `index` must be known. So a token that is still being drawn is
  // known here already when it is a forced one: whether it is follows from those before it.
  int32_t ForcedToken(int64_t index) const {
    const ThinkingBudget& budget = request.sampling.thinking;
    const int64_t offset = index - budget.max_tokens;
    if (budget.max_tokens == 0 || offset < 0 || offset >= std::ssize(budget.forced_ids)) return -1;
    const auto begin = tokens.begin() + prompt_tokens;
    const auto end = begin + budget.max_tokens;
    if (std::find(begin, end, budget.end_token_id) != end) return -1;
    return budget.forced_ids[static_cast<size_t>(offset)];
  }
  // Its last token is on its way. Never of a request for its prompt alone (max_tokens 0).
  bool AwaitsLastToken() const {
    const int64_t most = request.sampling.max_tokens;
    return most > 0 && generated_tokens() + pending_tokens >= most;
  }
};

// For searches in lists that are ordered by rank.
inline bool RanksBefore(const std::unique_ptr<Sequence>& a, const Sequence& b) { return a->Before(b); }

}  // namespace fd
