// Writes a checkpoint folder whose linear weights are packed, quantised or not (packed_config.h), for
// `fastdeploy quantize`. Loading it needs no arithmetic: the file's bytes are the kernels' own.
#pragma once

#include <string>

#include "base/status.h"
#include "model/weights/checkpoint.h"
#include "model/weights/packed_config.h"
#include "model/weights/weight_loader.h"

namespace fd {

// out_dir appears whole or not at all: config.json with a quantization_config, model.safetensors, and
// model_dir's other files that are no weights. What loader.linears() names is replaced by panels and
// scales: all of it when no layer is quantised, else what is; all other tensors stay as stored. One weight at
// a time is in memory. loader: after a checking pass over `checkpoint`, on the CPU.
Status WritePacked(WeightLoader& loader, const Checkpoint& checkpoint, const std::string& model_dir,
                   const std::string& out_dir, const PackOptions& options);

}  // namespace fd
