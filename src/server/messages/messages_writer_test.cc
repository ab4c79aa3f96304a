// Events of the engine to Anthropic's blocks and events.
#include "server/messages/messages_writer.h"

#include <gtest/gtest.h>

#include "base/strings.h"
#include "server/messages/messages_errors.h"
#include "server/messages/messages_request.h"
#include "server/openai/fakes_for_tests.h"

namespace fd {
namespace {

Json Parsed(std::string_view text) {
  auto json = ParseJson(text);
  FD_CHECK(json.ok(), std::string(text));
  return std::move(json).value();
}

std::vector<int32_t> Ids(std::string_view text) {
  std::vector<int32_t> ids;
  for (char c : text) ids.push_back(static_cast<uint8_t>(c));
  return ids;
}

// What a client makes of a stream, as Anthropic's own client does it; every rule of the order is checked.
struct Stream {
  Json message;  // content, stop_reason, stop_sequence and usage filled in
  std::vector<std::string> names;

  explicit Stream(const std::string& sse) {
    JsonArray content;
    bool open = false;
    std::string partial;
    for (const std::string& block : Events(sse)) {
      const size_t line = block.find('\n');
      const std::string name = block.substr(7, line - 7);
      EXPECT_TRUE(block.starts_with("event: ") && block.substr(line + 1).starts_with("data: ")) << block;
      const Json data = Parsed(block.substr(line + 7));
      EXPECT_EQ(data.Find("type")->as_string(), name);
      names.push_back(name);
      if (name == "message_start") {
        EXPECT_EQ(names.size(), 1u);
        message = *data.Find("message");
        EXPECT_TRUE(message.Find("content")->as_array().empty());
        EXPECT_TRUE(message.Find("stop_reason")->is_null());
      } else if (name == "content_block_start") {
        EXPECT_FALSE(open);
        EXPECT_EQ(data.Find("index")->as_int(), std::ssize(content));
        open = true;
        content.push_back(*data.Find("content_block"));
        partial.clear();
      } else if (name == "content_block_delta") {
        EXPECT_TRUE(open);
        EXPECT_EQ(data.Find("index")->as_int(), std::ssize(content) - 1);
        JsonObject& block_object = content.back().as_object();
        const Json& delta = *data.Find("delta");
        const std::string type = delta.Find("type")->as_string();
        const auto append = [&](const char* member) {
          EXPECT_FALSE(delta.Find(member)->as_string().empty());
          block_object.Set(member, block_object.Find(member)->as_string() + delta.Find(member)->as_string());
        };
        const std::string kind = block_object.Find("type")->as_string();
        if (type == "text_delta" && kind == "text") {
          append("text");
        } else if (type == "thinking_delta" && kind == "thinking") {
          append("thinking");
        } else if (type == "signature_delta" && kind == "thinking") {
          append("signature");
        } else if (type == "input_json_delta" && kind == "tool_use") {
          partial += delta.Find("partial_json")->as_string();
          block_object.Set("input", Parsed(partial));
        } else {
          ADD_FAILURE() << type << " in a block of " << kind;
        }
      } else if (name == "content_block_stop") {
        EXPECT_TRUE(open);
        EXPECT_EQ(data.Find("index")->as_int(), std::ssize(content) - 1);
        open = false;
      } else if (name == "message_delta") {
        EXPECT_FALSE(open);
        for (const char* member : {"stop_reason", "stop_sequence"}) {
          message.as_object().Set(member, *data.Find("delta")->Find(member));
        }
        message.as_object().Set("usage", *data.Find("usage"));
      } else {
        EXPECT_TRUE(name == "ping" || name == "message_stop" || name == "error") << name;
      }
    }
    message.as_object().Set("content", Json(std::move(content)));
  }

  static std::vector<std::string> Events(std::string_view sse) {
    std::vector<std::string> events;
    while (!sse.empty()) {
      const size_t end = sse.find("\n\n");
      FD_CHECK(end != std::string_view::npos);
      events.emplace_back(sse.substr(0, end));
      sse.remove_prefix(end + 2);
    }
    return events;
  }
};

// Ids differ from one generation to the next.
void WithoutIds(Json& message) {
  EXPECT_TRUE(message.Find("id")->as_string().starts_with("msg_"));
  message.as_object().Set("id", "");
  for (Json& block : message.as_object().Find("content")->as_array()) {
    if (block.Find("id") == nullptr) continue;
    EXPECT_TRUE(block.Find("id")->as_string().starts_with("toolu_"));
    block.as_object().Set("id", "");
  }
}

class MessagesWriterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    engine_.SetSilent(true);
    ASSERT_TRUE(SetReasoningParser(*service_, "ernie-45-vl-thinking").ok());
    ASSERT_TRUE(SetToolParser(*service_, "hermes").ok());
  }

