// fastdeploy serve: flags -> model -> engine -> HTTP, until SIGTERM or SIGINT.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/fault.h"
#include "base/json.h"
#include "base/log.h"
#include "base/log_sink.h"
#include "base/strings.h"
#include "command.h"
#include "config_file.h"
#include "environment.h"
#include "fastdeploy_flags.h"
#include "flag_set.h"
#include "load_watch.h"
#include "loaded_model.h"
#include "media_flags.h"
#include "model_flags.h"
#include "pooling_flags.h"
#include "progress_bar.h"
#include "record_flags.h"
#include "server/http/http_server.h"
#include "service_notify.h"
#include "stop_signal.h"

namespace fd {
namespace {

// How long Stop may take after the drain: streams get their error event, threads end.
constexpr std::chrono::hours kNoDeadline{24 * 365};
// Without a device no request runs any more; their errors only have to be sent.
constexpr double kLostDrainSeconds = 2;
// Of a stuck engine no event will come: those that wait are told at once.
constexpr double kStuckDrainSeconds = 0.01;
constexpr IntegerRange kStopStrings{0, 1024, 16};

struct ServeFlags {
  ModelFlags model;
  ServiceFlags service;
  PoolingFlags pooling;
  HttpOptions http;
  double drain_timeout_s = 30;
  double load_timeout_s = 600;
  std::string api_key_file;
  LogOptions log;
  bool no_access_log = false;
  bool strict_requests = false;
  bool log_prompts = false;
  std::string config_file;  // ExpandConfigFile has read it
  std::vector<std::string> notes;
};

void AddSeconds(FlagSet& flags, const std::string& name, std::chrono::milliseconds* value,
                const std::string& help) {
  flags.Custom(
      name, "SECONDS", help, StrCat(value->count() / 1000.0),
      [name, value](const std::string& text) -> Status {
        char* end = nullptr;
        double seconds = std::strtod(text.c_str(), &end);
        if (text.empty() || *end != '\0' || !(seconds >= 0.01 && seconds <= 86400)) {
          return InvalidArgument(StrCat("must be from 0.01 to 86400 seconds, for example --", name, " 30"));
        }
        *value = std::chrono::milliseconds(std::llround(seconds * 1000));
        return OkStatus();
      });
}

Status ParseOrigins(const std::string& text, std::vector<std::string>* origins) {
  *origins = KeysOfList(text);
  if (text.starts_with('[')) {
    const StatusOr<Json> json = ParseJson(text);
    if (!json.ok()) return InvalidArgument(StrCat("no JSON list: ", json.status().message()));
    origins->clear();
    for (const Json& origin : json->as_array()) {
      if (!origin.is_string()) return InvalidArgument("must be a list of strings");
      origins->push_back(origin.as_string());
    }
  }
  for (const std::string& origin : *origins) {
    if (origin == "*" || origin.find("://") != std::string::npos) continue;
    return InvalidArgument(
        StrCat("'", origin, "' is no origin, for example --allowed-origins ", "https://chat.example.org"));
  }
  return OkStatus();
}

Status SetLevel(const std::string& name, LogLevel* level) {
  const std::string lower = LowerAscii(name);
  if (lower == "debug" || lower == "trace") {
    *level = LogLevel::kDebug;
  } else if (lower == "info") {
    *level = LogLevel::kInfo;
  } else if (lower == "warning" || lower == "warn") {
    *level = LogLevel::kWarning;
  } else if (lower == "error" || lower == "critical") {
    *level = LogLevel::kError;
  } else {
    return InvalidArgument("must be one of debug, info, warning, error");
  }
  return OkStatus();
}

void AddLogFlags(FlagSet& flags, ServeFlags* values) {
  LogOptions& log = values->log;
  flags.Group("Logs");
  flags.Custom("log-level", "LEVEL", "debug, info, warning or error", "info",
               [&log](const std::string& text) { return SetLevel(text, &log.level); });
  flags.Custom("log-format", "auto|text|json", "auto: text on a terminal, else a JSON object a line", "auto",
               [&log](const std::string& text) -> Status {
                 if (text == "auto") {
                   log.format = LogFormat::kAuto;
                 } else if (text == "text") {
                   log.format = LogFormat::kText;
                 } else if (text == "json") {
                   log.format = LogFormat::kJson;
                 } else {
                   return InvalidArgument("must be one of auto, text, json");
                 }
                 return OkStatus();
               });
  flags.Text("log-dir", &log.directory, "Lines also go to fastdeploy.log in this folder", "FOLDER", "none");
  flags.Integer("log-max-bytes", &log.max_bytes, {4096, int64_t{1} << 40, 67108864},
                "Size at which fastdeploy.log becomes fastdeploy.log.1");
  flags.Integer("log-backups", &log.backups, {0, 1000, 7}, "Rotated files that are kept");
  flags.Switch("no-access-log", &values->no_access_log, "No line for each request");
  flags.Switch("log-prompts", &values->log_prompts, "Prompts stand in the log; without it none ever does");
}

// What the environment says where no flag does.
Status ReadEnvironment(ServeFlags* values, const JsonObject& given) {
  const auto variable = [](const char* name) {
    const char* text = std::getenv(name);
    return std::string(text != nullptr ? text : "");
  };
  if (variable("FD_DETERMINISTIC_MODE") == "1") values->model.deterministic = true;
  LogOptions& log = values->log;
  if (given.Find("log-level") == nullptr) {
    if (variable("FD_DEBUG") == "1") log.level = LogLevel::kDebug;
    if (const std::string level = variable("FD_LOG_LEVEL"); !level.empty()) {
      if (Status s = SetLevel(level, &log.level); !s.ok())
        return s.WithContext(StrCat("FD_LOG_LEVEL=", level));
    }
  }
  if (given.Find("log-dir") == nullptr) log.directory = variable("FD_LOG_DIR");
  if (const std::string count = variable("FD_LOG_BACKUP_COUNT");
      !count.empty() && given.Find("log-backups") == nullptr) {
    const StatusOr<int64_t> backups = ParseInteger("log-backups", count, {0, 1000, 7});
    if (!backups.ok()) return backups.status().WithContext(StrCat("FD_LOG_BACKUP_COUNT=", count));
    log.backups = static_cast<int>(*backups);
  }
  if (const std::string count = variable("FD_MAX_STOP_SEQS_NUM");
      !count.empty() && given.Find("max-stop-strings") == nullptr) {
    const StatusOr<int64_t> most = ParseInteger("max-stop-strings", count, kStopStrings);
    if (!most.ok()) return most.status().WithContext(StrCat("FD_MAX_STOP_SEQS_NUM=", count));
    values->service.limits.max_stop_strings = *most;
  }
  std::vector<std::string>& keys = values->http.api_keys;
  if (!values->api_key_file.empty()) {
    FD_ASSIGN_OR_RETURN(const std::vector<std::string> more,
                        KeysOfFile(values->api_key_file, "--api-key-file"));
    keys.insert(keys.end(), more.begin(), more.end());
  }
  if (keys.empty()) keys = KeysOfList(variable("FD_API_KEY"));
  return OkStatus();
}

Status CheckFlags(const ServeFlags& values) {
  const auto& http = values.http;
  for (const auto& [flag, keys] :
       {std::pair{"--api-key", &http.api_keys}, {"--admin-key", &http.admin_keys}}) {
    for (const std::string& key : *keys) {
      if (Trim(key).empty()) return InvalidArgument(StrCat(flag, ": a key may not be empty"), flag);
    }
  }
  if (values.service.max_waiting_s <= 0 && values.service.max_waiting_s != -1) {
    return InvalidArgument(StrCat("--max-waiting-time is ", values.service.max_waiting_s,
                                  "; it must be above 0, for example 30, or -1 for no limit"),
                           "--max-waiting-time");
  }
  const auto& origins = http.allowed_origins;
  if (http.allow_credentials && std::find(origins.begin(), origins.end(), "*") != origins.end()) {
    return InvalidArgument(
        "--allow-credentials with --allowed-origins '*' would let every web page act for its visitor; name "
        "the "
        "origins, for example --allowed-origins https://chat.example.org",
        "--allow-credentials");
  }
  if (http.max_concurrency_per_key > 0 && http.api_keys.empty()) {
    return InvalidArgument("--max-concurrency-per-key counts by key, and there is no --api-key",
                           "--max-concurrency-per-key");
  }
  return OkStatus();
}

// 2: starting again changes nothing, the command or the machine must; 1: our own fault.
int StartFailure(const Status& status) {
  return status.code() == StatusCode::kInternal ? Failure("serve", status) : UsageError("serve", status);
}

void AddServeFlags(FlagSet& flags, ServeFlags* values) {
  HttpOptions& http = values->http;
  RequestLimits& limits = values->service.limits;
  constexpr int64_t kMaxBytes = int64_t{1} << 40;
  AddModelFlags(flags, &values->model, true);
  flags.Text("config", &values->config_file, "Flags from a YAML file; those of the command line come first",
             "FILE", "none");
  flags.Integer("max-waiting-requests", &values->service.max_waiting_requests, {0, 1 << 20, 1024},
                "Requests that may wait for a place; beyond them 429");
  flags.Real("max-waiting-time", &values->service.max_waiting_s, {-1, 86400, 30},
             "Seconds a request may wait for its first step; beyond them 408; -1: no limit");
  flags.Real(
      "step-timeout", &values->service.step_timeout_s, {-1, 86400, 0},
      "Seconds until a step counts as stuck: requests get 503, the server ends with code 3; 0: 20 times the "
      "longest step so far, at least 60 (CPU: 600); -1: never");
  flags.Real("load-timeout", &values->load_timeout_s, {0, 86400, 600},
             "Seconds without progress of loading after which the server gives up; 0: never");
  flags.Text("step-log", &values->service.step_log, "One line of JSON for each step is written to this file",
             "FILE", "none");
  flags.Text("record", &values->service.record,
             "Every step is written to this new file, prompts and pictures included, for fastdeploy replay",
             "FILE", "none");
  flags.Group("Address");
  flags.Text("host", &http.host, "Address to listen on; 0.0.0.0 for every network", "ADDRESS");
  flags.Integer("port", &http.port, {0, 65535, 8180}, "Port of the API; 0 takes a free one");
  flags.Integer("metrics-port", &http.metrics_port, {0, 65535, 8181}, "Another port for /metrics",
                "the API's port");
  flags.Choice("metrics-names", &values->service.metrics_names,
               {std::begin(kMetricNames), std::end(kMetricNames)}, "Whose names /metrics has");
  flags.List("api-key", &http.api_keys, "Requests need 'Authorization: Bearer KEY'; may be repeated", "KEY");
  flags.List("allowed-hosts", &http.allowed_hosts,
             "Names the Host header may have; may be repeated; '*': any", "HOST");
  flags.Text("api-key-file", &values->api_key_file, "API keys, one a line", "FILE", "none");
  flags.List("admin-key", &http.admin_keys,
             "Key of the endpoints that act on the server (abort, pause); without it nobody may use them",
             "KEY");
  flags.Custom("allowed-origins", "ORIGINS", "Web pages that may call, by commas or as a JSON list; '*': any",
               "none",
               [&http](const std::string& text) { return ParseOrigins(text, &http.allowed_origins); });
  flags.Switch("allow-credentials", &http.allow_credentials,
               "Pages of --allowed-origins may send cookies; not with '*'");
  flags.Group("API");
  flags.Switch("strict-requests", &values->strict_requests,
               "Unknown fields of requests are an error, not a header x-fastdeploy-ignored");
  flags.List("served-model-name", &values->service.served_model_names,
             "Name of the model in the API; requests must use it; may be repeated", "NAME");
  AddMediaLimitFlag(flags, &limits.images_per_prompt, &limits.videos_per_prompt,
                    "Pictures and videos of one request");
  flags.Text("chat-template", &values->service.chat_template,
             "A file with the chat template, or its text, in place of the model's own", "FILE|TEXT",
             "the model's");
  flags.Switch("trust-request-chat-template", &values->service.trust_request_chat_template,
               "Requests may bring a chat_template; it runs within the same budget as the model's");
  flags.Custom("default-chat-template-kwargs", "JSON", "Variables of the template where requests set none",
               "{}", [values](const std::string& text) -> Status {
                 FD_ASSIGN_OR_RETURN(
                     values->service.chat_template_kwargs,
                     ParseObject(text, "--default-chat-template-kwargs '{\"enable_thinking\": false}'"));
                 return OkStatus();
               });
  flags.Text("generation-config", &values->service.generation_config,
             "Sampling where requests do not say: auto (the model's), vllm (neutral) or a folder",
             "auto|vllm|FOLDER");
  flags.Choice("logprobs-mode", &values->service.logprobs_mode,
               {std::begin(kLogprobsModes), std::end(kLogprobsModes)},
               "What logprobs are; processed: after penalties, biases, bans and temperature");
  flags.Text("reasoning-parser", &values->service.reasoning_parser,
             "What becomes reasoning_content: ernie-45-vl, ernie-45-vl-thinking, ernie-x1 or qwen3", "NAME",
             "none");
  flags.Text(
      "tool-call-parser", &values->service.tool_call_parser,
      "What becomes tool_calls: ernie-x1, ernie-45-vl-thinking, hermes or qwen; without it calls are text",
      "NAME", "none");
  AddMediaPolicyFlags(flags, &values->service.media_policy);
  AddPoolingFlags(flags, &values->pooling);
  flags.Group("Limits of a request");
  flags.Integer("max-choices", &limits.max_choices, {1, 4096, 128}, "Prompts times n");
  flags.Integer("max-messages", &limits.max_messages, {1, 1 << 20, 4096}, "Messages of a conversation");
  flags.Integer("max-stop-strings", &limits.max_stop_strings, kStopStrings, "Stop strings");
  flags.Integer("max-stop-bytes", &limits.max_stop_bytes, {1, 1 << 20, 1024}, "Bytes of a stop string");
  flags.Integer("max-stop-token-ids", &limits.max_stop_token_ids, {0, 65536, 128}, "Stop token ids");
  flags.Integer("max-logit-bias", &limits.max_logit_bias, {0, 65536, 1024}, "Tokens of logit_bias");
  flags.Integer("max-banned-tokens", &limits.max_banned_tokens, {0, 65536, 1024},
                "Tokens of bad_words; with min_tokens also end and stop tokens");
  flags.Integer("max-allowed-token-ids", &limits.max_allowed_token_ids, {1, 65536, 1024},
                "Ids of allowed_token_ids");
  flags.Integer("max-logprobs", &limits.max_logprobs, {0, 32, 20}, "Likeliest tokens at each place");
  flags.Integer("max-prompt-logprobs", &limits.max_prompt_logprobs, {0, 1 << 24, 262144},
                "Log-probabilities of prompts: tokens times (prompt_logprobs + 1)");
  flags.Integer("max-embedding-inputs", &limits.max_embedding_inputs, {1, 1 << 20, 2048},
                "Inputs of a request for embeddings");
  flags.Integer("max-tools", &limits.max_tools, {0, 65536, 128}, "Tools");
  flags.Integer("max-documents", &limits.max_documents, {0, 65536, 128}, "Documents");
  flags.Integer("max-chat-template-bytes", &limits.max_chat_template_bytes, {1, 1 << 24, 65536},
                "Bytes of a request's own chat_template");
  flags.Integer("max-body-bytes", &http.max_body_bytes, {1, kMaxBytes, 33554432},
                "Bytes of a body; beyond it 413");
  flags.Integer("max-header-bytes", &http.max_header_bytes, {256, 1 << 30, 32768},
                "Bytes of request line and headers; beyond it 431");
  flags.Integer("max-bodies-bytes", &http.max_bodies_bytes, {1, kMaxBytes, 1073741824},
                "Bytes of all bodies that are being read; beyond it 503");
  flags.Integer("max-request-line-bytes", &http.max_request_line_bytes, {64, 1 << 30, 8192},
                "Bytes of the request line; beyond it 414");
  flags.Integer("max-headers", &http.max_headers, {1, 1 << 20, 100}, "Headers of a request; beyond it 431");
  flags.Integer("max-chunk-overhead-bytes", &http.max_chunk_overhead_bytes, {64, kMaxBytes, 262144},
                "Chunk sizes, extensions and trailers of a body, beyond its own size; beyond it 400");
  AddMediaWorkFlags(flags, &values->service.media);
  flags.Group("Connections");
  flags.Integer("max-connections", &http.max_connections, {1, 1 << 20, 16384},
                "Open connections; beyond it 503; fewer where the limit of open files allows fewer");
  flags.Integer("max-concurrency", &http.max_concurrency, {1, 1 << 20, 512},
                "Generating requests; beyond it 429");
  flags.Integer("max-concurrency-per-key", &http.max_concurrency_per_key, {0, 1 << 20, 16},
                "Generating requests of each API key; beyond it 429; 0: no limit");
  flags.Integer("max-stream-lag-tokens", &http.max_stream_lag_tokens, {1, 1 << 30, 8192},
                "Tokens a slow reader may lie behind before it is cut");
  flags.Integer("http-threads", &http.io_threads, {1, 256, 1}, "Threads for sockets");
  flags.Integer("http-workers", &http.worker_threads, {1, 256, 2}, "Threads for JSON, templates, tokens");
  AddSeconds(flags, "header-timeout", &http.header_timeout, "Time for the headers");
  AddSeconds(flags, "body-timeout", &http.body_timeout, "Time for the body");
  AddSeconds(flags, "keep-alive-timeout", &http.keep_alive_timeout, "Time between two requests");
  AddSeconds(flags, "write-timeout", &http.write_timeout, "Time a client may not read");
  AddSeconds(flags, "heartbeat-timeout", &http.heartbeat_timeout,
             "Age of the engine's heartbeat that /health calls dead");
  AddSeconds(flags, "health-timeout", &http.health_timeout, "Time /health waits for the engine's next turn");
  flags.Real("timeout-graceful-shutdown", &values->drain_timeout_s, {0, 86400, 30},
             "Seconds that running requests get after SIGTERM; 0: until they end");
  flags.Real("shutdown-timeout", &values->drain_timeout_s, {0, 86400, 30},
             "The same as --timeout-graceful-shutdown");
  AddLogFlags(flags, values);
  AddFastDeployFlags(flags, &values->notes);
}

// FastDeploy chooses a sampling kernel by this variable. Here there is one, exact in distribution, honouring
// top_k and seed; it does what all of them are meant to do.
Status CheckSamplingClass() {
  const char* name = std::getenv("FD_SAMPLING_CLASS");
  if (name == nullptr || *name == '\0') return OkStatus();
  for (const char* known : {"rejection", "base", "base_non_truncated", "air"}) {
    if (std::string_view(name) != known) continue;
    LogInfo("FD_SAMPLING_CLASS=", name,
            ": accepted; there is one sampler here, exact in distribution, with top_k and seed");
    return OkStatus();
  }
  return InvalidArgument(StrCat("FD_SAMPLING_CLASS is \"", name,
                                "\"; it must be one of rejection, base, base_non_truncated, air"));
}

bool IsLoopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

int Serve(ServeFlags& flags) {
  StopSignal stop;
  stop.OnHangup([] {
    ReopenLog();
    LogInfo("SIGHUP: the log is opened again");
  });
  if (const std::string faults = FaultsOn(); !faults.empty())
    LogWarning("FASTDEPLOY_FAULT: this server fails on purpose: ", faults);
  for (const std::string& note : flags.notes) LogInfo(note);
  if (Status status = CheckSamplingClass(); !status.ok()) return Failure("serve", status);
  if (!IsLoopback(flags.http.host) && flags.http.api_keys.empty()) {
    LogWarning(
        "--host ", flags.http.host,
        " is reachable from other machines and there is no --api-key: anyone there may use this server");
  }
  if (Status status = CheckCanListen(flags.http); !status.ok()) return StartFailure(status);
  ProgressBar bar("loading weights");
  LoadWatch watch({.timeout_s = flags.load_timeout_s, .give_up = [](double seconds) {
                     LogError("loading has not moved for ", Fixed(seconds, 0),
                              " s (--load-timeout); ending with code ", kExitFailure);
                     FlushLog();
                     _exit(kExitFailure);  // the loading thread may hang in the kernel
                   }});
  auto loaded = LoadService(
      flags.model, flags.service,
      [&](int64_t done, int64_t total) {
        bar.Update(done, total);
        watch.Update(done, total);
      },
      StopSignal::Request);
  watch.Finish();
  bar.Finish();
  if (!loaded.ok()) return StartFailure(loaded.status());
  LoadedModel& model = **loaded;
  model.service->strict_requests = flags.strict_requests;
  model.service->log_prompts = flags.log_prompts;

  auto server = HttpServer::Start(model.service, flags.http);
  if (!server.ok()) return StartFailure(server.status());
  stop.Arm();
  LogModel(model);
  const std::string url = (*server)->url();
  LogInfo(
      "ready: ", url,
      model.service->embeddings ? "/v1/embeddings and /pooling" : "/v1/chat/completions and /v1/completions",
      "; metrics: ", flags.http.host, ":", (*server)->metrics_port(), "/metrics; Ctrl-C stops");
  NotifyService(StrCat("READY=1\nSTATUS=serving at ", url));

  stop.Wait(-1);
  Status device = model.engine->DeviceStatus();
  if (device.ok()) {
    LogInfo("stopping: no new requests, waiting for those that run; a second signal ends at once");
  } else {
    flags.drain_timeout_s = model.engine->stuck() ? kStuckDrainSeconds : kLostDrainSeconds;
  }
  NotifyService("STOPPING=1\nSTATUS=finishing what runs");
  (*server)->BeginDrain();
  bool limited = flags.drain_timeout_s > 0;
  Clock::time_point deadline =
      Clock::now() +
      (limited
           ? std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(flags.drain_timeout_s))
           : std::chrono::duration_cast<Clock::duration>(kNoDeadline));
  if (!(*server)->WaitIdle(deadline)) {
    LogWarning("some requests were still running after ", flags.drain_timeout_s,
               " s (--timeout-graceful-shutdown) and have been ended");
  }
  (*server)->Stop();
  device = model.engine->DeviceStatus();  // it may have failed during the drain
  if (!device.ok()) {
    LogError(device.message(), "; ending with code ", kExitDeviceLost, ", start the server again");
    FlushLog();
    if (model.engine->stuck()) _exit(kExitDeviceLost);  // its thread cannot be joined
    return kExitDeviceLost;
  }
  LogInfo("stopped");
  FlushLog();
  return kExitOk;
}

}  // namespace

