#include "loaded_model.h"

#include <algorithm>
#include <ctime>
#include <limits>
#include <utility>

#include "base/build_id.h"
#include "base/check.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/memory_policy.h"
#include "base/strings.h"
#include "chat_template_flags.h"
#include "compute/kernels/cuda/device.h"
#include "compute/ops/sample.h"
#include "device_flag.h"
#include "engine/executor/executor.h"
#include "server/openai/media_options.h"

namespace fd {
namespace {

// The last part of a path: the model's name where --served-model-name does not say.
std::string FolderName(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path.substr(path.rfind('/') + 1);
}

StatusOr<int64_t> MaxModelLen(const ModelFlags& flags, const ModelConfig& config) {
  const int64_t most = MaxContextTokens(config);
  if (flags.max_model_len <= most) return flags.max_model_len == 0 ? most : flags.max_model_len;
  return InvalidArgument(
      StrCat("--max-model-len ", flags.max_model_len, ": the model goes up to ", most, " tokens (",
             MaxContextReason(config),
             flags.rope.scaling ? " of --rope-scaling" : StrCat(" in ", flags.model_dir, "/config.json"),
             "), for example --max-model-len ", std::min<int64_t>(4096, most)),
      "--max-model-len");
}

// Scratch of the largest step and of the most pictures that are encoded in one; they never run at the same
// time.
int64_t WorkspaceBytes(const ops::Context& ctx, const ModelConfig& config, DType dtype,
                       const EngineOptions& options) {
  const int64_t sequences = options.MaxStepSequences();
  int64_t bytes = std::max(ForwardScratchBytes(ctx, config, dtype, options.max_num_batched_tokens, sequences,
                                               PagesForTokens(options.max_model_len) * kKvPageTokens),
                           SampleStepScratchBytes(ctx, config, options));
  return Arena::PaddedBytes(std::max(bytes, EncodeStepScratchBytes(ctx, config, dtype, options)));
}

StatusOr<MemoryPlan> PlanFor(const ModelFlags& flags, const NeedsOf& needs_of, EngineOptions* options) {
  StatusOr<MemoryPlan> plan = PlanMemory(needs_of, *options);
  if (plan.ok() || flags.max_model_len != 0 || flags.num_kv_pages != 0) return plan;
  // Nobody asked for this length: take the longest that fits.
  const int64_t tokens = LongestModelLen(needs_of, *options);
  if (tokens == 0) return plan;
  LogWarning("--max-model-len ", tokens, ": what memory leaves of the ", options->max_model_len,
             " tokens that config.json allows");
  options->max_model_len = tokens;
  return PlanMemory(needs_of, *options);
}

// --mm-processor-kwargs over the checkpoint's own values.
Status SetProcessorKwargs(const JsonObject& kwargs, MediaConfig* media) {
  const std::string flag = "--mm-processor-kwargs";
  StatusOr<MediaOverrides> overrides = ReadProcessorKwargs(kwargs, {"", flag}, *media);
  if (!overrides.ok()) return overrides.status().WithContext(flag);
  return SetServerOptions(*overrides, media).WithContext(flag);
}

// The template of --chat-template or the model's own.
Status SetChatTemplate(const std::string& model_dir, const ServiceFlags& flags, Service& service) {
  FD_ASSIGN_OR_RETURN(service.template_tokens, ChatTemplate::LoadSpecialTokens(model_dir));
  service.trust_request_chat_template = flags.trust_request_chat_template;
  if (!flags.chat_template.empty()) {
    StatusOr<ChatTemplate> given = ReadChatTemplate(flags.chat_template, service.template_tokens);
    if (!given.ok()) return given.status();
    service.chat_template = std::move(*given);
    return OkStatus();
  }
  StatusOr<ChatTemplate> own = ChatTemplate::Load(model_dir);
  if (own.ok()) {
    service.chat_template = std::move(*own);
  } else {
    service.chat_template_error = own.status().message();
    LogWarning("no chat template, /v1/chat/completions will refuse: ", service.chat_template_error);
  }
  return OkStatus();
}

// --default-chat-template-kwargs. What it says of thinking is a default like any other: every spelling in a
// request comes before it.
Status SetTemplateKwargs(const JsonObject& kwargs, Service& service) {
  constexpr const char* kFlag = "--default-chat-template-kwargs";
  service.default_template_kwargs = kwargs;
  if (service.chat_template) {
    if (Status s = service.chat_template->CheckKwargs(kwargs); !s.ok())
      return InvalidArgument(StrCat(kFlag, ": ", s.message()), kFlag);
  }
  const Json* thinking = kwargs.Find("enable_thinking");
  if (thinking == nullptr) return OkStatus();
  if (!thinking->is_bool())
    return InvalidArgument(StrCat(kFlag, ": enable_thinking must be true or false"), kFlag);
  service.thinking_by_default = thinking->as_bool();
  service.default_template_kwargs.Erase("enable_thinking");
  return OkStatus();
}

Status SetEmbeddings(const ServiceFlags& flags, const ModelConfig& config, Service& service) {
  if (!flags.pooling) return OkStatus();
  service.embeddings = EmbeddingService{.normalize = flags.pooling->normalize,
                                        .dimensions = flags.pooling->dimensions,
                                        .hidden_size = config.hidden_size,
                                        .is_matryoshka = config.is_matryoshka,
                                        .matryoshka_dimensions = config.matryoshka_dimensions};
  if (!service.embeddings->dimensions) return OkStatus();
  return CheckDimensions(*service.embeddings, *service.embeddings->dimensions, service.model_names.front(),
                         "--pooler-config dimensions");
}

LogprobsMode LogprobsModeNamed(const std::string& name) {
  const auto found = std::find(std::begin(kLogprobsModes), std::end(kLogprobsModes), name);
  FD_CHECK(found != std::end(kLogprobsModes), name);  // the flag takes no other
  return static_cast<LogprobsMode>(found - std::begin(kLogprobsModes));
}

const char* PoolingName(PoolingType type) {
  return type == PoolingType::kMean  ? "mean of all tokens"
         : type == PoolingType::kCls ? "first token"
                                     : "last token";
}

StatusOr<std::shared_ptr<Service>> MakeService(const ModelFlags& flags, const ServiceFlags& service_flags,
                                               const ModelConfig& config) {
  auto service = std::make_shared<Service>();
  service->model_names = service_flags.served_model_names;
  service->check_model_name = !service->model_names.empty();
  if (service->model_names.empty()) service->model_names.push_back(FolderName(flags.model_dir));
  service->created_unix_s = std::time(nullptr);
  FD_ASSIGN_OR_RETURN(service->tokenizer, Tokenizer::Load(flags.model_dir));
  FD_RETURN_IF_ERROR(SetChatTemplate(flags.model_dir, service_flags, *service));
  if (config.vision) {
    FD_ASSIGN_OR_RETURN(MediaConfig media, LoadMediaConfig(flags.model_dir, *service->tokenizer));
    media.apply_exif = !flags.no_exif_orientation;
    media.limits = flags.image_limits;
    media.video_limits = service_flags.media.video_limits;
    FD_RETURN_IF_ERROR(SetProcessorKwargs(service_flags.media.mm_processor_kwargs, &media));
    if (media.image_placeholder_id >= 0) service->media = media;
    service->thinking_by_default = true;  // FastDeploy's default for ERNIE-4.5-VL
  }
  FD_RETURN_IF_ERROR(SetTemplateKwargs(service_flags.chat_template_kwargs, *service));
  std::string parser = service_flags.reasoning_parser;
  if (parser == kReasoningParserIfKnown)
    parser = service->tokenizer->TokenId("</think>") ? "ernie-45-vl" : "";
  FD_RETURN_IF_ERROR(SetReasoningParser(*service, parser));
  FD_RETURN_IF_ERROR(SetToolParser(*service, service_flags.tool_call_parser));
  service->vocab_size = config.vocab_size;
  FD_RETURN_IF_ERROR(SetEmbeddings(service_flags, config, *service));
  ModelConfig with_defaults = config;
  FD_RETURN_IF_ERROR(ChooseGenerationConfig(service_flags.generation_config, with_defaults));
  service->defaults = DefaultsOf(with_defaults);
  service->limits = service_flags.limits;
  service->media_policy = service_flags.media_policy;
  service->metrics = std::make_shared<Metrics>();
  if (service->media)
    StartMediaLoader(*service, service_flags.media_policy, LoaderOptions(service_flags.media));
  return service;
}

// What lies outside the arena on a CUDA device: cuBLASLt's scratch of 32 MiB for each of two streams, kernels
// that the driver loads at first use, and the recorded decode steps.
constexpr int64_t kLibraryBytes = int64_t{384} << 20;
constexpr int64_t kGraphBytes = int64_t{2} << 20;

constexpr double kMinCpuStepSeconds = 600;
constexpr int64_t kCudaEncoderCacheTokens = 16384, kCpuEncoderCacheTokens = 4096;
// A token of a picture costs the encoder about what it costs the network, so the step that
// --max-num-batched-tokens allows says how long a step may take; twice of it, because pictures are not cut.
// But hardly more scratch than the largest picture takes.
int64_t EncoderBatchTokens(const EngineOptions& options) {
  return std::min<int64_t>(2 * options.max_num_batched_tokens,
                           std::max<int64_t>(4096, options.max_media_tokens));
}

// Without --max-num-batched-tokens.
constexpr int64_t kStepTokens = 2048;
// A sequence alone delays nobody.
double TargetStepMs(const ModelFlags& flags) {
  if (flags.target_step_ms) return *flags.target_step_ms;
  if (flags.max_num_batched_tokens > 0 || flags.max_num_seqs == 1) return 0;
  return -1;
}

int64_t AvailableBytes(Device device, const EngineOptions& options) {
  if (device.type == DeviceType::kCpu) return AvailableMemoryBytes();
  const int64_t graphs =
      options.cuda_graphs ? static_cast<int64_t>(DecodeGraphRows(options).size()) * kGraphBytes : 0;
  return std::max<int64_t>(0, cuda::GetDeviceInfo(device.index).free_bytes - kLibraryBytes - graphs);
}

// Whole pages that --swap-space holds.
StatusOr<int64_t> HostPagesFor(const ModelFlags& flags, const EngineOptions& options, int64_t page_bytes) {
  if (flags.swap_space_gib == 0) return 0;
  if (!options.prefix_caching) {
    return InvalidArgument(
        StrCat("--swap-space ", flags.swap_space_gib,
               " is for pages of the prefix cache, which is off: give ",
               "--enable-prefix-caching without --no-enable-prefix-caching, or leave --swap-space out"),
        "--swap-space");
  }
  const double pages =
      flags.swap_space_gib * static_cast<double>(int64_t{1} << 30) / static_cast<double>(page_bytes);
  if (pages >= 1) return static_cast<int64_t>(std::min<double>(pages, std::numeric_limits<int32_t>::max()));
  return InvalidArgument(StrCat("--swap-space ", flags.swap_space_gib, " GiB is less than a page of ",
                                HumanBytes(page_bytes), ", for example --swap-space 1"),
                         "--swap-space");
}

// Pool, stream and what else the ops need; ctx borrows from `loaded`.
ops::Context MakeContext(LoadedModel& loaded, const ModelFlags& flags) {
  loaded.placement = ApplyCpuFlags(flags.cpu, loaded.device.type == DeviceType::kCpu);
  loaded.threads = std::make_unique<ThreadPool>(loaded.placement);
  ops::Context ctx;
  ctx.threads = loaded.threads.get();
  ctx.device = loaded.device;
  ops::UseDevice(ctx);
  if (ctx.device.type == DeviceType::kCuda) {
    loaded.stream = std::shared_ptr<void>(cuda::CreateStream(ctx.device.index), cuda::DestroyStream);
    ctx.stream = loaded.stream.get();
    loaded.side = std::make_unique<ops::SideLine>(ctx);
    ctx.side = loaded.side.get();
    loaded.uploader = std::make_unique<ops::Uploader>(ctx);
    ctx.uploader = loaded.uploader.get();
  }
  return ctx;
}

// The plan's whole memory, before a weight is read. The CPU needs none: its memory is taken as it is touched.
Status AllocateArena(LoadedModel& loaded) {
  if (loaded.device.type == DeviceType::kCpu) return OkStatus();
  loaded.arena = Arena::Allocate(loaded.device, loaded.memory.total_bytes());
  if (loaded.arena != nullptr) return OkStatus();
  return {StatusCode::kResourceExhausted,
          StrCat(DescribeDevice(loaded.device), " did not give the ", HumanBytes(loaded.memory.total_bytes()),
                 " that were planned, though it said that ", HumanBytes(loaded.memory.needs.available_bytes),
                 " are free: another program may have taken them (nvidia-smi shows who); lower "
                 "--gpu-memory-utilization, for example to 0.8")};
}

// The CPU's kernels are so whatever the flag says.
bool IsDeterministic(const ModelFlags& flags, Device device) {
  return flags.deterministic || device.type == DeviceType::kCpu;
}

// OpenAI's system_fingerprint: another one where any of the facts is.
std::string FingerprintOfFacts(const std::vector<RecordFact>& facts) {
  std::string text;
  for (const RecordFact& fact : facts) text += StrCat(fact.name, "=", fact.value, "\n");
  const uint64_t hash = SipHash128(0, 0, text).low;
  std::string digits = "fp_";
  for (int shift = 60; shift >= 16; shift -= 4) digits.push_back("0123456789abcdef"[hash >> shift & 15]);
  return digits;
}

// Equal facts, equal tokens of equal plans.
std::vector<RecordFact> FactsOf(const ModelFlags& flags, const OpenedModel& opened, Device device,
                                DType kv_dtype) {
  return {{"model", StrCat(opened.config().family, " ", opened.Fingerprint())},
          {"dtype", flags.dtype},
          {"quantization", QuantizationName(opened.quantization())},
          {"kv_cache", DTypeName(kv_dtype)},
          {"deterministic", IsDeterministic(flags, device) ? "yes" : "no"},
          {"build", BuildId(), false},
          {"device", DescribeDevice(device), false}};
}

// Memory plan, weights and engine. options: what flags do not say is filled in. replay: if there, an
// executor in place of an engine.
Status StartEngine(LoadedModel& loaded, const ModelFlags& flags, EngineOptions options,
                   const std::optional<MediaConfig>& media, const LoadProgress& progress,
                   const ReplaySetup* replay = nullptr) {
  ops::Context ctx = MakeContext(loaded, flags);
  ctx.batch_invariant = flags.deterministic;
  LoadOptions load;
  load.dtype = flags.dtype == "float32" ? DType::kFloat32 : DType::kBFloat16;
  load.random_weights = flags.load_format == "dummy";
  load.quantization = flags.quantization;
  load.head = options.pooling == PoolingType::kNone;
  load.rope = flags.rope;
  load.progress = progress;
  FD_ASSIGN_OR_RETURN(const OpenedModel opened, OpenModel(ctx, flags.model_dir, load));
  const ModelConfig& config = opened.config();
  loaded.quantization = opened.quantization();

  const bool cuda = ctx.device.type == DeviceType::kCuda;
  options.overlap = cuda && !flags.no_overlap;
  options.prefix_caching = flags.prefix_caching && !flags.no_prefix_caching;
  options.cuda_graphs = cuda && !flags.no_cuda_graphs && options.pooling == PoolingType::kNone;
  options.max_num_seqs = flags.max_num_seqs;
  const int64_t step_tokens = flags.max_num_batched_tokens > 0 ? flags.max_num_batched_tokens : kStepTokens;
  options.max_num_batched_tokens = std::min(step_tokens, options.max_model_len * flags.max_num_seqs);
  options.target_step_ms = TargetStepMs(flags);
  options.max_num_partial_prefills = flags.max_num_partial_prefills;
  options.max_long_partial_prefills = flags.max_long_partial_prefills;
  options.long_prefill_token_threshold = flags.long_prefill_token_threshold;
  options.num_kv_pages = flags.num_kv_pages;
  FD_ASSIGN_OR_RETURN(options.kv_dtype, KvCacheDtype(flags));
  if (media && config.vision) options.max_media_tokens = MaxItemPatches(*media) / 4;
  options.encoder_cache_tokens = flags.encoder_cache_tokens;
  if (options.encoder_cache_tokens < 0)
    options.encoder_cache_tokens = cuda ? kCudaEncoderCacheTokens : kCpuEncoderCacheTokens;
  options.max_encoder_batch_tokens = flags.max_encoder_batch_tokens;
  if (options.max_encoder_batch_tokens == 0) options.max_encoder_batch_tokens = EncoderBatchTokens(options);
  const auto page_bytes = [&] { return KvBytesPerPage(config, options.kv_dtype.value_or(load.dtype)); };
  FD_ASSIGN_OR_RETURN(options.num_host_pages, HostPagesFor(flags, options, page_bytes()));
  ModelFlags sizes = flags;
  loaded.facts = FactsOf(flags, opened, ctx.device, options.kv_dtype.value_or(load.dtype));
  if (replay != nullptr) {
    FD_RETURN_IF_ERROR(replay->accept(loaded.facts));
    options = replay->options;
    sizes.num_kv_pages = options.num_kv_pages;
  }
  const int64_t available_bytes = AvailableBytes(ctx.device, options);
  const int64_t host_available_bytes = AvailableMemoryBytes();
  const NeedsOf needs_of = [&](const EngineOptions& o) {
    MemoryNeeds needs;
    needs.available_bytes = available_bytes;
    needs.utilization = flags.gpu_memory_utilization;
    needs.weight_bytes = opened.weight_bytes();
    needs.page_bytes = page_bytes();
    needs.swap_bytes = o.num_host_pages * page_bytes();
    needs.device_is_host = !cuda;
    needs.host_available_bytes = host_available_bytes;
    needs.executor_bytes = ExecutorBytes(config, load.dtype, o);
    needs.encoder_bytes = EncoderSlabBytes(config, load.dtype, o);
    needs.workspace_bytes = WorkspaceBytes(ctx, config, load.dtype, o);
    return needs;
  };
  loaded.kv_dtype = options.kv_dtype.value_or(load.dtype);
  FD_ASSIGN_OR_RETURN(loaded.memory, PlanFor(sizes, needs_of, &options));
  options.num_kv_pages = loaded.memory.num_kv_pages;
  FD_RETURN_IF_ERROR(AllocateArena(loaded));

  ctx.arena = loaded.arena.get();
  loaded.workspace =
      cuda ? std::make_unique<Workspace>(*ctx.arena, ctx.device, loaded.memory.needs.workspace_bytes)
           : std::make_unique<Workspace>(ctx.device, loaded.memory.needs.workspace_bytes);
  ctx.workspace = loaded.workspace.get();
  std::unique_ptr<Model> model = opened.Load(ctx, options.max_model_len);
  FD_RETURN_IF_ERROR(opened.CheckUnchanged());
  if (replay != nullptr) {
    loaded.model = std::move(model);
    loaded.executor = std::make_unique<Executor>(*loaded.model, ctx, options);
    return loaded.executor->Prepare();
  }
  loaded.engine = std::make_unique<Engine>(std::move(model), ctx, options);
  FD_RETURN_IF_ERROR(loaded.engine->Prepare());
  return OkStatus();
}

void DescribeForMetrics(const ModelFlags& flags, const ServiceFlags& service_flags, const Engine& engine,
                        const Service& service) {
  MetricsInfo info;
  for (size_t i = 0; i < std::size(kMetricNames); ++i) {
    if (service_flags.metrics_names == kMetricNames[i]) info.names = static_cast<MetricNames>(i);
  }
  info.model_name = service.model_names.front();
  info.page_tokens = kKvPageTokens;
  info.cache_dtype = engine.options().kv_dtype ? DTypeName(*engine.options().kv_dtype) : flags.dtype;
  info.prefix_caching = engine.options().prefix_caching;
  info.swap_space_gib = flags.swap_space_gib;
  info.host_pages = engine.options().num_host_pages;
  info.memory_share = flags.gpu_memory_utilization;
  info.encoder_cache_tokens = engine.options().EncoderSlabTokens();
  info.processor_cache_bytes = LoaderOptions(service_flags.media).max_cache_bytes;
  service.metrics->SetInfo(std::move(info));
}

}  // namespace

StatusOr<std::unique_ptr<LoadedModel>> LoadEngine(const ModelFlags& flags, const LoadProgress& progress) {
  FD_RETURN_IF_ERROR(CheckModelFolder(flags.model_dir));
  FD_ASSIGN_OR_RETURN(ModelConfig config, LoadModelConfig(flags.model_dir, "config.json", flags.rope));
  auto loaded = std::make_unique<LoadedModel>();
  FD_ASSIGN_OR_RETURN(loaded->device, ParseDevice(flags.device));
  EngineOptions options;
  FD_ASSIGN_OR_RETURN(options.max_model_len, MaxModelLen(flags, config));
  FD_RETURN_IF_ERROR(CheckPartialPrefills(flags, options.max_model_len));
  FD_RETURN_IF_ERROR(StartEngine(*loaded, flags, options, std::nullopt, progress));
  loaded->engine->Start();
  return loaded;
}

StatusOr<std::unique_ptr<LoadedModel>> LoadExecutor(const ModelFlags& flags, const ReplaySetup& setup,
                                                    const LoadProgress& progress) {
  FD_RETURN_IF_ERROR(CheckModelFolder(flags.model_dir));
  auto loaded = std::make_unique<LoadedModel>();
  FD_ASSIGN_OR_RETURN(loaded->device, ParseDevice(flags.device));
  FD_RETURN_IF_ERROR(StartEngine(*loaded, flags, setup.options, std::nullopt, progress, &setup));
  return loaded;
}

StatusOr<std::unique_ptr<LoadedModel>> LoadService(const ModelFlags& flags, const ServiceFlags& service_flags,
                                                   const LoadProgress& progress,
                                                   const std::function<void()>& on_device_lost) {
  FD_RETURN_IF_ERROR(CheckModelFolder(flags.model_dir));
  FD_ASSIGN_OR_RETURN(ModelConfig config, LoadModelConfig(flags.model_dir, "config.json", flags.rope));
  auto loaded = std::make_unique<LoadedModel>();
  FD_ASSIGN_OR_RETURN(loaded->device, ParseDevice(flags.device));
  EngineOptions options;
  FD_ASSIGN_OR_RETURN(options.max_model_len, MaxModelLen(flags, config));
  FD_RETURN_IF_ERROR(CheckPartialPrefills(flags, options.max_model_len));
  // What is small and may be wrong comes before the weights.
  std::unique_ptr<StepLog> step_log;
  if (!service_flags.step_log.empty()) {
    FD_ASSIGN_OR_RETURN(step_log, StepLog::Open(service_flags.step_log));
  }
  std::unique_ptr<Recorder> recorder;
  if (!service_flags.record.empty()) {
    FD_ASSIGN_OR_RETURN(recorder, Recorder::Create(service_flags.record));
  }
  FD_ASSIGN_OR_RETURN(loaded->service, MakeService(flags, service_flags, config));
  Service& service = *loaded->service;
  options.max_waiting_requests = service_flags.max_waiting_requests;
  options.max_waiting_s = service_flags.max_waiting_s;
  options.step_timeout_s = service_flags.step_timeout_s;
  // A processor may take minutes for its first step of a large model; a GPU that takes one has failed.
  if (loaded->device.type == DeviceType::kCpu) options.min_step_timeout_s = kMinCpuStepSeconds;
  options.max_allowed_token_ids = service_flags.limits.max_allowed_token_ids;
  options.max_logit_bias = service_flags.limits.max_logit_bias;
  options.max_banned_tokens = service_flags.limits.max_banned_tokens;
  options.max_logprobs = service_flags.limits.max_logprobs;
  options.logprobs_mode = LogprobsModeNamed(service_flags.logprobs_mode);
  options.sampled_vocab_size = service.tokenizer->vocab_size();
  if (service_flags.pooling) options.pooling = service_flags.pooling->type;
  FD_RETURN_IF_ERROR(StartEngine(*loaded, flags, options, service.media, progress));
  ReleaseFreedMemory();
  if (service.media) KeepFreedMemory();
  service.max_model_len = loaded->engine->options().max_model_len;
  service.max_num_seqs = loaded->engine->options().max_num_seqs;
  service.system_fingerprint = FingerprintOfFacts(loaded->facts);
  service.deterministic = IsDeterministic(flags, loaded->device);
  service.engine = DoorOf(*loaded->engine);
  DescribeForMetrics(flags, service_flags, *loaded->engine, service);
  if (on_device_lost) loaded->engine->OnDeviceLost(on_device_lost);
  if (step_log != nullptr) loaded->engine->LogSteps(std::move(step_log));
  if (recorder != nullptr) {
    recorder->Begin({loaded->facts, service_flags.recorded_flags, loaded->engine->options()});
    LogWarning("--record ", recorder->path(), ": prompts, pictures and answers are written to this file");
    loaded->engine->Record(std::move(recorder));
  }
  loaded->engine->Start();
  return loaded;
}

void LogModel(const LoadedModel& model) {
  const ModelConfig& config = model.engine->config();
  const EngineOptions& options = model.engine->options();
  LogInfo("model: ", Join(model.service->model_names, ", "), ", ", config.family, ", ", config.num_layers,
          " layers, on ", DescribeDevice(model.device), ", ", model.placement.ToString());
  LogInfo(model.memory.Summary());
  if (const RopeKind kind = config.rope_scaling.kind; kind != RopeKind::kDefault) {
    const bool by_length = kind == RopeKind::kDynamic || kind == RopeKind::kLongRope;
    LogInfo("rope scaling: ", RopeKindName(kind), ", factor ", config.rope_scaling.factor,
            by_length ? StrCat(", for sequences of ", config.rope_tokens,
                               " tokens whatever their own length; a "
                               "lower --max-model-len scales less")
                      : std::string());
  }
  LogInfo("key/value cache: ", DTypeName(model.kv_dtype), ", ", model.memory.needs.page_bytes / kKvPageTokens,
          " bytes a token");
  if (const auto& embeddings = model.service->embeddings) {
    LogInfo("embeddings: ", embeddings->dimensions.value_or(embeddings->hidden_size), " values, of the ",
            PoolingName(options.pooling), embeddings->normalize ? ", normalised" : ", as they are");
  }
  LogInfo("limits: ", options.max_model_len, " tokens a sequence, ", options.max_num_seqs,
          " sequences at once, ", options.max_num_batched_tokens, " tokens a step, ",
          options.max_waiting_requests, " waiting requests",
          model.service->media ? StrCat(", pictures a request: ", model.service->limits.images_per_prompt,
                                        ", videos: ", model.service->limits.videos_per_prompt,
                                        ", encoder cache: ", options.EncoderSlabTokens(), " tokens, ",
                                        options.max_encoder_batch_tokens, " a step")
                               : std::string());
}

}  // namespace fd
