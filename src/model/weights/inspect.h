// What is in a checkpoint folder: for `fastdeploy inspect DIR`. Works on any safetensors checkpoint, also of
// families this program cannot run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace fd {

struct ListedTensor {
  std::string name;
  std::string dtype;  // as stored: "BF16"
  std::vector<int64_t> shape;
  int64_t size_bytes = 0;
  std::string file;  // name inside the folder
};
struct DTypeTotal {
  std::string dtype;
  int64_t tensors = 0;
  int64_t parameters = 0;
  int64_t size_bytes = 0;
};
struct CheckpointListing {
  std::vector<ListedTensor> tensors;  // by name, numbers in their natural order (layers.2 before layers.10)
  std::vector<DTypeTotal> dtypes;     // largest first
  int64_t num_files = 0;
  int64_t parameters = 0;
  int64_t size_bytes = 0;
};
// Reads headers only.
StatusOr<CheckpointListing> ListTensors(const std::string& model_dir);

}  // namespace fd
