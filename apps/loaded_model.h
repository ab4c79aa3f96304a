// From flags to something that answers: thread pool, model, memory plan, engine, service. Made by main,
// before any request.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/thread_pool.h"
#include "compute/ops/stream.h"
#include "compute/ops/upload.h"
#include "engine/engine.h"
#include "engine/executor/executor.h"
#include "engine/plan/memory_plan.h"
#include "engine/record/record_file.h"
#include "media_work_flags.h"
#include "model_flags.h"
#include "pooling_flags.h"
#include "server/multimodal/source/media_source.h"
#include "server/openai/service.h"

namespace fd {

// A value of ServiceFlags::reasoning_parser: ernie-45-vl where the vocabulary has </think>, else none.
inline constexpr const char* kReasoningParserIfKnown = "if-known";

// FastDeploy's and vLLM's names, in the order of LogprobsMode.
inline constexpr const char* kLogprobsModes[] = {"raw_logprobs", "processed_logprobs", "raw_logits",
                                                 "processed_logits"};

struct ServiceFlags {
  std::vector<std::string> served_model_names;  // empty: the folder's name, and requests may say any
  std::string chat_template;                    // a file or the template's text; empty: the model's own
  JsonObject chat_template_kwargs;              // for every conversation
  bool trust_request_chat_template = false;
  std::string generation_config = "auto";  // auto: the model's, vllm: none, else a folder
  std::string reasoning_parser;
  std::string tool_call_parser;
  RequestLimits limits;
  MediaPolicy media_policy;
  MediaWorkFlags media;
  std::optional<PoolerConfig> pooling;  // there: embeddings in place of text
  int64_t max_waiting_requests = 1024;
  double max_waiting_s = -1;                   // as in EngineOptions
  double step_timeout_s = -1;                  // as in EngineOptions
  std::string step_log;                        // a file for one line of JSON a step; empty: none
  std::string record;                          // a new file for all plans and results; empty: none
  JsonObject recorded_flags;                   // record_flags.h
  std::string metrics_names = "fastdeploy";    // one of kMetricNames
  std::string logprobs_mode = "raw_logprobs";  // one of kLogprobsModes
};

// Members are destroyed from the last to the first: the engine before what it uses.
struct LoadedModel {
  ThreadPlacement placement;  // of the threads
  std::unique_ptr<ThreadPool> threads;
  Device device;
  std::shared_ptr<void> stream;  // null on the CPU, as are side, uploader and arena
  std::unique_ptr<ops::SideLine> side;
  std::unique_ptr<ops::Uploader> uploader;
  std::unique_ptr<Arena> arena;
  std::unique_ptr<Workspace> workspace;
  MemoryPlan memory;
  DType kv_dtype = DType::kBFloat16;  // of the key/value pages
  Quantization quantization;          // in effect: the checkpoint's own, packed or not, or the flag's
  std::shared_ptr<Service> service;
  std::vector<RecordFact> facts;   // what tokens depend on besides requests
  std::unique_ptr<Engine> engine;  // started; null where there is an executor
  // LoadExecutor's.
  std::unique_ptr<Model> model;
  std::unique_ptr<Executor> executor;
};

using LoadProgress = std::function<void(int64_t done_bytes, int64_t total_bytes)>;

// Errors name the file, the flag and the numbers. on_device_lost: see Engine::OnDeviceLost; may be empty.
StatusOr<std::unique_ptr<LoadedModel>> LoadService(const ModelFlags& flags, const ServiceFlags& service_flags,
                                                   const LoadProgress& progress,
                                                   const std::function<void()>& on_device_lost = {});

// The engine alone, without tokenizer, template and service (which stays null): for bench.
StatusOr<std::unique_ptr<LoadedModel>> LoadEngine(const ModelFlags& flags, const LoadProgress& progress);

// For replay: the limits to work under, in place of the flags of sizes, and who is asked whether the model is
// the right one before its weights are read.
struct ReplaySetup {
  EngineOptions options;
  std::function<Status(const std::vector<RecordFact>& facts)> accept;
};
// A model and an executor, without an engine.
StatusOr<std::unique_ptr<LoadedModel>> LoadExecutor(const ModelFlags& flags, const ReplaySetup& setup,
                                                    const LoadProgress& progress);

// Model, memory and limits as log lines.
void LogModel(const LoadedModel& model);

}  // namespace fd
