// Penalties, biases, bad words, min_tokens and log-probabilities: what requests may say, what reaches the
// engine, and how log-probabilities look in replies.
#include "server/openai/sampling_fields.h"

#include <gtest/gtest.h>

#include <cmath>

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
  Refuses(R"("logprobs":2,"echo":true)", "logprobs", "echo");
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

}  // namespace
}  // namespace fd
