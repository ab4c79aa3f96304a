// Events to text and reply objects: reasoning, stop strings, usage, shapes.
#include "server/openai/generation.h"
#include "server/openai/openai_writer.h"

#include <gtest/gtest.h>

#include <map>

#include "base/strings.h"
#include "base/utf8.h"
#include "server/openai/fakes_for_tests.h"

namespace fd {
namespace {

TokenEvent Tokens(std::vector<int32_t> ids) {
  TokenEvent e;
  e.token_ids = std::move(ids);
  return e;
}
TokenEvent Text(std::string_view text) {
  TokenEvent e;
  for (char c : text) e.token_ids.push_back(static_cast<uint8_t>(c));
  return e;
}
TokenEvent Ended(TokenEvent e, FinishReason reason, bool by_end_token = false) {
  e.finish_reason = reason;
  e.stopped_by_end_token = by_end_token;
  return e;
}

class GenerationTest : public ::testing::Test {
 protected:
  // The engine stays silent; events come from the test.
  void SetUp() override { engine_.SetSilent(true); }
  std::unique_ptr<Generation> Start(ApiEndpoint endpoint, std::string_view body) {
    auto g = Generation::Prepare(*service_, endpoint, body);
    FD_CHECK(g.ok(), g.status().message());
    FD_CHECK((*g)->Submit([](int, TokenEvent&&) {}).ok());
    return std::move(g).value();
  }
  std::unique_ptr<Generation> Complete(const std::string& fields) {
    return Start(ApiEndpoint::kCompletions, "{\"prompt\":\"ab\"" + fields + "}");
  }
  std::unique_ptr<Generation> Chat(const std::string& fields) {
    return Start(ApiEndpoint::kChat, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]" + fields + "}");
  }
  static Json Parsed(const std::string& text) {
    auto json = ParseJson(text);
    FD_CHECK(json.ok(), text);
    return std::move(json).value();
  }

