// Penalties, biases, bad words, min_tokens and log-probabilities: what requests may say, what reaches the
// engine, and how log-probabilities look in replies.
#include "server/openai/sampling_fields.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/strings.h"
#include "server/openai/errors.h"
#include "server/openai/fakes_for_tests.h"
#include "server/openai/openai_writer.h"

namespace fd {
namespace {

class SamplingFieldsTest : public ::testing::Test {
 protected:
  StatusOr<SamplingParams> Read(const std::string& fields, ApiEndpoint endpoint = ApiEndpoint::kCompletions) {
    const bool chat = endpoint == ApiEndpoint::kChat;
    const std::string prompt = chat ? R"("messages":[{"role":"user","content":"x"}])" : R"("prompt":"ab")";
    const std::string body = "{" + prompt + "," + fields + "}";
    FD_ASSIGN_OR_RETURN(auto generation, Generation::Prepare(*service_, endpoint, std::string_view(body)));
    FD_RETURN_IF_ERROR(generation->Submit([](int, TokenEvent&&) {}));
    return engine_.seen().back().sampling;
  }
  void Refuses(const std::string& fields, const std::string& param, const std::string& part,
               ApiEndpoint endpoint = ApiEndpoint::kCompletions) {
    const auto r = Read(fields, endpoint);
    ASSERT_FALSE(r.ok()) << fields;
    const ApiError e = ToApiError(r.status());
    EXPECT_EQ(e.http_status, 400) << fields;
    EXPECT_EQ(e.param, param) << fields;
    EXPECT_NE(e.message.find(part), std::string::npos) << fields << "\n" << e.message;
  }
  // The whole reply and all chunks of a request.
  std::pair<std::string, std::vector<std::string>> Replies(const std::string& fields, ApiEndpoint endpoint) {
    const bool chat = endpoint == ApiEndpoint::kChat;
    const std::string prompt = chat ? R"("messages":[{"role":"user","content":"x"}])" : R"("prompt":"ab")";
    std::string reply;
    std::vector<std::string> chunks;
    for (const bool stream : {false, true}) {
      if (stream && fields.find("prompt_logprobs") != std::string::npos) continue;  // refused
      const std::string body = "{" + prompt + fields + (stream ? ",\"stream\":true}" : "}");
      auto generation = Generation::Prepare(*service_, endpoint, std::string_view(body));
      EXPECT_TRUE(generation.ok()) << generation.status().message();
      if (!generation.ok()) return {};
      std::mutex mutex;
      std::vector<TokenEvent> events;
      EXPECT_TRUE((*generation)
                      ->Submit([&](int, TokenEvent&& e) {
                        std::lock_guard lock(mutex);
                        events.push_back(std::move(e));
                      })
                      .ok());
      while (!(*generation)->finished()) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        std::vector<TokenEvent> taken;
        {
          std::lock_guard lock(mutex);
          taken.swap(events);
        }
        for (TokenEvent& e : taken) {
          const Delta delta = (*generation)->Push(0, std::move(e));
          for (std::string& c : ChunksJson(**generation, 0, delta)) {
            if (stream) chunks.push_back(std::move(c));
          }
        }
      }
      if (!stream) reply = ReplyJson(**generation);
    }
    return {reply, chunks};
  }