int RunServe(const std::vector<std::string>& given) {
  std::vector<std::string> args = given;
  for (std::string& arg : args) {
    if (arg == "-tp") arg = "--tensor-parallel-size";
  }
  ServeFlags values;
  FlagSet flags("fastdeploy serve MODEL [FLAGS]", "Serves a model behind an OpenAI-compatible API.");
  AddServeFlags(flags, &values);
  if (Status status = ExpandConfigFile(flags, &args); !status.ok()) return UsageError("serve", status);
  auto parsed = flags.Parse(args);
  if (!parsed.ok()) return UsageError("serve", parsed.status());
  if (!*parsed) return kExitOk;
  std::vector<std::string> words = flags.words();
  if (Status status = TakeModel(&values.model.model_dir, &words); !status.ok())
    return UsageError("serve", status);
  if (!words.empty()) return UsageError("serve", InvalidArgument(StrCat("unexpected word '", words[0], "'")));
  if (Status status = ReadEnvironment(&values, flags.Given()); !status.ok())
    return UsageError("serve", status);
  if (Status status = CheckFlags(values); !status.ok()) return UsageError("serve", status);
  auto pooling = ResolvePooling(values.pooling);
  if (!pooling.ok()) return UsageError("serve", pooling.status());
  values.service.pooling = *pooling;
  values.service.recorded_flags = RecordedFlags(flags.Given(), values.model.model_dir);
  if (values.model.deterministic) values.service.recorded_flags.Set("deterministic", "true");
  if (Status status = SetUpLog(values.log); !status.ok()) return UsageError("serve", status);
  for (std::string& note : EnvironmentNotes(ProcessEnvironment())) values.notes.push_back(std::move(note));
  values.http.version = FASTDEPLOY_VERSION;
  values.http.access_log = !values.no_access_log;
  // Passwords of other services included, should a flag for one ever work.
  values.http.config_json = WriteJson(
      JsonObject{{"version", FASTDEPLOY_VERSION},
                 {"model", values.model.model_dir},
                 {"flags", flags.Effective({"api-key", "api-key-file", "admin-key", "scheduler-password"})}});
  return Serve(values);
}

}  // namespace fd
