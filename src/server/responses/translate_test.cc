#include "server/responses/translate.h"

#include <gtest/gtest.h>

#include "base/strings.h"
#include "server/openai/fakes_for_tests.h"
#include "server/openai/request_schema.h"

namespace fd {
namespace {

class TranslateTest : public ::testing::Test {
 protected:
  StatusOr<TranslatedRequest> Translate(const std::string& fields) {
    auto json = ParseJson(R"({"input":"a")" + fields + "}");
    FD_CHECK(json.ok(), fields);
    return TranslateResponses(*service_, std::move(json).value());
  }
  // The chat request without its messages.
  std::string Chat(const std::string& fields) {
    auto request = Translate(fields);
    if (!request.ok()) return request.status().message();
    request->body.as_object().Erase("messages");
    return WriteJson(request->body);
  }
  // An error in translation or in what it leaves to chats, as the client reads it.
  Status Refusal(const std::string& fields) {
    auto request = Translate(fields);
    if (!request.ok()) return request.status();
    auto draft = Generation::Parse(*service_, request->endpoint, std::move(request->body), "", Clock::now());
    return draft.ok() ? OkStatus() : request->writer->Restate(draft.status());
  }

  ScriptedEngine engine_{"hello"};
  std::shared_ptr<Service> service_ = TestService(engine_);
};

TEST_F(TranslateTest, Fields) {
  EXPECT_EQ(Chat(""), "{}");
  EXPECT_EQ(
      Chat(
          R"(,"model":"tiny","temperature":0.5,"seed":7,"stream":true,"stream_options":{"include_obfuscation":false})"),
      R"({"model":"tiny","temperature":0.5,"seed":7,"stream":true})");
  EXPECT_EQ(Chat(R"(,"max_output_tokens":9)"), R"({"max_completion_tokens":9})");
  EXPECT_EQ(Chat(R"(,"include":["message.output_text.logprobs"])"), R"({"logprobs":true,"top_logprobs":0})");
  EXPECT_EQ(Chat(R"(,"top_logprobs":3)"), R"({"logprobs":true,"top_logprobs":3})");
  EXPECT_EQ(
      Chat(R"(,"top_logprobs":3,"temp_scaled_logprobs":true,"top_p_normalized_logprobs":true)"),
      R"({"temp_scaled_logprobs":true,"top_p_normalized_logprobs":true,"logprobs":true,"top_logprobs":3})");
  EXPECT_EQ(Chat(R"(,"top_logprobs":0,"include":["reasoning.encrypted_content"])"), "{}");
  EXPECT_EQ(Chat(R"(,"metadata":{"enable_thinking":"x"},"truncation":"disabled","background":false,
                    "text":{"format":{"type":"text"},"verbosity":"low"},"max_tool_calls":3,"previous_response_id":null)"),
            "{}");
  EXPECT_EQ(
      Chat(
          R"(,"tools":[{"type":"function","name":"f","description":"d","parameters":{"type":"object"},"strict":true}])"),
      R"({"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}}]})");
}

// No field is left for the chat request to warn about, and what this API does not know is named.
TEST_F(TranslateTest, UnknownFields) {
  const auto request = Translate(R"(,"echo":true,"temprature":1,"store":true,"min_p":0.1,"n":1)");
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->ignored_fields, (std::vector<std::string>{"echo", "temprature", "n"}));
  EXPECT_TRUE(UnknownFields(RequestKind::kChat, request->body.as_object()).empty());
  service_->strict_requests = true;
  EXPECT_EQ(Refusal(R"(,"temprature":1)").param(), "temprature");
  EXPECT_TRUE(Refusal(R"(,"store":true)").ok());
}

TEST_F(TranslateTest, Effort) {
  EXPECT_EQ(Chat(R"(,"reasoning":{"effort":"none"})"), R"({"enable_thinking":false})");
  EXPECT_EQ(Chat(R"(,"reasoning":{"effort":"minimal"})"), R"({"enable_thinking":false})");
  EXPECT_EQ(Chat(R"(,"reasoning":{"effort":"high"})"), "{}");  // nothing would take the thought out
  ASSERT_TRUE(SetReasoningParser(*service_, "ernie-45-vl").ok());
  for (const char* effort : {"low", "medium", "high", "xhigh", "max"}) {
    EXPECT_EQ(Chat(StrCat(R"(,"reasoning":{"summary":"auto","effort":")", effort, "\"}")),
              R"({"enable_thinking":true})");
  }
  EXPECT_EQ(Chat(R"(,"reasoning":{"summary":"auto"})"), "{}");
  EXPECT_EQ(Chat(R"(,"reasoning":{"effort":"high"},"enable_thinking":false)"),
            R"({"enable_thinking":false})");
}

