#include "server/openai/embeddings.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <deque>

#include "base/strings.h"
#include "server/openai/errors.h"
#include "server/openai/fakes_for_tests.h"
#include "server/openai/vector_json.h"

namespace fd {
namespace {

// An engine whose requests wait until the test answers them: of n tokens, first id f, with {f, n, 0, 2}.
class HandEngine {
 public:
  EngineDoor Door() {
    return {[this](GenerateRequest r) -> Status {
              if (full_after >= 0 && std::ssize(waiting) >= full_after)
                return {StatusCode::kResourceExhausted, "the queue is full"};
              if (!refusal.ok()) return refusal;
              seen.push_back(r.token_ids);
              waiting.push_back(std::move(r));
              return OkStatus();
            },
            [this](RequestId id) { aborted.push_back(id); }, [] { return EngineStats{}; },
            [] { return Clock::now(); }, [] {}};
  }
  // The oldest one; its sink is called.
  void Answer() {
    GenerateRequest r = std::move(waiting.front());
    waiting.pop_front();
    TokenEvent event;
    event.request_id = r.id;
    event.finish_reason = FinishReason::kStop;
    event.embedding = {static_cast<float>(r.token_ids[0]), static_cast<float>(r.token_ids.size()), 0.0f,
                       2.0f};
    r.sink(std::move(event));
  }
  std::deque<GenerateRequest> waiting;
  std::vector<std::vector<int32_t>> seen;
  std::vector<RequestId> aborted;
  int64_t full_after = -1;
  Status refusal;
};

class Embeddings : public testing::Test {
 protected:
  Embeddings() : scripted_("x"), service_(TestService(scripted_)) {
    service_->embeddings = EmbeddingService{.normalize = true,
                                            .dimensions = {},
                                            .hidden_size = 4,
                                            .is_matryoshka = false,
                                            .matryoshka_dimensions = {}};
    service_->max_model_len = 10;
    service_->max_num_seqs = 2;
    service_->engine = engine_.Door();
  }
  StatusOr<std::unique_ptr<Embedding>> Prepare(const std::string& body,
                                               RequestKind kind = RequestKind::kEmbeddings) {
    FD_ASSIGN_OR_RETURN(auto draft, Embedding::Parse(*service_, kind, body, "", Clock::now()));
    return Embedding::Finish(std::move(draft), {});
  }
  // The reply of a request whose inputs are answered one after the other.
  StatusOr<Json> Ask(const std::string& body, RequestKind kind = RequestKind::kEmbeddings) {
    FD_ASSIGN_OR_RETURN(auto e, Prepare(body, kind));
    FD_RETURN_IF_ERROR(e->Submit([&e](int input, TokenEvent&& event) { e->Push(input, std::move(event)); }));
    while (!e->finished() && e->status().ok()) engine_.Answer();
    FD_RETURN_IF_ERROR(e->status());
    return ParseJson(e->ReplyJson());
  }
  std::string Refusal(const std::string& body, RequestKind kind = RequestKind::kEmbeddings) {
    const auto reply = Ask(body, kind);
    return reply.ok() ? "accepted" : reply.status().message();
  }
  void ExpectRefused(const std::string& body, const std::string& part, const std::string& param) {
    const auto reply = Ask(body);
    ASSERT_FALSE(reply.ok()) << body;
    EXPECT_NE(reply.status().message().find(part), std::string::npos) << reply.status().message();
    EXPECT_EQ(reply.status().param(), param) << body;
    EXPECT_EQ(ToApiError(reply.status()).http_status, 400) << body;
  }
  static std::vector<double> Vector(const Json& reply, size_t index, const char* name = "embedding") {
    std::vector<double> out;
    for (const Json& v : reply.Find("data")->as_array().at(index).Find(name)->as_array())
      out.push_back(v.as_double());
    return out;
  }

