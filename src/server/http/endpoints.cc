#include "server/http/endpoints.h"

#include <utility>

#include "base/json.h"
#include "base/log.h"
#include "base/log_sink.h"
#include "base/strings.h"
#include "server/http/openapi.h"
#include "server/messages/messages_models.h"
#include "server/openai/errors.h"
#include "server/openai/request_schema.h"
#include "server/openai/tokenize.h"

namespace fd {
namespace {

HttpResponse Models(const Service& service, RouteKind kind, const HttpRequest& request) {
  const bool anthropic = ShapeOf(request.path, request.anthropic_client) == ApiShape::kAnthropic;
  const auto describe = [&](const std::string& name) {
    JsonObject model{{"id", name},
                     {"object", "model"},
                     {"created", service.created_unix_s},
                     {"owned_by", "FastDeploy"},
                     {"root", service.model_names.front()},
                     {"parent", Json()},
                     {"max_model_len", service.max_model_len},
                     {"permission", JsonArray{}},
                     {"deterministic", service.deterministic}};
    if (!service.system_fingerprint.empty()) model.Set("system_fingerprint", service.system_fingerprint);
    return model;
  };
  if (kind == RouteKind::kModel) {
    const std::string name = request.path.substr(std::string_view("/v1/models/").size());
    for (const std::string& known : service.model_names) {
      if (known != name) continue;
      return {.body = anthropic ? MessagesModelJson(service, known) : WriteJson(describe(known))};
    }
    return ErrorResponse(ModelNotFound(name, service.model_names.front()));
  }
  if (anthropic) return {.body = MessagesModelsJson(service)};
  JsonArray data;
  for (const std::string& name : service.model_names) data.push_back(describe(name));
  return {.body = WriteJson(JsonObject{{"object", "list"}, {"data", std::move(data)}})};
}

// FastDeploy's /load lists routes, vLLM's counts requests: both are here.
HttpResponse Load(const ServerState& state) {
  const EngineStats stats = state.service->engine.stats();
  JsonArray routes;
  for (const Route& route : AllRoutes()) {
    JsonArray methods;
    for (const std::string& method : Split(route.allowed, ',')) methods.push_back(Json(Trim(method)));
    routes.push_back(
        JsonObject{{"path", route.path}, {"methods", std::move(methods)}, {"tags", JsonArray{}}});
  }
  return {.body = WriteJson(JsonObject{{"server_load", state.generating.load()},
                                       {"num_requests_running", stats.running},
                                       {"num_requests_waiting", stats.waiting},
                                       {"paused", state.paused.load()},
                                       {"routes", std::move(routes)}})};
}

ApiBounds BoundsOf(const Service& service) {
  const RequestLimits& limits = service.limits;
  return {.max_model_len = service.max_model_len,
          .vocab_size = service.vocab_size,
          .max_choices = limits.max_choices,
          .max_logprobs = limits.max_logprobs,
          .max_messages = limits.max_messages,
          .max_tools = limits.max_tools,
          .max_stop_strings = limits.max_stop_strings,
          .max_stop_token_ids = limits.max_stop_token_ids};
}

HttpResponse MetricsText(const Service& service) {
  const EngineStats stats = service.engine.stats();
  const MediaLoader* loader = service.media_loader.get();
  return {.content_type = "text/plain; version=0.0.4; charset=utf-8",
          .body = service.metrics->Text({.running = stats.running,
                                         .waiting = stats.waiting,
                                         .preempted = stats.preempted,
                                         .max_num_seqs = service.max_num_seqs,
                                         .free_pages = stats.free_pages,
                                         .cached_pages = stats.cached_pages,
                                         .used_pages = stats.used_pages,
                                         .total_pages = stats.total_pages,
                                         .media_jobs = loader ? loader->jobs_in_flight() : 0,
                                         .media_bytes = loader ? loader->bytes_in_flight() : 0,
                                         .preemptions = stats.preemptions,
                                         .slow_steps = stats.slow_steps,
                                         .lost_log_lines = LostLogLines(),
                                         .step_sizes = stats.step_sizes,
                                         .prefix_saved_seconds = stats.prefix_saved_ms / 1000,
                                         .free_host_pages = stats.free_host_pages,
                                         .total_host_pages = stats.total_host_pages,
                                         .pages_moved_out = stats.pages_moved_out,
                                         .pages_moved_in = stats.pages_moved_in,
                                         .prefix_host_saved_seconds = stats.prefix_host_saved_ms / 1000,
                                         .recording = stats.recording,
                                         .recorded_bytes = stats.recorded_bytes,
                                         .encoded_items = stats.encoded_items,
                                         .encoded_tokens = stats.encoded_tokens,
                                         .encode_seconds = stats.encode_ms / 1000,
                                         .encoder_hits = stats.encoder_hits,
                                         .encoder_hit_tokens = stats.encoder_hit_tokens,
                                         .encoder_kept_tokens = stats.encoder_kept_tokens,
                                         .encoder_capacity_tokens = stats.encoder_capacity_tokens})};
}

HttpResponse Abort(ServerState& state, const std::string& body) {
  const StatusOr<AbortWork> work = ReadAbort(body);
  if (!work.ok()) return ErrorResponse(work.status());
  JsonArray aborted;
  JsonArray unknown;
  int64_t count = 0;
  if (work->all) count = state.live.AbortAll();
  for (const std::string& id : work->ids) {
    const int64_t found = work->all ? 1 : state.live.Abort(id);
    (found > 0 ? aborted : unknown).push_back(Json(id));
    if (!work->all) count += found;
  }
  LogInfo("an admin ended ", count, " requests");
  return {.body = WriteJson(JsonObject{
              {"aborted", count}, {"req_ids", std::move(aborted)}, {"not_found", std::move(unknown)}})};
}

HttpResponse SetPaused(ServerState& state, bool paused) {
  if (state.paused.exchange(paused) != paused) {
    LogInfo(paused ? "paused by an admin: new requests get 503" : "resumed by an admin");
  }
  return {.body = WriteJson(JsonObject{{"is_paused", paused}})};
}

}  // namespace

HttpResponse AnswerEndpoint(ServerState& state, RouteKind kind, const HttpRequest& request) {
  const Service& service = *state.service;
  switch (kind) {
    case RouteKind::kModels:
    case RouteKind::kModel:
      return Models(service, kind, request);
    case RouteKind::kStoredResponse:
      return ErrorResponse(NotFound(
          "responses are not stored on this server, so there is none to read, delete or cancel; the reply "
          "of POST /v1/responses is all there is (a request at work ends when its connection closes)"));
    case RouteKind::kLoad:
      return Load(state);
    case RouteKind::kVersion:
      return {.body = WriteJson(JsonObject{{"version", state.options.version}})};
    case RouteKind::kConfigInfo:
      return {.body = state.options.config_json};
    case RouteKind::kOpenApi:
      return {.body = OpenApiJson(state.options.version, BoundsOf(service))};
    case RouteKind::kMetrics:
      return MetricsText(service);
    case RouteKind::kAbort:
      return Abort(state, request.body);
    case RouteKind::kPause:
      return SetPaused(state, true);
    case RouteKind::kResume:
      return SetPaused(state, false);
    case RouteKind::kIsPaused:
      return {.body = WriteJson(JsonObject{{"is_paused", state.paused.load()}})};
    default:
      break;
  }
  FD_CHECK(false, "this endpoint has an answer of its own");
  return {};
}

HttpResponse TokensResponse(const std::string& json, const std::vector<std::string>& ignored_fields) {
  HttpResponse response{.body = json};
  if (!ignored_fields.empty())
    response.headers.push_back({"x-fastdeploy-ignored", IgnoredHeader(ignored_fields)});
  return response;
}

}  // namespace fd
