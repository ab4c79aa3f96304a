// Items and events: a stream says what a whole reply says, however the text is cut.
#include "server/responses/responses_writer.h"

#include <gtest/gtest.h>

#include "base/strings.h"
#include "server/openai/fakes_for_tests.h"
#include "server/responses/translate.h"

namespace fd {
namespace {

TokenEvent Ids(std::vector<int32_t> ids) {
  TokenEvent e;
  e.token_ids = std::move(ids);
  for (size_t i = 0; i < e.token_ids.size(); ++i) {
    e.logprobs.push_back(-0.5f);
    e.top_logprobs.push_back({{e.token_ids[i], -0.5f}});
  }
  return e;
}
// '|' stands for the token </think>.
std::vector<int32_t> Tokens(std::string_view text) {
  std::vector<int32_t> ids;
  for (char c : text) ids.push_back(c == '|' ? ByteTokenizer::kThinkEnd : static_cast<uint8_t>(c));
  return ids;
}

struct SseEvent {
  std::string name;
  Json data;
};

Json Parsed(std::string_view text) {
  auto json = ParseJson(text);
  FD_CHECK(json.ok(), text);
  return std::move(json).value();
}

std::vector<SseEvent> Events(const std::string& sse) {
  std::vector<SseEvent> events;
  size_t at = 0;
  while (at < sse.size()) {
    const size_t end = sse.find("\n\n", at);
    const std::string one = sse.substr(at, end - at);
    const size_t newline = one.find('\n');
    FD_CHECK(one.starts_with("event: ") && one.compare(newline + 1, 6, "data: ") == 0, one);
    events.push_back({one.substr(7, newline - 7), Parsed(one.substr(newline + 7))});
    at = end + 2;
  }
  return events;
}

std::string Type(const Json& json) { return json.Find("type")->as_string(); }

// Ids and times differ from request to request, and nothing else.
std::string Plain(const Json& value) {
  if (value.is_array()) {
    std::string out = "[";
    for (const Json& element : value.as_array()) out += Plain(element) + ",";
    return out + "]";
  }
  if (!value.is_object()) return WriteJson(value);
  std::string out = "{";
  for (const auto& [key, member] : value.as_object()) {
    const bool differs = key == "id" || key == "call_id" || key == "created_at" || key == "completed_at";
    out += StrCat(key, ":", differs && !member.is_null() ? "?" : Plain(member), ",");
  }
  return out + "}";
}

class ResponsesWriterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    engine_.SetSilent(true);
    ASSERT_TRUE(SetReasoningParser(*service_, "ernie-45-vl").ok());
    ASSERT_TRUE(SetToolParser(*service_, "hermes").ok());
  }
  struct Running {
    std::unique_ptr<ReplyWriter> writer;
    std::unique_ptr<Generation> generation;
    std::string sse;
    void Push(TokenEvent event) {
      const Delta delta = generation->Push(0, std::move(event));
      if (generation->reply().stream && !delta.empty()) writer->Push(*generation, 0, delta, sse);
    }
  };
  Running Start(const std::string& fields) {
    auto json = ParseJson(R"({"input":"a")" + fields + "}");
    FD_CHECK(json.ok(), fields);
    auto request = TranslateResponses(*service_, std::move(json).value());
    FD_CHECK(request.ok(), request.status().message());
    auto draft = Generation::Parse(*service_, request->endpoint, std::move(request->body), "", Clock::now(),
                                   request->id_prefix);
    FD_CHECK(draft.ok(), draft.status().message());
    auto g = Generation::Finish(std::move(*draft), {});
    FD_CHECK(g.ok() && (*g)->Submit([](int, TokenEvent&&) {}).ok());
    return {std::move(request->writer), std::move(g).value(), ""};
  }
  Json Whole(const std::string& fields, const std::vector<int32_t>& ids, FinishReason reason) {
    Running run = Start(fields);
    TokenEvent event = Ids(ids);
    event.finish_reason = reason;
    run.Push(std::move(event));
    return Parsed(run.writer->ReplyJson(*run.generation));
  }
  // The ids in events of these sizes; the last one ends the sequence.
  std::vector<SseEvent> Streamed(const std::string& fields, const std::vector<std::vector<int32_t>>& pieces,
                                 FinishReason reason) {
    Running run = Start(fields + R"(,"stream":true)");
    for (size_t i = 0; i < pieces.size(); ++i) {
      TokenEvent event = Ids(pieces[i]);
      if (i + 1 == pieces.size()) event.finish_reason = reason;
      run.Push(std::move(event));
    }
    run.writer->Finish(*run.generation, run.sse);
    return Events(run.sse);
  }

