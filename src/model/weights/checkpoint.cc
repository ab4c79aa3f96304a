#include "model/weights/checkpoint.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <system_error>

#include "base/files.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/strings.h"

namespace fd {
namespace {

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr size_t kMaxShards = 4096;

std::vector<std::string> ListSafetensors(const std::string& dir) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    std::string name = it->path().filename().string();
    if (name.size() > 12 && name.ends_with(".safetensors")) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

// Tensor name -> file name, as the index says.
StatusOr<std::map<std::string, std::string>> ReadIndex(const std::string& path) {
  JsonLimits limits;
  limits.max_depth = 16;
  limits.max_values = 8'000'000;
  FD_ASSIGN_OR_RETURN(Json json, ReadJsonFile(path, limits));
  const Json* map = json.Find("weight_map");
  if (map == nullptr || !map->is_object()) {
    return InvalidArgument(StrCat(path, ": weight_map is missing or no object (tensor name -> file name)"));
  }
  std::map<std::string, std::string> out;
  for (const auto& [name, file] : map->as_object()) {
    const bool plain = file.is_string() && file.as_string().find('/') == std::string::npos &&
                       file.as_string().find('\0') == std::string::npos &&
                       file.as_string().ends_with(".safetensors");
    if (!plain) {
      return InvalidArgument(StrCat(path, ": weight_map names the file ", WriteJson(file).substr(0, 120),
                                    "; allowed: a plain name that ends in .safetensors"));
    }
    out.emplace(name, file.as_string());
  }
  return out;
}

}  // namespace

StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& model_dir) {
  auto checkpoint = std::make_unique<Checkpoint>();
  const std::string index_path = JoinPath(model_dir, kIndex);
  std::vector<std::string> names;
  std::map<std::string, std::string> index;
  if (FileExists(JoinPath(model_dir, kSingle))) {
    names = {kSingle};
  } else if (FileExists(index_path)) {
    FD_ASSIGN_OR_RETURN(index, ReadIndex(index_path));
    for (const auto& [tensor, file] : index) names.push_back(file);
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    if (names.empty()) return InvalidArgument(StrCat(index_path, ": weight_map is empty"));
  } else {
    names = ListSafetensors(model_dir);
    if (names.empty()) {
      return NotFound(StrCat(model_dir, " holds no weights: neither ", kSingle, " nor ", kIndex,
                             " nor another *.safetensors"));
    }
  }
  if (names.size() > kMaxShards) {
    return InvalidArgument(
        StrCat(model_dir, " has ", names.size(), " weight files; the limit is ", kMaxShards));
  }
  for (const std::string& name : names) {
    const std::string path = JoinPath(model_dir, name);
    if (!index.empty() && !FileExists(path)) {
      return NotFound(StrCat("shard ", name, " is missing in ", model_dir, "; ", kIndex, " names it"));
    }
    FD_ASSIGN_OR_RETURN(std::shared_ptr<SafetensorsFile> file, SafetensorsFile::Open(path));
    for (const TensorInfo& tensor : file->header().tensors) {
      auto [it, added] = checkpoint->tensors_.emplace(tensor.name, CheckpointTensor{file.get(), &tensor});
      if (!added) {
        return InvalidArgument(StrCat("tensor ", tensor.name.substr(0, 120),
                                      " stands in two files: ", it->second.file->path(), " and ", path));
      }
      if (index.empty()) continue;
      auto indexed = index.find(tensor.name);
      if (indexed == index.end() || indexed->second != name) {
        return InvalidArgument(StrCat("tensor ", tensor.name.substr(0, 120), " is in ", name, ", but ",
                                      kIndex,
                                      indexed == index.end() ? std::string(" does not list it")
                                                             : StrCat(" places it in ", indexed->second)));
      }
    }
    checkpoint->files_.push_back(std::move(file));
  }
  for (const auto& [tensor, file] : index) {
    if (checkpoint->tensors_.find(tensor) == checkpoint->tensors_.end()) {
      return InvalidArgument(StrCat("tensor ", std::string_view(tensor).substr(0, 120), " is not in ", file,
                                    ", though ", kIndex, " says so"));
    }
  }
  return checkpoint;
}

CheckpointTensor Checkpoint::Find(std::string_view name) const {
  auto it = tensors_.find(name);
  return it == tensors_.end() ? CheckpointTensor{nullptr, nullptr} : it->second;
}

StatusOr<std::string> FingerprintOf(const std::string& model_dir, const Checkpoint* checkpoint) {
  // Each sampled tensor may be a read from a cold disk.
  constexpr size_t kSampledTensors = 64;
  constexpr int64_t kSampleBytes = 64;
  FD_ASSIGN_OR_RETURN(std::string text, ReadFile(JoinPath(model_dir, "config.json")));
  if (checkpoint != nullptr) {
    std::map<std::string_view, CheckpointTensor> tensors;  // how they are spread over files does not matter
    for (const auto& file : checkpoint->files()) {
      for (const TensorInfo& info : file->header().tensors) tensors[info.name] = {file.get(), &info};
    }
    const size_t step = std::max<size_t>(1, tensors.size() / kSampledTensors);
    size_t index = 0;
    for (const auto& [name, tensor] : tensors) {
      text += StrCat("\n", name, " ", tensor.info->dtype, " ", ShapeToString(tensor.info->shape), " ");
      if (index++ % step != 0) continue;
      const int64_t bytes = std::min(kSampleBytes, tensor.info->size_bytes);
      const int64_t middle = (tensor.info->size_bytes - bytes) / 2;
      text.append(reinterpret_cast<const char*>(tensor.file->Data(*tensor.info)) + middle,
                  static_cast<size_t>(bytes));
    }
  }
  char digits[17];
  std::snprintf(digits, sizeof(digits), "%016llx",
                static_cast<unsigned long long>(SipHash128(0, 0, text).low));
  return std::string(digits);
}

}  // namespace fd