  ScriptedEngine engine_{"hi"};
  std::shared_ptr<Service> service_ = TestService(engine_);
};

const Json& At(const Json& value, std::initializer_list<const char*> path) {
  const Json* at = &value;
  for (const char* key : path) at = at->is_array() ? &at->as_array().at(std::stoul(key)) : at->Find(key);
  return *at;
}

TEST_F(SamplingFieldsTest, ReachTheEngine) {
  const auto s = Read(R"("repetition_penalty":1.25,"presence_penalty":-2,"frequency_penalty":0.5,
      "logit_bias":{"7":-100,"07":2.5,"258":100},"bad_words":["x","yz"],"bad_words_token_ids":[5,[6,7]],
      "min_tokens":3,"max_tokens":4,"logprobs":5)");
  ASSERT_TRUE(s.ok()) << s.status().message();
  EXPECT_EQ(s->repetition_penalty, 1.25f);
  EXPECT_EQ(s->presence_penalty, -2.0f);
  EXPECT_EQ(s->frequency_penalty, 0.5f);
  EXPECT_EQ(s->logit_bias, (std::vector<std::pair<int32_t, float>>{{7, 2.5f}, {258, 100.0f}}));
  EXPECT_EQ(s->bad_words,
            (std::vector<std::vector<int32_t>>{{'x'}, {' ', 'x'}, {'y', 'z'}, {' ', 'y', 'z'}, {5}, {6, 7}}));
  EXPECT_EQ(s->min_tokens, 3);
  EXPECT_EQ(s->top_logprobs, 5);
}

TEST_F(SamplingFieldsTest, AbsentNullAndNeutral) {
  for (const char* fields :
       {R"("user":"u")", R"("repetition_penalty":null,"logit_bias":null,"bad_words":null,"logprobs":null)",
        R"("repetition_penalty":1,"presence_penalty":0,"frequency_penalty":0.0,"logit_bias":{},"bad_words":[],
            "min_tokens":0,"logprobs":false,"top_logprobs":0,"logits_processors_args":{})"}) {
    const auto s = Read(fields);
    ASSERT_TRUE(s.ok()) << s.status().message();
    EXPECT_FALSE(s->HasPenalties());
    EXPECT_TRUE(s->logit_bias.empty() && s->bad_words.empty());
    EXPECT_EQ(s->min_tokens, 0);
    EXPECT_EQ(s->top_logprobs, -1);
  }
  service_->defaults.repetition_penalty = 1.1f;  // of generation_config.json
  EXPECT_EQ(Read(R"("user":"u")")->repetition_penalty, 1.1f);
  EXPECT_EQ(Read(R"("repetition_penalty":1)")->repetition_penalty, 1.0f);
  EXPECT_EQ(Read(R"("logits_processors_args":{"logit_bias":{"3":4}})")->logit_bias.size(), 1u);
}

TEST_F(SamplingFieldsTest, ChatSaysLogprobsAndHowMany) {
  EXPECT_EQ(Read(R"("logprobs":true)", ApiEndpoint::kChat)->top_logprobs, 0);
  EXPECT_EQ(Read(R"("logprobs":true,"top_logprobs":20)", ApiEndpoint::kChat)->top_logprobs, 20);
  EXPECT_EQ(Read(R"("logprobs":false,"top_logprobs":0)", ApiEndpoint::kChat)->top_logprobs, -1);
  Refuses(R"("top_logprobs":3)", "top_logprobs", "\"logprobs\": true", ApiEndpoint::kChat);
  Refuses(R"("logprobs":true,"top_logprobs":21)", "top_logprobs", "from 0 to 20; got 21 (--max-logprobs)",
          ApiEndpoint::kChat);
  Refuses(R"("logprobs":true,"top_logprobs":-1)", "top_logprobs", "from 0 to 20", ApiEndpoint::kChat);
  Refuses(R"("logprobs":5)", "logprobs", "true or false", ApiEndpoint::kChat);
}

TEST_F(SamplingFieldsTest, WhatLogprobsAre) {
  for (const ApiEndpoint endpoint : {ApiEndpoint::kChat, ApiEndpoint::kCompletions}) {
    const char* wanted = endpoint == ApiEndpoint::kChat ? "true" : "0";
    const auto both = Read(
        StrCat("\"logprobs\":", wanted, R"(,"temp_scaled_logprobs":true,"top_p_normalized_logprobs":true)"),
        endpoint);
    ASSERT_TRUE(both.ok()) << both.status().message();
    EXPECT_TRUE(both->temp_scaled_logprobs && both->top_p_normalized_logprobs);
    const auto one =
        Read(R"("logprobs":false,"temp_scaled_logprobs":null,"top_p_normalized_logprobs":true)", endpoint);
    ASSERT_TRUE(one.ok()) << one.status().message();
    EXPECT_TRUE(!one->temp_scaled_logprobs && one->top_p_normalized_logprobs);
    const auto none = Read(R"("logprobs":false)", endpoint);
    EXPECT_TRUE(!none->temp_scaled_logprobs && !none->top_p_normalized_logprobs);
    for (const char* bad : {"1", "\"true\"", "[]"}) {
      Refuses(StrCat("\"temp_scaled_logprobs\":", bad), "temp_scaled_logprobs", "true or false", endpoint);
      Refuses(StrCat("\"top_p_normalized_logprobs\":", bad), "top_p_normalized_logprobs", "true or false",
              endpoint);
    }
  }
}

TEST_F(SamplingFieldsTest, RefusedByName) {
  for (const char* bad : {"0", "-1", "1e308", "\"1\"", "1e-300", "true", "[]"})
    Refuses(StrCat("\"repetition_penalty\":", bad), "repetition_penalty", "repetition_penalty must be");
  for (const char* bad : {"2.01", "-3", "\"1\"", "1e308", "{}"}) {
    Refuses(StrCat("\"presence_penalty\":", bad), "presence_penalty", "from -2 to 2");
    Refuses(StrCat("\"frequency_penalty\":", bad), "frequency_penalty", "from -2 to 2");
  }
  Refuses(R"("logit_bias":[1])", "logit_bias", "an object");
  for (const char* key : {"x", "-1", "259", "1.5", "", " 1", "2147483648"})
    Refuses(StrCat("\"logit_bias\":{\"", key, "\":1}"), "logit_bias", "a token id from 0 to 258");
  for (const char* value : {"101", "-100.5", "1e30", "\"5\"", "null", "true"})
    Refuses(StrCat("\"logit_bias\":{\"5\":", value, "}"), "logit_bias", "from -100 to 100");
  service_->limits.max_allowed_token_ids = 2;
  Refuses(R"("allowed_token_ids":[1,2,3])", "allowed_token_ids",
          "3 ids; at most 2 are allowed (--max-allowed-token-ids)");
  service_->limits.max_logit_bias = 2;
  Refuses(R"("logit_bias":{"1":1,"2":1,"3":1})", "logit_bias", "at most 2 are allowed (--max-logit-bias)");
  Refuses(R"("bad_words":"x")", "bad_words", "an array");
  Refuses(R"("bad_words":["x",""])", "bad_words", "bad_words[1]");
  Refuses(R"("bad_words":[7])", "bad_words", "bad_words[0]");
  Refuses(StrCat("\"bad_words\":[\"", std::string(1025, 'x'), "\"]"), "bad_words", "--max-stop-bytes");
  Refuses(R"("bad_words_token_ids":[259])", "bad_words_token_ids", "from 0 to 258");
  Refuses(R"("bad_words_token_ids":[[1,-1]])", "bad_words_token_ids", "from 0 to 258");
  Refuses(R"("bad_words_token_ids":[[]])", "bad_words_token_ids", "empty");
  service_->limits.max_banned_tokens = 4;
  Refuses(R"("bad_words":["abc"])", "bad_words", "--max-banned-tokens");
  Refuses(R"("bad_words_token_ids":[1,2,3,4,5])", "bad_words_token_ids", "--max-banned-tokens");
  Refuses(R"("min_tokens":5,"max_tokens":4)", "min_tokens", "min_tokens is 5 and max_tokens is 4");
  Refuses(R"("min_tokens":-1)", "min_tokens", "from 0 to 512");
  Refuses(R"("min_tokens":1.5)", "min_tokens", "from 0 to 512");
  Refuses(R"("logprobs":21)", "logprobs", "from 0 to 20; got 21 (--max-logprobs)");
  Refuses(R"("logprobs":-1)", "logprobs", "from 0 to 20");
  Refuses(R"("logprobs":true)", "logprobs", "from 0 to 20");
  Refuses(R"("prompt_logprobs":21)", "prompt_logprobs", "from 0 to 20; got 21 (--max-logprobs)");
  Refuses(R"("prompt_logprobs":1.5)", "prompt_logprobs", "from 0 to 20");
  Refuses(R"("prompt_logprobs":1,"stream":true)", "prompt_logprobs", "\"stream\": true");
  Refuses(R"("prompt_logprobs":0,"stream":true)", "prompt_logprobs", "\"stream\": true", ApiEndpoint::kChat);
  Refuses(R"("max_tokens":0)", "max_tokens", "from 1 to 512");
  Refuses(R"("max_tokens":0,"echo":false)", "max_tokens", "from 1 to 512");
  Refuses(R"("max_tokens":0,"prompt_logprobs":1)", "max_tokens", "from 1 to 512", ApiEndpoint::kChat);
  service_->limits.max_prompt_logprobs = 12;  // "ab": two tokens
  Refuses(R"("prompt_logprobs":6)", "prompt_logprobs", "14; at most 12 are allowed (--max-prompt-logprobs)");
  Refuses(R"("prompt_logprobs":2,"n":3)", "prompt_logprobs", "6 prompt tokens");
  Refuses(R"("logprobs":6,"echo":true)", "logprobs", "--max-prompt-logprobs");
  EXPECT_TRUE(Read(R"("prompt_logprobs":5)").ok());
  EXPECT_TRUE(Read(R"("logprobs":20)").ok());
  Refuses(R"("top_logprobs":2)", "top_logprobs", "/v1/chat/completions");
  Refuses(R"("logits_processors_args":{"thinking_budget":5})", "logits_processors_args", "thinking_budget");
}

TEST_F(SamplingFieldsTest, LogprobsOfAChat) {
  const auto [reply, chunks] = Replies(R"(,"logprobs":true,"top_logprobs":3)", ApiEndpoint::kChat);
  const Json json = ParseJson(reply).value();
  const JsonArray& content = At(json, {"choices", "0", "logprobs", "content"}).as_array();
  ASSERT_EQ(content.size(), 2u);  // the end token is no part of the text
  EXPECT_EQ(WriteJson(content[0]),
            R"({"token":"h","logprob":-0.5,"bytes":[104],"top_logprobs":[)"
            R"({"token":"h","logprob":-0.5,"bytes":[104]},{"token":"?","logprob":-1.5,"bytes":[63]},)"
            R"({"token":"bytes:\\xe2","logprob":-2.5,"bytes":[226]}]})");
  JsonArray streamed;
  for (const std::string& chunk : chunks) {
    const Json c = ParseJson(chunk).value();
    const Json& logprobs = At(c, {"choices", "0", "logprobs"});
    if (logprobs.is_null()) continue;
    for (const Json& entry : logprobs.Find("content")->as_array()) streamed.push_back(entry);
  }
  EXPECT_EQ(WriteJson(Json(streamed)), WriteJson(Json(content)));
}

TEST_F(SamplingFieldsTest, LogprobsOfACompletion) {
  auto [reply, chunks] = Replies(R"(,"logprobs":2)", ApiEndpoint::kCompletions);
  EXPECT_NE(reply.find(R"("logprobs":{"tokens":["h","i"],"token_logprobs":[-0.5,-0.5],)"
                       R"("top_logprobs":[{"h":-0.5,"?":-1.5},{"i":-0.5,"?":-1.5}],"text_offset":[0,1]})"),
            std::string::npos)
      << reply;
  ASSERT_GE(chunks.size(), 2u);
  EXPECT_NE(chunks[1].find(R"("text_offset":[1])"), std::string::npos) << chunks[1];
  reply = Replies(R"(,"logprobs":0)", ApiEndpoint::kCompletions).first;
  EXPECT_NE(reply.find(R"("top_logprobs":null)"), std::string::npos) << reply;
  reply = Replies("", ApiEndpoint::kCompletions).first;
  EXPECT_NE(reply.find(R"("logprobs":null)"), std::string::npos) << reply;
}

TEST_F(SamplingFieldsTest, PromptLogprobsReachTheEngine) {
  EXPECT_EQ(Read(R"("user":"u")")->prompt_logprobs, -1);
  EXPECT_EQ(Read(R"("prompt_logprobs":null,"logprobs":3)")->prompt_logprobs, -1);
  EXPECT_EQ(Read(R"("prompt_logprobs":0)")->prompt_logprobs, 0);
  EXPECT_EQ(Read(R"("prompt_logprobs":4)", ApiEndpoint::kChat)->prompt_logprobs, 4);
  EXPECT_EQ(Read(R"("logprobs":3,"echo":true)")->prompt_logprobs, 3);
  EXPECT_EQ(Read(R"("logprobs":3,"echo":true,"prompt_logprobs":5)")->prompt_logprobs, 5);
  EXPECT_EQ(Read(R"("logprobs":3,"echo":true,"prompt_logprobs":1)")->prompt_logprobs, 3);
  EXPECT_EQ(Read(R"("echo":true)")->prompt_logprobs, -1);
  EXPECT_EQ(Read(R"("echo":true,"max_tokens":0)")->max_tokens, 0);
  EXPECT_EQ(Read(R"("prompt_logprobs":0,"max_completion_tokens":0)")->max_tokens, 0);
  // A chat's choices have one prompt: it is scored once.
  ASSERT_TRUE(Read(R"("prompt_logprobs":2,"n":3)", ApiEndpoint::kChat).ok());
  int scored = 0;
  const auto seen = engine_.seen();
  for (size_t i = seen.size() - 3; i < seen.size(); ++i) scored += seen[i].sampling.prompt_logprobs == 2;
  EXPECT_EQ(scored, 1);
}

TEST_F(SamplingFieldsTest, EchoHasTheLogprobsOfItsPrompt) {
  // ScriptedEngine says -0.25 of every prompt token, and '?' before it.
  const std::string prompt = R"({"tokens":["a","b"],"token_logprobs":[null,-0.25],)"
                             R"("top_logprobs":[null,{"?":-0.125,"b":-0.25}],"text_offset":[0,1]})";
  const std::string whole = R"({"tokens":["a","b","h","i"],"token_logprobs":[null,-0.25,-0.5,-0.5],)"
                            R"("top_logprobs":[null,{"?":-0.125,"b":-0.25},{"h":-0.5},{"i":-0.5}],)"
                            R"("text_offset":[0,1,2,3]})";
  auto reply = Replies(R"(,"logprobs":1,"echo":true)", ApiEndpoint::kCompletions).first;
  EXPECT_NE(reply.find(R"("text":"abhi","logprobs":)" + whole), std::string::npos) << reply;
  reply = Replies(R"(,"logprobs":1,"echo":true,"max_tokens":0)", ApiEndpoint::kCompletions).first;
  EXPECT_NE(reply.find(R"("text":"ab","logprobs":)" + prompt + R"(,"finish_reason":"length")"),
            std::string::npos)
      << reply;
  EXPECT_NE(reply.find(R"("completion_tokens":0)"), std::string::npos) << reply;
  // In a stream the echo's chunk brings them.
  const std::string body = R"({"prompt":"ab","logprobs":1,"echo":true,"stream":true})";
  auto generation = Generation::Prepare(*service_, ApiEndpoint::kCompletions, std::string_view(body));
  ASSERT_TRUE(generation.ok());
  TokenEvent event;
  event.prompt_logprobs = {{'b', -0.25f, 2, {{'?', -0.125f}}}};
  EXPECT_TRUE((*generation)->Push(0, std::move(event)).empty());
  EXPECT_NE(FirstChunkJson(**generation, 0).find(R"("text":"ab","logprobs":)" + prompt), std::string::npos)
      << FirstChunkJson(**generation, 0);
}

TEST_F(SamplingFieldsTest, PromptLogprobsOfAReply) {
  const std::string one = R"([null,{"98":{"logprob":-0.25,"rank":2,"decoded_token":"b"},)"
                          R"("63":{"logprob":-0.125,"rank":1,"decoded_token":"?"}}])";
  auto reply = Replies(R"(,"prompt_logprobs":1)", ApiEndpoint::kCompletions).first;
  EXPECT_NE(reply.find(R"("logprobs":null,"prompt_logprobs":)" + one), std::string::npos) << reply;
  // Echo needs two; the reply's list keeps to what it was asked for.
  reply = Replies(R"(,"prompt_logprobs":1,"logprobs":2,"echo":true)", ApiEndpoint::kCompletions).first;
  EXPECT_NE(reply.find(R"("prompt_logprobs":)" + one), std::string::npos) << reply;
  reply = Replies(R"(,"prompt_logprobs":0)", ApiEndpoint::kCompletions).first;
  EXPECT_NE(reply.find(R"("prompt_logprobs":[null,{"98":{"logprob":-0.25,"rank":2,"decoded_token":"b"}}])"),
            std::string::npos)
      << reply;
  const Json chat = ParseJson(Replies(R"(,"prompt_logprobs":1)", ApiEndpoint::kChat).first).value();
  const JsonArray& list = chat.Find("prompt_logprobs")->as_array();
  EXPECT_EQ(static_cast<int64_t>(list.size()), At(chat, {"usage", "prompt_tokens"}).as_int());
  EXPECT_TRUE(list[0].is_null());
  EXPECT_EQ(Replies("", ApiEndpoint::kChat).first.find("prompt_logprobs"), std::string::npos);
  // What cannot be is -9999, and a token that is a part of a character is written as its bytes.
  std::string out;
  AppendPromptLogprobs(out, ByteTokenizer(), {{0xe2, -INFINITY, 260, {{0xe2, -1.0f}, {'x', -2.0f}}}}, 20);
  EXPECT_EQ(out, R"([null,{"226":{"logprob":-9999,"rank":260,"decoded_token":"bytes:\\xe2"},)"
                 R"("120":{"logprob":-2,"rank":2,"decoded_token":"x"}}])");
}

TEST_F(SamplingFieldsTest, OffsetsCountCharacters) {
  const ByteTokenizer tokenizer;
  int64_t offset = 0;
  std::vector<int64_t> offsets;
  for (unsigned char c : std::string("a\xe2\x98\x83z")) {
    offsets.push_back(MakeLogprobEntry(tokenizer, c, -1, {}, true, &offset).text_offset);
  }
  EXPECT_EQ(offsets, (std::vector<int64_t>{0, 1, 2, 2, 2}));
  EXPECT_EQ(offset, 3);
  std::string out;
  AppendChatLogprobs(out, std::vector<LogprobEntry>{{{"x", "x", -INFINITY}, {}, 0}});
  EXPECT_EQ(out,
            R"({"content":[{"token":"x","logprob":-9999,"bytes":[120],"top_logprobs":[]}],"refusal":null})");
}

TEST_F(SamplingFieldsTest, AllowedTokens) {
  EXPECT_TRUE(Read(R"("allowed_token_ids":null)")->allowed_token_ids.empty());
  EXPECT_EQ(Read(R"("allowed_token_ids":[9,1,9,258,1])")->allowed_token_ids,
            (std::vector<int32_t>{1, 9, 258}));
  Refuses(R"("allowed_token_ids":[])", "allowed_token_ids", "leave it out");
  Refuses(R"("allowed_token_ids":7)", "allowed_token_ids", "array of token ids");
  for (const char* bad : {"-1", "259", "2147483648", "4294967297", "1.5", "\"a\"", "null", "1e300"})
    Refuses(StrCat("\"allowed_token_ids\":[1,", bad, "]"), "allowed_token_ids", "from 0 to 258");
  service_->vocab_size = 300;  // more logits than the tokenizer has tokens
  Refuses(R"("allowed_token_ids":[299])", "allowed_token_ids", "from 0 to 258");
}

}  // namespace
}  // namespace fd
