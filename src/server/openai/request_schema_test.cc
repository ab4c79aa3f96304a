#include "server/openai/request_schema.h"

#include <gtest/gtest.h>

namespace fd {
namespace {

JsonObject Parse(const char* text) { return std::move(ParseJson(text)).value().as_object(); }

TEST(RequestSchema, UnknownFields) {
  const JsonObject body = Parse(R"({"messages":[],"temprature":1,"stream":true,"echo":true,"x\r\ny":1})");
  const auto unknown = UnknownFields(RequestKind::kChat, body);
  EXPECT_EQ(unknown, (std::vector<std::string>{"temprature", "echo", "x\r\ny"}));
  EXPECT_EQ(IgnoredHeader(unknown), "temprature, echo, x??y");
  EXPECT_EQ(UnknownFields(RequestKind::kCompletions, Parse(R"({"prompt":"a","echo":true})")).size(), 0u);
}

TEST(RequestSchema, Refusal) {
  EXPECT_TRUE(RefuseUnknownFields(RequestKind::kChat, {}).ok());
  const Status status = RefuseUnknownFields(RequestKind::kChat, {"temprature", "other"});
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(status.param(), "temprature");
  EXPECT_NE(status.message().find("did you mean temperature?"), std::string::npos) << status.message();
  EXPECT_NE(status.message().find("--strict-requests"), std::string::npos);
}

TEST(RequestSchema, TheHeaderIsBounded) {
  std::vector<std::string> many(100'000, std::string(1000, 'x'));
  const std::string header = IgnoredHeader(many);
  EXPECT_LT(header.size(), 2000u);
  EXPECT_NE(header.find("and 99984 more"), std::string::npos);
}

TEST(RequestSchema, TheHeaderNamesAFieldWithoutAName) {
  EXPECT_EQ(IgnoredHeader(UnknownFields(RequestKind::kChat, JsonObject{{"", 1}})), "?");
  EXPECT_EQ(RefuseUnknownFields(RequestKind::kChat, {""}).param(), "?");
}

}  // namespace
}  // namespace fd
