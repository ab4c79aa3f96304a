// Fields beside OpenAI's: where they may stand, what reaches the engine, what the reply shows.
#include "server/openai/request_extras.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "base/strings.h"
#include "server/openai/errors.h"
#include "server/openai/fakes_for_tests.h"
#include "server/openai/generation.h"
#include "server/openai/openai_writer.h"

namespace fd {
namespace {

JsonObject Parse(const std::string& text) { return std::move(ParseJson(text)).value().as_object(); }

std::string Merged(const std::string& text, RequestKind kind = RequestKind::kChat) {
  JsonObject body = Parse(text);
  const Status s = MergeExtraPlaces(kind, body);
  return s.ok() ? WriteJson(body) : s.param() + ": " + s.message();
}

TEST(MergeExtraPlaces, ExtraBodyCountsAsTheTop) {
  EXPECT_EQ(Merged(R"({"a":1})"), R"({"a":1})");
  EXPECT_EQ(Merged(R"({"a":1,"extra_body":{"top_k":5,"a":2,"own":"x"}})"), R"({"a":1,"top_k":5,"own":"x"})");
  EXPECT_EQ(Merged(R"({"top_k":null,"extra_body":{"top_k":5}})"), R"({"top_k":5})");
  EXPECT_EQ(Merged(R"({"a":1,"extra_body":null})"), R"({"a":1})");
  EXPECT_EQ(Merged(R"({"extra_body":{}})"), "{}");
  EXPECT_TRUE(Merged(R"({"extra_body":[]})").starts_with("extra_body: ")) << Merged(R"({"extra_body":[]})");
  EXPECT_TRUE(Merged(R"({"extra_body":{"extra_body":{}}})").starts_with("extra_body: "));
}

TEST(MergeExtraPlaces, ManyMembersAreRefused) {
  std::string text = "{\"extra_body\":{";
  for (int i = 0; i < 1025; ++i) text += StrCat(i > 0 ? "," : "", "\"k", i, "\":1");
  EXPECT_NE(Merged(text + "}}").find("1025 members; at most 1024"), std::string::npos);
}

TEST(MergeExtraPlaces, MetadataHasFastDeploysFieldsAndOpenAisNotes) {
  // Known fields with values that are no strings; notes are strings, and stay notes.
  EXPECT_EQ(Merged(R"({"metadata":{"top_k":5,"model":"v2","user":"u","mine":7,"seed":null}})"),
            R"({"metadata":{"top_k":5,"model":"v2","user":"u","mine":7,"seed":null},"top_k":5})");
  EXPECT_EQ(Merged(R"({"top_k":1,"metadata":{"top_k":5}})"), R"({"top_k":1,"metadata":{"top_k":5}})");
  EXPECT_EQ(Merged(R"({"metadata":{"metadata":{"top_k":5}}})"), R"({"metadata":{"metadata":{"top_k":5}}})");
  EXPECT_EQ(Merged(R"({"metadata":{"messages":[1]}})", RequestKind::kCompletions),
            R"({"metadata":{"messages":[1]}})");
  EXPECT_TRUE(Merged(R"({"metadata":7})").starts_with("metadata: "));
  EXPECT_TRUE(Merged(R"({"metadata":{"raw_request":false}})").starts_with("metadata: metadata.raw_request"));
  // extra_body first, then the metadata in it.
  EXPECT_EQ(Merged(R"({"extra_body":{"metadata":{"min_p":0.5}}})"),
            R"({"metadata":{"min_p":0.5},"min_p":0.5})");
}

class RequestExtras : public ::testing::Test {
 protected:
  StatusOr<std::unique_ptr<Generation>> Start(const std::string& fields, ApiEndpoint endpoint) {
    const bool chat = endpoint == ApiEndpoint::kChat;
    const std::string prompt =
        chat ? R"("messages":[{"role":"user","content":"hey"}])" : R"("prompt":"abcdefgh")";
    const std::string body = "{" + prompt + (fields.empty() ? "" : ",") + fields + "}";
    FD_ASSIGN_OR_RETURN(auto g,
                        Generation::Prepare(*service_, endpoint, std::string_view(body), arrived_at_));
    FD_RETURN_IF_ERROR(g->Submit([](int, TokenEvent&&) {}));
    return g;
  }
  GenerateRequest Sent(const std::string& fields, ApiEndpoint endpoint = ApiEndpoint::kCompletions) {
    auto g = Start(fields, endpoint);
    EXPECT_TRUE(g.ok()) << fields << ": " << g.status().message();
    return g.ok() ? engine_.seen().back() : GenerateRequest{};
  }
  std::string PromptOf(const std::string& fields, ApiEndpoint endpoint = ApiEndpoint::kCompletions) {
    return service_->tokenizer->Decode(Sent(fields, endpoint).token_ids, false);
  }
  void Refuses(const std::string& fields, const std::string& param, const std::string& part,
               ApiEndpoint endpoint = ApiEndpoint::kCompletions) {
    const auto g = Start(fields, endpoint);
    ASSERT_FALSE(g.ok()) << fields;
    EXPECT_EQ(ToApiError(g.status()).http_status, 400) << fields;
    EXPECT_EQ(g.status().param(), param) << fields;
    EXPECT_NE(g.status().message().find(part), std::string::npos) << g.status().message();
  }
  static TokenEvent Event(const std::string& text) {
    TokenEvent e;
    for (char c : text) e.token_ids.push_back(static_cast<uint8_t>(c));
    e.logprobs.assign(e.token_ids.size(), -0.5f);
    return e;
  }

