// Anthropic's bodies to chat bodies, and what is refused.
#include "server/messages/messages_request.h"

#include <gtest/gtest.h>

#include "base/strings.h"
#include "server/openai/fakes_for_tests.h"

namespace fd {
namespace {

Json Parsed(std::string_view text) {
  auto json = ParseJson(text);
  FD_CHECK(json.ok(), std::string(text));
  return std::move(json).value();
}

class MessagesRequestTest : public ::testing::Test {
 protected:
  StatusOr<TranslatedRequest> Translate(const std::string& body, MessagesUse use = MessagesUse::kCreate) {
    return TranslateMessages(*service_, Parsed(body), use);
  }
  // The chat body of a request with these messages and fields.
  Json Body(const std::string& messages, const std::string& fields = "") {
    auto request = Translate(StrCat(R"({"max_tokens":9,"messages":)", messages, fields, "}"));
    FD_CHECK(request.ok(), request.status().message());
    return std::move(request->body);
  }
  std::string Messages(const std::string& messages, const std::string& fields = "") {
    return WriteJson(*Body(messages, fields).Find("messages"));
  }
  Status Refusal(const std::string& messages, const std::string& fields = "") {
    return Translate(StrCat(R"({"max_tokens":9,"messages":)", messages, fields, "}")).status();
  }
  std::string Field(const std::string& fields, const char* name) {
    const Json body = Body(R"([{"role":"user","content":"a"}])", fields);
    const Json* value = body.Find(name);
    return value == nullptr ? "absent" : WriteJson(*value);
  }
  Status RefusalOf(const std::string& fields) {
    return Refusal(R"([{"role":"user","content":"a"}])", fields);
  }

  ScriptedEngine engine_{"hello"};
  std::shared_ptr<Service> service_ = TestService(engine_);
};

TEST_F(MessagesRequestTest, TextAndSystem) {
  EXPECT_EQ(Messages(R"([{"role":"user","content":"Hi"}])"), R"([{"role":"user","content":"Hi"}])");
  EXPECT_EQ(Messages(R"([{"role":"user","content":"Hi"}])", R"(,"system":"Be short.")"),
            R"([{"role":"system","content":"Be short."},{"role":"user","content":"Hi"}])");
  EXPECT_EQ(
      Messages(
          R"([{"role":"user","content":[{"type":"text","text":"Hi","cache_control":{"type":"ephemeral"}}]}])",
          R"(,"system":[{"type":"text","text":"A"},{"type":"text","text":"B"}])"),
      R"([{"role":"system","content":"A\nB"},{"role":"user","content":[{"type":"text","text":"Hi"}]}])");
  EXPECT_EQ(Messages(R"([{"role":"user","content":"a"},{"role":"assistant","content":"b"},)"
                     R"({"role":"system","content":"c"},{"role":"user","content":"d"}])"),
            R"([{"role":"user","content":"a"},{"role":"assistant","content":"b"},)"
            R"({"role":"system","content":"c"},{"role":"user","content":"d"}])");
}

TEST_F(MessagesRequestTest, ToolsThereAndBack) {
  EXPECT_EQ(
      Messages(R"([{"role":"user","content":"a"},
        {"role":"assistant","content":[{"type":"thinking","thinking":"why","signature":"s"},
          {"type":"redacted_thinking","data":"xx"},{"type":"text","text":"I "},{"type":"text","text":"look."},
          {"type":"tool_use","id":"toolu_1","name":"add","input":{"a":1}}]},
        {"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_1","content":"2"},
          {"type":"tool_result","tool_use_id":"toolu_2","is_error":true,
           "content":[{"type":"text","text":"no"},{"type":"text","text":"luck"}]},
          {"type":"tool_result","tool_use_id":"toolu_3"},
          {"type":"text","text":"and?"}]}])"),
      R"([{"role":"user","content":"a"},)"
      R"({"role":"assistant","content":"I look.","reasoning_content":"why","tool_calls":[{"id":"toolu_1",)"
      R"("type":"function","function":{"name":"add","arguments":{"a":1}}}]},)"
      R"({"role":"tool","tool_call_id":"toolu_1","content":"2"},)"
      R"({"role":"tool","tool_call_id":"toolu_2","content":"Error:\nno\nluck"},)"
      R"({"role":"tool","tool_call_id":"toolu_3","content":""},)"
      R"({"role":"user","content":[{"type":"text","text":"and?"}]}])");
  EXPECT_EQ(
      Field(R"(,"tools":[{"name":"add","description":"d","input_schema":{"type":"object"},"type":"custom"}])",
            "tools"),
      R"([{"type":"function","function":{"name":"add","description":"d","parameters":{"type":"object"}}}])");
  EXPECT_EQ(Field(R"(,"tool_choice":{"type":"auto","disable_parallel_tool_use":false})", "tool_choice"),
            R"("auto")");
  EXPECT_EQ(Field(R"(,"tool_choice":{"type":"none"})", "tool_choice"), R"("none")");
}