  ScriptedEngine engine_{"hello"};
  std::shared_ptr<Service> service_ = TestService(engine_);
};

// Follows the events as a client does, checks their order, and returns the items they build.
Json Followed(const std::vector<SseEvent>& events) {
  JsonArray items;
  std::string text, arguments;
  JsonArray logprobs;
  bool open = false, in_part = false;
  int64_t sequence = 0;
  EXPECT_EQ(events[0].name, "response.created");
  EXPECT_EQ(events[1].name, "response.in_progress");
  for (const SseEvent& event : events) {
    EXPECT_EQ(event.name, Type(event.data));
    EXPECT_EQ(event.data.Find("sequence_number")->as_int(), sequence++);
    const Json* index = event.data.Find("output_index");
    if (event.name == "response.output_item.added") {
      EXPECT_FALSE(std::exchange(open, true));
      EXPECT_EQ(index->as_int(), std::ssize(items));
      const Json& item = *event.data.Find("item");
      EXPECT_EQ(item.Find("status")->as_string(), "in_progress");
      if (Type(item) == "function_call") {
        EXPECT_EQ(item.Find("arguments")->as_string(), "");
      } else {
        EXPECT_TRUE(item.Find("content")->as_array().empty());
      }
      items.push_back(item);
      text = arguments = "";
      logprobs = {};
    } else if (index != nullptr) {
      EXPECT_TRUE(open);
      EXPECT_EQ(index->as_int(), std::ssize(items) - 1);
      if (const Json* id = event.data.Find("item_id")) {
        EXPECT_EQ(id->as_string(), items.back().Find("id")->as_string());
      }
    }
    if (event.name == "response.content_part.added") {
      EXPECT_FALSE(std::exchange(in_part, true));
      EXPECT_EQ(event.data.Find("part")->Find("text")->as_string(), "");
    } else if (event.name == "response.output_text.delta" || event.name == "response.reasoning_text.delta") {
      EXPECT_TRUE(in_part);
      text += event.data.Find("delta")->as_string();
      if (const Json* more = event.data.Find("logprobs")) {
        for (const Json& entry : more->as_array()) logprobs.push_back(entry);
      }
    } else if (event.name == "response.output_text.done" || event.name == "response.reasoning_text.done") {
      EXPECT_EQ(event.data.Find("text")->as_string(), text);
      if (const Json* all = event.data.Find("logprobs")) {
        EXPECT_TRUE(*all == Json(logprobs));
      }
    } else if (event.name == "response.content_part.done") {
      EXPECT_TRUE(std::exchange(in_part, false));
      EXPECT_EQ(event.data.Find("part")->Find("text")->as_string(), text);
    } else if (event.name == "response.function_call_arguments.delta") {
      arguments += event.data.Find("delta")->as_string();
    } else if (event.name == "response.function_call_arguments.done") {
      EXPECT_EQ(event.data.Find("arguments")->as_string(), arguments);
    } else if (event.name == "response.output_item.done") {
      EXPECT_TRUE(std::exchange(open, false));
      EXPECT_FALSE(in_part);
      const Json& item = *event.data.Find("item");
      EXPECT_EQ(item.Find("id")->as_string(), items.back().Find("id")->as_string());
      if (Type(item) == "function_call") {
        EXPECT_EQ(item.Find("arguments")->as_string(), arguments);
        EXPECT_EQ(item.Find("call_id")->as_string(), items.back().Find("call_id")->as_string());
      } else {
        EXPECT_EQ(item.Find("content")->as_array()[0].Find("text")->as_string(), text);
      }
      items.back() = item;
    }
  }
  EXPECT_FALSE(open);
  return Json(std::move(items));
}

