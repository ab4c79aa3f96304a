// What a beginner gets wrong is answered with what would be right.
#include <gtest/gtest.h>

#include "base/strings.h"
#include "server/openai/errors.h"
#include "server/openai/fakes_for_tests.h"
#include "server/openai/fields.h"
#include "server/openai/generation.h"

namespace fd {
namespace {

std::string Number(const std::string& body) {
  return ReadNumber(ParseJson(body)->as_object(), "x", 0, 2).status().message();
}
std::string Integer(const std::string& body, int64_t min, int64_t max) {
  return ReadInteger(ParseJson(body)->as_object(), "x", min, max).status().message();
}

TEST(MistakesTest, WrongTypesShowTheRightOne) {
  EXPECT_EQ(Number(R"({"x":"0.7"})"),
            R"(x must be a number from 0 to 2; got "0.7" (a string); for example {"x": 0.7})");
  EXPECT_EQ(Number(R"({"x":"hot"})"),
            R"(x must be a number from 0 to 2; got "hot" (a string); for example {"x": 1.0})");
  EXPECT_EQ(Number(R"({"x":"99"})"),  // quoted, and out of range as well
            R"(x must be a number from 0 to 2; got "99" (a string); for example {"x": 1.0})");
  EXPECT_EQ(Number(R"({"x":[]})"),
            R"(x must be a number from 0 to 2; got an array of 0; for example {"x": 1.0})");
  EXPECT_EQ(Number(R"({"x":3})"), "x must be a number from 0 to 2; got 3");
  EXPECT_EQ(Integer(R"({"x":"12"})", 1, 512),
            R"(x must be an integer from 1 to 512; got "12" (a string); for example {"x": 12})");
  EXPECT_EQ(Integer(R"({"x":"1.5"})", 5, 512),
            R"(x must be an integer from 5 to 512; got "1.5" (a string); for example {"x": 5})");
  EXPECT_EQ(Integer(R"({"x":true})", INT64_MIN, INT64_MAX),
            R"(x must be a 64-bit integer; got true; for example {"x": 1})");
  EXPECT_EQ(Integer(R"({"x":1.5})", 1, 512), "x must be an integer from 1 to 512; got 1.5");
  EXPECT_EQ(ReadBool(ParseJson(R"({"x":"yes"})")->as_object(), "x").status().message(),
            R"(x must be true or false; got "yes" (a string); for example {"x": true})");
}

TEST(MistakesTest, TextInTheFieldOfTokenIds) {
  ScriptedEngine engine("x");
  const auto service = TestService(engine);
  for (const char* ids : {"\"a\"", "[\"a\"]", "[[1],\"a\"]", "{}", "5"}) {
    const auto made =
        Generation::Prepare(*service, ApiEndpoint::kCompletions,
                            std::string_view(StrCat("{\"prompt\":\"a\",\"prompt_token_ids\":", ids, "}")));
    ASSERT_FALSE(made.ok()) << ids;
    EXPECT_EQ(made.status().param(), "prompt_token_ids");
    EXPECT_TRUE(made.status().message().starts_with(
        "prompt_token_ids must be an array of token ids or an array of such arrays"))
        << made.status().message();
  }
}

TEST(MistakesTest, BodiesThatAreMeantForAnotherEndpoint) {
  ScriptedEngine engine("x");
  const auto service = TestService(engine);
  const auto refused = [&](ApiEndpoint endpoint, std::string_view body) {
    const auto made = Generation::Prepare(*service, endpoint, body);
    EXPECT_FALSE(made.ok()) << body;
    return made.status().message();
  };
  EXPECT_TRUE(refused(ApiEndpoint::kChat, R"({"prompt":"a"})")
                  .starts_with("messages is missing; a prompt belongs to /v1/completions"));
  EXPECT_TRUE(refused(ApiEndpoint::kChat, "{}").starts_with("messages is missing; example: {"));
  EXPECT_TRUE(refused(ApiEndpoint::kCompletions, R"({"messages":[]})")
                  .starts_with("prompt is missing; messages belong to /v1/chat/completions"));
  EXPECT_TRUE(refused(ApiEndpoint::kCompletions, "{}").starts_with("prompt is missing; example: {"));
  EXPECT_EQ(
      refused(ApiEndpoint::kChat, R"({"messages":"Hi"})"),
      R"(messages must be an array, for example [{"role": "user", "content": "Hello"}]; got "Hi" (a string))");
  EXPECT_EQ(
      refused(ApiEndpoint::kChat, "{'messages':[]}"),
      "the request body is no JSON: expected a key in quotes at byte 1, but found '''; this is JSON, for "
      "example: {\"prompt\": \"Hello\", \"max_tokens\": 16}");
}

}  // namespace
}  // namespace fd
