#include "server/http/routes.h"

#include <algorithm>
#include <vector>

#include "base/strings.h"
#include "base/suggestion.h"

namespace fd {
namespace {

constexpr const char* kGet = "GET, HEAD, OPTIONS";
constexpr const char* kPost = "POST, OPTIONS";

constexpr Route kRoutes[] = {
    {RouteKind::kChat, "/v1/chat/completions", kPost, Access::kKey, "Answers a conversation"},
    {RouteKind::kCompletions, "/v1/completions", kPost, Access::kKey, "Continues a text"},
    {RouteKind::kMessages, "/v1/messages", kPost, Access::kKey, "Answers a conversation, as Anthropic's API"},
    {RouteKind::kCountMessagesTokens, "/v1/messages/count_tokens", kPost, Access::kKey,
     "Counts the tokens that /v1/messages would send to the model"},
    {RouteKind::kEmbeddings, "/v1/embeddings", kPost, Access::kKey,
     "Embeddings of texts, token ids or a conversation; with --runner pooling"},
    {RouteKind::kPooling, "/pooling", kPost, Access::kKey, "The same in vLLM's form"},
    {RouteKind::kPooling, "/v1/pooling", kPost, Access::kKey, "The same in vLLM's form"},
    {RouteKind::kReward, "/v1/reward", kPost, Access::kKey,
     "Refused: scores need a model with a score head, and this server knows none"},
    {RouteKind::kModels, "/v1/models", kGet, Access::kKey, "Lists the names of the model"},
    {RouteKind::kModel, "/v1/models/{model}", kGet, Access::kKey, "Describes one name of the model"},
    {RouteKind::kRender, "/v1/chat/completions/render", kPost, Access::kKey,
     "Shows what a chat request would send to the model"},
    {RouteKind::kResponses, "/v1/responses", kPost, Access::kKey,
     "Answers a conversation (OpenAI's Responses, stateless)"},
    {RouteKind::kStoredResponse, "/v1/responses/{id}/cancel", kPost, Access::kKey, "404: nothing is stored"},
    {RouteKind::kStoredResponse, "/v1/responses/{id}/input_items", kGet, Access::kKey,
     "404: nothing is stored"},
    {RouteKind::kStoredResponse, "/v1/responses/{id}", "GET, DELETE, HEAD, OPTIONS", Access::kKey,
     "404: nothing is stored"},
    {RouteKind::kTokenize, "/tokenize", kPost, Access::kKey, "Text or messages to token ids"},
    {RouteKind::kTokenize, "/v1/tokenize", kPost, Access::kKey, "Text or messages to token ids"},
    {RouteKind::kDetokenize, "/detokenize", kPost, Access::kKey, "Token ids to text"},
    {RouteKind::kDetokenize, "/v1/detokenize", kPost, Access::kKey, "Token ids to text"},
    {RouteKind::kHealth, "/health", kGet, Access::kPublic, "200 when the engine answers"},
    {RouteKind::kHealth, "/ping", "GET, HEAD, POST, OPTIONS", Access::kPublic, "The same as /health"},
    {RouteKind::kHealth, "/readyz", kGet, Access::kPublic, "The same as /health"},
    {RouteKind::kLive, "/livez", kGet, Access::kPublic,
     "200 while starting the server again would not help: also while it drains or a step takes long"},
    {RouteKind::kLoad, "/load", kGet, Access::kKey, "Requests at work, and the routes"},
    {RouteKind::kVersion, "/version", kGet, Access::kKey, "The version of this server"},
    {RouteKind::kConfigInfo, "/config-info", kGet, Access::kKey, "The flags in effect, without keys"},
    {RouteKind::kOpenApi, "/openapi.json", kGet, Access::kKey, "This description"},
    {RouteKind::kMetrics, "/metrics", kGet, Access::kPublic, "Prometheus metrics"},
    {RouteKind::kAbort, "/v1/abort_requests", kPost, Access::kAdmin, "Ends running requests"},
    {RouteKind::kPause, "/v1/pause", kPost, Access::kAdmin, "Refuses new requests; those at work go on"},
    {RouteKind::kPause, "/pause", kPost, Access::kAdmin, "Refuses new requests; those at work go on"},
    {RouteKind::kResume, "/v1/resume", kPost, Access::kAdmin, "Takes new requests again"},
    {RouteKind::kResume, "/resume", kPost, Access::kAdmin, "Takes new requests again"},
    {RouteKind::kIsPaused, "/v1/is_paused", kGet, Access::kAdmin, "Whether new requests are refused"},
    {RouteKind::kIsPaused, "/is_paused", kGet, Access::kAdmin, "Whether new requests are refused"},
};

// "{model}" stands for any text that is not empty, slashes included.
bool HasName(const Route& route) { return std::string_view(route.path).find('{') != std::string_view::npos; }

bool Matches(const Route& route, std::string_view path) {
  const std::string_view pattern = route.path;
  const size_t open = pattern.find('{');
  if (open == std::string_view::npos) return path == pattern;
  const std::string_view before = pattern.substr(0, open);
  const std::string_view after = pattern.substr(pattern.find('}') + 1);
  return path.size() > before.size() + after.size() && path.starts_with(before) && path.ends_with(after);
}

bool ServedBy(const Route& route, Listener listener, bool has_metrics) {
  if (route.kind == RouteKind::kMetrics) return has_metrics;
  // FastDeploy has /config-info beside /metrics.
  return listener == Listener::kMain || route.kind == RouteKind::kHealth || route.kind == RouteKind::kLive ||
         route.kind == RouteKind::kConfigInfo;
}

}  // namespace

std::span<const Route> AllRoutes() { return kRoutes; }

const Route* FindRoute(Listener listener, bool has_metrics, std::string_view path) {
  for (const Route& route : kRoutes) {
    if (Matches(route, path)) return ServedBy(route, listener, has_metrics) ? &route : nullptr;
  }
  return nullptr;
}

std::string NearestPath(Listener listener, bool has_metrics, std::string_view path) {
  constexpr size_t kMaxPathBytes = 64;  // what is longer was never one of ours
  if (path.size() > kMaxPathBytes) return "";
  std::vector<std::string> paths;
  for (const Route& route : kRoutes) {
    if (!HasName(route) && ServedBy(route, listener, has_metrics)) paths.emplace_back(route.path);
  }
  // A base URL with /v1 and a client that adds it again, or one without.
  const std::string lower = LowerAscii(path);
  for (const std::string& known : paths) {
    if (lower.size() > known.size() && lower.ends_with(known) && known.starts_with("/v1")) return known;
    if (known == "/v1" + lower) return known;
  }
  return DidYouMean(lower, paths);
}

bool MethodAllowed(const Route& route, std::string_view method) {
  const std::vector<std::string> allowed = Split(route.allowed, ',');
  return std::any_of(allowed.begin(), allowed.end(),
                     [&](const std::string& name) { return Trim(name) == method; });
}

bool Generates(RouteKind kind) {
  return kind == RouteKind::kChat || kind == RouteKind::kCompletions || kind == RouteKind::kRender ||
         kind == RouteKind::kResponses || kind == RouteKind::kMessages || Pools(kind);
}

ApiShape ShapeOf(std::string_view path, bool anthropic_client) {
  const auto is_or_below = [&](std::string_view root) {
    return path.starts_with(root) && (path.size() == root.size() || path[root.size()] == '/');
  };
  return is_or_below("/v1/messages") || (anthropic_client && is_or_below("/v1/models")) ? ApiShape::kAnthropic
                                                                                        : ApiShape::kOpenAi;
}

bool ReadsJson(RouteKind kind) {
  return Generates(kind) || kind == RouteKind::kTokenize || kind == RouteKind::kDetokenize ||
         kind == RouteKind::kAbort;
}

bool Pools(RouteKind kind) { return kind == RouteKind::kEmbeddings || kind == RouteKind::kPooling; }

}  // namespace fd
