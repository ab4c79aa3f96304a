#include "server/http/openapi.h"

#include <optional>
#include <utility>

#include "base/json.h"
#include "base/strings.h"
#include "server/http/openapi_replies.h"
#include "server/http/openapi_requests.h"
#include "server/http/routes.h"
#include "server/openai/request_schema.h"

namespace fd {
namespace {

std::optional<RequestKind> BodyOf(RouteKind kind) {
  switch (kind) {
    case RouteKind::kChat:
    case RouteKind::kRender:
      return RequestKind::kChat;
    case RouteKind::kCompletions:
      return RequestKind::kCompletions;
    case RouteKind::kResponses:
      return RequestKind::kResponses;
    case RouteKind::kEmbeddings:
      return RequestKind::kEmbeddings;
    case RouteKind::kPooling:
      return RequestKind::kPooling;
    case RouteKind::kTokenize:
      return RequestKind::kTokenize;
    case RouteKind::kDetokenize:
      return RequestKind::kDetokenize;
    case RouteKind::kAbort:
      return RequestKind::kAbort;
    case RouteKind::kMessages:
    case RouteKind::kCountMessagesTokens:
      return RequestKind::kMessages;
    default:
      return std::nullopt;
  }
}

const char* SchemaName(RequestKind kind) {
  switch (kind) {
    case RequestKind::kChat:
      return "ChatCompletionRequest";
    case RequestKind::kCompletions:
      return "CompletionRequest";
    case RequestKind::kTokenize:
      return "TokenizeRequest";
    case RequestKind::kDetokenize:
      return "DetokenizeRequest";
    case RequestKind::kAbort:
      return "AbortRequest";
    case RequestKind::kResponses:
      return "ResponsesRequest";
    case RequestKind::kMessages:
      return "MessagesRequest";
    case RequestKind::kEmbeddings:
      return "EmbeddingRequest";
    case RequestKind::kPooling:
      return "PoolingRequest";
  }
  return "";
}

Json Ref(const char* where, const std::string& name) {
  return JsonObject{{"$ref", StrCat("#/components/", where, "/", name)}};
}

Json Content(const char* type, Json schema) {
  return JsonObject{{type, JsonObject{{"schema", std::move(schema)}}}};
}

JsonObject Headers(bool ignores) {
  JsonObject headers{{"x-request-id", Ref("headers", "RequestId")}};
  if (ignores) headers.Set("x-fastdeploy-ignored", Ref("headers", "Ignored"));
  return headers;
}

Json Success(const ReplyShape& shape, const std::string& method, bool has_body) {
  JsonObject response{{"description", "Done"}, {"headers", Headers(has_body)}};
  if (method == "options" || method == "head" || *shape.content_type == '\0') return response;
  Json content = Content(shape.content_type, Ref("schemas", shape.schema));
  if (*shape.event != '\0') {  // the schema of one event
    content.as_object().Set("text/event-stream", JsonObject{{"schema", Ref("schemas", shape.event)}});
  }
  response.Set("content", std::move(content));
  return response;
}

// A reply to HEAD has no body.
Json Failure(const std::string& method, const char* shape) {
  if (method == "head") return JsonObject{{"description", "What is wrong"}, {"headers", Headers(false)}};
  return Ref("responses", shape);
}

Json Operation(const Route& route, const std::string& method) {
  JsonObject operation;
  operation.Set("operationId", StrCat(method, route.path));
  operation.Set("summary", route.summary);
  if (const std::string_view path = route.path; path.find('{') != std::string_view::npos) {
    const size_t begin = path.find('{') + 1;
    const std::string_view name = path.substr(begin, path.find('}') - begin);
    operation.Set(
        "parameters",
        JsonArray{JsonObject{
            {"name", name}, {"in", "path"}, {"required", true}, {"schema", JsonObject{{"type", "string"}}}}});
  }
  const std::optional<RequestKind> body = BodyOf(route.kind);
  if (body && method == "post") {
    operation.Set("requestBody",
                  JsonObject{{"required", true},
                             {"content", Content("application/json", Ref("schemas", SchemaName(*body)))}});
  }
  JsonObject responses;
  const ReplyShape* shape = ReplyShapeOf(route.kind);
  if (method == "options") {
    responses.Set("204", JsonObject{{"description", "Done"}, {"headers", Headers(false)}});
  } else if (shape != nullptr) {
    responses.Set("200", Success(*shape, method, body.has_value()));
  }
  const bool anthropic = ShapeOf(route.path, /*anthropic_client=*/false) == ApiShape::kAnthropic;
  for (const int status : ErrorStatuses(route, method)) {
    responses.Set(StrCat(status), Failure(method, anthropic ? "AnthropicError" : "Error"));
  }
  operation.Set("responses", std::move(responses));
  const JsonArray key{JsonObject{{"bearer", JsonArray{}}}, JsonObject{{"header", JsonArray{}}}};
  operation.Set("security", route.access == Access::kPublic ? JsonArray{} : key);
  return operation;
}

}  // namespace

std::string OpenApiJson(const std::string& version, const ApiBounds& bounds) {
  JsonObject paths;
  for (const Route& route : AllRoutes()) {
    JsonObject item;
    for (const std::string& name : Split(route.allowed, ',')) {
      const std::string method = LowerAscii(Trim(name));
      item.Set(method, Operation(route, method));
    }
    paths.Set(route.path, std::move(item));
  }
  JsonObject schemas = RequestParts(bounds);
  for (const JsonMember& part : ReplyParts(bounds)) schemas.Set(part.first, part.second);
  for (RequestKind kind : {RequestKind::kChat, RequestKind::kCompletions, RequestKind::kTokenize,
                           RequestKind::kDetokenize, RequestKind::kAbort, RequestKind::kResponses,
                           RequestKind::kMessages, RequestKind::kEmbeddings, RequestKind::kPooling}) {
    schemas.Set(SchemaName(kind), RequestSchema(kind, bounds));
  }
  const auto header = [](const char* description, bool always) {
    return JsonObject{{"description", description},
                      {"required", always},
                      {"schema", JsonObject{{"type", "string"}, {"minLength", 1}}}};
  };
  const JsonObject headers{
      {"RequestId", header("Names the request in the log; the client's own, or a new one", true)},
      {"Ignored", header("Fields of the request that are not known here", false)}};
  const auto error_response = [](const char* schema, const char* description) {
    return JsonObject{{"description", description},
                      {"headers", Headers(false)},
                      {"content", Content("application/json", Ref("schemas", schema))}};
  };
  return WriteJson(JsonObject{
      {"openapi", "3.1.0"},
      {"info", JsonObject{{"title", "FastDeploy.cpp"}, {"version", version}}},
      {"paths", std::move(paths)},
      {"components",
       JsonObject{{"schemas", std::move(schemas)},
                  {"headers", headers},
                  {"responses",
                   JsonObject{{"Error", error_response("Error", "What is wrong, in OpenAI's shape")},
                              {"AnthropicError",
                               error_response("AnthropicError", "What is wrong, in Anthropic's shape")}}},
                  {"securitySchemes",
                   JsonObject{{"bearer", JsonObject{{"type", "http"}, {"scheme", "bearer"}}},
                              {"header",
                               JsonObject{{"type", "apiKey"}, {"in", "header"}, {"name", "X-Api-Key"}}}}}}}});
}

}  // namespace fd
