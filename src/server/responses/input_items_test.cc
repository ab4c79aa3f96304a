#include "server/responses/input_items.h"

#include <gtest/gtest.h>

#include "base/strings.h"

namespace fd {
namespace {

StatusOr<ChatInput> Read(const std::string& input, const std::string& instructions = "") {
  auto json = ParseJson(input);
  FD_CHECK(json.ok(), input);
  Service service;
  service.limits.max_messages = 20;
  Json value = std::move(json).value();
  return ReadInput(service, &value, instructions);
}

std::string Messages(const std::string& input, const std::string& instructions = "") {
  auto read = Read(input, instructions);
  if (!read.ok()) return read.status().message();
  EXPECT_EQ(read->messages.size(), read->places.size());
  return WriteJson(Json(std::move(read->messages)));
}

TEST(InputItems, ATextAndInstructions) {
  EXPECT_EQ(Messages("\"Hello\""), R"([{"role":"user","content":"Hello"}])");
  EXPECT_EQ(Messages("\"Hello\"", "Be short."),
            R"([{"role":"system","content":"Be short."},{"role":"user","content":"Hello"}])");
}

TEST(InputItems, Messages) {
  EXPECT_EQ(Messages(R"([{"role":"developer","content":"a"},
                         {"type":"message","role":"user","content":[{"type":"input_text","text":"b"},
                            {"type":"input_image","image_url":"data:x","detail":"original","file_id":null}]},
                         {"type":"message","role":"assistant","id":"msg_1","status":"completed","content":[
                            {"type":"output_text","text":"c","annotations":[]},{"type":"refusal","refusal":"d"}]},
                         {"role":"assistant","content":"e"}])"),
            R"([{"role":"developer","content":"a"},)"
            R"({"role":"user","content":[{"type":"text","text":"b"},)"
            R"({"type":"input_image","image_url":"data:x","detail":"high"}]},)"
            R"({"role":"assistant","content":"cd"},{"role":"assistant","content":"e"}])");
}

// What one response put out is one message of the model, whatever its order.
TEST(InputItems, ATurnIsOneMessage) {
  const std::string items =
      R"([{"role":"user","content":"q"},
          {"type":"reasoning","id":"rs","summary":[],"content":[{"type":"reasoning_text","text":"why"}]},
          {"type":"message","role":"assistant","content":[{"type":"output_text","text":"so "}]},
          {"type":"function_call","call_id":"1","name":"f","arguments":"{\"a\": 1}"},
          {"type":"message","role":"assistant","content":"and"},
          {"type":"function_call","call_id":"2","name":"g","arguments":""},
          {"type":"function_call_output","call_id":"1","output":"one"},
          {"type":"function_call_output","call_id":"2","output":[{"type":"input_text","text":"two"}]},
          {"role":"assistant","content":"done"}])";
  EXPECT_EQ(Messages(items),
            R"([{"role":"user","content":"q"},)"
            R"({"role":"assistant","content":"so and","reasoning_content":"why","tool_calls":[)"
            R"({"id":"1","type":"function","function":{"name":"f","arguments":{"a":1}}},)"
            R"({"id":"2","type":"function","function":{"name":"g","arguments":{}}}]},)"
            R"({"role":"tool","tool_call_id":"1","content":"one"},)"
            R"({"role":"tool","tool_call_id":"2","content":[{"type":"text","text":"two"}]},)"
            R"({"role":"assistant","content":"done"}])");
  // A summary is no thought, and a thought without its turn is dropped.
  EXPECT_EQ(Messages(R"([{"type":"reasoning","id":"r","summary":[{"type":"summary_text","text":"s"}],
                          "encrypted_content":"x"},{"role":"assistant","content":"a"},
                         {"type":"reasoning","id":"r","content":[{"type":"reasoning_text","text":"lost"}]},
                         {"role":"user","content":"b"},{"role":"assistant","content":"c"}])"),
            R"([{"role":"assistant","content":"a"},{"role":"user","content":"b"},)"
            R"({"role":"assistant","content":"c"}])");
}

// However many pieces a turn has, its text is copied once.
TEST(InputItems, LongTurnsAreLinear) {
  Service service;
  service.limits.max_messages = 1'000'000;
  JsonArray items{JsonObject{{"type", "function_call"}, {"call_id", "1"}, {"name", "f"}, {"arguments", ""}}};
  for (int i = 0; i < 200'000; ++i) {
    items.push_back(JsonObject{{"role", "assistant"}, {"content", std::string(100, 'x')}});
  }
  Json input(std::move(items));
  const auto read = ReadInput(service, &input, "");
  ASSERT_TRUE(read.ok());
  ASSERT_EQ(read->messages.size(), 1u);
  EXPECT_EQ(read->messages[0].Find("content")->as_string().size(), 20'000'000u);
}

