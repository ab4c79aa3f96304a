#include "server/http/request_body.h"

#include <gtest/gtest.h>

#include "server/openai/fakes_for_tests.h"

namespace fd {
namespace {

TEST(RequestBody, ErrorsHaveTheShapeOfTheirPath) {
  const HttpResponse response = ErrorResponse(405, "method_not_allowed", "no");
  ASSERT_TRUE(response.error);
  HttpRequest request;
  request.id = "req-1";
  request.path = "/v1/chat/completions";
  EXPECT_EQ(
      ErrorBody(request, *response.error),
      R"({"error":{"message":"no","type":"invalid_request_error","param":null,"code":"method_not_allowed"}})");
  request.path = "/v1/messages/nowhere";
  const std::string anthropic =
      R"({"type":"error","error":{"type":"invalid_request_error","message":"no"},"request_id":"req-1"})";
  EXPECT_EQ(ErrorBody(request, *response.error), anthropic);
  request.path = "/v1/models/x";
  EXPECT_NE(ErrorBody(request, *response.error), anthropic);
  request.anthropic_client = true;
  EXPECT_EQ(ErrorBody(request, *response.error), anthropic);
}

TEST(RequestBody, ErrorsOfStatusAndOfApiErrorAreOne) {
  const HttpResponse busy = ErrorResponse(Status(StatusCode::kResourceExhausted, "full"));
  EXPECT_EQ(busy.status, 429);
  EXPECT_EQ(busy.error->code, "rate_limit_exceeded");
  EXPECT_EQ(busy.headers.front().first, "Retry-After");
  EXPECT_EQ(ErrorResponse(Status(StatusCode::kUnauthenticated, "who")).headers.front().first,
            "WWW-Authenticate");
}

TEST(RequestBody, EachRouteItsOwn) {
  ScriptedEngine engine("hello");
  const auto service = TestService(engine);
  const auto read = [&](RouteKind kind, const char* body) { return ReadRequestBody(*service, kind, body); };
  EXPECT_EQ(read(RouteKind::kCompletions, "{}")->endpoint, ApiEndpoint::kCompletions);
  EXPECT_EQ(read(RouteKind::kChat, "{}")->endpoint, ApiEndpoint::kChat);
  const char* message = R"({"messages":[{"role":"user","content":"a"}]})";
  EXPECT_EQ(read(RouteKind::kMessages, message).status().param(), "max_tokens");
  EXPECT_STREQ(read(RouteKind::kCountMessagesTokens, message)->id_prefix, "msg_");
  for (const RouteKind kind : {RouteKind::kChat, RouteKind::kMessages, RouteKind::kCountMessagesTokens}) {
    EXPECT_EQ(read(kind, "{").status().code(), StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace fd
