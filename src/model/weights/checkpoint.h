// The tensors of a checkpoint folder: model.safetensors, or shards with model.safetensors.index.json.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "model/weights/safetensors.h"

namespace fd {

struct CheckpointTensor {
  const SafetensorsFile* file;
  const TensorInfo* info;
};

// Immutable once open; files stay mapped for its lifetime.
class Checkpoint {
 public:
  // model.safetensors if there is one, else the index and its shards, else every *.safetensors of the folder.
  // Errors: nothing there, a shard missing, a broken header, index and shards that disagree, a tensor in two
  // files.
  static StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& model_dir);
  const std::vector<std::shared_ptr<SafetensorsFile>>& files() const { return files_; }
  // Not ok: one of the files has been written to since (MappedFile).
  Status CheckUnchanged() const {
    for (const auto& file : files_) FD_RETURN_IF_ERROR(file->CheckUnchanged());
    return OkStatus();
  }
  size_t num_tensors() const { return tensors_.size(); }
  // file == nullptr when there is no such tensor.
  CheckpointTensor Find(std::string_view name) const;

 private:
  std::vector<std::shared_ptr<SafetensorsFile>> files_;
  std::unordered_map<std::string_view, CheckpointTensor> tensors_;  // keys point into the headers
};

// As OpenedModel::Fingerprint. checkpoint: null: of config.json alone.
StatusOr<std::string> FingerprintOf(const std::string& model_dir, const Checkpoint* checkpoint);

}  // namespace fd