  ScriptedEngine engine_{"hello"};
  std::shared_ptr<Service> service_ = TestService(engine_);
  Clock::time_point arrived_at_ = Clock::now();
};

TEST_F(RequestExtras, PriorityAndTimeout) {
  const GenerateRequest plain = Sent("");
  EXPECT_EQ(plain.priority, 0);
  EXPECT_EQ(plain.deadline, Clock::time_point::max());
  const GenerateRequest r = Sent(R"("priority":-3,"timeout":1.5)");
  EXPECT_EQ(r.priority, -3);
  EXPECT_EQ(r.deadline - arrived_at_, std::chrono::milliseconds(1500));
  EXPECT_EQ(r.timeout_s, 1.5);
  EXPECT_EQ(Sent(R"("extra_body":{"priority":9,"timeout":2})", ApiEndpoint::kChat).priority, 9);
  EXPECT_EQ(Sent(R"("priority":-9223372036854775808)").priority, INT64_MIN);
  for (const char* bad : {"1.5", "\"high\"", "true", "9223372036854775808"})
    Refuses(StrCat("\"priority\":", bad), "priority", "64-bit integer");
  for (const char* bad : {"0", "-1", "1e7", "1e999", "\"5s\"", "[]"})
    Refuses(StrCat("\"timeout\":", bad), bad == std::string("1e999") ? "" : "timeout",
            bad == std::string("1e999") ? "JSON" : "a number from 0.001 to 1e+06");
}

TEST_F(RequestExtras, TakenWithoutEffectOrOnlyAtTheirNeutralValue) {
  EXPECT_EQ(PromptOf(R"("cache_salt":"tenant-7","vllm_xargs":{"a":1},"spaces_between_special_tokens":false,
      "kv_transfer_params":null,"length_penalty":1.0,"use_beam_search":false,"early_stopping":false,
      "detokenize":true,"trace_context":{"traceparent":"00"},"collect_metrics":false)"),
            "abcdefgh");
  Refuses(R"("cache_salt":"")", "cache_salt", "not empty");
  Refuses(R"("cache_salt":7)", "cache_salt", "a string");
  Refuses(R"("vllm_xargs":[])", "vllm_xargs", "an object");
  Refuses(R"("spaces_between_special_tokens":"no")", "spaces_between_special_tokens", "true or false");
  Refuses(R"("kv_transfer_params":{})", "kv_transfer_params", "leave it out");
  Refuses(R"("length_penalty":0.9)", "length_penalty", "set it to 1");
  Refuses(R"("use_beam_search":true)", "use_beam_search", "set it to false");
  Refuses(R"("detokenize":false)", "detokenize", "set it to true");
  Refuses(R"("collect_metrics":true)", "collect_metrics", "set it to false");
}

TEST_F(RequestExtras, TruncatedPrompts) {
  EXPECT_EQ(PromptOf(R"("truncate_prompt_tokens":3)"), "fgh");
  EXPECT_EQ(PromptOf(R"("truncate_prompt_tokens":8)"), "abcdefgh");
  EXPECT_EQ(PromptOf(R"("truncate_prompt_tokens":511)"), "abcdefgh");
  EXPECT_EQ(PromptOf(R"("truncate_prompt_tokens":-1)"), "abcdefgh");
  EXPECT_EQ(PromptOf(R"("prompt_token_ids":[97,98,99],"truncate_prompt_tokens":1)"), "c");
  EXPECT_EQ(PromptOf(R"("truncate_prompt_tokens":5)", ApiEndpoint::kChat), "hink>");
  EXPECT_EQ(PromptOf(R"("prompt_token_ids":[97,98,99],"truncate_prompt_tokens":2)", ApiEndpoint::kChat),
            "bc");
  service_->max_model_len = 6;
  EXPECT_EQ(PromptOf(R"("truncate_prompt_tokens":-1)"), "defgh");
  EXPECT_EQ(PromptOf(R"("truncate_prompt_tokens":-1,"max_tokens":4)"), "gh");
  EXPECT_EQ(PromptOf(R"("truncate_prompt_tokens":-1,"max_tokens":1,"max_completion_tokens":2)"), "efgh");
  Refuses("", "prompt", "at least 1 is needed");
  Refuses(R"("truncate_prompt_tokens":0)", "truncate_prompt_tokens", "from 1 to 5, or -1");
  Refuses(R"("truncate_prompt_tokens":6)", "truncate_prompt_tokens", "from -1 to 5");
  Refuses(R"("truncate_prompt_tokens":-2)", "truncate_prompt_tokens", "from -1 to 5");
  // The echo is what the model saw.
  auto g = Start(R"("truncate_prompt_tokens":2,"echo":true,"max_tokens":1)", ApiEndpoint::kCompletions);
  ASSERT_TRUE(g.ok());
  TokenEvent e = Event("x");
  e.finish_reason = FinishReason::kLength;
  (*g)->Push(0, std::move(e));
  EXPECT_NE(ReplyJson(**g).find("\"text\":\"ghx\""), std::string::npos) << ReplyJson(**g);
}

TEST_F(RequestExtras, TheRawPromptWithoutATemplate) {
  EXPECT_EQ(PromptOf(R"("disable_chat_template":true)", ApiEndpoint::kChat), "hey");
  EXPECT_EQ(PromptOf(R"("disable_chat_template":false)", ApiEndpoint::kChat),
            "user: hey\nbot: <think></think>");
  service_->chat_template.reset();
  EXPECT_EQ(PromptOf(R"("disable_chat_template":true)", ApiEndpoint::kChat), "hey");
  Refuses("", "messages", "no chat template", ApiEndpoint::kChat);
}

TEST_F(RequestExtras, DocumentsAreTheTemplatesBusiness) {
  auto chat_template = ChatTemplate::FromSource(
      "{% for d in documents or [] %}[{{ d.title }}]{% endfor %}{{ messages[0].content }}", JsonObject{});
  ASSERT_TRUE(chat_template.ok());
  service_->chat_template = std::move(chat_template).value();
  EXPECT_EQ(PromptOf("", ApiEndpoint::kChat), "hey");
  EXPECT_EQ(PromptOf(R"("documents":[])", ApiEndpoint::kChat), "hey");
  EXPECT_EQ(PromptOf(R"("documents":[{"title":"A"},{"title":"B"}])", ApiEndpoint::kChat), "[A][B]hey");
  Refuses(R"("documents":["A"])", "documents", "documents must be an array of objects", ApiEndpoint::kChat);
  Refuses(R"("documents":{})", "documents", "an array", ApiEndpoint::kChat);
  service_->limits.max_documents = 1;
  Refuses(R"("documents":[{},{}])", "documents", "--max-documents", ApiEndpoint::kChat);
}

TEST_F(RequestExtras, AnAnswerThatHasBegun) {
  EXPECT_EQ(PromptOf(R"("completion_token_ids":[104,105])", ApiEndpoint::kChat),
            "user: hey\nbot: <think></think>hi");
  EXPECT_EQ(PromptOf(R"("completion_token_ids":[])", ApiEndpoint::kChat), "user: hey\nbot: <think></think>");
  EXPECT_EQ(PromptOf(R"("prompt_token_ids":[97],"completion_token_ids":[104])", ApiEndpoint::kChat), "ah");
  Refuses(R"("completion_token_ids":[259])", "completion_token_ids", "from 0 to 258", ApiEndpoint::kChat);
  Refuses(R"("completion_token_ids":"hi")", "completion_token_ids", "array of token ids", ApiEndpoint::kChat);
  std::string many = "1";
  for (int i = 0; i < 511; ++i) many += ",1";
  Refuses(StrCat("\"completion_token_ids\":[", many, "]"), "completion_token_ids", "maximum context length",
          ApiEndpoint::kChat);
}

// The thought goes on, or is over, as the begun answer says.
TEST_F(RequestExtras, ABegunAnswerMayHoldTheEndOfTheThought) {
  ASSERT_TRUE(SetReasoningParser(*service_, "ernie-45-vl").ok());
  const auto first = [&](const std::string& begun) {
    auto g = Start(R"("enable_thinking":true,"completion_token_ids":)" + begun, ApiEndpoint::kChat);
    EXPECT_TRUE(g.ok());
    const Delta d = (*g)->Push(0, Event("x"));
    return d.reasoning_content + "|" + d.content;
  };
  EXPECT_EQ(first("[104]"), "x|");
  EXPECT_EQ(first(StrCat("[104,", ByteTokenizer::kThinkEnd, ",105]")), "|x");
}

TEST(AppendBegunAnswerTest, PositionsAndExpertsOfAPromptWithPictures) {
  ScriptedEngine engine("x");
  const auto service = TestService(engine);
  Prompt prompt;
  ExpandedPrompt& p = prompt.expanded;
  p.token_ids = {1, 2, 3};
  p.positions = {0, 1, 1, 0, 1, 2, 0, 1, 3};
  p.position_delta = 4;
  p.vision_expert = {0, 1, 1};
  p.media_type = {0, 1, 1};
  ASSERT_TRUE(AppendBegunAnswer(*service, {'a', 'b'}, &prompt).ok());
  EXPECT_EQ(p.token_ids, (std::vector<int32_t>{1, 2, 3, 'a', 'b'}));
  EXPECT_EQ(p.positions, (std::vector<int32_t>{0, 1, 1, 7, 8, 0, 1, 2, 7, 8, 0, 1, 3, 7, 8}));
  EXPECT_EQ(p.vision_expert, (std::vector<uint8_t>{0, 1, 1, 0, 0}));
  EXPECT_EQ(p.media_type, (std::vector<uint8_t>{0, 1, 1, 0, 0}));
}

TEST_F(RequestExtras, TokensAfterTheThought) {
  ASSERT_TRUE(SetReasoningParser(*service_, "ernie-45-vl").ok());
  const std::string thinks = R"("enable_thinking":true,"max_tokens":50,"response_max_tokens":3)";
  for (const bool whole : {true, false}) {
    auto g = std::move(Start(thinks, ApiEndpoint::kChat)).value();
    EXPECT_EQ(engine_.seen().back().sampling.max_tokens, 50);
    TokenEvent all = Event("why");
    all.token_ids.push_back(ByteTokenizer::kThinkEnd);
    for (char c : std::string("abcdef")) all.token_ids.push_back(static_cast<uint8_t>(c));
    Delta last;
    std::string content, reasoning;
    const auto push = [&](TokenEvent e) {
      last = g->Push(0, std::move(e));
      content += last.content;
      reasoning += last.reasoning_content;
    };
    if (whole) {
      push(all);
    } else {
      for (int32_t id : all.token_ids) {
        if (g->finished()) break;
        TokenEvent one;
        one.token_ids = {id};
        push(std::move(one));
      }
    }
    EXPECT_TRUE(g->finished());
    EXPECT_EQ(reasoning, "why");
    EXPECT_EQ(content, "abc");
    EXPECT_EQ(last.finish_reason, "length");
    EXPECT_EQ(g->usage().completion_tokens, 7);
    EXPECT_EQ(g->usage().reasoning_tokens, 4);
  }
  // Without a thought the engine itself stops there.
  EXPECT_EQ(Sent(R"("max_tokens":50,"response_max_tokens":3)", ApiEndpoint::kChat).sampling.max_tokens, 3);
  EXPECT_EQ(Sent(R"("max_tokens":2,"response_max_tokens":3)", ApiEndpoint::kChat).sampling.max_tokens, 2);
  Refuses(R"("response_max_tokens":0)", "response_max_tokens", "from 1 to 512", ApiEndpoint::kChat);
}

// An end token at the limit is the reason that counts.
TEST_F(RequestExtras, AnAnswerThatEndsAtItsLimit) {
  ASSERT_TRUE(SetReasoningParser(*service_, "ernie-45-vl").ok());
  auto g = std::move(Start(R"("enable_thinking":true,"response_max_tokens":3)", ApiEndpoint::kChat)).value();
  TokenEvent e;
  e.token_ids = {ByteTokenizer::kThinkEnd, 'a', 'b', ByteTokenizer::kEnd};
  e.finish_reason = FinishReason::kStop;
  e.stopped_by_end_token = true;
  const Delta d = g->Push(0, std::move(e));
  EXPECT_EQ(d.content, "ab");
  EXPECT_EQ(d.finish_reason, "stop");
}

TEST_F(RequestExtras, LogprobsThatNameTokensById) {
  for (const ApiEndpoint endpoint : {ApiEndpoint::kChat, ApiEndpoint::kCompletions}) {
    const bool chat = endpoint == ApiEndpoint::kChat;
    auto g = std::move(Start(std::string(chat ? R"("logprobs":true,"top_logprobs":2)" : R"("logprobs":2)") +
                                 R"(,"return_tokens_as_token_ids":true)",
                             endpoint))
                 .value();
    TokenEvent e = Event("h");
    e.top_logprobs = {{{'h', -0.5f}, {0xe2, -1.5f}}};
    e.finish_reason = FinishReason::kLength;
    g->Push(0, std::move(e));
    const std::string reply = ReplyJson(*g);
    EXPECT_NE(reply.find("token_id:104"), std::string::npos) << reply;
    EXPECT_NE(reply.find("token_id:226"), std::string::npos) << reply;
    EXPECT_EQ(reply.find("bytes:"), std::string::npos) << reply;
    if (chat) {
      EXPECT_NE(reply.find("\"bytes\":[104]"), std::string::npos) << reply;
    }
  }
}

}  // namespace
}  // namespace fd