TEST(InputItems, Refusals) {
  const std::pair<const char*, const char*> cases[] = {
      {"[]", "input is an empty array"},
      {"7", "input must be a string or an array of items"},
      {"[7]", "input[0] must be an object"},
      {R"([{"type":7}])", "input[0].type must be a string"},
      {R"([{"content":"a"}])", "input[0].role is missing"},
      {R"([{"role":"tool","content":"a"}])",
       "input[0].role must be one of user, assistant, system, developer"},
      {R"([{"role":"user"}])", "input[0].content is missing"},
      {R"([{"role":"user","content":7}])", "input[0].content must be a string or an array of parts"},
      {R"([{"role":"user","content":[7]}])", "input[0].content[0] must be an object"},
      {R"([{"role":"user","content":[{"type":"input_text"}]}])", "input[0].content[0].text is missing"},
      {R"([{"role":"user","content":[{"type":"input_file","file_id":"f"}]}])", "input_file is not taken"},
      {R"([{"role":"user","content":[{"type":"input_image","file_id":"f"}]}])", "no files are stored"},
      {R"([{"role":"user","content":[{"type":"other"}]}])", "must be input_text or input_image"},
      {R"([{"role":"assistant","content":[{"type":"input_image"}]}])", "must be output_text or refusal"},
      {R"([{"type":"item_reference","id":"msg_1"}])", "nothing is stored on this server"},
      {R"([{"id":"msg_1"}])", "nothing is stored on this server"},
      {R"([{"type":"web_search_call","id":"x"}])", "got \"web_search_call\""},
      {R"([{"type":"function_call","name":"f","arguments":"{}"}])", "input[0].call_id is missing"},
      {R"([{"type":"function_call","call_id":"1","arguments":"{}"}])", "input[0].name is missing"},
      {R"([{"type":"function_call","call_id":"1","name":"f","arguments":"{"}])",
       "input[0].arguments is no JSON"},
      {R"([{"type":"function_call_output","call_id":"1","output":"x"}])", "no function_call before it"},
      {R"([{"type":"reasoning","content":"x"}])", "input[0].content must be an array"},
      {R"([{"type":"reasoning","summary":[]}])", "input holds thoughts only"},
  };
  for (const auto& [input, message] : cases) {
    const auto read = Read(input);
    ASSERT_FALSE(read.ok()) << input;
    EXPECT_EQ(read.status().param(), "input") << input;
    EXPECT_NE(read.status().message().find(message), std::string::npos) << input << "\n"
                                                                        << read.status().message();
  }
  JsonArray many(21, JsonObject{{"role", "user"}, {"content", "a"}});
  EXPECT_NE(Read(WriteJson(Json(std::move(many)))).status().message().find("--max-messages"),
            std::string::npos);
}

TEST(InputItems, ErrorsAreToldInTheClientsNames) {
  const std::vector<Place> places = {
      {"instructions", "instructions"}, {"input[0]", "input[0].content"}, {"input[4]", "input[4].output"}};
  const auto told = [&](const char* message) {
    return InInputTerms(places, InvalidArgument(message, "messages"));
  };
  EXPECT_EQ(told("messages[1].content[2].image_url: no").message(), "input[0].content[2].image_url: no");
  EXPECT_EQ(told("bad: messages[2].content[0] and messages[0].role").message(),
            "bad: input[4].output[0] and instructions.role");
  EXPECT_EQ(told("messages hold 3 pictures").message(), "input holds 3 pictures");
  EXPECT_EQ(told("Shorten the messages.").message(), "Shorten the input.");
  EXPECT_EQ(told("got \"messages[1]\"").message(), "got \"messages[1]\"");
  for (const char* odd :
       {"messages[", "messages[x]", "messages[9].content", "messages[1", "messages[99999999999999999999]"}) {
    EXPECT_EQ(told(odd).message(), "input" + std::string(odd).substr(8)) << odd;
  }
  EXPECT_EQ(told("x").param(), "input");
  EXPECT_EQ(InInputTerms(places, InvalidArgument("x", "seed")).param(), "seed");
}

}  // namespace
}  // namespace fd