TEST_F(MessagesRequestTest, PicturesKeepTheirPlaces) {
  auto request = Translate(R"({"max_tokens":9,"system":"s","messages":[{"role":"user","content":[
    {"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"see"},
      {"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}}]},
    {"type":"image","source":{"type":"url","url":"https://example.org/a.png"}}]}]})");
  ASSERT_TRUE(request.ok()) << request.status().message();
  EXPECT_EQ(
      WriteJson(*request->body.Find("messages")),
      R"([{"role":"system","content":"s"},{"role":"tool","tool_call_id":"t","content":[{"type":"text",)"
      R"("text":"see"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]},)"
      R"({"role":"user","content":[{"type":"image_url","image_url":{"url":"https://example.org/a.png"}}]}])");
  const auto restated = [&](const std::string& message) {
    return request->writer->Restate(InvalidArgument(message, "messages")).message();
  };
  EXPECT_EQ(restated("messages[1].content[1].image_url: bad"),
            "messages[0].content[0].content[1].source: bad");
  EXPECT_EQ(restated("messages[2].content[0].image_url: bad"), "messages[0].content[1].source: bad");
  EXPECT_EQ(restated("messages: bad"), "messages: bad");
}

TEST_F(MessagesRequestTest, Documents) {
  EXPECT_EQ(Messages(R"([{"role":"user","content":[
    {"type":"document","title":"T","context":"C","source":{"type":"text","media_type":"text/plain","data":"D"}},
    {"type":"document","source":{"type":"content","content":[{"type":"text","text":"E"}]}},
    {"type":"document","source":{"type":"content","content":"F"}}]}])"),
            R"([{"role":"user","content":[{"type":"text","text":"T\nC\nD"},{"type":"text","text":"E"},)"
            R"({"type":"text","text":"F"}]}])");
  EXPECT_EQ(
      Messages(
          R"([{"role":"user","content":[{"type":"document","source":{"type":"content","content":[]}}]}])"),
      R"([{"role":"user","content":[]}])");
}

TEST_F(MessagesRequestTest, Fields) {
  EXPECT_EQ(Field(R"(,"stop_sequences":["a","b"])", "stop"), R"(["a","b"])");
  EXPECT_EQ(Field(R"(,"stop_sequences":[])", "stop"), "absent");
  EXPECT_EQ(Field(R"(,"min_p":0.5)", "min_p"), "0.5");
  EXPECT_EQ(Field(R"(,"top_k":3)", "top_k"), "3");
  EXPECT_EQ(Field(R"(,"chat_template_kwargs":{"x":1})", "chat_template_kwargs"), R"({"x":1})");
  // What Anthropic takes in good faith has no effect, and a field of its own name is not a note of ours.
  EXPECT_EQ(Field(R"(,"metadata":{"user_id":"u","enable_thinking":true})", "metadata"), "absent");
  EXPECT_EQ(Field(R"(,"service_tier":"auto")", "service_tier"), "absent");
  EXPECT_EQ(
      Field(R"(,"output_config":{"effort":"low"},"cache_control":{"type":"ephemeral"})", "output_config"),
      "absent");
  const auto request =
      Translate(R"({"max_tokens":9,"messages":[{"role":"user","content":"a"}],"n":2,"stop":"x","zz":1})");
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->ignored_fields, (std::vector<std::string>{"n", "stop", "zz"}));
  EXPECT_EQ(request->body.Find("n"), nullptr);
  EXPECT_EQ(request->body.Find("stop"), nullptr);
  service_->strict_requests = true;
  EXPECT_EQ(RefusalOf(R"(,"temprature":1)").param(), "temprature");
  EXPECT_TRUE(RefusalOf(R"(,"temperature":1)").ok());
}