TEST_F(TranslateTest, Refusals) {
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {R"(,"messages":[])", "messages", "here it is input"},
      {R"(,"max_tokens":5)", "max_tokens", "here it is max_output_tokens"},
      {R"(,"response_format":{"type":"text"})", "response_format", "here it is text.format"},
      {R"(,"previous_response_id":"resp_1")", "previous_response_id", "nothing is stored"},
      {R"(,"conversation":"conv_1")", "conversation", "nothing is stored"},
      {R"(,"prompt":{"id":"p"})", "prompt", "nothing is stored"},
      {R"(,"background":true)", "background", "nothing is stored"},
      {R"(,"store":"yes")", "store", "true or false"},
      {R"(,"truncation":"auto")", "truncation", "still to come"},
      {R"(,"truncation":"other")", "truncation", "\"disabled\" or \"auto\""},
      {R"(,"context_management":[{"type":"compaction"}])", "context_management", "does not compact"},
      {R"(,"moderation":{"model":"m"})", "moderation", "no moderation model"},
      {R"(,"stream_options":{})", "stream_options", "\"stream\": true"},
      {R"(,"instructions":7)", "instructions", "a string"},
      {R"(,"max_output_tokens":0)", "max_output_tokens", "from 1 to 512"},
      {R"(,"metadata":{"a":1})", "metadata", "values must be strings"},
      {R"(,"include":["other"])", "include", "include[0]"},
      {R"(,"top_logprobs":21)", "top_logprobs", "from 0 to 20"},
      {R"(,"reasoning":{"effort":"some"})", "reasoning.effort", "one of none, minimal"},
      {R"(,"text":{"verbosity":"loud"})", "text.verbosity", "one of low, medium, high"},
      {R"(,"text":{"format":{"type":"json_schema","schema":{}}})", "text.format", "structured output"},
      {R"(,"text":{"format":{"type":"xml"}})", "text.format", "text.format.type must be"},
      {R"(,"text":{"format":7})", "text.format", "text.format.type must be"},
      {R"(,"tools":[{"type":"web_search"}])", "tools", "got \"web_search\""},
      {R"(,"tools":[{"type":"function","function":{"name":"f"}}])", "tools", "beside type here"},
      {R"(,"tools":[{"name":"f"}])", "tools", "tools[0] must be"},
      {R"(,"tools":[7])", "tools", "tools[0] must be"},
      {R"(,"tools":[{"type":"function","name":"f","parameters":7}])", "tools", "tools[0].parameters"},
      {R"(,"tool_choice":"required")", "tool_choice", "structured output"},
      {R"(,"tool_choice":{"type":"function","name":"f"})", "tool_choice", "structured output"},
      {R"(,"tool_choice":{"type":"allowed_tools","mode":"auto","tools":[]})", "tool_choice", "must be"},
      {R"(,"parallel_tool_calls":false)", "parallel_tool_calls", "structured output"},
      {R"(,"guided_json":{})", "guided_json", "still to come"},
      {R"(,"temperature":-1)", "temperature", "from 0"},
      {R"(,"user":7)", "user", "a string"},
  };
  for (const auto& [fields, param, message] : cases) {
    const Status status = Refusal(fields);
    ASSERT_FALSE(status.ok()) << fields;
    EXPECT_EQ(status.param(), param) << fields << "\n" << status.message();
    EXPECT_NE(status.message().find(message), std::string::npos) << fields << "\n" << status.message();
  }
  for (const char* body : {"7", "[]", "null"}) {
    EXPECT_FALSE(TranslateResponses(*service_, std::move(ParseJson(body)).value()).ok()) << body;
  }
  EXPECT_EQ(TranslateResponses(*service_, JsonObject{}).status().param(), "input");
}

TEST_F(TranslateTest, WhatChatsRefuseIsToldAsInput) {
  service_->max_model_len = 8;
  const Status status = Refusal(R"(,"instructions":"much too long a text")");
  EXPECT_EQ(status.param(), "input");
  EXPECT_EQ(ToApiError(status).code, "context_length_exceeded");
  EXPECT_NE(status.message().find("Shorten the input"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace fd
