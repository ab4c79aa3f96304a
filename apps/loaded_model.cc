#include "loaded_model.h"

#include <algorithm>
#include <ctime>
#include <utility>

#include "base/log.h"
#include "base/strings.h"
#include "compute/kernels/cuda/device.h"
#include "compute/ops/rows.h"
#include "device_flag.h"
#include "engine/executor/executor.h"

namespace fd {
namespace {

// The last part of a path: the model's name where --served-model-name does not say.
std::string FolderName(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path.substr(path.rfind('/') + 1);
}

StatusOr<int64_t> MaxModelLen(const ModelFlags& flags, const ModelConfig& config) {
  if (flags.max_model_len == 0) return config.max_position_embeddings;
  if (flags.max_model_len > config.max_position_embeddings) {
    return InvalidArgument(StrCat("--max-model-len ", flags.max_model_len, ": the model goes up to ",
                                  config.max_position_embeddings, " tokens (max_position_embeddings in ",
                                  flags.model_dir, "/config.json), for example --max-model-len ",
                                  std::min<int64_t>(4096, config.max_position_embeddings)),
                           "--max-model-len");
  }
  return flags.max_model_len;
}

// Scratch of the largest step and of the largest picture; they never run at the same time.
int64_t WorkspaceBytes(const ModelConfig& config, DType dtype, const EngineOptions& options,
                       const std::optional<MediaConfig>& media, int64_t threads, DeviceType device) {
  int64_t bytes = ForwardScratchBytes(config, dtype, options.max_num_batched_tokens,
                                      options.MaxStepSequences(), options.max_model_len, threads);
  if (config.vision && media) {
    const VisionConfig& vision = *config.vision;
    int64_t patches = media->image_max_pixels / (vision.patch_size * vision.patch_size);
    int64_t patch_bytes = vision.in_channels * vision.patch_size * vision.patch_size;
    bytes = std::max(
        bytes, patches * patch_bytes + EncodeScratchBytes(config, dtype, patches, patches, threads, device));
  }
  return bytes;
}

StatusOr<MemoryPlan> PlanFor(const ModelFlags& flags, const MemoryNeeds& needs, EngineOptions* options) {
  StatusOr<MemoryPlan> plan = PlanMemory(needs, *options);
  if (plan.ok() || flags.max_model_len != 0 || flags.num_kv_pages != 0) return plan;
  // Nobody asked for this length: take the longest that fits.
  double usable = needs.available_bytes * needs.utilization - needs.weight_bytes - needs.executor_bytes -
                  needs.workspace_bytes;
  int64_t tokens = static_cast<int64_t>(usable / needs.page_bytes) * kKvPageTokens;
  if (usable <= 0 || tokens < kKvPageTokens) return plan;
  LogWarning("--max-model-len ", tokens, ": what memory leaves of the ", options->max_model_len,
             " tokens that config.json allows");
  options->max_model_len = tokens;
  return PlanMemory(needs, *options);
}

StatusOr<std::shared_ptr<Service>> MakeService(const ModelFlags& flags, const ServiceFlags& service_flags,
                                               const ModelConfig& config) {
  auto service = std::make_shared<Service>();
  service->model_names = service_flags.served_model_names;
  service->check_model_name = !service->model_names.empty();
  if (service->model_names.empty()) service->model_names.push_back(FolderName(flags.model_dir));
  service->created_unix_s = std::time(nullptr);
  FD_ASSIGN_OR_RETURN(service->tokenizer, Tokenizer::Load(flags.model_dir));
  StatusOr<ChatTemplate> chat_template = ChatTemplate::Load(flags.model_dir);
  if (chat_template.ok()) {
    service->chat_template = std::move(*chat_template);
  } else {
    service->chat_template_error = chat_template.status().message();
    LogWarning("no chat template, /v1/chat/completions will refuse: ", service->chat_template_error);
  }
  if (config.vision) {
    FD_ASSIGN_OR_RETURN(MediaConfig media, LoadMediaConfig(flags.model_dir, *service->tokenizer));
    media.apply_exif = !flags.no_exif_orientation;
    media.limits = flags.image_limits;
    if (media.image_placeholder_id >= 0) service->media = media;
    service->thinking_by_default = true;  // FastDeploy's default for ERNIE-4.5-VL
  }
  std::string parser = service_flags.reasoning_parser;
  if (parser == kReasoningParserIfKnown)
    parser = service->tokenizer->TokenId("</think>") ? "ernie-45-vl" : "";
  FD_RETURN_IF_ERROR(SetReasoningParser(*service, parser));
  service->vocab_size = config.vocab_size;
  service->defaults = DefaultsOf(config);
  service->limits = service_flags.limits;
  service->metrics = std::make_shared<Metrics>();
  return service;
}

// What this process may still take on the device. cuBLASLt takes its scratch of 32 MiB when the first weight
// is packed.
int64_t AvailableBytes(Device device) {
  if (device.type == DeviceType::kCpu) return AvailableMemoryBytes();
  return std::max<int64_t>(0, cuda::GetDeviceInfo(device.index).free_bytes - (int64_t{32} << 20));
}

// Weights, memory plan and engine. options: what flags do not say is filled in.
Status StartEngine(LoadedModel& loaded, const ModelFlags& flags, EngineOptions options,
                   const std::optional<MediaConfig>& media, const LoadProgress& progress) {
  loaded.threads = std::make_unique<ThreadPool>(static_cast<int>(flags.threads));
  ops::Context ctx;
  ctx.threads = loaded.threads.get();
  ctx.device = loaded.device;
  if (ctx.device.type == DeviceType::kCuda) {
    loaded.stream = std::shared_ptr<void>(cuda::CreateStream(ctx.device.index), cuda::DestroyStream);
    ctx.stream = loaded.stream.get();
  }
  ops::UseDevice(ctx);
  MemoryNeeds needs;
  needs.available_bytes = AvailableBytes(ctx.device);
  needs.utilization = flags.gpu_memory_utilization;
  Workspace load_workspace(ctx.device, 0);
  ctx.workspace = &load_workspace;
  LoadOptions load;
  load.device = ctx.device;
  load.dtype = flags.dtype == "float32" ? DType::kFloat32 : DType::kBFloat16;
  load.random_weights = flags.load_format == "dummy";
  load.progress = progress;
  FD_ASSIGN_OR_RETURN(std::unique_ptr<Model> model, LoadModel(ctx, flags.model_dir, load));

  options.max_num_seqs = flags.max_num_seqs;
  options.max_num_batched_tokens =
      std::min(flags.max_num_batched_tokens, options.max_model_len * flags.max_num_seqs);
  options.num_kv_pages = flags.num_kv_pages;
  needs.weight_bytes = model->weight_bytes();
  needs.page_bytes = KvBytesPerPage(model->config(), model->dtype());
  needs.executor_bytes = ExecutorBytes(model->config(), model->dtype(), options);
  needs.workspace_bytes = WorkspaceBytes(model->config(), model->dtype(), options, media,
                                         ctx.threads->num_threads(), ctx.device.type);
  FD_ASSIGN_OR_RETURN(loaded.memory, PlanFor(flags, needs, &options));
  options.num_kv_pages = loaded.memory.num_kv_pages;

  loaded.workspace = std::make_unique<Workspace>(ctx.device, needs.workspace_bytes);
  ctx.workspace = loaded.workspace.get();
  loaded.engine = std::make_unique<Engine>(std::move(model), ctx, options);
  loaded.engine->Start();
  return OkStatus();
}

}  // namespace

StatusOr<std::unique_ptr<LoadedModel>> LoadEngine(const ModelFlags& flags, const LoadProgress& progress) {
  FD_RETURN_IF_ERROR(CheckModelFolder(flags.model_dir));
  FD_ASSIGN_OR_RETURN(ModelConfig config, LoadModelConfig(flags.model_dir));
  auto loaded = std::make_unique<LoadedModel>();
  FD_ASSIGN_OR_RETURN(loaded->device, ParseDevice(flags.device));
  EngineOptions options;
  FD_ASSIGN_OR_RETURN(options.max_model_len, MaxModelLen(flags, config));
  FD_RETURN_IF_ERROR(StartEngine(*loaded, flags, options, std::nullopt, progress));
  return loaded;
}

StatusOr<std::unique_ptr<LoadedModel>> LoadService(const ModelFlags& flags, const ServiceFlags& service_flags,
                                                   const LoadProgress& progress) {
  FD_RETURN_IF_ERROR(CheckModelFolder(flags.model_dir));
  FD_ASSIGN_OR_RETURN(ModelConfig config, LoadModelConfig(flags.model_dir));
  auto loaded = std::make_unique<LoadedModel>();
  FD_ASSIGN_OR_RETURN(loaded->device, ParseDevice(flags.device));
  EngineOptions options;
  FD_ASSIGN_OR_RETURN(options.max_model_len, MaxModelLen(flags, config));
  // What is small and may be wrong comes before the weights.
  FD_ASSIGN_OR_RETURN(loaded->service, MakeService(flags, service_flags, config));
  Service& service = *loaded->service;
  options.max_waiting_requests = service_flags.max_waiting_requests;
  options.sampled_vocab_size = service.tokenizer->vocab_size();
  FD_RETURN_IF_ERROR(StartEngine(*loaded, flags, options, service.media, progress));
  service.max_model_len = loaded->engine->options().max_model_len;
  service.max_num_seqs = loaded->engine->options().max_num_seqs;
  service.engine = DoorOf(*loaded->engine);
  return loaded;
}

void LogModel(const LoadedModel& model) {
  const ModelConfig& config = model.engine->config();
  const EngineOptions& options = model.engine->options();
  LogInfo("model: ", Join(model.service->model_names, ", "), ", ", config.family, ", ", config.num_layers,
          " layers, on ", DescribeDevice(model.device), ", ", model.threads->num_threads(),
          model.threads->num_threads() == 1 ? " thread" : " threads");
  LogInfo(model.memory.Summary());
  LogInfo("limits: ", options.max_model_len, " tokens a sequence, ", options.max_num_seqs,
          " sequences at once, ", options.max_num_batched_tokens, " tokens a step, ",
          options.max_waiting_requests, " waiting requests",
          model.service->media ? StrCat(", pictures a request: ", model.service->limits.images_per_prompt)
                               : std::string());
}

}  // namespace fd
