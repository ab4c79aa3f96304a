// Every field of a request: what is taken, what is refused, and what the refusal says.
#include <gtest/gtest.h>

#include "base/strings.h"
#include "server/openai/errors.h"
#include "server/openai/fakes_for_tests.h"
#include "server/openai/generation.h"

namespace fd {
namespace {

class RequestTest : public ::testing::Test {
 protected:
  // Submits and returns what the engine got; the first request is the first choice.
  StatusOr<std::vector<GenerateRequest>> Submit(ApiEndpoint endpoint, std::string_view body) {
    FD_ASSIGN_OR_RETURN(auto generation, Generation::Prepare(*service_, endpoint, body));
    const size_t before = engine_.seen().size();
    FD_RETURN_IF_ERROR(generation->Submit([](int, TokenEvent&&) {}));
    auto seen = engine_.seen();
    seen.erase(seen.begin(), seen.begin() + static_cast<int64_t>(before));
    return seen;
  }
  GenerateRequest Completion(const std::string& fields) {
    auto r = Submit(ApiEndpoint::kCompletions, "{\"prompt\":\"ab\"" + fields + "}");
    EXPECT_TRUE(r.ok()) << r.status().message();
    return r.ok() ? r->front() : GenerateRequest{};
  }
  std::string ChatPrompt(const std::string& body) {
    auto r = Submit(ApiEndpoint::kChat, body);
    EXPECT_TRUE(r.ok()) << r.status().message();
    return r.ok() ? service_->tokenizer->Decode(r->front().token_ids, true) : "";
  }
  ApiError Refused(ApiEndpoint endpoint, const std::string& body) {
    auto r = Generation::Prepare(*service_, endpoint, std::string_view(body));
    EXPECT_FALSE(r.ok()) << body;
    return r.ok() ? ApiError{} : ToApiError(r.status());
  }

