// Steps that an engine runs before it serves, on pages that nobody has yet.
#pragma once

#include "engine/executor/executor.h"
#include "engine/step_pacer.h"

namespace fd {

// With load_kernels prompts of all sizes, so that no request waits for what a device loads and chooses at first
// use (10 to 20 ms for a size on a GPU); then those by which pacer knows what a step takes, where it paces.
// Nothing where the engine pools. After executor.Prepare, before the first request; any thread.
Status RunFirstSteps(Executor& executor, const EngineOptions& options, bool load_kernels, StepPacer& pacer);

}  // namespace fd