TEST_F(MessagesRequestTest, Thinking) {
  EXPECT_EQ(Field("", "enable_thinking"), "false");
  EXPECT_EQ(Field(R"(,"thinking":{"type":"disabled"})", "enable_thinking"), "false");
  EXPECT_EQ(Field(R"(,"thinking":{"type":"adaptive"})", "enable_thinking"), "absent");
  EXPECT_EQ(Field(R"(,"enable_thinking":true)", "enable_thinking"), "true");
  Status s = RefusalOf(R"(,"thinking":{"type":"enabled","budget_tokens":4})");
  EXPECT_EQ(s.param(), "thinking");
  EXPECT_NE(s.message().find("--reasoning-parser"), std::string::npos);
  ASSERT_TRUE(SetReasoningParser(*service_, "ernie-45-vl").ok());
  const std::string enabled = R"(,"thinking":{"type":"enabled","budget_tokens":4})";
  EXPECT_EQ(Field(enabled, "enable_thinking"), "true");
  EXPECT_EQ(Field(enabled, "reasoning_max_tokens"), "4");
  s = RefusalOf(R"(,"thinking":{"type":"enabled","budget_tokens":9})");
  EXPECT_EQ(s.message(),
            "thinking.budget_tokens must be below max_tokens, which it counts towards; got 9 and 9");
  for (const char* wrong : {R"({"type":"on"})", R"({})", R"({"type":"enabled","budget_tokens":"x"})",
                            R"({"type":"adaptive","display":"no"})", "true"}) {
    EXPECT_EQ(RefusalOf(StrCat(",\"thinking\":", wrong)).param(), "thinking") << wrong;
  }
}