  struct Asked {
    std::unique_ptr<Generation> generation;
    std::unique_ptr<ReplyWriter> writer;
  };
  Asked Ask(const std::string& fields) {
    auto translated = TranslateMessages(
        *service_,
        Parsed(StrCat(R"({"messages":[{"role":"user","content":"a"}])", fields,
                      fields.find("max_tokens\":") == std::string::npos ? R"(,"max_tokens":400})" : "}")));
    FD_CHECK(translated.ok(), translated.status().message());
    auto draft = Generation::Parse(*service_, translated->endpoint, std::move(translated->body), "",
                                   Clock::now(), translated->id_prefix);
    FD_CHECK(draft.ok(), draft.status().message());
    auto g = Generation::Finish(std::move(draft).value(), {});
    FD_CHECK(g.ok(), g.status().message());
    FD_CHECK((*g)->Submit([](int, TokenEvent&&) {}).ok());
    return {std::move(g).value(), std::move(translated->writer)};
  }

  // One event for each part; the last one ends.
  Json Streamed(const std::string& fields, const std::vector<std::vector<int32_t>>& parts,
                FinishReason reason = FinishReason::kStop) {
    Asked asked = Ask(fields + R"(,"stream":true)");
    std::string sse;
    for (size_t i = 0; i < parts.size() && !asked.generation->finished(); ++i) {
      TokenEvent event;
      event.token_ids = parts[i];
      if (i + 1 == parts.size()) event.finish_reason = reason;
      const Delta delta = asked.generation->Push(0, std::move(event));
      if (!delta.empty()) asked.writer->Push(*asked.generation, 0, delta, sse);
    }
    asked.writer->Finish(*asked.generation, sse);
    Stream stream(sse);
    EXPECT_EQ(stream.names[1], "ping");
    EXPECT_EQ(stream.names.back(), "message_stop");
    EXPECT_EQ(stream.names[stream.names.size() - 2], "message_delta");
    WithoutIds(stream.message);
    return stream.message;
  }
  Json Whole(const std::string& fields, const std::vector<int32_t>& ids,
             FinishReason reason = FinishReason::kStop) {
    Asked asked = Ask(fields);
    TokenEvent event;
    event.token_ids = ids;
    event.finish_reason = reason;
    asked.generation->Push(0, std::move(event));
    Json message = Parsed(asked.writer->ReplyJson(*asked.generation));
    WithoutIds(message);
    return message;
  }

  ScriptedEngine engine_{"hello"};
  std::shared_ptr<Service> service_ = TestService(engine_);
};

constexpr char kTools[] =
    R"(,"tools":[{"name":"add","description":"adds","input_schema":{"type":"object"}}])";
constexpr char kThinks[] = R"(,"thinking":{"type":"enabled","budget_tokens":300})";

TEST_F(MessagesWriterTest, TheWholeMessage) {
  const Json message =
      Whole(kTools, Ids("sum: <tool_call>{\"name\": \"add\", \"arguments\": {\"a\": 1}}</tool_call>"));
  EXPECT_EQ(
      WriteJson(message),
      R"({"id":"","type":"message","role":"assistant","model":"tiny","content":[{"type":"text","text":"sum: "},)"
      R"({"type":"tool_use","id":"","name":"add","input":{"a":1}}],"stop_reason":"tool_use","stop_sequence":null,)"
      R"("usage":{"input_tokens":143,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,)"
      R"("output_tokens":66,"output_tokens_details":{"thinking_tokens":0}}})");
}

TEST_F(MessagesWriterTest, EverySplitGivesTheSameBlocks) {
  const std::string call = "<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": \"</é\"}}</tool_call>";
  const std::string texts[] = {"two < three é",
                               call,
                               "A" + call + "B",
                               call + "\n" + call,
                               "A" + call + call + " B ",
                               "<tool_call>{\"name\": 1}</tool_call>",
                               "A<tool_call>{\"na",
                               "left STOP right",
                               ""};
  for (const bool thinks : {false, true}) {
    for (const std::string& text : texts) {
      const std::string fields = StrCat(kTools, R"(,"stop_sequences":["STOP"])", thinks ? kThinks : "");
      std::vector<int32_t> ids = thinks ? Ids("why é") : std::vector<int32_t>();
      if (thinks) ids.push_back(ByteTokenizer::kThinkEnd);
      for (int32_t id : Ids(text)) ids.push_back(id);
      const Json whole = Whole(fields, ids);
      const auto cut = [&](size_t from, size_t to) {
        return std::vector<int32_t>(ids.begin() + static_cast<std::ptrdiff_t>(from),
                                    ids.begin() + static_cast<std::ptrdiff_t>(to));
      };
      for (size_t i = 0; i <= ids.size(); ++i) {
        const Json streamed = Streamed(fields, {cut(0, i), cut(i, ids.size())});
        ASSERT_EQ(WriteJson(streamed), WriteJson(whole)) << text << " cut at " << i;
        const size_t third = i + (ids.size() - i) / 2;
        ASSERT_EQ(WriteJson(Streamed(fields, {cut(0, i), cut(i, third), cut(third, ids.size())})),
                  WriteJson(whole))
            << text << " cut at " << i << " and " << third;
      }
      std::vector<std::vector<int32_t>> single;
      for (int32_t id : ids) single.push_back({id});
      if (single.empty()) single.emplace_back();
      ASSERT_EQ(WriteJson(Streamed(fields, single)), WriteJson(whole)) << text;
    }
  }
}