  ScriptedEngine engine_{"hello"};
  std::shared_ptr<Service> service_ = TestService(engine_);
};

TEST_F(GenerationTest, CompletionReply) {
  auto g = Complete(R"(,"max_tokens":9)");
  EXPECT_EQ(g->Push(0, Text("hel")).content, "hel");
  EXPECT_FALSE(g->finished());
  auto last = Text("lo");
  last.token_ids.push_back(ByteTokenizer::kEnd);
  last.cached_tokens = 1;
  const Delta delta = g->Push(0, Ended(last, FinishReason::kStop, true));
  EXPECT_EQ(delta.content, "lo");
  EXPECT_EQ(delta.finish_reason, "stop");
  EXPECT_TRUE(g->finished());
  const Json reply = Parsed(ReplyJson(*g));
  EXPECT_TRUE(reply.Find("id")->as_string().starts_with("cmpl-"));
  EXPECT_EQ(reply.Find("object")->as_string(), "text_completion");
  EXPECT_EQ(reply.Find("model")->as_string(), "tiny");
  const Json& choice = reply.Find("choices")->as_array()[0];
  EXPECT_EQ(choice.Find("text")->as_string(), "hello");
  EXPECT_EQ(choice.Find("finish_reason")->as_string(), "stop");
  EXPECT_TRUE(choice.Find("logprobs")->is_null());
  const Json* usage = reply.Find("usage");
  EXPECT_EQ(usage->Find("prompt_tokens")->as_int(), 2);
  EXPECT_EQ(usage->Find("completion_tokens")->as_int(), 6);
  EXPECT_EQ(usage->Find("total_tokens")->as_int(), 8);
  EXPECT_NE(usage->Find("prompt_tokens_details")->Find("cached_tokens"), nullptr);
}

TEST_F(GenerationTest, LengthFlushesWhatWasHeld) {
  auto g = Complete(R"(,"stop":"xyz","max_tokens":3)");
  EXPECT_EQ(g->Push(0, Text("ax")).content, "a");
  const Delta delta = g->Push(0, Ended(Text("y"), FinishReason::kLength));
  EXPECT_EQ(delta.content, "xy");
  EXPECT_EQ(delta.finish_reason, "length");
}

TEST_F(GenerationTest, StopStringEndsTheSequenceInTheEngine) {
  auto g = Complete(R"(,"stop":["STOP"])");
  ASSERT_TRUE(engine_.WaitRunning(1));
  EXPECT_EQ(g->Push(0, Text("one ST")).content, "one ");
  const Delta delta = g->Push(0, Text("OP two"));
  EXPECT_EQ(delta.content, "");
  EXPECT_EQ(delta.finish_reason, "stop");
  EXPECT_TRUE(g->finished());
  EXPECT_TRUE(engine_.WaitRunning(0));
  EXPECT_EQ(engine_.aborts(), 1);
  EXPECT_TRUE(g->Push(0, Ended({}, FinishReason::kAborted)).empty());
  EXPECT_TRUE(g->status().ok());
  EXPECT_EQ(g->usage().completion_tokens, 8);  // up to the stop string's last token
}

TEST_F(GenerationTest, StopStringInTheOutput) {
  auto g = Complete(R"(,"stop":"STOP","include_stop_str_in_output":true)");
  EXPECT_EQ(g->Push(0, Text("oneSTOPtwo")).content, "oneSTOP");
}

TEST_F(GenerationTest, ReasoningIsSplitAtItsToken) {
  ASSERT_TRUE(SetReasoningParser(*service_, "ernie-45-vl").ok());
  auto g = Chat(R"(,"chat_template_kwargs":{"enable_thinking":true})");
  Delta d = g->Push(0, Text("think"));
  EXPECT_EQ(d.reasoning_content, "think");
  EXPECT_EQ(d.content, "");
  auto both = Text("ing");
  both.token_ids.push_back(ByteTokenizer::kThinkEnd);
  both.token_ids.push_back('A');
  d = g->Push(0, std::move(both));
  EXPECT_EQ(d.reasoning_content, "ing");
  EXPECT_EQ(d.content, "A");
  d = g->Push(0, Ended(Text("ns"), FinishReason::kLength));
  EXPECT_EQ(d.content, "ns");
  const Json reply = Parsed(ReplyJson(*g));
  const Json* message = reply.Find("choices")->as_array()[0].Find("message");
  EXPECT_EQ(message->Find("role")->as_string(), "assistant");
  EXPECT_EQ(message->Find("reasoning_content")->as_string(), "thinking");
  EXPECT_EQ(message->Find("content")->as_string(), "Ans");
  EXPECT_EQ(reply.Find("usage")->Find("completion_tokens_details")->Find("reasoning_tokens")->as_int(), 9);
}

TEST_F(GenerationTest, ReasoningThatNeverEndsIsReasoning) {
  ASSERT_TRUE(SetReasoningParser(*service_, "ernie-45-vl").ok());
  auto g = Chat(R"(,"enable_thinking":true)");
  g->Push(0, Ended(Text("hmm"), FinishReason::kLength));
  const Json reply = Parsed(ReplyJson(*g));
  const Json* message = reply.Find("choices")->as_array()[0].Find("message");
  EXPECT_EQ(message->Find("reasoning_content")->as_string(), "hmm");
  EXPECT_EQ(message->Find("content")->as_string(), "");
}

TEST_F(GenerationTest, WithoutThinkingOrParserAllIsContent) {
  ASSERT_TRUE(SetReasoningParser(*service_, "ernie-45-vl").ok());
  EXPECT_EQ(Chat("")->Push(0, Text("x")).content, "x");
  ASSERT_TRUE(SetReasoningParser(*service_, "").ok());
  EXPECT_EQ(Chat(R"(,"enable_thinking":true)")->Push(0, Text("x")).content, "x");
}

TEST_F(GenerationTest, ThinkingBudget) {
  const auto budget = [&](const std::string& fields) {
    auto g = Chat(R"(,"max_tokens":100,"enable_thinking":true)" + fields);
    return engine_.seen().back().sampling.thinking;
  };
  EXPECT_EQ(budget("").max_tokens, 0);
  EXPECT_FALSE(Generation::Prepare(*service_, ApiEndpoint::kChat,
                                   std::string_view(R"({"messages":[{"role":"user","content":"a"}],
                                   "reasoning_max_tokens":5})"))
                   .ok());
  ASSERT_TRUE(SetReasoningParser(*service_, "ernie-45-vl").ok());
  EXPECT_EQ(budget("").max_tokens, 80);
  EXPECT_EQ(budget(R"(,"reasoning_max_tokens":7)").max_tokens, 7);
  EXPECT_EQ(budget(R"(,"metadata":{"reasoning_max_tokens":6})").max_tokens, 6);
  EXPECT_EQ(budget(R"(,"reasoning_max_tokens":7,"metadata":{"reasoning_max_tokens":6})").max_tokens, 7);
  EXPECT_EQ(budget("").end_token_id, ByteTokenizer::kThinkEnd);
  EXPECT_EQ(budget("").forced_ids, std::vector<int32_t>({ByteTokenizer::kThinkEnd}));
  EXPECT_EQ(budget(R"(,"chat_template_kwargs":{"enable_thinking":false})").max_tokens, 0);
}

// Everything a client sees of a choice, put together again from the chunks.
struct Seen {
  std::string reasoning, content, calls, finish;
  bool operator==(const Seen&) const = default;
};

TEST_F(GenerationTest, ToolCallsStreamedOrNot) {
  ASSERT_TRUE(SetReasoningParser(*service_, "ernie-45-vl-thinking").ok());
  const std::string call = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>";
  const std::string texts[] = {call,
                               "\n\n" + call + "\n" + call,
                               "two < three",
                               "so: " + call,
                               "<tool_call>{\"name\": 1}</tool_call>",
                               "<tool_call>{\"na"};
  const std::string tools = R"(,"tools":[{"type":"function","function":{"name":"add"}}])";
  for (const char* parser : {"", "ernie-x1", "ernie-45-vl-thinking", "hermes"}) {
    ASSERT_TRUE(SetToolParser(*service_, parser).ok());
    for (const std::string& text : texts) {
      for (const bool thinks : {false, true}) {
        for (const char* choice : {"", R"(,"tool_choice":"none")"}) {
          const std::string fields = StrCat(tools, choice, ",\"enable_thinking\":", thinks);
          TokenEvent all = thinks ? Text("why") : TokenEvent{};
          if (thinks) all.token_ids.push_back(ByteTokenizer::kThinkEnd);
          for (char c : text) all.token_ids.push_back(static_cast<uint8_t>(c));
          const int64_t count = std::ssize(all.token_ids);

          auto whole = Chat(fields);
          whole->Push(0, Ended(all, FinishReason::kStop));
          const Json reply = Parsed(ReplyJson(*whole));
          const Json& got = reply.Find("choices")->as_array()[0];
          const Json& message = *got.Find("message");
          Seen seen;
          if (thinks) seen.reasoning = message.Find("reasoning_content")->as_string();
          EXPECT_TRUE(thinks || message.Find("reasoning_content")->is_null());
          if (!message.Find("content")->is_null()) seen.content = message.Find("content")->as_string();
          if (const Json& calls = *message.Find("tool_calls"); !calls.is_null()) {
            EXPECT_EQ(seen.content.empty(), message.Find("content")->is_null());
            for (const Json& c : calls.as_array()) {
              EXPECT_EQ(c.Find("type")->as_string(), "function");
              EXPECT_TRUE(c.Find("id")->as_string().starts_with("chatcmpl-tool-"));
              seen.calls += StrCat(c.Find("function")->Find("name")->as_string(),
                                   c.Find("function")->Find("arguments")->as_string());
            }
          }
          seen.finish = got.Find("finish_reason")->as_string();
          EXPECT_EQ(seen.finish, seen.calls.empty() ? "stop" : "tool_calls");
          const bool parsed = *parser != '\0' && *choice == '\0';
          EXPECT_TRUE(parsed || seen.calls.empty());
          if (parsed && text == call) {
            EXPECT_EQ(seen.calls, "add{\"a\": 1}");
          }
          EXPECT_EQ(whole->usage().reasoning_tokens, thinks ? 4 : 0);
          EXPECT_EQ(whole->usage().completion_tokens, count);

          auto streamed = Chat(fields + R"(,"stream":true)");
          Seen pieces;
          int begun = 0;
          for (int64_t i = 0; i < count; ++i) {
            TokenEvent one = Tokens({all.token_ids[static_cast<size_t>(i)]});
            if (i + 1 == count) one = Ended(one, FinishReason::kStop);
            const Delta delta = streamed->Push(0, std::move(one));
            for (const std::string& chunk : ChunksJson(*streamed, 0, delta)) {
              const Json json = Parsed(chunk);
              const Json& c = json.Find("choices")->as_array()[0];
              const Json& d = *c.Find("delta");
              if (const Json* r = d.Find("reasoning_content")) pieces.reasoning += r->as_string();
              if (const Json* t = d.Find("content")) pieces.content += t->as_string();
              if (const Json* calls = d.Find("tool_calls")) {
                const Json& f = calls->as_array()[0];
                if (f.Find("id") != nullptr) {
                  EXPECT_EQ(f.Find("index")->as_int(), begun++);
                  EXPECT_EQ(f.Find("function")->Find("arguments")->as_string(), "");
                  pieces.calls += f.Find("function")->Find("name")->as_string();
                } else {
                  EXPECT_EQ(f.Find("index")->as_int(), begun - 1);
                  pieces.calls += f.Find("function")->Find("arguments")->as_string();
                }
              }
              if (!c.Find("finish_reason")->is_null()) pieces.finish = c.Find("finish_reason")->as_string();
            }
          }
          EXPECT_TRUE(seen == pieces) << parser << " " << text << "\n"
                                      << seen.content << seen.calls << "\n"
                                      << pieces.content << pieces.calls;
        }
      }
    }
  }
}

// A token that may be a call's waits until that is known; none is lost, and the order stays.
TEST_F(GenerationTest, LogprobsSayWhereTheirTokensWent) {
  ASSERT_TRUE(SetToolParser(*service_, "hermes").ok());
  const std::string text = "on<tool_call>{\"name\": \"f\"}</tool_call>t<tool>o<tool_call>{}</tool_call>";
  auto g = Chat(R"(,"stream":true,"logprobs":true,"tools":[{"type":"function","function":{"name":"f"}}])");
  std::string seen;
  std::map<int, std::string> by_calls;
  std::string content;
  for (size_t i = 0; i < text.size(); ++i) {
    TokenEvent event = Text(text.substr(i, 1));
    event.logprobs = {-1.0f};
    if (i + 1 == text.size()) event.finish_reason = FinishReason::kStop;
    const Delta delta = g->Push(0, std::move(event));
    content += delta.content;
    for (const ToolCallDelta& call : delta.tool_calls) EXPECT_EQ(call.content_offset, 2);
    for (const LogprobEntry& entry : delta.logprobs) {
      seen += entry.token.text;
      by_calls[entry.calls_before] += entry.token.text;
    }
  }
  EXPECT_EQ(seen, text);
  EXPECT_EQ(content, "ont<tool>o<tool_call>{}</tool_call>");
  EXPECT_EQ(by_calls[0], "on");
  EXPECT_EQ(by_calls[LogprobEntry::kOutsideText], "<tool_call>{\"name\": \"f\"}</tool_call>");
  EXPECT_EQ(by_calls[1], "t<tool>o<tool_call>{}</tool_call>");
}

TEST_F(GenerationTest, ChatChunks) {
  auto g = Chat(R"(,"stream":true,"stream_options":{"include_usage":true},"request_id":"abc")");
  EXPECT_TRUE(g->reply().stream);
  EXPECT_EQ(g->reply().id, "chatcmpl-abc");
  const Json first = Parsed(FirstChunkJson(*g, 0));
  EXPECT_EQ(first.Find("object")->as_string(), "chat.completion.chunk");
  EXPECT_EQ(first.Find("choices")->as_array()[0].Find("delta")->Find("role")->as_string(), "assistant");
  EXPECT_TRUE(first.Find("usage")->is_null());
  const Delta delta = g->Push(0, Ended(Text("x\"y"), FinishReason::kLength));
  const auto chunks = ChunksJson(*g, 0, delta);
  ASSERT_EQ(chunks.size(), 2u);  // text, then the finish reason with an empty delta
  const Json text = Parsed(chunks[0]), finish = Parsed(chunks[1]);
  EXPECT_EQ(text.Find("choices")->as_array()[0].Find("delta")->Find("content")->as_string(), "x\"y");
  EXPECT_TRUE(text.Find("choices")->as_array()[0].Find("finish_reason")->is_null());
  EXPECT_EQ(finish.Find("choices")->as_array()[0].Find("finish_reason")->as_string(), "length");
  EXPECT_TRUE(finish.Find("choices")->as_array()[0].Find("delta")->as_object().empty());
  ASSERT_TRUE(g->reply().include_usage);
  const Json usage = Parsed(UsageChunkJson(*g));
  EXPECT_TRUE(usage.Find("choices")->as_array().empty());
  EXPECT_EQ(usage.Find("usage")->Find("completion_tokens")->as_int(), 3);
}

TEST_F(GenerationTest, ContinuousUsageAndGroupedTokens) {
  auto g = Complete(R"(,"stream":true,"stream_options":{"continuous_usage_stats":true},
                       "max_streaming_response_tokens":3)");
  EXPECT_TRUE(g->Push(0, Text("a")).empty());
  EXPECT_TRUE(g->Push(0, Text("b")).empty());
  const Delta delta = g->Push(0, Text("c"));
  EXPECT_EQ(delta.content, "abc");
  const Json chunk = Parsed(ChunksJson(*g, 0, delta).at(0));
  EXPECT_EQ(chunk.Find("usage")->Find("completion_tokens")->as_int(), 3);
  EXPECT_EQ(g->Push(0, Ended(Text("d"), FinishReason::kLength)).content, "d");
}

TEST_F(GenerationTest, EchoAndTokenIds) {
  auto g = Complete(R"(,"stream":true,"echo":true,"return_token_ids":true)");
  const Json first = Parsed(FirstChunkJson(*g, 0));
  const Json& choice = first.Find("choices")->as_array()[0];
  EXPECT_EQ(choice.Find("text")->as_string(), "ab");
  EXPECT_EQ(WriteJson(*choice.Find("prompt_token_ids")), "[97,98]");
  const Delta delta = g->Push(0, Ended(Tokens({'x', ByteTokenizer::kEnd}), FinishReason::kStop, true));
  const Json chunk = Parsed(ChunksJson(*g, 0, delta).at(0));
  EXPECT_EQ(WriteJson(*chunk.Find("choices")->as_array()[0].Find("completion_token_ids")), "[120,256]");
}

TEST(AppendIds, AsMuchAsThereIs) {
  std::string out = "x", expected = "x[";
  AppendIds(out, {});
  EXPECT_EQ(out, "x[]");
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 5000; ++i) {
    ids.push_back(i % 7 == 0 ? INT32_MIN + i : i * i);
    expected += (i > 0 ? "," : "") + std::to_string(ids.back());
  }
  out = "x";
  AppendIds(out, ids);
  EXPECT_EQ(out, expected + "]");
}

