// What a request must satisfy before the engine thread sees it. Pure, any thread.
#pragma once

#include "base/status.h"
#include "engine/plan/options.h"
#include "engine/plan/request.h"
#include "model/config/model_config.h"

namespace fd {

// Everything that a later step relies on: ids inside the vocabulary, sizes that agree, pictures inside the
// prompt, finite sampling parameters, and that it fits (CheckFits). After it nothing in the engine can fail
// because of what a request says.
Status CheckRequest(const GenerateRequest& request, const ModelConfig& config, const EngineOptions& options);

}  // namespace fd
