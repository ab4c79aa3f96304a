// Whether an executor may be handed a plan that somebody else wrote: everything that it takes on trust.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "engine/plan/options.h"
#include "engine/plan/step_plan.h"
#include "model/config/model_config.h"

namespace fd {

// previous_outputs: of the plan that was launched before; 0: of none. Pure.
Status CheckPlan(const StepPlan& plan, int64_t previous_outputs, const ModelConfig& config,
                 const EngineOptions& options);

}  // namespace fd