TEST_F(GenerationTest, CharactersAreNeverCut) {
  auto g = Complete(R"(,"stream":true)");
  const std::string text = "\xf0\x9f\x98\x80 \xe4\xbd\xa0";
  std::string all;
  for (char c : text) {
    const std::string part = g->Push(0, Text(std::string(1, c))).content;
    EXPECT_TRUE(IsValidUtf8(part));
    all += part;
  }
  EXPECT_EQ(all, text);
  const Delta delta = g->Push(0, Ended(Text("\xe4\xbd"), FinishReason::kLength));
  EXPECT_EQ(delta.content, "\xef\xbf\xbd");
}

TEST_F(GenerationTest, SeveralChoicesAreIndependent) {
  auto g = Complete(R"(,"n":2)");
  g->Push(1, Ended(Text("second"), FinishReason::kLength));
  EXPECT_FALSE(g->finished());
  g->Push(0, Ended(Text("first"), FinishReason::kStop));
  EXPECT_TRUE(g->finished());
  const Json reply = Parsed(ReplyJson(*g));
  EXPECT_EQ(reply.Find("choices")->as_array()[0].Find("text")->as_string(), "first");
  EXPECT_EQ(reply.Find("choices")->as_array()[1].Find("text")->as_string(), "second");
  EXPECT_EQ(reply.Find("usage")->Find("prompt_tokens")->as_int(), 2);
}

