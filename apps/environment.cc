#include "environment.h"

#include <unistd.h>

#include <fstream>

#include "base/strings.h"
#include "base/suggestion.h"

namespace fd {
namespace {

constexpr const char* kOneEngine = "there is one engine, in this process";
constexpr const char* kOwnKernels = "kernels are chosen by device and shape; see --help for the flags";
constexpr const char* kNoDownload = "models are not downloaded";
constexpr const char* kPages = "one pool of pages serves prefill and decode";
constexpr const char* kSplit = "separate prefill and decode instances are still to come";
constexpr const char* kLoader = "weights are mapped and packed while they load; see fastdeploy quantize";
constexpr const char* kFeatureStore = "media come with their request; there is no feature store";
constexpr const char* kTrace = "OpenTelemetry is still to come";

constexpr KnownVariable kVariables[] = {
    {"FD_API_KEY", true, "API keys, separated by commas, where --api-key and --api-key-file give none"},
    {"FD_LOG_LEVEL", true, "debug, info, warning or error, where --log-level is not given"},
    {"FD_DEBUG", true, "1: as FD_LOG_LEVEL=debug"},
    {"FD_LOG_DIR", true, "folder of fastdeploy.log, where --log-dir is not given"},
    {"FD_LOG_BACKUP_COUNT", true, "rotated files that are kept"},
    {"FD_MODEL_SOURCE", false, kNoDownload},
    {"FD_MODEL_CACHE", false, kNoDownload},
    {"FD_MAX_STOP_SEQS_NUM", true, "stop strings of a request, where --max-stop-strings is not given"},
    {"FD_STOP_SEQS_MAX_LEN", false, "use --max-stop-bytes"},
    {"FD_STOP_TOKEN_IDS_MAX_LEN", false, "use --max-stop-token-ids"},
    {"FD_SAMPLING_CLASS", true,
     "rejection, base, base_non_truncated or air: one exact sampler is all of them"},
    {"FD_ATTENTION_BACKEND", false, kOwnKernels},
    {"FD_MOE_BACKEND", false, kOwnKernels},
    {"FD_USE_MACHETE", false, kOwnKernels},
    {"FD_USE_DEEP_GEMM", false, kOwnKernels},
    {"FD_ENABLE_PDL", false, kOwnKernels},
    {"FD_TRITON_KERNEL_CACHE_DIR", false, "nothing is compiled at run time"},
    {"FD_CACHE_PARAMS", false, "the key/value cache is in 16 bits; other types are still to come"},
    {"FD_ENC_DEC_BLOCK_NUM", false, kPages},
    {"FD_ENABLE_MAX_PREFILL", false, "--max-num-batched-tokens alone bounds a step"},
    {"FD_DISABLE_CHUNKED_PREFILL", false, "prompts are always computed in chunks"},
    {"MAX_PREFILL_NUM", false, "--max-num-batched-tokens alone bounds a step"},
    {"ENABLE_V1_KVCACHE_SCHEDULER", false, kPages},
    {"FD_DISABLED_RECOVER", false, "a preempted request is always computed again"},
    {"FD_LIMIT_THINKING_CONTENT_TRUNCATE_STR", true, "what ends a thought at its budget"},
    {"FD_FILL_BITMASK_BATCH", false, "structured output is still to come"},
    {"FD_SUPPORT_MAX_CONNECTIONS", false, "use --max-connections and --max-concurrency"},
    {"FD_ENABLE_MULTI_API_SERVER", false, "one process serves every connection"},
    {"FD_USE_HF_TOKENIZER", false, "the tokenizer is chosen by the files of the model's folder"},
    {"FD_ZMQ_SNDHWM", false, kOneEngine},
    {"FD_PD_CHANGEABLE", false, kSplit},
    {"FD_USE_FASTSAFETENSOR", false, kLoader},
    {"FD_ENABLE_MODEL_LOAD_CACHE", false, kLoader},
    {"FD_ENABLE_MODEL_CACHE", false, kLoader},
    {"FD_FOR_TORCH_MODEL_FORMAT", false, "the weights' format is read from their files"},
    {"FD_USE_GET_SAVE_OUTPUT_V1", false, kOneEngine},
    {"FD_USE_AGGREGATE_SEND", false, kOneEngine},
    {"FD_ENABLE_CACHE_TASK", false, kOneEngine},
    {"FD_ENGINE_TASK_QUEUE_WITH_SHM", false, kOneEngine},
    {"FD_ENABLE_E2W_TENSOR_CONVERT", false, kOneEngine},
    {"FD_EP_BATCHED_TOKEN_TIMEOUT", false, kSplit},
    {"FD_EP_MAX_PREFETCH_TASK_NUM", false, kSplit},
    {"FD_PREFILL_WAIT_DECODE_RESOURCE_SECONDS", false, kSplit},
    {"FD_OFFLINE_PERF_TEST_FOR_PD", false, kSplit},
    {"FD_ENABLE_INTERNAL_ADAPTER", false, kOneEngine},
    {"FD_ENABLE_RETURN_TEXT", false, kOneEngine},
    {"FD_ZMQ_RECV_REQUEST_SERVER_PORT", false, kOneEngine},
    {"FD_ZMQ_RECV_REQUEST_SERVER_PORTS", false, kOneEngine},
    {"FD_ZMQ_SEND_RESPONSE_SERVER_PORT", false, kOneEngine},
    {"FD_ZMQ_SEND_RESPONSE_SERVER_PORTS", false, kOneEngine},
    {"FD_ZMQ_CONTROL_CMD_SERVER_PORTS", false, kOneEngine},
    {"INFERENCE_MSG_QUEUE_ID", false, kOneEngine},
    {"SHM_UUID", false, kOneEngine},
    {"PROMETHEUS_MULTIPROC_DIR", false, "one process counts for itself"},
    {"FLAGS_use_pd_disaggregation", false, kSplit},
    {"FLAGS_use_pd_disaggregation_per_chunk", false, kSplit},
    {"KVCACHE_RDMA_NICS", false, kSplit},
    {"ENCODE_FEATURE_BOS_AK", false, kFeatureStore},
    {"ENCODE_FEATURE_BOS_SK", false, kFeatureStore},
    {"ENCODE_FEATURE_ENDPOINT", false, kFeatureStore},
    {"FD_CACHE_PROC_EXIT_TIMEOUT", false, kOneEngine},
    {"FD_CACHE_PROC_ERROR_COUNT", false, kOneEngine},
    {"FD_ENABLE_SWAP_SPACE_CLEARING", false, "--swap-space ends with the process that took it"},
    {"FD_TP_GROUP_GID_OFFSET", false, "tensor parallelism is still to come"},
    {"FD_PLUGINS", false, "Python plug-ins cannot be loaded into a native program"},
    {"TRACES_ENABLE", false, kTrace},
    {"TRACES_EXPORTER", false, kTrace},
    {"EXPORTER_OTLP_ENDPOINT", false, kTrace},
    {"EXPORTER_OTLP_HEADERS", false, kTrace},
    {"FD_SERVICE_NAME", false, kTrace},
    {"FD_HOST_NAME", false, kTrace},
    {"FD_JOB_ID", false, kTrace},
    {"FD_BUILDING_ARCS", false, "this program is built already"},
    {"FD_CPU_USE_BF16", false, "use --dtype"},
    {"FD_HPU_CHUNK_SIZE", false, "this device is not supported"},
    {"FD_DEALER_CONNECTIONS", false, kOneEngine},
    {"FD_DETERMINISTIC_MODE", true, "1: as --deterministic"},
    {"FD_ENABLE_V1_UPDATE_WEIGHTS", false, "exchanging weights at run time is not offered"},
    {"FD_ENABLE_REQUEST_DISCONNECT_STOP_INFERENCE", false, "a client that leaves always ends its requests"},
    {"FD_DEBUG_SERIALIZE_MODEL_PATH", false, "this help for debugging is not offered"},
    {"CUDA_VISIBLE_DEVICES", true, "GPUs that the driver shows; cuda:N counts those"},
    {"NOTIFY_SOCKET", true, "where systemd waits for readiness; see packaging/fastdeploy.service"},
    {"FASTDEPLOY_FAULT", true, "faults on purpose, for tests; see docs/RELIABILITY.md"},
    {"FASTDEPLOY_ISA", true, "instruction set of the CPU's kernels, where --cpu-isa is auto"},
};

}  // namespace

std::span<const KnownVariable> KnownVariables() { return kVariables; }

std::vector<std::string> EnvironmentNotes(const std::vector<std::string>& environment) {
  std::vector<std::string> known;
  for (const KnownVariable& variable : kVariables) known.emplace_back(variable.name);
  std::vector<std::string> notes;
  for (const std::string& entry : environment) {
    const std::string name = entry.substr(0, entry.find('='));
    const KnownVariable* found = nullptr;
    for (const KnownVariable& variable : kVariables) {
      if (name == variable.name) found = &variable;
    }
    if (found != nullptr && found->works) continue;
    if (found != nullptr) {
      notes.push_back(StrCat(name, " has no effect here: ", found->sentence));
    } else if (name.starts_with("FD_")) {
      const std::string near = DidYouMean(name, known);
      notes.push_back(
          StrCat(name, " is not known", near.empty() ? "" : StrCat("; did you mean ", near, "?")));
    }
  }
  return notes;
}

std::vector<std::string> ProcessEnvironment() {
  std::vector<std::string> entries;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) entries.emplace_back(*entry);
  return entries;
}

std::vector<std::string> KeysOfList(const std::string& text) {
  std::vector<std::string> keys;
  for (const std::string& part : Split(text, ',')) {
    if (const std::string_view key = Trim(part); !key.empty()) keys.emplace_back(key);
  }
  return keys;
}

StatusOr<std::vector<std::string>> KeysOfFile(const std::string& path, const char* flag) {
  std::ifstream file(path);
  if (!file) return InvalidArgument(StrCat(flag, " ", path, ": the file cannot be read"), flag);
  std::vector<std::string> keys;
  std::string line;
  while (std::getline(file, line)) {
    const std::string_view key = Trim(line);
    if (!key.empty() && key[0] != '#') keys.emplace_back(key);
  }
  if (keys.empty())
    return InvalidArgument(StrCat(flag, " ", path, ": the file holds no key; one key a line"), flag);
  return keys;
}

}  // namespace fd
