// Steps that an engine runs before it serves, on pages that nobody has yet.
#pragma once

#include "engine/executor/executor.h"
#include "engine/step_pacer.h"

namespace fd {

// On a GPU prompts of all sizes, so that no request waits for what it chooses and loads at first use (10 to
// 20 ms for a size); then those by which pacer knows what a step takes, where it paces. device: the
// executor's. Nothing where the engine pools. After executor.Prepare, before the first request; any thread.
Status RunFirstSteps(Executor& executor, const EngineOptions& options, Device device, StepPacer& pacer);

}  // namespace fd