const std::string kCall = R"(<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>)";
const std::string kTools = R"(,"tools":[{"type":"function","name":"add","parameters":{}}])";

TEST_F(ResponsesWriterTest, EverySplitSaysTheSame) {
  const std::string texts[] = {"plain",
                               "why|answer",
                               "|answer",
                               "why|",
                               "why",
                               kCall,
                               "why|so " + kCall,
                               kCall + kCall,
                               "one" + kCall + " two" + kCall + "three",
                               "<tool_call>{\"na",
                               "a<tool_call>{\"no\":1}</tool_call>b" + kCall};
  for (const std::string& text : texts) {
    for (const char* more : {"", R"(,"top_logprobs":1)", R"(,"top_logprobs":1,"stop":"ree")"}) {
      for (const FinishReason reason : {FinishReason::kStop, FinishReason::kLength}) {
        const std::string fields =
            StrCat(kTools, more, text.find("why") == 0 || text[0] == '|' ? R"(,"enable_thinking":true)" : "");
        const std::vector<int32_t> ids = Tokens(text);
        const Json whole = Whole(fields, ids, reason);
        const auto check = [&](const std::vector<std::vector<int32_t>>& pieces) {
          const auto events = Streamed(fields, pieces, reason);
          const Json& last = *events.back().data.Find("response");
          ASSERT_EQ(events.back().name, StrCat("response.", whole.Find("status")->as_string()));
          ASSERT_EQ(Plain(last), Plain(whole)) << text;
          ASSERT_EQ(WriteJson(Followed(events)), WriteJson(*last.Find("output"))) << text;
        };
        std::vector<std::vector<int32_t>> single;
        for (int32_t id : ids) single.push_back({id});
        check(single);
        for (size_t cut = 1; cut < ids.size(); ++cut) {
          const auto middle = ids.begin() + static_cast<std::ptrdiff_t>(cut);
          check({{ids.begin(), middle}, {middle, ids.end()}});
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

// "reasoning(why) message(so ) function_call(add{...})"
std::string Shape(const Json& response) {
  std::string out;
  for (const Json& item : response.Find("output")->as_array()) {
    if (!out.empty()) out += ' ';
    out += Type(item) + "(";
    if (Type(item) == "function_call") {
      out += item.Find("name")->as_string() + item.Find("arguments")->as_string();
    } else {
      for (const Json& part : item.Find("content")->as_array()) out += part.Find("text")->as_string();
    }
    out += StrCat(") ", item.Find("status")->as_string());
  }
  return out;
}

TEST_F(ResponsesWriterTest, Items) {
  const auto shape = [&](const std::string& text, FinishReason reason, bool thinks = false) {
    return Shape(Whole(kTools + (thinks ? R"(,"enable_thinking":true)" : ""), Tokens(text), reason));
  };
  const auto stop = FinishReason::kStop, length = FinishReason::kLength;
  EXPECT_EQ(shape("hello", stop), "message(hello) completed");
  EXPECT_EQ(shape("hello", length), "message(hello) incomplete");
  EXPECT_EQ(shape("why|so", stop, true), "reasoning(why) completed message(so) completed");
  EXPECT_EQ(shape("why|so", length, true), "reasoning(why) completed message(so) incomplete");
  EXPECT_EQ(shape("why", length, true), "reasoning(why) incomplete");
  EXPECT_EQ(shape("why|", stop, true), "reasoning(why) completed message() completed");
  EXPECT_EQ(shape("", stop), "message() completed");
  EXPECT_EQ(shape("", length), "message() incomplete");
  EXPECT_EQ(shape("a " + kCall + "b" + kCall, stop),
            "message(a ) completed function_call(add{\"a\": 1}) completed message(b) completed "
            "function_call(add{\"a\": 1}) completed");
  EXPECT_EQ(shape(kCall, length), "function_call(add{\"a\": 1}) completed");
}

TEST_F(ResponsesWriterTest, TheResponse) {
  const Json r =
      Whole(R"(,"instructions":"Be.","max_output_tokens":50,"temperature":0.25,"metadata":{"k":"v"},
                         "reasoning":{"effort":"low"},"user":"me","store":true)",
            Tokens("why|yes"), FinishReason::kStop);
  EXPECT_TRUE(r.Find("id")->as_string().starts_with("resp_"));
  const std::string members = WriteJson(r);
  for (const char* expected : {R"("object":"response")",
                               R"("status":"completed")",
                               R"("error":null)",
                               R"("incomplete_details":null)",
                               R"("instructions":"Be.")",
                               R"("max_output_tokens":50)",
                               R"("temperature":0.25)",
                               R"("top_p":1.0)",
                               R"("metadata":{"k":"v"})",
                               R"("reasoning":{"effort":"low","summary":null})",
                               R"("user":"me")",
                               R"("store":false)",
                               R"("model":"tiny")",
                               R"("text":{"format":{"type":"text"},"verbosity":"medium"})",
                               R"("tool_choice":"auto")",
                               R"("tools":[])",
                               R"("truncation":"disabled")",
                               R"("parallel_tool_calls":true)",
                               R"("output_tokens":7,"output_tokens_details":{"reasoning_tokens":4})",
                               R"("previous_response_id":null)",
                               R"("cached_tokens":0)",
                               R"("annotations":[],"logprobs":[])"}) {
    EXPECT_NE(members.find(expected), std::string::npos) << expected << "\n" << members;
  }
  const Json cut = Whole("", Tokens("yes"), FinishReason::kLength);
  EXPECT_EQ(WriteJson(*cut.Find("incomplete_details")), R"({"reason":"max_output_tokens"})");
  EXPECT_TRUE(cut.Find("completed_at")->is_null());
  // The id of a client's choice, and items named after it.
  const Json named = Whole(R"(,"request_id":"abc")", Tokens("yes"), FinishReason::kStop);
  EXPECT_EQ(named.Find("id")->as_string(), "resp_abc");
  EXPECT_EQ(named.Find("output")->as_array()[0].Find("id")->as_string(), "msg_abc_0");
}

// Each token of a text stands with its text; those of thoughts, calls and their marks stand nowhere.
TEST_F(ResponsesWriterTest, LogprobsBelongToTheirText) {
  const Json r = Whole(kTools + R"(,"top_logprobs":1,"enable_thinking":true)",
                       Tokens("why|on" + kCall + "to"), FinishReason::kStop);
  const JsonArray& items = r.Find("output")->as_array();
  ASSERT_EQ(Shape(r),
            "reasoning(why) completed message(on) completed function_call(add{\"a\": 1}) completed "
            "message(to) completed");
  for (const size_t i : {1u, 3u}) {
    const Json& part = items[i].Find("content")->as_array()[0];
    std::string text;
    for (const Json& entry : part.Find("logprobs")->as_array()) {
      text += entry.Find("token")->as_string();
      EXPECT_EQ(entry.Find("top_logprobs")->as_array().size(), 1u);
      EXPECT_EQ(entry.Find("bytes")->as_array().size(), 1u);
    }
    EXPECT_EQ(text, part.Find("text")->as_string());
  }
}

TEST_F(ResponsesWriterTest, AFailure) {
  Running run = Start(R"(,"stream":true)");
  run.Push(Ids(Tokens("he")));
  run.writer->Fail(*run.generation, ToApiError(Internal("the logits held a NaN")), run.sse);
  const auto events = Events(run.sse);
  const SseEvent& error = events[events.size() - 2];
  EXPECT_EQ(error.name, "error");
  EXPECT_EQ(error.data.Find("message")->as_string(), "the logits held a NaN");
  EXPECT_EQ(error.data.Find("code")->as_string(), "internal_error");
  EXPECT_EQ(events.back().name, "response.failed");
  const Json& response = *events.back().data.Find("response");
  EXPECT_EQ(response.Find("status")->as_string(), "failed");
  EXPECT_EQ(WriteJson(*response.Find("error")),
            R"({"code":"server_error","message":"the logits held a NaN"})");
  EXPECT_EQ(Shape(response), "message(he) incomplete");
  EXPECT_EQ(run.sse.find("[DONE]"), std::string::npos);
}

}  // namespace
}  // namespace fd
