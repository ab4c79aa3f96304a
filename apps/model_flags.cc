#include "model_flags.h"

#include <memory>
#include <optional>

#include "base/files.h"
#include "base/json.h"
#include "base/strings.h"
#include "model/weights/quantization_config.h"

namespace fd {
namespace {

Status ParseMediaLimits(const std::string& text, int64_t* images, int64_t* videos) {
  static constexpr const char* kExample = "--limit-mm-per-prompt '{\"image\": 100, \"video\": 100}'";
  FD_ASSIGN_OR_RETURN(const JsonObject counts, ParseObject(text, kExample));
  for (const auto& [key, value] : counts) {
    int64_t* target = key == "image" ? images : key == "video" ? videos : nullptr;
    if (target == nullptr && key != "audio") {
      return InvalidArgument(
          StrCat("has the key '", key, "'; known are image, video and audio, for example ", kExample));
    }
    if (!value.is_int() || value.as_int() < 0 || value.as_int() > 1'000'000) {
      return InvalidArgument(
          StrCat("needs a whole number from 0 to 1000000 for '", key, "', for example ", kExample));
    }
    if (target != nullptr) *target = value.as_int();
  }
  return OkStatus();
}

}  // namespace

void AddQuantizationFlags(FlagSet& flags, Quantization* quantization, const std::string& help,
                          const std::string& head_help, bool* given) {
  // What the key lm_head and the flag say; either may come first.
  struct Heads {
    std::optional<ops::QuantScheme> key, flag;
  };
  const auto heads = std::make_shared<Heads>();
  const auto merge = [heads, quantization, given]() -> Status {
    if (given != nullptr) *given = true;
    const auto& [key, flag] = *heads;
    if (key && flag && *key != *flag) {
      return InvalidArgument(StrCat("lm_head ", key->bits == 0 ? "null" : StrCat("wint", key->bits),
                                    " in --quantization and --quantize-lm-head ",
                                    flag->bits == 0 ? "none" : StrCat("wint", flag->bits),
                                    " contradict each other; give one of them"));
    }
    quantization->lm_head = flag ? *flag : key.value_or(ops::QuantScheme{});
    return OkStatus();
  };
  flags.Custom("quantization", "KIND", help, given != nullptr ? "must be said" : "none",
               [quantization, heads, merge](const std::string& text) -> Status {
                 bool names_head = false;
                 FD_ASSIGN_OR_RETURN(*quantization, ParseQuantization(text, &names_head));
                 heads->key.reset();
                 if (names_head) heads->key = quantization->lm_head;
                 return merge();
               });
  flags.Custom("quantize-lm-head", "none|wint8|wint4", head_help, "none",
               [heads, merge](const std::string& text) -> Status {
                 FD_ASSIGN_OR_RETURN(heads->flag, ParseHeadKind(text));
                 return merge();
               });
}

void AddRopeFlags(FlagSet& flags, RopeOverrides* rope) {
  static constexpr const char* kExample =
      "--rope-scaling '{\"rope_type\": \"yarn\", \"factor\": 4, \"original_max_position_embeddings\": "
      "32768}'";
  flags.Custom(
      "rope-scaling", "JSON",
      "How positions reach beyond the length a model was trained on, in place of config.json's "
      "rope_scaling and under its names: rope_type default, linear, dynamic, yarn, longrope or llama3, "
      "and what that takes",
      "config.json's", [rope](const std::string& text) -> Status {
        FD_ASSIGN_OR_RETURN(rope->scaling, ParseObject(text, kExample));
        return OkStatus();
      });
  flags.Real("rope-theta", &rope->theta, {1.0, 1e12, 10000.0}, "Base of the rotary embedding's frequencies",
             "config.json's");
}

void AddMediaLimitFlag(FlagSet& flags, int64_t* images, int64_t* videos, const std::string& help) {
  flags.Custom("limit-mm-per-prompt", "JSON", help,
               StrCat("{\"image\": ", *images, ", \"video\": ", *videos, "}"),
               [images, videos](const std::string& text) { return ParseMediaLimits(text, images, videos); });
}

void AddModelFlags(FlagSet& flags, ModelFlags* values, bool scheduling) {
  flags.Group("Model");
  flags.Text("model", &values->model_dir, "The checkpoint's folder; also the first word", "DIR");
  flags.Choice("dtype", &values->dtype, {"bfloat16", "float32"}, "Activations and key/value cache");
  flags.Choice(
      "kv-cache-dtype", &values->kv_cache_dtype, {"auto", "bf16", "fp8", "int8"},
      "Key/value cache; auto: the activations' type; fp8 (E4M3) and int8: 51 % of bf16, a scale for each "
      "token and head");
  flags.Choice("load-format", &values->load_format, {"auto", "safetensors", "dummy"},
               "dummy: random weights of config.json's shapes, no weight file is read");
  AddQuantizationFlags(
      flags, &values->quantization,
      "Linear layers' weights while loading: none, wint8, wint4 (of a MoE model the experts, the rest "
      "wint8), or JSON under FastDeploy's names: quantization, group_size, dense_quant_type, moe_quant_type, "
      "image_moe_quant_type, lm_head, layers, modules_to_not_convert; a folder that `fastdeploy quantize` "
      "wrote needs none",
      "The head's weights too, also without --quantization; wint4: in groups of 32 inputs (CPU only)");
  flags.Text("device", &values->device, "What computes: auto, cpu or cuda:N", "DEVICE");
  AddCpuFlags(flags, &values->cpu);
  flags.Integer("max-model-len", &values->max_model_len, {16, int64_t{1} << 24, 4096},
                "Tokens of a prompt and its answer", "what config.json allows");
  AddRopeFlags(flags, &values->rope);
  flags.Integer("num-kv-pages", &values->num_kv_pages, {1, int64_t{1} << 32, 512},
                "Pages of the key/value cache, 64 tokens each", "by memory");
  flags.Integer("num-gpu-blocks-override", &values->num_kv_pages, {1, int64_t{1} << 32, 512},
                "The same under FastDeploy's name", "by memory");
  flags.Real("gpu-memory-utilization", &values->gpu_memory_utilization, {0.0, 1.0, 0.85, true},
             "Share of the available memory that may be used");
  flags.Integer("encoder-cache-tokens", &values->encoder_cache_tokens, {-1, int64_t{1} << 24, 32768},
                "Tokens of encoded pictures kept for requests that send them again; 0: none; less than steps "
                "need is raised to that; -1: the default",
                "16384 on CUDA, 4096 on the CPU");
  flags.Integer("max-encoder-cache", &values->encoder_cache_tokens, {-1, int64_t{1} << 24, 32768},
                "The same under FastDeploy's name", "as above");
  flags.Integer("max-encoder-batch-tokens", &values->max_encoder_batch_tokens, {1, 1 << 20, 4096},
                "Tokens of pictures encoded in one step; a larger picture goes alone",
                "twice --max-num-batched-tokens, at most 4096 or the largest picture");
  flags.Switch("enable-prefix-caching", &values->prefix_caching,
               "What earlier requests computed of the same beginning is used again (the default)");
  flags.Switch("no-enable-prefix-caching", &values->no_prefix_caching, "Compute every prompt in full");
  flags.Real(
      "swap-space", &values->swap_space_gib, {0, 65536, 4},
      "GiB of host memory for what earlier requests computed and the cache has no room for; it comes "
      "back where that is quicker than computing it again. Without a GPU it is memory like the cache's");
  flags.Switch("no-overlap", &values->no_overlap,
               "Plan a step only when the one before has ended (the CPU always does)");
  flags.Switch("no-cuda-graphs", &values->no_cuda_graphs, "Launch every kernel of a decode step by itself");
  flags.Switch(
      "deterministic", &values->deterministic,
      "An answer has the same bits whatever runs besides and however its prompt is cut; slower on a GPU, "
      "always so on the CPU");
  flags.Switch("no-exif-orientation", &values->no_exif_orientation,
               "Leave pictures as stored, not turned upright");
  flags.Integer("max-image-bytes", &values->image_limits.max_file_bytes, {1, int64_t{1} << 32, 20971520},
                "Bytes of a picture's file");
  flags.Integer("max-image-pixels", &values->image_limits.max_pixels, {1, int64_t{1} << 32, 67108864},
                "Pixels of a picture");
  flags.Integer("max-image-side-pixels", &values->image_limits.max_side_pixels, {1, 1 << 20, 16384},
                "Width and height of a picture");
  if (!scheduling) return;
  flags.Group("Scheduling");
  flags.Integer("max-num-seqs", &values->max_num_seqs, {1, 4096, 16}, "Sequences that run at once");
  flags.Integer("max-num-batched-tokens", &values->max_num_batched_tokens, {1, 1 << 20, 384},
                "Tokens of one step, a strict limit",
                "2048, of which prompts get what --target-step-ms allows");
  flags.Real(
      "target-step-ms", &values->target_step_ms, {0.0, 60000.0, 100.0},
      "Steps get so many tokens of prompts that they take about this long, measured at start and while "
      "serving; 0: as many as --max-num-batched-tokens allows",
      "16 times a step of one token, from 5 (25 on a CPU) to 250; 0 with --max-num-batched-tokens");
  flags.Integer("max-num-partial-prefills", &values->max_num_partial_prefills, {1, 4096, 4},
                "Prompts that a step may leave unfinished", "as many as run");
  flags.Integer("max-long-partial-prefills", &values->max_long_partial_prefills, {1, 4096, 2},
                "Long ones of these; others overtake those beyond, and leave a quarter of a step to them");
  flags.Integer("long-prefill-token-threshold", &values->long_prefill_token_threshold,
                {0, int64_t{1} << 24, 2048},
                "A prompt is long when more tokens of it are missing than this and than a step has room for",
                "0: 4 % of --max-model-len");
}

Status CheckPartialPrefills(const ModelFlags& values, int64_t max_model_len) {
  const int64_t partial = values.max_num_partial_prefills;
  if (partial > 0 && values.max_long_partial_prefills > partial) {
    return InvalidArgument(StrCat("--max-long-partial-prefills ", values.max_long_partial_prefills,
                                  " is more than --max-num-partial-prefills ", partial,
                                  ", which counts them too: set it to at most ", partial, ", for example 1"),
                           "--max-long-partial-prefills");
  }
  if (values.long_prefill_token_threshold >= max_model_len) {
    return InvalidArgument(
        StrCat("--long-prefill-token-threshold ", values.long_prefill_token_threshold,
               " must be less than --max-model-len ", max_model_len, ", for example ", max_model_len / 25),
        "--long-prefill-token-threshold");
  }
  return OkStatus();
}

StatusOr<std::optional<DType>> KvCacheDtype(const ModelFlags& flags) {
  if (flags.kv_cache_dtype == "fp8") return std::optional(DType::kFloat8E4M3);
  if (flags.kv_cache_dtype == "int8") return std::optional(DType::kInt8);
  if (flags.kv_cache_dtype == "bf16" && flags.dtype == "float32") {
    return InvalidArgument(
        "bf16 does not go with --dtype float32, whose keys and values stay float32: leave out one of the "
        "two, or "
        "give --kv-cache-dtype fp8 or int8",
        "--kv-cache-dtype");
  }
  return std::optional<DType>();
}

Status TakeModel(std::string* model_dir, std::vector<std::string>* words) {
  if (!model_dir->empty()) return OkStatus();
  if (words->empty()) {
    return InvalidArgument(
        "which model? Give its folder first or with --model, for example --model models/ernie-4.5-vl-tiny",
        "--model");
  }
  *model_dir = words->front();
  words->erase(words->begin());
  if (model_dir->empty())
    return InvalidArgument("the model's folder is empty; for example models/ernie-4.5-vl-tiny", "--model");
  return OkStatus();
}

Status CheckModelFolder(const std::string& model_dir) {
  if (!IsDirectory(model_dir)) {
    return NotFound(
        FileExists(model_dir)
            ? StrCat(model_dir, " is no directory; --model takes a checkpoint's folder, not a file")
            : StrCat("no such directory: ", model_dir,
                     "; --model takes a checkpoint's folder on this machine (nothing is downloaded)"));
  }
  if (!FileExists(JoinPath(model_dir, "config.json"))) {
    return NotFound(StrCat("no config.json in ", model_dir, "; --model takes a checkpoint's folder"));
  }
  return OkStatus();
}

}  // namespace fd
