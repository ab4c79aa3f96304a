// The builders of all families. A builder walks its tensors through the loader and returns the model; it is
// called twice, for a checking and for a loading pass (weights/weight_loader.h), and the first result is
// thrown away.
#pragma once

#include <memory>

#include "model/model.h"
#include "model/weights/weight_loader.h"

namespace fd {

std::unique_ptr<Model> BuildErnie45(const ModelConfig& config, WeightLoader& loader, DType dtype);
std::unique_ptr<Model> BuildErnie45Vl(const ModelConfig& config, WeightLoader& loader, DType dtype);

}  // namespace fd