  ScriptedEngine engine_{"hello"};
  std::shared_ptr<Service> service_ = TestService(engine_);
};

TEST_F(RequestTest, DefaultsComeFromTheModel) {
  service_->defaults = {.temperature = 0.2f, .top_p = 0.8f, .top_k = 5, .min_p = 0.0f};
  const GenerateRequest r = Completion("");
  EXPECT_EQ(r.token_ids, (std::vector<int32_t>{'a', 'b'}));
  EXPECT_FLOAT_EQ(r.sampling.temperature, 0.2f);
  EXPECT_FLOAT_EQ(r.sampling.top_p, 0.8f);
  EXPECT_EQ(r.sampling.top_k, 5);
  EXPECT_EQ(r.sampling.max_tokens, 510);  // what remains of 512
}

TEST_F(RequestTest, SamplingFieldsReachTheEngine) {
  const GenerateRequest r = Completion(
      R"(,"temperature":0.5,"top_p":0.25,"top_k":7,"min_p":0.125,"seed":-1,"max_tokens":3,"ignore_eos":true,
         "stop_token_ids":[1,258])");
  EXPECT_FLOAT_EQ(r.sampling.temperature, 0.5f);
  EXPECT_FLOAT_EQ(r.sampling.top_p, 0.25f);
  EXPECT_FLOAT_EQ(r.sampling.min_p, 0.125f);
  EXPECT_EQ(r.sampling.top_k, 7);
  EXPECT_EQ(r.sampling.seed, ~uint64_t{0});
  EXPECT_EQ(r.sampling.max_tokens, 3);
  EXPECT_TRUE(r.sampling.ignore_eos);
  EXPECT_EQ(r.sampling.stop_token_ids, (std::vector<int32_t>{1, 258}));
}

TEST_F(RequestTest, NullMeansDefaultAndWholeNumbersMayHaveAFraction) {
  const GenerateRequest r = Completion(
      R"(,"temperature":null,"top_k":-1,"max_tokens":4.0,"stop":null,"n":null,"logprobs":null,"seed":null)");
  EXPECT_EQ(r.sampling.top_k, 0);
  EXPECT_EQ(r.sampling.max_tokens, 4);
  EXPECT_FLOAT_EQ(Completion(R"(,"temperature":0.000001)").sampling.temperature, 0.0f);
  EXPECT_GT(Completion(R"(,"top_p":0)").sampling.top_p, 0.0f);
}

TEST_F(RequestTest, MaxTokensIsCutToWhatRemains) {
  EXPECT_EQ(Completion(R"(,"max_tokens":512)").sampling.max_tokens, 510);
  EXPECT_EQ(Completion(R"(,"max_tokens":5,"max_completion_tokens":6)").sampling.max_tokens, 6);
}

TEST_F(RequestTest, SeedsOfChoicesDiffer) {
  auto r = Submit(ApiEndpoint::kCompletions, R"({"prompt":"ab","n":3,"seed":7})");
  ASSERT_TRUE(r.ok());
  ASSERT_EQ(r->size(), 3u);
  for (uint64_t k = 0; k < 3; ++k) EXPECT_EQ((*r)[k].sampling.seed, 7 + k);
  EXPECT_NE(Completion("").sampling.seed, Completion("").sampling.seed);
}

TEST_F(RequestTest, NeutralValuesOfComingFieldsAreTaken) {
  auto r = Submit(ApiEndpoint::kCompletions,
                  R"({"prompt":"ab","frequency_penalty":0,"presence_penalty":0.0,"repetition_penalty":1,
      "logit_bias":{},"min_tokens":0,"suffix":"","best_of":1,"bad_words":[],"response_format":{"type":"text"},
      "tool_choice":"auto","guided_json":null,"an_unknown_field":[1,{"x":2}],"user":"someone","metadata":{"a":"b"}})");
  EXPECT_TRUE(r.ok()) << r.status().message();
}

struct BadCase {
  const char* fields;
  const char* param;
  const char* message;  // a part of it
};

TEST_F(RequestTest, BadFieldsAreRefusedByName) {
  const BadCase cases[] = {
      {R"("temperature":-0.1)", "temperature", "from 0 to 100; got -0.1"},
      {R"("temperature":"hot")", "temperature", "got \"hot\" (a string)"},
      {R"("temperature":true)", "temperature", "got true"},
      {R"("temperature":1e308)", "temperature", "from 0 to 100"},
      {R"("top_p":1.1)", "top_p", "from 0 to 1"},
      {R"("top_p":[1])", "top_p", "an array of 1"},
      {R"("top_k":-2)", "top_k", "-1"},
      {R"("top_k":1.5)", "top_k", "1.5"},
      {R"("min_p":2)", "min_p", "from 0 to 1"},
      {R"("seed":1.5)", "seed", "64-bit integer"},
      {R"("seed":18446744073709551615)", "seed", "64-bit integer"},
      {R"("max_tokens":0)", "max_tokens", "from 1 to 512"},
      {R"("max_tokens":2147483648)", "max_tokens", "from 1 to 512"},
      {R"("max_tokens":"1")", "max_tokens", "a string"},
      {R"("max_completion_tokens":-1)", "max_completion_tokens", "-1"},
      {R"("n":0)", "n", "from 1 to 128"},
      {R"("n":1000000000)", "n", "from 1 to 128"},
      {R"("stop":"")", "stop", "empty"},
      {R"("stop":["a",1])", "stop", "array of strings"},
      {R"("stop":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17])", "stop", "--max-stop-strings"},
      {R"("stop_token_ids":[-1])", "stop_token_ids", "from 0 to 258; got -1"},
      {R"("stop_token_ids":[259])", "stop_token_ids", "got 259"},
      {R"("stop_token_ids":7)", "stop_token_ids", "array of token ids"},
      {R"("stream":1)", "stream", "true or false"},
      {R"("stream_options":{"include_usage":true})", "stream_options", "\"stream\": true"},
      {R"("model":7)", "model", "a string"},
      {R"("user":"a\nb")", "user", "control"},
      {R"("request_id":"a\r\nX-Evil: 1")", "request_id", "control"},
      {R"("frequency_penalty":3)", "frequency_penalty", "from -2 to 2"},
      {R"("prompt_logprobs":-1)", "prompt_logprobs", "from 0 to 20; got -1 (--max-logprobs)"},
      {R"("response_format":{"type":"json_object"})", "response_format", "still to come"},
      {R"("guided_regex":"a+")", "guided_regex", "still to come"},
      {R"("best_of":4)", "best_of", "set it to n (1)"},
      {R"("suffix":"end")", "suffix", "still to come"},
      {R"("reasoning_max_tokens":10)", "reasoning_max_tokens", "--reasoning-parser ernie-45-vl"},
      {R"("reasoning_max_tokens":0)", "reasoning_max_tokens", "at least 1"},
      {R"("tool_choice":"required")", "tool_choice", "structured output"},
      {R"("tool_choice":{"type":"function","function":{"name":"f"}})", "tool_choice", "structured output"},
      {R"("tool_choice":"requird")", "tool_choice", "\"required\" or a function"},
      {R"("parallel_tool_calls":false)", "parallel_tool_calls", "structured output"},
  };
  for (const BadCase& c : cases) {
    const ApiError e =
        Refused(ApiEndpoint::kCompletions, std::string("{\"prompt\":\"ab\",") + c.fields + "}");
    EXPECT_EQ(e.http_status, 400) << c.fields;
    EXPECT_EQ(e.type, "invalid_request_error") << c.fields;
    EXPECT_EQ(e.param, c.param) << c.fields;
    EXPECT_NE(e.message.find(c.message), std::string::npos) << c.fields << "\n" << e.message;
  }
}

TEST_F(RequestTest, BadBodies) {
  for (const char* body :
       {"", "{", "[]", "null", "\"text\"", "{\"prompt\":\"a\"} x", "{\"prompt\":\"a\",\"prompt\":\"b\"}",
        "{\"prompt\":\"\\ud83d\"}", "{\"prompt\":\"\xff\"}", "{\"temperature\":NaN}"}) {
    EXPECT_EQ(Refused(ApiEndpoint::kCompletions, body).http_status, 400) << body;
  }
  EXPECT_EQ(Refused(ApiEndpoint::kCompletions, std::string(3000, '[')).http_status, 400);
}

TEST_F(RequestTest, PromptForms) {
  const auto ids = [&](const std::string& prompt) {
    auto r = Submit(ApiEndpoint::kCompletions, "{\"prompt\":" + prompt + "}");
    std::vector<std::vector<int32_t>> out;
    EXPECT_TRUE(r.ok()) << r.status().message();
    if (r.ok()) {
      for (const auto& g : *r) out.push_back(g.token_ids);
    }
    return out;
  };
  using Ids = std::vector<std::vector<int32_t>>;
  EXPECT_EQ(ids("\"ab\""), (Ids{{'a', 'b'}}));
  EXPECT_EQ(ids("[\"ab\",\"c\"]"), (Ids{{'a', 'b'}, {'c'}}));
  EXPECT_EQ(ids("[1,2,3]"), (Ids{{1, 2, 3}}));
  EXPECT_EQ(ids("[[1],[2,3]]"), (Ids{{1}, {2, 3}}));
  for (const char* bad : {"\"\"", "[]", "[[]]", "[\"\"]", "{}", "5", "[1,\"a\"]", "[\"a\",1]", "[[1],\"a\"]",
                          "[-1]", "[259]", "[2147483648]", "[[1],[259]]", "[[[1]]]", "[null]"}) {
    const ApiError e = Refused(ApiEndpoint::kCompletions, std::string("{\"prompt\":") + bad + "}");
    EXPECT_EQ(e.http_status, 400) << bad;
    EXPECT_EQ(e.param, "prompt") << bad;
  }
  EXPECT_EQ(Refused(ApiEndpoint::kCompletions, "{}").param, "prompt");
  EXPECT_NE(Refused(ApiEndpoint::kCompletions, R"({"prompt":["a","b"],"n":65})").message.find("130 choices"),
            std::string::npos);
}

TEST_F(RequestTest, TooLongAPromptNamesBothNumbers) {
  for (const auto& [endpoint, body] :
       {std::pair{ApiEndpoint::kCompletions, "{\"prompt\":\"" + std::string(600, 'x') + "\"}"},
        std::pair{ApiEndpoint::kChat,
                  "{\"messages\":[{\"role\":\"user\",\"content\":\"" + std::string(600, 'x') + "\"}]}"}}) {
    const ApiError e = Refused(endpoint, body);
    EXPECT_EQ(e.http_status, 400);
    EXPECT_EQ(e.code, "context_length_exceeded");
    EXPECT_NE(e.message.find("512 tokens"), std::string::npos) << e.message;
    EXPECT_NE(e.message.find("has 6"), std::string::npos) << e.message;
    EXPECT_TRUE(e.message.ends_with(StrCat("Shorten the ", e.param, "."))) << e.message;
    EXPECT_EQ(e.param, endpoint == ApiEndpoint::kChat ? "messages" : "prompt");
  }
}

TEST_F(RequestTest, ModelNames) {
  Completion(R"(,"model":"whatever")");  // not checked without --served-model-name
  service_->check_model_name = true;
  Completion(R"(,"model":"tiny")");
  Completion(R"(,"model":"default")");
  const ApiError e = Refused(ApiEndpoint::kCompletions, R"({"prompt":"a","model":"gpt-4"})");
  EXPECT_EQ(e.http_status, 404);
  EXPECT_EQ(e.code, "model_not_found");
}

TEST_F(RequestTest, MessagesBecomeThePrompt) {
  EXPECT_EQ(ChatPrompt(R"({"messages":[{"role":"developer","content":"Be kind."},{"role":"user","content":
      [{"type":"text","text":"one"},{"type":"text","text":"two"}]}]})"),
            "system: Be kind.\nuser: one\ntwo\nbot: <think></think>");
  EXPECT_EQ(ChatPrompt(R"({"messages":[{"role":"user","content":"a"}],"enable_thinking":true})"),
            "user: a\nbot: <think>");
  EXPECT_EQ(ChatPrompt(R"({"messages":[{"role":"user","content":"a"}],"metadata":{"enable_thinking":true},
      "chat_template_kwargs":{"enable_thinking":false}})"),
            "user: a\nbot: <think></think>");
  EXPECT_EQ(ChatPrompt(R"({"messages":[{"role":"user","content":"a"}],
      "chat_template_kwargs":{"options":{"thinking_mode":"open"}}})"),
            "user: a\nbot: <think>");
  service_->thinking_by_default = true;
  EXPECT_EQ(ChatPrompt(R"({"messages":[{"role":"user","content":"a"}]})"), "user: a\nbot: <think>");
}

