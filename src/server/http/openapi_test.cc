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

const Json& At(const Json& value, std::initializer_list<const char*> path) {
  const Json* at = &value;
  for (const char* step : path) {
    const Json* next = at->Find(step);
    EXPECT_NE(next, nullptr) << step;
    if (next == nullptr) break;
    at = next;
  }
  return *at;
}

TEST(OpenApi, RangesOfFields) {
  ApiBounds bounds;
  bounds.max_model_len = 777;
  bounds.vocab_size = 50;
  bounds.max_choices = 3;
  auto api = ParseJson(OpenApiJson("1.2.3", bounds));
  ASSERT_TRUE(api.ok());
  const Json& schemas = At(*api, {"components", "schemas"});
  const Json& chat = At(schemas, {"ChatCompletionRequest", "properties"});
  const Json& text = At(schemas, {"CompletionRequest", "properties"});
  EXPECT_EQ(WriteJson(At(chat, {"temperature"})),
            R"({"type":["number","null"],"description":"0: the likeliest token","minimum":0,"maximum":100})");
  EXPECT_EQ(At(chat, {"max_tokens", "maximum"}).as_int(), 777);
  EXPECT_EQ(At(chat, {"max_tokens", "minimum"}).as_int(), 1);
  EXPECT_EQ(At(text, {"max_tokens", "minimum"}).as_int(), 0) << "a kind's own line comes first";
  EXPECT_EQ(At(chat, {"n", "maximum"}).as_int(), 3);
  EXPECT_EQ(At(schemas, {"TokenId", "maximum"}).as_int(), 49);
  EXPECT_EQ(chat.Find("store")->Find("type"), nullptr) << "what is not looked at may be anything";
  EXPECT_EQ(At(schemas, {"DetokenizeRequest", "required"}).as_array().size(), 1U);
  EXPECT_EQ(At(schemas, {"ChatCompletionRequest", "anyOf"}).as_array().size(), 2U);
  EXPECT_EQ(WriteJson(*api).find("\"$max"), std::string::npos) << "every bound has its number";
}

TEST(OpenApi, RepliesOfEveryRoute) {
  const Json api = Parsed();
  for (const Route& route : AllRoutes()) {
    const Json& item = At(api, {"paths", route.path});
    for (const JsonMember& operation : item.as_object()) {
      const JsonObject& responses = At(operation.second, {"responses"}).as_object();
      const std::string where = StrCat(operation.first, " ", route.path);
      const bool succeeds = responses.Find("200") != nullptr || responses.Find("204") != nullptr;
      const bool never = route.kind == RouteKind::kStoredResponse || route.kind == RouteKind::kReward;
      EXPECT_EQ(succeeds, !never || operation.first == "options") << where;
      EXPECT_EQ(responses.Find("default"), nullptr) << where;
      EXPECT_NE(responses.Find("400"), nullptr) << where;
      EXPECT_EQ(responses.Find("401") != nullptr, route.access != Access::kPublic) << where;
      if (operation.first == "head") {
        for (const JsonMember& response : responses) {
          EXPECT_EQ(response.second.Find("content"), nullptr) << where;
          EXPECT_EQ(response.second.Find("$ref"), nullptr) << where;
        }
      }
    }
  }
  const auto content = [&](const char* path) -> const JsonObject& {
    return At(api, {"paths", path, "post", "responses", "200", "content"}).as_object();
  };
  for (const char* path : {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"}) {
    EXPECT_NE(content(path).Find("text/event-stream"), nullptr) << path;
    EXPECT_NE(content(path).Find("application/json"), nullptr) << path;
  }
  EXPECT_EQ(content("/tokenize").Find("text/event-stream"), nullptr);
  EXPECT_EQ(At(api, {"paths", "/v1/messages", "post", "responses", "400", "$ref"}).as_string(),
            "#/components/responses/AnthropicError");
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
