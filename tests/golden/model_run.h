// Drives a Model the way an executor does (paged cache, chunks, media slices), and reads golden tensors.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/thread_pool.h"
#include "model/model.h"
#include "model/weights/safetensors.h"
#include "tests/golden/device_under_test.h"

namespace fd::golden {

inline const std::string kModels = "tests/golden/models/";
inline const std::string kCases = "tests/golden/cases/";

class GoldenFile {
 public:
  explicit GoldenFile(const std::string& path);
  bool Has(const std::string& name) const { return file_->Find(name) != nullptr; }
  std::vector<float> Floats(const std::string& name) const;
  std::vector<int32_t> Ints(const std::string& name) const;
  std::vector<uint8_t> Bytes(const std::string& name) const;

 private:
  template <typename T>
  std::vector<T> Read(const std::string& name, const char* dtype) const;
  std::shared_ptr<SafetensorsFile> file_;
};

// A model with its cache and workspace on the device under test.
class Machine {
 public:
  // pages: what the cache holds; none: dtype.
  Machine(const std::string& model_dir, DType dtype, int threads = 2, const Quantization& quantization = {},
          std::optional<DType> pages = std::nullopt, int64_t max_model_len = 0);
  Model& model() { return *model_; }
  const ops::Context& ctx() const { return ctx_; }
  Workspace& workspace() { return workspace_; }
  KvStorage& kv() { return kv_; }
  // A copy of host memory on the device.
  Tensor Upload(const TensorView& host) const;
  // A fresh page id; pages are handed out in a scattered order.
  int32_t NewPage();

 private:
  ThreadPool threads_;
  Workspace workspace_;
  ops::Context ctx_;
  std::unique_ptr<Model> model_;
  KvStorage kv_;
  int32_t pages_used_ = 0;
};

struct Prompt {
  std::vector<int32_t> ids;
  std::vector<int32_t> positions;      // [3, n]; empty: 0, 1, 2, ...
  std::vector<uint8_t> vision_expert;  // [n] or empty
  std::vector<uint8_t> is_media;       // [n] or empty
  int64_t delta = 0;
  Tensor media;  // [m, hidden] act: rows in the order of is_media
};

// One sequence in a machine's cache.
class Sequence {
 public:
  Sequence(Machine& machine, Prompt prompt) : machine_(machine), prompt_(std::move(prompt)) {}
  int64_t length() const { return done_; }
  const Prompt& prompt() const { return prompt_; }
  // Adds a generated token to what is known.
  void Append(int32_t id);

  // What one sequence contributes to a step: its next `count` tokens, logits wanted for `wanted` (indices in
  // the sequence).
  struct Chunk {
    Sequence* sequence;
    int64_t count;
    std::vector<int64_t> wanted;
  };
  // Runs one step of several sequences; logits of the wanted rows one after another.
  static std::vector<std::vector<float>> Step(Machine& machine, const std::vector<Chunk>& chunks);

  // The whole known rest in chunks of at most `chunk` tokens (0: at once); logits of `wanted`.
  std::vector<std::vector<float>> Prefill(int64_t chunk, const std::vector<int64_t>& wanted);
  // One token; its logits.
  std::vector<float> Decode(int32_t id);

 private:
  Machine& machine_;
  Prompt prompt_;
  std::vector<int32_t> pages_;
  int64_t done_ = 0;
};

int32_t Argmax(const std::vector<float>& logits);
std::vector<float> LogSoftmax(const std::vector<float>& logits);
float MaxAbsDifference(const std::vector<float>& a, const std::vector<float>& b);
double Rms(const std::vector<float>& a, const std::vector<float>& b);
double StandardDeviation(const std::vector<float>& a);
// Any activation tensor, of the host or of the device, as floats.
std::vector<float> ToFloats(const TensorView& t);

// The VL case `name` of cases/ernie4_5_vl_moe.*, pictures and videos encoded by the machine's model.
// patches_only: start and end tokens go to text experts. position_key: "position_ids" or
// "spatial_rule.position_ids".
Prompt LoadVlPrompt(Machine& machine, const GoldenFile& golden, const Json& test_case,
                    bool patches_only = false, const std::string& position_key = "position_ids");

}  // namespace fd::golden