TEST_F(RequestTest, ToolsReachTheTemplate) {
  const std::string tools =
      R"("tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}])";
  EXPECT_NE(
      ChatPrompt("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]," + tools + "}").find("TOOLS [{"),
      std::string::npos);
  EXPECT_EQ(ChatPrompt("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"tool_choice\":\"none\"," +
                       tools + "}")
                .find("TOOLS"),
            std::string::npos);
  EXPECT_EQ(
      Refused(ApiEndpoint::kChat, R"({"messages":[{"role":"user","content":"a"}],"tools":[{"type":"x"}]})")
          .param,
      "tools");
  EXPECT_EQ(Refused(ApiEndpoint::kChat,
                    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"tool_choice\":\"required\"," +
                        tools + "}")
                .param,
            "tool_choice");
}

TEST_F(RequestTest, BadMessages) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({})", "messages is missing"},
      {R"({"messages":[]})", "empty array"},
      {R"({"messages":{}})", "an array"},
      {R"({"messages":"hi"})", "an array"},
      {R"({"messages":[1]})", "messages[0] must be an object"},
      {R"({"messages":[{"content":"x"}]})", "messages[0].role"},
      {R"({"messages":[{"role":"wizard","content":"x"}]})", "got \"wizard\""},
      {R"({"messages":[{"role":"user"}]})", "messages[0].content is missing"},
      {R"({"messages":[{"role":"user","content":null}]})", "messages[0].content is missing"},
      {R"({"messages":[{"role":"user","content":7}]})", "a string or an array of parts"},
      {R"({"messages":[{"role":"user","content":[7]}]})", "messages[0].content[0] must be an object"},
      {R"({"messages":[{"role":"user","content":[{"text":"x"}]}]})", "content[0].type"},
      {R"({"messages":[{"role":"user","content":[{"type":"text"}]}]})", "content[0].text"},
      {R"({"messages":[{"role":"user","content":[{"type":"smell","smell":"x"}]}]})", "got \"smell\""},
      {R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:,"}}]}]})",
       "takes no pictures"},
      {R"({"messages":[{"role":"user","content":[{"type":"video_url","video_url":{"url":"x"}}]}]})",
       "video_url"},
      {R"({"messages":[{"role":"user","content":"a"}],"chat_template_kwargs":7})", "chat_template_kwargs"},
      {R"({"messages":[{"role":"user","content":"a"}],"chat_template":"{{ 1 }}"})", "chat_template"},
      {R"({"messages":[{"role":"user","content":"a"}],"enable_thinking":"yes"})", "enable_thinking"},
      {R"({"messages":[{"role":"user","content":"a"}],"prompt_logprobs":21})", "logprobs"},
      {R"({"messages":[{"role":"user","content":"a"}],"top_logprobs":5})", "top_logprobs"},
      {R"({"messages":[{"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f","arguments":"{"}}]}]})",
       "arguments is no JSON"},
  };
  for (const auto& [body, message] : cases) {
    const ApiError e = Refused(ApiEndpoint::kChat, body);
    EXPECT_EQ(e.http_status, 400) << body;
    EXPECT_FALSE(e.param.empty()) << body;
    EXPECT_NE(e.message.find(message), std::string::npos) << body << "\n" << e.message;
  }
}