TEST_F(MessagesRequestTest, WhatIsMissing) {
  const auto status = [&](const char* body) { return Translate(body).status(); };
  EXPECT_EQ(status(R"({"messages":[{"role":"user","content":"a"}]})").param(), "max_tokens");
  EXPECT_EQ(status(R"({"max_tokens":0,"messages":[{"role":"user","content":"a"}]})").param(), "max_tokens");
  EXPECT_EQ(status(R"({"max_tokens":9})").param(), "messages");
  EXPECT_EQ(status(R"({"max_tokens":9,"messages":[]})").param(), "messages");
  EXPECT_EQ(status("[]").code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(Translate(R"({"messages":[{"role":"user","content":"a"}]})", MessagesUse::kCount).ok());
  const char* begun = R"({"max_tokens":9,"messages":[{"role":"assistant","content":"a"}]})";
  EXPECT_EQ(status(begun).code(), StatusCode::kUnimplemented);
  EXPECT_TRUE(Translate(begun, MessagesUse::kCount).ok());
}

TEST_F(MessagesRequestTest, RefusedFieldsAreNamed) {
  const std::pair<const char*, const char*> cases[] = {
      {R"(,"tool_choice":{"type":"any"})", "tool_choice"},
      {R"(,"tool_choice":{"type":"tool","name":"add"})", "tool_choice"},
      {R"(,"tool_choice":{"type":"auto","disable_parallel_tool_use":true})", "tool_choice"},
      {R"(,"tool_choice":{"type":"x"})", "tool_choice"},
      {R"(,"tool_choice":"auto")", "tool_choice"},
      {R"(,"container":"c")", "container"},
      {R"(,"mcp_servers":[{"url":"x"}])", "mcp_servers"},
      {R"(,"context_management":{"edits":[]})", "context_management"},
      {R"(,"output_format":{"type":"json_schema"})", "output_format"},
      {R"(,"output_config":{"format":{"type":"json_schema"}})", "output_config"},
      {R"(,"metadata":"me")", "metadata"},
      {R"(,"service_tier":1)", "service_tier"},
      {R"(,"stop_sequences":"a")", "stop_sequences"},
      {R"(,"stop_sequences":[""])", "stop_sequences"},
      {R"(,"stop_sequences":[1])", "stop_sequences"},
      {R"(,"tools":[{"type":"web_search_20250305","name":"web_search"}])", "tools"},
      {R"(,"tools":[{"name":"a","input_schema":{},"strict":true}])", "tools"},
      {R"(,"tools":[{"name":"a"}])", "tools"},
      {R"(,"tools":[{"input_schema":{}}])", "tools"},
      {R"(,"tools":[1])", "tools"},
      {R"(,"tools":{})", "tools"},
      {R"(,"system":1)", "system"},
      {R"(,"system":[{"type":"image","source":{}}])", "system"},
  };
  for (const auto& [fields, param] : cases) EXPECT_EQ(RefusalOf(fields).param(), param) << fields;
  std::string many = "[";
  for (int i = 0; i < 17; ++i) many += StrCat(i > 0 ? "," : "", "\"s\"");
  EXPECT_NE(RefusalOf(StrCat(",\"stop_sequences\":", many, "]")).message().find("--max-stop-strings"),
            std::string::npos);
  EXPECT_NE(RefusalOf(StrCat(",\"stop_sequences\":[\"", std::string(2000, 'x'), "\"]"))
                .message()
                .find("--max-stop-bytes"),
            std::string::npos);
  // Empty ones ask for nothing.
  EXPECT_TRUE(RefusalOf(R"(,"container":null,"mcp_servers":[],"context_management":{})").ok());
}

TEST_F(MessagesRequestTest, RefusedBlocksNameTheirPlace) {
  const std::pair<const char*, const char*> cases[] = {
      {R"("text")", "messages[0] must be an object"},
      {R"({"content":"a"})", "messages[0].role must be"},
      {R"({"role":"tool","content":"a"})", "messages[0].role must be"},
      {R"({"role":"user"})", "messages[0].content is missing"},
      {R"({"role":"user","content":1})", "messages[0].content must be"},
      {R"({"role":"user","content":[]})", "messages[0].content is an empty array"},
      {R"({"role":"user","content":["a"]})", "messages[0].content[0] must be an object"},
      {R"({"role":"user","content":[{}]})", "messages[0].content[0].type is missing"},
      {R"({"role":"user","content":[{"type":"text"}]})", "messages[0].content[0].text must be"},
      {R"({"role":"user","content":[{"type":"tool_use"}]})", "messages[0].content[0].type must be one of"},
      {R"({"role":"user","content":[{"type":"image"}]})", "messages[0].content[0].source must be"},
      {R"({"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/x","data":""}}]})",
       "messages[0].content[0].source.media_type must be one of"},
      {R"({"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png"}}]})",
       "messages[0].content[0].source.data must be"},
      {R"({"role":"user","content":[{"type":"image","source":{"type":"file","file_id":"f"}}]})",
       "messages[0].content[0].source: this server keeps no files"},
      {R"({"role":"user","content":[{"type":"document","source":{"type":"base64","data":""}}]})",
       "messages[0].content[0].source: this server reads no PDF"},
      {R"({"role":"user","content":[{"type":"document"}]})", "messages[0].content[0].source must be"},
      {R"({"role":"user","content":[{"type":"document","citations":{"enabled":true}}]})",
       "messages[0].content[0].citations"},
      {R"({"role":"user","content":[{"type":"search_result"}]})",
       "messages[0].content[0]: blocks of type search_result"},
      {R"({"role":"user","content":[{"type":"tool_result"}]})", "messages[0].content[0].tool_use_id must be"},
      {R"({"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"x"}]}]})",
       "messages[0].content[0].content[0].type must be one of"},
      {R"({"role":"user","content":[{"type":"tool_result","tool_use_id":"t","is_error":1}]})",
       "messages[0].content[0].is_error must be"},
      {R"({"role":"assistant","content":[{"type":"image"}]})", "messages[0].content[0].type must be one of"},
      {R"({"role":"assistant","content":[{"type":"tool_use","id":"t","name":"n","input":"x"}]})",
       "messages[0].content[0].input must be"},
      {R"({"role":"assistant","content":[{"type":"web_search_tool_result"}]})",
       "messages[0].content[0]: blocks of type web_search_tool_result"},
  };
  for (const auto& [message, begin] : cases) {
    const Status s = Refusal(StrCat("[", message, "]"));
    EXPECT_EQ(s.param(), "messages") << message;
    EXPECT_TRUE(s.message().starts_with(begin)) << message << ": " << s.message();
  }
}

}  // namespace
}  // namespace fd
