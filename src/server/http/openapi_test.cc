#include "server/http/openapi.h"

#include <gtest/gtest.h>

#include "base/json.h"
#include "base/strings.h"
#include "server/http/routes.h"
#include "server/openai/request_schema.h"

namespace fd {
namespace {

Json Parsed() {
  auto json = ParseJson(OpenApiJson("1.2.3", ApiBounds{}));
  EXPECT_TRUE(json.ok());
  return std::move(json).value();
}

TEST(OpenApi, EveryRouteAndMethodAndNoOther) {
  const Json api = Parsed();
  const JsonObject& paths = api.Find("paths")->as_object();
  EXPECT_EQ(paths.size(), AllRoutes().size());
  for (const Route& route : AllRoutes()) {
    const Json* item = paths.Find(route.path);
    ASSERT_NE(item, nullptr) << route.path;
    size_t methods = 0;
    for (const std::string& name : Split(route.allowed, ',')) {
      EXPECT_NE(item->Find(LowerAscii(Trim(name))), nullptr) << route.path << " " << name;
      ++methods;
    }
    EXPECT_EQ(item->as_object().size(), methods) << route.path;
    EXPECT_EQ(item->as_object().begin()->second.Find("security")->as_array().empty(),
              route.access == Access::kPublic)
        << route.path;
  }
}

TEST(OpenApi, FieldsOfRequests) {
  const Json api = Parsed();
  const Json* schemas = api.Find("components")->Find("schemas");
  for (const auto& [kind, name] : {std::pair{RequestKind::kChat, "ChatCompletionRequest"},
                                   std::pair{RequestKind::kCompletions, "CompletionRequest"},
                                   std::pair{RequestKind::kTokenize, "TokenizeRequest"},
                                   std::pair{RequestKind::kDetokenize, "DetokenizeRequest"},
                                   std::pair{RequestKind::kAbort, "AbortRequest"},
                                   std::pair{RequestKind::kResponses, "ResponsesRequest"},
                                   std::pair{RequestKind::kMessages, "MessagesRequest"},
                                   std::pair{RequestKind::kEmbeddings, "EmbeddingRequest"},
                                   std::pair{RequestKind::kPooling, "PoolingRequest"}}) {
    const JsonObject& properties = schemas->Find(name)->Find("properties")->as_object();
    const std::vector<RequestField> fields = FieldsOf(kind);
    EXPECT_EQ(properties.size(), fields.size()) << name;
    for (const RequestField& field : fields) EXPECT_NE(properties.Find(field.name), nullptr) << field.name;
  }
}

// Every "$ref" leads somewhere.
void CheckRefs(const Json& api, const Json& value) {
  if (value.is_array()) {
    for (const Json& element : value.as_array()) CheckRefs(api, element);
  }
  if (!value.is_object()) return;
  for (const JsonMember& member : value.as_object()) {
    if (member.first == "$ref") {
      const Json* at = &api;
      for (const std::string& step : Split(member.second.as_string().substr(2), '/')) {
        at = at->Find(step);
        ASSERT_NE(at, nullptr) << member.second.as_string();
      }
    }
    CheckRefs(api, member.second);
  }
}

TEST(OpenApi, References) {
  const Json api = Parsed();
  CheckRefs(api, api);
}

TEST(Routes, NamesInPaths) {
  const auto path_of = [](const char* path) -> std::string {
    const Route* route = FindRoute(Listener::kMain, true, path);
    return route != nullptr ? route->path : "";
  };
  EXPECT_EQ(path_of("/v1/models/a/b"), "/v1/models/{model}");
  EXPECT_EQ(path_of("/v1/models/"), "");
  EXPECT_EQ(path_of("/v1/responses"), "/v1/responses");
  EXPECT_EQ(path_of("/v1/responses/"), "");
  EXPECT_EQ(path_of("/v1/responses/resp_1"), "/v1/responses/{id}");
  EXPECT_EQ(path_of("/v1/responses/resp_1/cancel"), "/v1/responses/{id}/cancel");
  EXPECT_EQ(path_of("/v1/responses/resp_1/input_items"), "/v1/responses/{id}/input_items");
  EXPECT_EQ(path_of("/v1/responses/cancel"), "/v1/responses/{id}");
}

TEST(Routes, ShapeOfReplies) {
  for (const char* path : {"/v1/messages", "/v1/messages/count_tokens", "/v1/messages/batches"}) {
    EXPECT_EQ(ShapeOf(path, false), ApiShape::kAnthropic) << path;
  }
  for (const char* path : {"/v1/messagesx", "/v1/chat/completions", "/", "", "/v1/models", "/v1/models/a"}) {
    EXPECT_EQ(ShapeOf(path, false), ApiShape::kOpenAi) << path;
  }
  EXPECT_EQ(ShapeOf("/v1/models", true), ApiShape::kAnthropic);
  EXPECT_EQ(ShapeOf("/v1/models/a", true), ApiShape::kAnthropic);
  EXPECT_EQ(ShapeOf("/v1/chat/completions", true), ApiShape::kOpenAi);
}

TEST(Routes, NearestPath) {
  const auto nearest = [](const char* path) { return NearestPath(Listener::kMain, true, path); };
  EXPECT_EQ(nearest("/chat/completions"), "/v1/chat/completions");
  EXPECT_EQ(nearest("/v1/v1/chat/completions"), "/v1/chat/completions");
  EXPECT_EQ(nearest("/v1/chat/completion"), "/v1/chat/completions");
  EXPECT_EQ(nearest("/v1/chat/completions/"), "/v1/chat/completions");
  EXPECT_EQ(nearest("/models"), "/v1/models");
  EXPECT_EQ(nearest("/V1/models"), "/v1/models");
  EXPECT_EQ(nearest("/api/v1/models"), "/v1/models");
  EXPECT_EQ(nearest("/healthz"), "/health");
  EXPECT_EQ(nearest("/something/quite/different/from/all"), "");
  EXPECT_EQ(NearestPath(Listener::kMetrics, true, "/v1/model"), "");
}

}  // namespace
}  // namespace fd