TEST_F(RequestTest, PicturesAreCountedBeforeTheyAreRead) {
  service_->media = MediaConfig{};
  const std::string part = R"({"type":"image_url","image_url":{"url":"data:image/png;base64,!!"}})";
  const std::string head = R"({"messages":[{"role":"user","content":[)";
  ApiError e = Refused(ApiEndpoint::kChat, head + part + "," + part + "]}]}");
  EXPECT_EQ(e.http_status, 400);
  EXPECT_NE(e.message.find("--limit-mm-per-prompt"), std::string::npos) << e.message;
  e = Refused(ApiEndpoint::kChat, head + R"({"type":"image_url","image_url":7}]}]})");
  EXPECT_NE(e.message.find("needs a URL"), std::string::npos) << e.message;
}

TEST_F(RequestTest, TemplateOfTheRequest) {
  const std::string messages = R"({"messages":[{"role":"user","content":"a"}])";
  const std::string own = messages + R"(,"chat_template":"<{{ messages[0].content }}{{ x }}>")";
  ApiError e = Refused(ApiEndpoint::kChat, own + "}");
  EXPECT_EQ(e.param, "chat_template");
  EXPECT_NE(e.message.find("--trust-request-chat-template"), std::string::npos);
  service_->trust_request_chat_template = true;
  service_->default_template_kwargs = JsonObject{{"x", "d"}};
  EXPECT_EQ(ChatPrompt(own + "}"), "<ad>");
  EXPECT_EQ(ChatPrompt(own + R"(,"chat_template_kwargs":{"x":"r"}})"), "<ar>");
  EXPECT_EQ(ChatPrompt(messages + R"(,"chat_template":null})"), ChatPrompt(messages + "}"));
  for (const char* bad : {"{{", "{{ raise_exception('no') }}", "{% for i in range(10**9) %}{% endfor %}",
                          "{{ 'x' * 10**10 }}", "{{ 1 // 0 }}"}) {
    e = Refused(ApiEndpoint::kChat, messages + ",\"chat_template\":\"" + bad + "\"}");
    EXPECT_EQ(e.http_status, 400) << bad;
    EXPECT_EQ(e.param, "chat_template") << bad << ": " << e.message;
  }
  service_->limits.max_chat_template_bytes = 20;
  e = Refused(ApiEndpoint::kChat, own + "}");
  EXPECT_NE(e.message.find("at most 20 are allowed (--max-chat-template-bytes)"), std::string::npos);
  // A model without one can be served with those of requests.
  service_->limits.max_chat_template_bytes = 1000;
  service_->chat_template.reset();
  EXPECT_EQ(ChatPrompt(own + "}"), "<ad>");
}