TEST_F(GenerationTest, EngineErrorsAndAborts) {
  auto failed = Complete("");
  TokenEvent event = Ended({}, FinishReason::kError);
  event.error = Internal("the logits held a NaN");
  failed->Push(0, std::move(event));
  EXPECT_EQ(failed->status().code(), StatusCode::kInternal);
  EXPECT_EQ(failed->status().message(), "the logits held a NaN");
  auto aborted = Complete("");
  aborted->Push(0, Ended({}, FinishReason::kAborted));
  EXPECT_EQ(aborted->status().code(), StatusCode::kUnavailable);
}

TEST_F(GenerationTest, EndOfLifeAbortsEverySequence) {
  auto g = Complete(R"(,"n":3)");
  ASSERT_TRUE(engine_.WaitRunning(3));
  g.reset();
  EXPECT_TRUE(engine_.WaitRunning(0));
  EXPECT_EQ(engine_.aborts(), 3);
}

TEST_F(GenerationTest, RefusedSubmit) {
  engine_.SetSubmitError(Status(StatusCode::kResourceExhausted, "the queue is full"));
  auto g = Generation::Prepare(*service_, ApiEndpoint::kCompletions, std::string_view("{\"prompt\":\"ab\"}"));
  ASSERT_TRUE(g.ok());
  EXPECT_EQ((*g)->Submit([](int, TokenEvent&&) {}).code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE((*g)->finished());
}

}  // namespace
}  // namespace fd
