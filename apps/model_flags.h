// The flags that `serve`, `run` and `bench` share: which model, which numbers, how much memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "cpu_flags.h"
#include "flag_set.h"
#include "model/model.h"
#include "server/multimodal/image.h"

namespace fd {

struct ModelFlags {
  std::string model_dir;
  std::string dtype = "bfloat16";
  std::string kv_cache_dtype = "auto";
  std::string load_format = "auto";
  Quantization quantization;
  std::string device = "auto";
  CpuFlags cpu;
  int64_t max_model_len = 0;  // 0: what config.json allows
  RopeOverrides rope;
  int64_t max_num_seqs = 8;
  int64_t max_num_batched_tokens = 0;    // 0: 2048
  std::optional<double> target_step_ms;  // none: by device, unless max_num_batched_tokens is given
  int64_t max_num_partial_prefills = 0;  // 0: as many as run
  int64_t max_long_partial_prefills = 1;
  int64_t long_prefill_token_threshold = 0;  // 0: by max_model_len
  int64_t num_kv_pages = 0;                  // 0: a share of memory
  int64_t encoder_cache_tokens = -1;         // negative: by device
  int64_t max_encoder_batch_tokens = 0;      // 0: by max_num_batched_tokens
  double gpu_memory_utilization = 0.9;  // FastDeploy's name; without a GPU: of the memory that is available
  bool no_overlap = false;
  bool no_cuda_graphs = false;
  bool deterministic = false;
  bool prefix_caching = true;  // --enable-prefix-caching, the default
  bool no_prefix_caching = false;
  double swap_space_gib = 0;  // of host memory, for pages of the prefix cache
  bool no_exif_orientation = false;
  ImageLimits image_limits;
};

// --quantization and --quantize-lm-head, merged into `quantization`; the key lm_head of the former and the
// latter may not say different things. given, if there: set when one of them is used.
void AddQuantizationFlags(FlagSet& flags, Quantization* quantization, const std::string& help,
                          const std::string& head_help, bool* given = nullptr);
// --rope-scaling and --rope-theta.
void AddRopeFlags(FlagSet& flags, RopeOverrides* rope);
// --limit-mm-per-prompt.
void AddMediaLimitFlag(FlagSet& flags, int64_t* images, int64_t* videos, const std::string& help);
// scheduling: also the flags that only make sense for many requests at once.
void AddModelFlags(FlagSet& flags, ModelFlags* values, bool scheduling);

// --kv-cache-dtype: EngineOptions::kv_dtype. Error: bf16 pages with float32 activations.
StatusOr<std::optional<DType>> KvCacheDtype(const ModelFlags& flags);
// Whether the flags of partial prefills go together.
Status CheckPartialPrefills(const ModelFlags& values, int64_t max_model_len);

// The model's folder: --model, or else the first word, which is taken out of `words`. Usage error without
// either.
Status TakeModel(std::string* model_dir, std::vector<std::string>* words);
// The folder is there and holds a config.json.
Status CheckModelFolder(const std::string& model_dir);

}  // namespace fd