TEST_F(RequestTest, Documents) {
  const std::string body = R"({"messages":[{"role":"user","content":"a"}],"documents":)";
  ApiError e = Refused(ApiEndpoint::kChat, body + R"([{"text":"x"}]})");
  EXPECT_EQ(e.param, "documents");
  EXPECT_NE(e.message.find("does not read them"), std::string::npos);
  EXPECT_FALSE(ChatPrompt(body + "[]}").empty());
  auto reads =
      ChatTemplate::FromSource("{% for d in documents or [] %}{{ d.text }},{% endfor %}.", JsonObject{});
  service_->chat_template = std::move(reads).value();
  EXPECT_EQ(ChatPrompt(body + R"([{"text":"x"},{"text":"y"}]})"), "x,y,.");
  EXPECT_EQ(ChatPrompt(body + "null}"), ".");
  EXPECT_EQ(Refused(ApiEndpoint::kChat, body + "[1]}").param, "documents");
  service_->limits.max_documents = 1;
  e = Refused(ApiEndpoint::kChat, body + R"([{"text":"x"},{"text":"y"}]})");
  EXPECT_NE(e.message.find("--max-documents"), std::string::npos);
}

TEST_F(RequestTest, NoChatTemplate) {
  service_->chat_template.reset();
  service_->chat_template_error = "no chat_template.jinja";
  const ApiError e = Refused(ApiEndpoint::kChat, R"({"messages":[{"role":"user","content":"a"}]})");
  EXPECT_NE(e.message.find("/v1/completions"), std::string::npos);
}

