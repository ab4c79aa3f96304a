// The route table: which paths and methods there are, and who may use them. Pure functions.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace fd {

enum class RouteKind {
  kChat,
  kCompletions,
  kEmbeddings,
  kPooling,
  kReward,
  kModels,
  kModel,
  kTokenize,
  kDetokenize,
  kRender,
  kResponses,
  kStoredResponse,
  kHealth,
  kLive,
  kLoad,
  kVersion,
  kConfigInfo,
  kOpenApi,
  kMetrics,
  kAbort,
  kPause,
  kResume,
  kIsPaused,
  kMessages,
  kCountMessagesTokens,
};

enum class Access {
  kPublic,  // needs no key
  kKey,     // --api-key, where there is one
  kAdmin,   // --admin-key; refused where there is none
};

struct Route {
  RouteKind kind;
  const char* path;     // the label in the metrics; "{name}" is any text that is not empty
  const char* allowed;  // the Allow header; HEAD and OPTIONS are answered by the session
  Access access;
  const char* summary;  // for /openapi.json
};

enum class Listener { kMain, kMetrics };

std::span<const Route> AllRoutes();
// Null: 404. has_metrics: this listener serves /metrics.
const Route* FindRoute(Listener listener, bool has_metrics, std::string_view path);
// The path that was meant, or empty when none is near.
std::string NearestPath(Listener listener, bool has_metrics, std::string_view path);
bool MethodAllowed(const Route& route, std::string_view method);
// Starts work on the model, which a server that drains, pauses or is full refuses.
bool Generates(RouteKind kind);
// Of those, what needs a server that pools; the others need one that generates.
bool Pools(RouteKind kind);
// Reads a JSON body: 411 without one, 415 when it says that it is something else.
bool ReadsJson(RouteKind kind);

// Whose shape a reply has. Paths that do not exist count, too. anthropic_client: sent the header
// anthropic-version, which decides about /v1/models, a path of both.
enum class ApiShape { kOpenAi, kAnthropic };
ApiShape ShapeOf(std::string_view path, bool anthropic_client);

}  // namespace fd
