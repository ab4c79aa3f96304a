#include "server/http/openapi.h"

#include <optional>
#include <utility>

#include "base/json.h"
#include "base/strings.h"
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

// Null counts as absent, so every field may be null.
Json TypeOf(FieldType type) {
  const auto or_null = [](const char* name) { return Json(JsonArray{name, "null"}); };
  switch (type) {
    case FieldType::kString:
      return or_null("string");
    case FieldType::kInteger:
      return or_null("integer");
    case FieldType::kNumber:
      return or_null("number");
    case FieldType::kBoolean:
      return or_null("boolean");
    case FieldType::kObject:
      return or_null("object");
    case FieldType::kArray:
      return or_null("array");
    case FieldType::kAny:
      break;
  }
  return Json();
}

Json RequestSchema(RequestKind kind) {
  JsonObject properties;
  for (const RequestField& field : FieldsOf(kind)) {
    JsonObject property;
    if (Json type = TypeOf(field.type); !type.is_null()) property.Set("type", std::move(type));
    if (field.type == FieldType::kArray) property.Set("items", JsonObject{});
    property.Set("description", field.meaning);
    properties.Set(field.name, std::move(property));
  }
  return JsonObject{{"type", "object"}, {"properties", std::move(properties)}};
}

Json Ref(const char* where, const std::string& name) {
  return JsonObject{{"$ref", StrCat("#/components/", where, "/", name)}};
}

Json Content(const char* type, Json schema) {
  return JsonObject{{type, JsonObject{{"schema", std::move(schema)}}}};
}

Json Success(RouteKind kind, const std::string& method) {
  JsonObject response{{"description", "Done"}};
  if (method == "options" || method == "head" || kind == RouteKind::kHealth) return response;
  if (kind == RouteKind::kMetrics) {
    response.Set("content", Content("text/plain", JsonObject{{"type", "string"}}));
    return response;
  }
  Json content = Content("application/json", JsonObject{{"type", "object"}});
  if (kind == RouteKind::kChat || kind == RouteKind::kCompletions || kind == RouteKind::kResponses ||
      kind == RouteKind::kMessages) {
    content.as_object().Set("text/event-stream", JsonObject{{"schema", JsonObject{{"type", "string"}}}});
  }
  response.Set("content", std::move(content));
  return response;
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
  if (method == "options") {
    responses.Set("204", Success(route.kind, method));
  } else if (route.kind != RouteKind::kStoredResponse) {
    responses.Set("200", Success(route.kind, method));
  }
  const bool anthropic = ShapeOf(route.path, /*anthropic_client=*/false) == ApiShape::kAnthropic;
  responses.Set("default", Ref("responses", anthropic ? "AnthropicError" : "Error"));
  operation.Set("responses", std::move(responses));
  const JsonArray key{JsonObject{{"bearer", JsonArray{}}}, JsonObject{{"header", JsonArray{}}}};
  operation.Set("security", route.access == Access::kPublic ? JsonArray{} : key);
  return operation;
}

}  // namespace

std::string OpenApiJson(const std::string& version) {
  JsonObject paths;
  for (const Route& route : AllRoutes()) {
    JsonObject item;
    for (const std::string& name : Split(route.allowed, ',')) {
      const std::string method = LowerAscii(Trim(name));
      item.Set(method, Operation(route, method));
    }
    paths.Set(route.path, std::move(item));
  }
  JsonObject schemas;
  for (RequestKind kind : {RequestKind::kChat, RequestKind::kCompletions, RequestKind::kTokenize,
                           RequestKind::kDetokenize, RequestKind::kAbort, RequestKind::kResponses,
                           RequestKind::kMessages, RequestKind::kEmbeddings, RequestKind::kPooling}) {
    schemas.Set(SchemaName(kind), RequestSchema(kind));
  }
  const JsonObject text{{"type", "string"}};
  const JsonObject text_or_null{{"type", JsonArray{"string", "null"}}};
  const JsonObject error_fields{
      {"message", text}, {"type", text}, {"param", text_or_null}, {"code", text_or_null}};
  const JsonObject error{{"type", "object"},
                         {"required", JsonArray{"message", "type", "param", "code"}},
                         {"properties", error_fields}};
  schemas.Set("Error", JsonObject{{"type", "object"},
                                  {"required", JsonArray{"error"}},
                                  {"properties", JsonObject{{"error", error}}}});
  const JsonObject anthropic_error{{"type", "object"},
                                   {"required", JsonArray{"type", "message"}},
                                   {"properties", JsonObject{{"type", text}, {"message", text}}}};
  schemas.Set("AnthropicError",
              JsonObject{{"type", "object"},
                         {"required", JsonArray{"type", "error"}},
                         {"properties",
                          JsonObject{{"type", text}, {"error", anthropic_error}, {"request_id", text}}}});
  const auto error_response = [](const char* schema, const char* description) {
    return JsonObject{{"description", description},
                      {"content", Content("application/json", Ref("schemas", schema))}};
  };
  return WriteJson(JsonObject{
      {"openapi", "3.1.0"},
      {"info", JsonObject{{"title", "FastDeploy.cpp"}, {"version", version}}},
      {"paths", std::move(paths)},
      {"components",
       JsonObject{{"schemas", std::move(schemas)},
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