TEST(ErrorsTest, EveryCodeHasOneStatus) {
  const std::pair<StatusCode, int> cases[] = {
      {StatusCode::kInvalidArgument, 400},   {StatusCode::kUnauthenticated, 401},
      {StatusCode::kNotFound, 404},          {StatusCode::kDeadlineExceeded, 408},
      {StatusCode::kPayloadTooLarge, 413},   {StatusCode::kUnsupportedMedia, 415},
      {StatusCode::kResourceExhausted, 429}, {StatusCode::kUnimplemented, 400},
      {StatusCode::kUnavailable, 503},       {StatusCode::kInternal, 500}};
  for (const auto& [code, http_status] : cases)
    EXPECT_EQ(ToApiError(Status(code, "x")).http_status, http_status);
  EXPECT_EQ(
      ErrorJson(InvalidArgument("bad \"x\"", "n")),
      R"({"error":{"message":"bad \"x\"","type":"invalid_request_error","param":"n","code":"invalid_value"}})");
  EXPECT_EQ(ErrorJson(Internal("x")),
            R"({"error":{"message":"x","type":"server_error","param":null,"code":"internal_error"}})");
}

TEST(ReasoningParserTest, Names) {
  ScriptedEngine engine("x");
  auto service = TestService(engine);
  EXPECT_TRUE(SetReasoningParser(*service, "ernie-45-vl").ok());
  EXPECT_EQ(service->think_end_id, ByteTokenizer::kThinkEnd);
  EXPECT_TRUE(SetReasoningParser(*service, "").ok());
  EXPECT_EQ(service->think_end_id, -1);
  EXPECT_EQ(service->reasoning_format, ReasoningFormat::kNone);
  EXPECT_FALSE(SetReasoningParser(*service, "qwen9").ok());
  EXPECT_TRUE(SetToolParser(*service, "hermes").ok());
  EXPECT_EQ(service->tool_format, ToolFormat::kHermes);
  EXPECT_FALSE(SetToolParser(*service, "herms").ok());
}

TEST(ReasoningParserTest, TextThatEndsAThought) {
  ScriptedEngine engine("x");
  auto service = TestService(engine);
  const auto set = [&](const char* text) {
    setenv("FD_LIMIT_THINKING_CONTENT_TRUNCATE_STR", text, 1);
    const Status s = SetReasoningParser(*service, "ernie-x1");
    unsetenv("FD_LIMIT_THINKING_CONTENT_TRUNCATE_STR");
    return s;
  };
  const int32_t end = ByteTokenizer::kThinkEnd;
  ASSERT_TRUE(set("").ok());
  EXPECT_EQ(service->think_end_ids, std::vector<int32_t>({end}));
  ASSERT_TRUE(set("\\n</think>\n\\n").ok());
  EXPECT_EQ(service->think_end_ids, std::vector<int32_t>({10, end, 10, 10}));
  EXPECT_NE(set("enough").message().find("must hold </think>"), std::string::npos);
}

}  // namespace
}  // namespace fd
