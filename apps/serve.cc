// fastdeploy serve: flags -> model -> engine -> HTTP, until SIGTERM or SIGINT.
#include <cmath>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/strings.h"
#include "command.h"
#include "fastdeploy_flags.h"
#include "flag_set.h"
#include "loaded_model.h"
#include "media_flags.h"
#include "model_flags.h"
#include "progress_bar.h"
#include "server/http/http_server.h"
#include "stop_signal.h"

namespace fd {
namespace {

// How long Stop may take after the drain: streams get their error event, threads end.
constexpr std::chrono::hours kNoDeadline{24 * 365};
// Without a device no request runs any more; their errors only have to be sent.
constexpr double kLostDrainSeconds = 2;

struct ServeFlags {
  ModelFlags model;
  ServiceFlags service;
  HttpOptions http;
  double drain_timeout_s = 30;
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

void AddInt(FlagSet& flags, const std::string& name, int* value, IntegerRange range, const std::string& help,
            const std::string& default_text = {}) {
  flags.Custom(name, "N", help, default_text.empty() ? StrCat(*value) : default_text,
               [name, value, range](const std::string& text) -> Status {
                 FD_ASSIGN_OR_RETURN(int64_t number, ParseInteger(name, text, range));
                 *value = static_cast<int>(number);
                 return OkStatus();
               });
}

void AddServeFlags(FlagSet& flags, ServeFlags* values) {
  HttpOptions& http = values->http;
  RequestLimits& limits = values->service.limits;
  constexpr int64_t kMaxBytes = int64_t{1} << 40;
  AddModelFlags(flags, &values->model, true);
  flags.Integer("max-waiting-requests", &values->service.max_waiting_requests, {0, 1 << 20, 1024},
                "Requests that may wait for a place; beyond them 429");
  flags.Text("step-log", &values->service.step_log, "One line of JSON for each step is written to this file",
             "FILE", "none");
  flags.Group("Address");
  flags.Text("host", &http.host, "Address to listen on; 0.0.0.0 for every network", "ADDRESS");
  AddInt(flags, "port", &http.port, {0, 65535, 8180}, "Port of the API; 0 takes a free one");
  AddInt(flags, "metrics-port", &http.metrics_port, {0, 65535, 8181}, "Another port for /metrics",
         "the API's port");
  flags.List("api-key", &http.api_keys, "Requests need 'Authorization: Bearer KEY'; may be repeated", "KEY");
  flags.List("allowed-hosts", &http.allowed_hosts,
             "Names the Host header may have; may be repeated; '*': any", "HOST");
  flags.Group("API");
  flags.List("served-model-name", &values->service.served_model_names,
             "Name of the model in the API; requests must use it; may be repeated", "NAME");
  AddMediaLimitFlag(flags, &limits.images_per_prompt, &limits.videos_per_prompt,
                    "Pictures and videos of one request");
  flags.Text("reasoning-parser", &values->service.reasoning_parser,
             "What becomes reasoning_content: ernie-45-vl, ernie-45-vl-thinking, ernie-x1 or qwen3", "NAME",
             "none");
  flags.Text(
      "tool-call-parser", &values->service.tool_call_parser,
      "What becomes tool_calls: ernie-x1, ernie-45-vl-thinking, hermes or qwen; without it calls are text",
      "NAME", "none");
  AddMediaPolicyFlags(flags, &values->service.media_policy);
  flags.Group("Limits of a request");
  flags.Integer("max-choices", &limits.max_choices, {1, 4096, 128}, "Prompts times n");
  flags.Integer("max-messages", &limits.max_messages, {1, 1 << 20, 4096}, "Messages of a conversation");
  flags.Integer("max-stop-strings", &limits.max_stop_strings, {0, 1024, 16}, "Stop strings");
  flags.Integer("max-stop-bytes", &limits.max_stop_bytes, {1, 1 << 20, 1024}, "Bytes of a stop string");
  flags.Integer("max-stop-token-ids", &limits.max_stop_token_ids, {0, 65536, 128}, "Stop token ids");
  flags.Integer("max-tools", &limits.max_tools, {0, 65536, 128}, "Tools");
  flags.Integer("max-body-bytes", &http.max_body_bytes, {1, kMaxBytes, 33554432},
                "Bytes of a body; beyond it 413");
  flags.Integer("max-header-bytes", &http.max_header_bytes, {256, 1 << 30, 32768},
                "Bytes of request line and headers; beyond it 431");
  AddMediaWorkFlags(flags, &values->service.media);
  flags.Group("Connections");
  flags.Integer("max-connections", &http.max_connections, {1, 1 << 20, 4096},
                "Open connections; beyond it 503");
  flags.Integer("max-concurrency", &http.max_concurrency, {1, 1 << 20, 512},
                "Generating requests; beyond it 429");
  flags.Integer("max-stream-lag-tokens", &http.max_stream_lag_tokens, {1, 1 << 30, 8192},
                "Tokens a slow reader may lie behind before it is cut");
  AddInt(flags, "http-threads", &http.io_threads, {1, 256, 1}, "Threads for sockets");
  AddInt(flags, "http-workers", &http.worker_threads, {1, 256, 2}, "Threads for JSON, templates, tokens");
  AddSeconds(flags, "header-timeout", &http.header_timeout, "Time for the headers");
  AddSeconds(flags, "body-timeout", &http.body_timeout, "Time for the body");
  AddSeconds(flags, "keep-alive-timeout", &http.keep_alive_timeout, "Time between two requests");
  AddSeconds(flags, "write-timeout", &http.write_timeout, "Time a client may not read");
  AddSeconds(flags, "heartbeat-timeout", &http.heartbeat_timeout,
             "Age of the engine's heartbeat that /health calls dead");
  flags.Real("timeout-graceful-shutdown", &values->drain_timeout_s, {0, 86400, 30},
             "Seconds that running requests get after SIGTERM; 0: until they end");
  AddFastDeployFlags(flags, &values->notes);
}

bool IsLoopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

int Serve(ServeFlags& flags) {
  StopSignal stop;
  for (const std::string& note : flags.notes) LogInfo(note);
  if (!IsLoopback(flags.http.host) && flags.http.api_keys.empty()) {
    LogWarning(
        "--host ", flags.http.host,
        " is reachable from other machines and there is no --api-key: anyone there may use this server");
  }
  if (Status status = CheckCanListen(flags.http); !status.ok()) return Failure("serve", status);
  ProgressBar bar("loading weights");
  auto loaded = LoadService(
      flags.model, flags.service, [&bar](int64_t done, int64_t total) { bar.Update(done, total); },
      StopSignal::Request);
  bar.Finish();
  if (!loaded.ok()) return Failure("serve", loaded.status());
  LoadedModel& model = **loaded;

  auto server = HttpServer::Start(model.service, flags.http);
  if (!server.ok()) return Failure("serve", server.status());
  stop.Arm();
  LogModel(model);
  const std::string url = (*server)->url();
  LogInfo("ready: ", url, "/v1/chat/completions and /v1/completions; metrics: ", flags.http.host, ":",
          (*server)->metrics_port(), "/metrics; Ctrl-C stops");

  stop.Wait(-1);
  const Status device = model.engine->DeviceStatus();
  if (device.ok()) {
    LogInfo("stopping: no new requests, waiting for those that run; a second signal ends at once");
  } else {
    flags.drain_timeout_s = kLostDrainSeconds;
  }
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
  if (!device.ok()) {
    LogError(device.message(), "; ending with code ", kExitDeviceLost, ", start the server again");
    return kExitDeviceLost;
  }
  LogInfo("stopped");
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
  auto parsed = flags.Parse(args);
  if (!parsed.ok()) return UsageError("serve", parsed.status());
  if (!*parsed) return kExitOk;
  std::vector<std::string> words = flags.words();
  if (Status status = TakeModel(&values.model.model_dir, &words); !status.ok())
    return UsageError("serve", status);
  if (!words.empty()) return UsageError("serve", InvalidArgument(StrCat("unexpected word '", words[0], "'")));
  return Serve(values);
}

}  // namespace fd