TEST_F(MessagesWriterTest, StopReasons) {
  const auto reason = [](const Json& message) {
    const Json* stop = message.Find("stop_sequence");
    return StrCat(message.Find("stop_reason")->as_string(), " ", stop->is_null() ? "-" : stop->as_string());
  };
  const std::string stops = R"(,"stop_sequences":["one","END"])";
  EXPECT_EQ(reason(Whole(stops, Ids("abc"))), "end_turn -");
  EXPECT_EQ(reason(Whole(stops, Ids("abc END d"))), "stop_sequence END");
  EXPECT_EQ(reason(Whole(R"(,"max_tokens":3)", Ids("abc"), FinishReason::kLength)), "max_tokens -");
  EXPECT_EQ(reason(Whole("", Ids("abc"), FinishReason::kLength)), "model_context_window_exceeded -");
  const std::string call = "<tool_call>{\"name\":\"add\",\"arguments\":{}}</tool_call>";
  EXPECT_EQ(reason(Whole(kTools, Ids(call))), "tool_use -");
  EXPECT_EQ(reason(Whole(stops + kTools, Ids(call + "END"))), "tool_use -");
  // Without tools nothing is a call.
  EXPECT_EQ(reason(Whole("", Ids(call))), "end_turn -");
}

TEST_F(MessagesWriterTest, Thoughts) {
  std::vector<int32_t> ids = Ids("hmm");
  ids.push_back(ByteTokenizer::kThinkEnd);
  ids.push_back('A');
  Json message = Whole(kThinks, ids);
  EXPECT_EQ(WriteJson(*message.Find("content")),
            R"([{"type":"thinking","thinking":"hmm","signature":"unsigned"},{"type":"text","text":"A"}])");
  EXPECT_EQ(message.Find("usage")->Find("output_tokens_details")->Find("thinking_tokens")->as_int(), 4);
  const std::string omitted = R"(,"thinking":{"type":"enabled","budget_tokens":300,"display":"omitted"})";
  message = Whole(omitted, ids);
  EXPECT_EQ(WriteJson(*message.Find("content")),
            R"([{"type":"thinking","thinking":"","signature":"unsigned"},{"type":"text","text":"A"}])");
  EXPECT_EQ(WriteJson(Streamed(omitted, {ids})), WriteJson(message));
  // A thought that the output's length cuts off, and one of nothing.
  EXPECT_EQ(WriteJson(*Whole(kThinks, Ids("hm"), FinishReason::kLength).Find("content")),
            R"([{"type":"thinking","thinking":"hm","signature":"unsigned"}])");
  EXPECT_EQ(WriteJson(*Whole(kThinks, {ByteTokenizer::kThinkEnd, 'A'}).Find("content")),
            R"([{"type":"text","text":"A"}])");
}

TEST_F(MessagesWriterTest, CachedTokensAreNoInputTokens) {
  Asked asked = Ask("");
  TokenEvent event;
  event.token_ids = {'a'};
  event.cached_tokens = 5;
  event.finish_reason = FinishReason::kStop;
  asked.generation->Push(0, std::move(event));
  const Json message = Parsed(asked.writer->ReplyJson(*asked.generation));
  EXPECT_EQ(message.Find("usage")->Find("cache_read_input_tokens")->as_int(), 5);
  EXPECT_EQ(message.Find("usage")->Find("input_tokens")->as_int(),
            asked.generation->usage().prompt_tokens - 5);
}

TEST_F(MessagesWriterTest, AFailureInAStream) {
  Asked asked = Ask(R"(,"stream":true)");
  TokenEvent event;
  event.token_ids = {'a'};
  std::string sse;
  asked.writer->Push(*asked.generation, 0, asked.generation->Push(0, std::move(event)), sse);
  asked.writer->Fail(*asked.generation, ToApiError(Unavailable("shutting down")), sse);
  const auto events = Stream::Events(sse);
  EXPECT_EQ(events.back(),
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":"
            "\"shutting down\"}}");
}

TEST(MessagesErrors, TypesByStatus) {
  const auto type = [](int status) {
    ApiError error;
    error.http_status = status;
    return Parsed(MessagesErrorJson(error, "")).Find("error")->Find("type")->as_string();
  };
  EXPECT_EQ(type(400), "invalid_request_error");
  EXPECT_EQ(type(401), "authentication_error");
  EXPECT_EQ(type(403), "permission_error");
  EXPECT_EQ(type(404), "not_found_error");
  EXPECT_EQ(type(405), "invalid_request_error");
  EXPECT_EQ(type(413), "request_too_large");
  EXPECT_EQ(type(429), "rate_limit_error");
  EXPECT_EQ(type(500), "api_error");
  EXPECT_EQ(type(503), "overloaded_error");
  EXPECT_EQ(
      MessagesErrorJson(ToApiError(InvalidArgument("no \"x\"", "x")), "req-1"),
      R"({"type":"error","error":{"type":"invalid_request_error","message":"no \"x\""},"request_id":"req-1"})");
}

}  // namespace
}  // namespace fd
