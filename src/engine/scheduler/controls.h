// What a chunk of a sequence asks of sampling beyond temperature and truncation. Pure bookkeeping, no
// tensors. Engine thread.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "engine/plan/step_plan.h"
#include "engine/scheduler/sequence.h"

namespace fd {

// Of tokens [begin, end); samples: the chunk draws the token at `end`. Those before it that nobody entered
// were found in the prefix tree and are all known. Counts what it enters in sequence.seen_tokens. Nothing for
// a sequence without such wishes, and for chunks that do not touch them. end_tokens: the model's.
std::optional<SequenceControls> PlanControls(Sequence& sequence, int64_t begin, int64_t end, bool samples,
                                             const std::vector<int32_t>& end_tokens);

// Whether bad words and min_tokens ban every allowed token as the next one; all tokens so far are known.
bool LeavesNothingToDraw(const Sequence& sequence, const std::vector<int32_t>& end_tokens);

// Which tokens of the prompt the rows of this chunk score, where the request asks: each once, also when a
// preemption computes them again. Counts them in sequence.scored_tokens.
void PlanScores(Sequence& sequence, SequenceStep& step);

}  // namespace fd