  ScriptedEngine scripted_;  // for TestService alone
  HandEngine engine_;
  std::shared_ptr<Service> service_;
};

TEST_F(Embeddings, EveryFormOfInput) {
  for (const auto& [body, ids] : std::vector<std::pair<std::string, std::vector<std::vector<int32_t>>>>{
           {R"({"input":"ab"})", {{'a', 'b'}}},
           {R"({"input":["ab","c"]})", {{'a', 'b'}, {'c'}}},
           {R"({"input":[5,6,7]})", {{5, 6, 7}}},
           {R"({"input":[[5,6],[7]]})", {{5, 6}, {7}}},
           {R"({"messages":[{"role":"u","content":""}]})", {}}}) {
    engine_.seen.clear();
    const auto reply = Ask(body);
    if (ids.empty()) {
      EXPECT_FALSE(reply.ok());
      continue;
    }
    ASSERT_TRUE(reply.ok()) << reply.status().message();
    EXPECT_EQ(engine_.seen, ids) << body;
    EXPECT_EQ(reply->Find("object")->as_string(), "list");
    EXPECT_EQ(reply->Find("model")->as_string(), "tiny");
    EXPECT_TRUE(reply->Find("id")->as_string().starts_with("embd-"));
    ASSERT_EQ(reply->Find("data")->as_array().size(), ids.size());
    int64_t tokens = 0;
    for (size_t i = 0; i < ids.size(); ++i) {
      const Json& entry = reply->Find("data")->as_array()[i];
      EXPECT_EQ(entry.Find("index")->as_int(), static_cast<int64_t>(i));
      EXPECT_EQ(entry.Find("object")->as_string(), "embedding");
      const double a = ids[i][0], b = static_cast<double>(ids[i].size()),
                   length = std::sqrt(a * a + b * b + 4);
      const std::vector<double> expected = {a / length, b / length, 0, 2 / length};
      for (size_t k = 0; k < 4; ++k) EXPECT_NEAR(Vector(*reply, i)[k], expected[k], 1e-7);
      tokens += std::ssize(ids[i]);
    }
    EXPECT_EQ(reply->Find("usage")->Find("prompt_tokens")->as_int(), tokens);
    EXPECT_EQ(reply->Find("usage")->Find("total_tokens")->as_int(), tokens);
  }
}

TEST_F(Embeddings, AConversationIsOneInput) {
  service_->max_model_len = 100;
  const std::string messages = R"("messages":[{"role":"user","content":"hi"}])";
  ASSERT_TRUE(Ask("{" + messages + "}").ok());
  ASSERT_TRUE(Ask("{" + messages + R"(,"chat_template_kwargs":{"enable_thinking":true}})").ok());
  const auto text = [&](size_t i) { return ByteTokenizer().Decode(engine_.seen[i], false); };
  EXPECT_EQ(text(0), "user: hi\nbot: <think></think>");
  EXPECT_EQ(text(1), "user: hi\nbot: <think>");
  ASSERT_TRUE(Ask("{" + messages + R"(,"truncate_prompt_tokens":8})").ok());
  EXPECT_EQ(text(2), "user: hi");
  ExpectRefused("{" + messages + R"(,"input":"a"})", "contradict", "messages");
  ExpectRefused("{" + messages + R"(,"chat_template":"{{ 1 }}"})", "chat_template", "chat_template");
  ExpectRefused("{" + messages + R"(,"continue_final_message":true})", "still to come",
                "continue_final_message");
}

TEST_F(Embeddings, Base64HasTheSameValues) {
  const auto numbers = Ask(R"({"input":"ab"})");
  const auto coded = Ask(R"({"input":"ab","encoding_format":"base64"})");
  ASSERT_TRUE(numbers.ok() && coded.ok());
  std::string expected;
  std::vector<float> values;
  for (double v : Vector(*numbers, 0)) values.push_back(static_cast<float>(v));
  AppendBase64(expected, values);
  EXPECT_EQ("\"" + coded->Find("data")->as_array()[0].Find("embedding")->as_string() + "\"", expected);
}

TEST(VectorJson, KnownBytes) {
  const auto base64 = [](std::vector<float> values) {
    std::string out;
    AppendBase64(out, values);
    return out;
  };
  // Of Python's base64.b64encode(struct.pack("<...f", ...)).
  EXPECT_EQ(base64({}), "\"\"");
  EXPECT_EQ(base64({1.0f}), "\"AACAPw==\"");
  EXPECT_EQ(base64({1.0f, -2.5f}), "\"AACAPwAAIMA=\"");
  EXPECT_EQ(base64({1.0f, -2.5f, 0.1f}), "\"AACAPwAAIMDNzMw9\"");
  std::string text;
  AppendFloatArray(text, std::vector<float>{0.0f, -0.25f, 1e-30f, 0.1f, 16777216.0f});
  const auto parsed = ParseJson(text);
  ASSERT_TRUE(parsed.ok()) << text;
  EXPECT_EQ(static_cast<float>(parsed->as_array()[2].as_double()), 1e-30f);
  EXPECT_EQ(static_cast<float>(parsed->as_array()[3].as_double()), 0.1f);
}

TEST_F(Embeddings, Normalize) {
  EXPECT_EQ(Vector(*Ask(R"({"input":[3,4],"normalize":false})"), 0), (std::vector<double>{3, 2, 0, 2}));
  service_->embeddings->normalize = false;
  EXPECT_EQ(Vector(*Ask(R"({"input":[3,4]})"), 0), (std::vector<double>{3, 2, 0, 2}));
  EXPECT_NEAR(Vector(*Ask(R"({"input":[3,4],"normalize":true})"), 0)[0], 3 / std::sqrt(17.0), 1e-7);
  EXPECT_EQ(CutAndNormalize({0, 0}, 2, true), (std::vector<float>{0, 0}));
  EXPECT_EQ(CutAndNormalize({3e38f, 3e38f}, 2, true)[0], CutAndNormalize({1, 1}, 2, true)[0])
      << "no overflow";
}

TEST_F(Embeddings, DimensionsOnlyWhereTheModelWasMadeForIt) {
  ExpectRefused(R"({"input":"a","dimensions":2})", "matryoshka", "dimensions");
  service_->embeddings->is_matryoshka = true;
  const auto cut = Ask(R"({"input":[3,4],"dimensions":2})");
  ASSERT_TRUE(cut.ok()) << cut.status().message();
  EXPECT_EQ(Vector(*cut, 0).size(), 2u);
  EXPECT_NEAR(Vector(*cut, 0)[0], 3 / std::sqrt(13.0), 1e-7) << "cut first, then normalised";
  ExpectRefused(R"({"input":"a","dimensions":5})", "from 1 to 4", "dimensions");
  ExpectRefused(R"({"input":"a","dimensions":0})", "dimensions", "dimensions");
  service_->embeddings->matryoshka_dimensions = {1, 3};
  ExpectRefused(R"({"input":"a","dimensions":2})", "1, 3", "dimensions");
  EXPECT_EQ(Vector(*Ask(R"({"input":"a","dimensions":3})"), 0).size(), 3u);
  service_->embeddings->dimensions = 1;
  EXPECT_EQ(Vector(*Ask(R"({"input":"a"})"), 0).size(), 1u);
}

TEST_F(Embeddings, LengthAndTruncation) {
  EXPECT_TRUE(Ask(R"({"input":"0123456789"})").ok()) << "all of max_model_len";
  const auto longer = Ask(R"({"input":["a","0123456789x"]})");
  ASSERT_FALSE(longer.ok());
  EXPECT_EQ(ToApiError(longer.status()).code, "context_length_exceeded");
  EXPECT_NE(longer.status().message().find("input[1] has 11 tokens"), std::string::npos)
      << longer.status().message();
  engine_.seen.clear();
  EXPECT_TRUE(Ask(R"({"input":["a","0123456789x"],"truncate_prompt_tokens":-1})").ok());
  EXPECT_TRUE(Ask(R"({"input":[[1,2,3],[4]],"truncate_prompt_tokens":2})").ok());
  EXPECT_EQ(engine_.seen[1].size(), 10u);
  EXPECT_EQ(engine_.seen[1][0], '0') << "the beginning is kept";
  EXPECT_EQ(engine_.seen[2], (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(engine_.seen[3], (std::vector<int32_t>{4}));
  ExpectRefused(R"({"input":"a","truncate_prompt_tokens":11})", "--max-model-len", "truncate_prompt_tokens");
  ExpectRefused(R"({"input":"a","truncate_prompt_tokens":0})", "-1 or from 1", "truncate_prompt_tokens");
  ExpectRefused(R"({"input":"a","truncate_prompt_tokens":-2})", "truncate_prompt_tokens",
                "truncate_prompt_tokens");
}

TEST_F(Embeddings, Refusals) {
  service_->limits.max_embedding_inputs = 3;
  ExpectRefused(R"({"input":["a","b","c","d"]})", "--max-embedding-inputs", "input");
  ExpectRefused(R"({"input":[[1],[2],[3],[4]]})", "4 entries; at most 3", "input");
  ExpectRefused(R"({})", "input is missing", "input");
  ExpectRefused(R"({"input":null})", "input is missing", "input");
  ExpectRefused(R"({"input":""})", "is empty", "input");
  ExpectRefused(R"({"input":["a",""]})", "input[1] is empty", "input");
  ExpectRefused(R"({"input":[]})", "empty array", "input");
  ExpectRefused(R"({"input":[[]]})", "no tokens", "input");
  ExpectRefused(R"({"input":7})", "must be a string", "input");
  ExpectRefused(R"({"input":{"a":1}})", "must be a string", "input");
  ExpectRefused(R"({"input":["a",1]})", "input[1] is 1", "input");
  ExpectRefused(R"({"input":[1,"a"]})", "input[1] must be a token id", "input");
  ExpectRefused(R"({"input":[[1],"a"]})", "input[1]", "input");
  ExpectRefused(R"({"input":[259]})", "from 0 to 258", "input");
  ExpectRefused(R"({"input":[-1]})", "token id", "input");
  ExpectRefused(R"({"input":[1.5]})", "token id", "input");
  ExpectRefused(R"({"input":"a","encoding_format":"hex"})", "\"float\" or \"base64\"", "encoding_format");
  ExpectRefused(R"({"input":"a","encoding_format":1})", "encoding_format", "encoding_format");
  ExpectRefused(R"({"input":"a","embed_dtype":"float16"})", "float32", "embed_dtype");
  ExpectRefused(R"({"input":"a","endianness":"big"})", "little", "endianness");
  ExpectRefused(R"({"input":"a","normalize":1})", "true or false", "normalize");
  ExpectRefused(R"({"input":"a","add_special_tokens":1})", "true or false", "add_special_tokens");
  ExpectRefused(R"({"input":"a","priority":"x"})", "priority", "priority");
  ExpectRefused(R"({"input":"a","user":"a\nb"})", "control characters", "user");
  ExpectRefused("[]", "object", "");
  ExpectRefused("{", "no JSON", "");
  EXPECT_EQ(engine_.seen.size(), 0u) << "nothing of a refused request is computed";
}

TEST_F(Embeddings, PoolingHasItsOwnForm) {
  const auto reply = Ask(R"({"input":"ab","task":"embed","request_id":"r1"})", RequestKind::kPooling);
  ASSERT_TRUE(reply.ok()) << reply.status().message();
  EXPECT_EQ(reply->Find("id")->as_string(), "pool-r1");
  EXPECT_EQ(reply->Find("data")->as_array()[0].Find("object")->as_string(), "pooling");
  EXPECT_EQ(Vector(*reply, 0, "data").size(), 4u);
  EXPECT_NE(Refusal(R"({"input":"ab","task":"token_embed"})", RequestKind::kPooling).find("\"embed\""),
            std::string::npos);
}

TEST_F(Embeddings, FieldsThatItDoesNotKnow) {
  auto e = Prepare(R"({"input":"a","temperature":3,"tools":5})");
  ASSERT_TRUE(e.ok()) << e.status().message();
  EXPECT_EQ((*e)->ignored_fields(), (std::vector<std::string>{"temperature", "tools"}));
  service_->strict_requests = true;
  ExpectRefused(R"({"input":"a","dimension":3})", "dimensions", "dimension");
}

TEST_F(Embeddings, AsManyAtOnceAsTheEngineCanUse) {
  auto made = Prepare(R"({"input":["a","b","c","d","e","f","g"]})");
  ASSERT_TRUE(made.ok());
  Embedding& e = **made;
  ASSERT_TRUE(e.Submit([&e](int input, TokenEvent&& event) { e.Push(input, std::move(event)); }).ok());
  EXPECT_EQ(engine_.waiting.size(), 4u) << "twice --max-num-seqs";
  engine_.Answer();
  EXPECT_EQ(engine_.waiting.size(), 4u);
  // The queue fills up with requests of others: what runs goes on, and the rest is tried again.
  engine_.full_after = 2;
  engine_.Answer();
  engine_.Answer();
  EXPECT_EQ(engine_.waiting.size(), 2u);
  EXPECT_TRUE(e.status().ok());
  engine_.full_after = -1;
  while (!e.finished()) engine_.Answer();
  EXPECT_EQ(engine_.seen.size(), 7u);
  EXPECT_TRUE(ParseJson(e.ReplyJson()).ok());
}

TEST_F(Embeddings, WhatEndsARequest) {
  engine_.full_after = 0;
  EXPECT_EQ(Ask(R"({"input":["a","b"]})").status().code(), StatusCode::kResourceExhausted);
  engine_.full_after = -1;
  engine_.refusal = InvalidArgument("too long for the cache", "input");
  ExpectRefused(R"({"input":["a","b"]})", "too long for the cache", "input");
  engine_.refusal = OkStatus();

  {
    auto made = Prepare(R"({"input":["a","b","c","d","e","f"]})");
    Embedding& e = **made;
    ASSERT_TRUE(e.Submit([](int, TokenEvent&&) {}).ok());
    TokenEvent failed;
    failed.finish_reason = FinishReason::kError;
    failed.error = Internal("numbers");
    e.Push(1, std::move(failed));
    EXPECT_EQ(e.status().message(), "numbers");
    EXPECT_TRUE(engine_.aborted.empty());
  }
  EXPECT_EQ(engine_.aborted.size(), 3u) << "its end aborts what it has started and what has not ended";

  engine_.waiting.clear();
  engine_.aborted.clear();
  auto made = Prepare(R"({"input":["a","b","c","d","e","f"]})");
  Embedding& e = **made;
  ASSERT_TRUE(e.Submit([&e](int input, TokenEvent&& event) { e.Push(input, std::move(event)); }).ok());
  e.Abort();
  EXPECT_EQ(engine_.aborted.size(), 6u);
  const size_t seen = engine_.seen.size();
  engine_.Answer();
  EXPECT_EQ(engine_.seen.size(), seen) << "nothing is started after an abort";
}

}  // namespace
}  // namespace fd
