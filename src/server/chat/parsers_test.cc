// Reasoning and tool-call parsers: the result of whole texts, and the same result for every way to cut them.
#include <gtest/gtest.h>

#include <random>

#include "base/json.h"
#include "base/strings.h"
#include "server/chat/reasoning_parser.h"
#include "server/chat/tool_parser.h"

namespace fd {
namespace {

// "reasoning|answer"; pieces in order.
std::string Reason(ReasoningFormat format, ReasoningStart start, const std::vector<std::string>& pieces) {
  ReasoningParser parser(format, start);
  std::string reasoning, answer;
  const auto add = [&](ReasoningParser::Piece piece) {
    // What is answer once stays so: reasoning never comes after it.
    EXPECT_TRUE(answer.empty() || piece.reasoning.empty());
    reasoning += piece.reasoning;
    answer += piece.answer;
  };
  for (const std::string& p : pieces) add(parser.Push(p));
  add(parser.Finish());
  return reasoning + "|" + answer;
}

// "content|name(arguments)|..."; calls after all of the content.
std::string Tools(ToolFormat format, const std::vector<std::string>& pieces) {
  ToolParser parser(format);
  std::string content, calls;
  const auto add = [&](ToolParser::Piece piece) {
    content += piece.content;
    for (const ToolCall& call : piece.calls) {
      EXPECT_TRUE(ParseJson(call.arguments).ok()) << call.arguments;
      calls += StrCat("|", call.name, "(", call.arguments, ")");
    }
  };
  for (const std::string& p : pieces) add(parser.Push(p));
  add(parser.Finish());
  EXPECT_EQ(parser.found_call(), !calls.empty());
  return content + calls;
}

// Every cut into two, every byte alone, and random cuts give what the whole gives.
template <typename Fn>
void ExpectSameForAllCuts(const std::string& text, Fn parse) {
  const std::string whole = parse(std::vector<std::string>{text});
  for (size_t i = 0; i <= text.size(); ++i) {
    ASSERT_EQ(parse({text.substr(0, i), text.substr(i)}), whole) << "cut at " << i << " of " << text;
  }
  std::vector<std::string> bytes;
  for (char c : text) bytes.emplace_back(1, c);
  ASSERT_EQ(parse(bytes), whole) << text;
  std::mt19937 random(7);
  for (int round = 0; round < 20; ++round) {
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t count = 1 + random() % 12;
      pieces.push_back(text.substr(at, count));
      at += count;
    }
    ASSERT_EQ(parse(pieces), whole) << text;
  }
}

constexpr ReasoningFormat kReasoningFormats[] = {ReasoningFormat::kNone, ReasoningFormat::kErnie45Vl,
                                                 ReasoningFormat::kErnie45VlThinking,
                                                 ReasoningFormat::kErnieX1, ReasoningFormat::kQwen3};
constexpr ReasoningStart kStarts[] = {ReasoningStart::kReasoning, ReasoningStart::kAnswer,
                                      ReasoningStart::kModel};
constexpr ToolFormat kToolFormats[] = {ToolFormat::kNone, ToolFormat::kErnieX1,
                                       ToolFormat::kErnie45VlThinking, ToolFormat::kHermes};

const char kCall[] =
    "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": [2, \"x\"]}}\n</tool_call>";

std::string ReasonWhole(ReasoningFormat format, const std::string& text,
                        ReasoningStart start = ReasoningStart::kReasoning) {
  return Reason(format, start, {text});
}

TEST(ReasoningParserTest, Ernie45Vl) {
  const auto format = ReasoningFormat::kErnie45Vl;
  EXPECT_EQ(ReasonWhole(format, "\nhmm\n</think>\n\nyes"), "\nhmm\n|\n\nyes");
  EXPECT_EQ(ReasonWhole(format, "hmm"), "hmm|");
  EXPECT_EQ(ReasonWhole(format, "</think>"), "|");
  EXPECT_EQ(ReasonWhole(format, "a < b </thin"), "a < b </thin|");
  EXPECT_EQ(ReasonWhole(format, "a</think>b</think>c"), "a|b</think>c");
  EXPECT_EQ(ReasonWhole(format, "a</think>b", ReasoningStart::kAnswer), "|a</think>b");
  EXPECT_EQ(ReasonWhole(format, "a</think>b", ReasoningStart::kModel), "|a</think>b");
}

TEST(ReasoningParserTest, Ernie45VlThinkingDropsNewlinesBeforeACall) {
  const auto format = ReasoningFormat::kErnie45VlThinking;
  EXPECT_EQ(ReasonWhole(format, "h\n</think>\n\n<tool_call>x"), "h\n|<tool_call>x");
  EXPECT_EQ(ReasonWhole(format, "h</think>\n\nyes <tool_call>"), "h|\n\nyes <tool_call>");
  EXPECT_EQ(ReasonWhole(format, "h</think>\n\n<tool"), "h|\n\n<tool");
  EXPECT_EQ(ReasonWhole(format, "h</think>\n"), "h|\n");
}

TEST(ReasoningParserTest, ErnieX1TakesOffTheResponseTags) {
  const auto format = ReasoningFormat::kErnieX1;
  EXPECT_EQ(ReasonWhole(format, "h\n</think>\n\n<response>\nyes\n</response>\n"), "h\n|\nyes\n");
  EXPECT_EQ(ReasonWhole(format, "h</think>\n<response>yes"), "h|yes");
  EXPECT_EQ(ReasonWhole(format, "h</think>\nyes"), "h|\nyes");
  EXPECT_EQ(ReasonWhole(format, "h</think>\n\n<tool_call>\n{\"a\": \"<response>\"}\n</tool_call>"),
            "h|<tool_call>\n{\"a\": \"<response>\"}\n</tool_call>");
  EXPECT_EQ(ReasonWhole(format, "h</think>\n<response>a</response>\n<tool_call>b"), "h|a<tool_call>b");
  EXPECT_EQ(ReasonWhole(format, "h"), "h|");
  EXPECT_EQ(ReasonWhole(format, "h</think>a", ReasoningStart::kModel), "h|a");
  EXPECT_EQ(ReasonWhole(format, "<response>a</response>", ReasoningStart::kAnswer), "|a");
}

TEST(ReasoningParserTest, Qwen3) {
  const auto format = ReasoningFormat::kQwen3;
  EXPECT_EQ(ReasonWhole(format, "<think>\nh\n</think>\n\nyes", ReasoningStart::kModel), "\nh\n|\n\nyes");
  EXPECT_EQ(ReasonWhole(format, "\n<think>h", ReasoningStart::kModel), "h|");
  EXPECT_EQ(ReasonWhole(format, " yes <think>", ReasoningStart::kModel), "| yes <think>");
  EXPECT_EQ(ReasonWhole(format, " <thin", ReasoningStart::kModel), "| <thin");
  EXPECT_EQ(ReasonWhole(format, "h</think>yes"), "h|yes");
  EXPECT_EQ(ReasonWhole(format, "yes", ReasoningStart::kAnswer), "|yes");
}

TEST(ReasoningParserTest, NothingIsHeldBackWithoutNeed) {
  ReasoningParser parser(ReasoningFormat::kErnie45Vl, ReasoningStart::kReasoning);
  EXPECT_EQ(parser.Push("abc</th").reasoning, "abc");
  EXPECT_EQ(parser.Push("x").reasoning, "</thx");
  EXPECT_TRUE(parser.in_reasoning());
  const auto piece = parser.Push("y</think>z<");
  EXPECT_EQ(piece.reasoning, "y");
  EXPECT_EQ(piece.answer, "z<");
  EXPECT_FALSE(parser.in_reasoning());
}

TEST(ReasoningParserTest, SameForEveryCut) {
  const std::vector<std::string> texts = {
      "",
      "plain",
      "\nhmm\n</think>\n\nyes",
      "h</think>\n\n\n<tool_call>\n{}\n</tool_call>\n",
      "h</think>\n<response>\na < b\n</response>\n\n<tool_call>x</tool_call>",
      "h</think><response>a</response> b <response>c</response>\n",
      " \n<think>\n<think></think></think>x",
      "</thin</think</think></think><response</response<response></response",
      "<<<</think>>>\n<tool_calx\n<response>",
      "\xe4\xbd\xa0</think>\xe5\xa5\xbd",
  };
  for (ReasoningFormat format : kReasoningFormats) {
    for (ReasoningStart start : kStarts) {
      for (const std::string& text : texts) {
        ExpectSameForAllCuts(text,
                             [&](const std::vector<std::string>& p) { return Reason(format, start, p); });
      }
    }
  }
}

TEST(ToolParserTest, CallsOfEveryFormat) {
  for (ToolFormat format : {ToolFormat::kErnieX1, ToolFormat::kErnie45VlThinking, ToolFormat::kHermes}) {
    const std::string add = "|add({\"a\": 1, \"b\": [2, \"x\"]})";
    EXPECT_EQ(Tools(format, {kCall}), add);
    EXPECT_EQ(Tools(format, {StrCat("\n\n", kCall, "\n", kCall, "\n")}), add + add);
    EXPECT_EQ(Tools(format, {"plain <b>text</b>\n"}), "plain <b>text</b>\n");
    EXPECT_EQ(Tools(format, {" \n"}), " \n");
    EXPECT_EQ(Tools(format, {StrCat(kCall, "\nand text")}), StrCat("\nand text", add));
  }
}

TEST(ToolParserTest, TextBeforeACall) {
  const std::string text = StrCat("I look. ", kCall);
  EXPECT_EQ(Tools(ToolFormat::kHermes, {text}), "I look. |add({\"a\": 1, \"b\": [2, \"x\"]})");
  EXPECT_EQ(Tools(ToolFormat::kErnieX1, {text}), "I look. |add({\"a\": 1, \"b\": [2, \"x\"]})");
  EXPECT_EQ(Tools(ToolFormat::kErnie45VlThinking, {text}), text);
  EXPECT_EQ(Tools(ToolFormat::kNone, {text}), text);
}

TEST(ToolParserTest, ArgumentsAreWhatTheModelWrote) {
  const auto arguments = [](const std::string& json) {
    return Tools(ToolFormat::kHermes, {"<tool_call>" + json + "</tool_call>"});
  };
  EXPECT_EQ(arguments(R"({"name":"f"})"), "|f({})");
  EXPECT_EQ(arguments(R"({"name":"f","arguments":null})"), "|f({})");
  EXPECT_EQ(arguments(R"({"arguments": {"x": 12345678901234567890, "y": 1.50} , "name": "f"})"),
            R"(|f({"x": 12345678901234567890, "y": 1.50}))");
  EXPECT_EQ(arguments(R"({"name": "arguments", "arguments": {"arguments": {"a": "}],\""}}})"),
            R"(|arguments({"arguments": {"a": "}],\""}}))");
  EXPECT_EQ(arguments(R"({"name": "f", "arguments": "{\"a\": 1}"})"), R"(|f({"a": 1}))");
  EXPECT_EQ(arguments(R"({"name": "f", "\u0061rguments": {"a": 1}})"), R"(|f({"a":1}))");
  EXPECT_EQ(arguments(R"({"name": "f", "arguments": {"text": "</tool_call><tool_call>"}})"),
            R"(|f({"text": "</tool_call><tool_call>"}))");
  EXPECT_EQ(arguments("{\"name\": \"f\", \"arguments\": {\"city\": \"\xe5\x8c\x97\xe4\xba\xac\"}}"),
            "|f({\"city\": \"\xe5\x8c\x97\xe4\xba\xac\"})");
}

TEST(ToolParserTest, WhatIsNoCallStaysText) {
  for (const char* body :
       {"", "{", "{\"name\": \"f\", \"arguments\": {\"a\": 1}", "{\"name\": \"\"}", "{\"name\": 3}", "[1]",
        "null", "{\"arguments\": {}}", "{\"name\": \"f\", \"arguments\": [1]}",
        "{\"name\": \"f\", \"arguments\": \"x\"}", "{\"name\": \"f\", \"arguments\": {}} more",
        "{\"name\": \"f\", \"name\": \"g\"}", "{\"name\": \"f, \"arguments\": {}}\n", "{'name': 'f'}",
        "{\"name\": \"f\", \"arguments\": {\"a\": NaN}}",
        "{\"name\": \"f\", \"arguments\": {\"a\": \"two\nlines\"}}"}) {
    const std::string text = StrCat("\n<tool_call>", body, "</tool_call>");
    EXPECT_EQ(Tools(ToolFormat::kHermes, {text}), text);
    EXPECT_EQ(Tools(ToolFormat::kErnieX1, {text}), text);
    // A call after it is one again, but for the format whose calls come first or not at all.
    EXPECT_EQ(Tools(ToolFormat::kHermes, {text + "<tool_call>{\"name\":\"g\"}</tool_call>"}),
              text + "|g({})");
  }
  // Cut off by max_tokens.
  for (const char* cut : {"<tool_call>", "<tool_ca", "<tool_call>\n{\"name\": \"f\", \"argu"}) {
    for (ToolFormat format : kToolFormats) EXPECT_EQ(Tools(format, {cut}), cut);
  }
}

TEST(ToolParserTest, WhereCallsStand) {
  ToolParser parser(ToolFormat::kHermes);
  const ToolParser::Piece piece = parser.Push(StrCat("one", kCall, "two", kCall, kCall, "three"));
  EXPECT_EQ(piece.content, "onetwothree");
  ASSERT_EQ(piece.calls.size(), 3u);
  EXPECT_EQ(piece.calls[0].content_offset, 3u);
  EXPECT_EQ(piece.calls[1].content_offset, 6u);
  EXPECT_EQ(piece.calls[2].content_offset, 6u);
  EXPECT_FALSE(parser.may_be_call());
  parser.Push("<tool");
  EXPECT_TRUE(parser.may_be_call());
  parser.Push("s");
  EXPECT_FALSE(parser.may_be_call());
  parser.Push("<tool_call>{");
  EXPECT_TRUE(parser.may_be_call());
}

TEST(ToolParserTest, UnclosedCalls) {
  const std::string open = "<tool_call>{\"name\": \"f\"}";
  EXPECT_EQ(Tools(ToolFormat::kErnieX1, {open}), open);
  EXPECT_EQ(Tools(ToolFormat::kErnie45VlThinking, {open}), "|f({})");
  EXPECT_EQ(Tools(ToolFormat::kHermes, {open}), "|f({})");
  EXPECT_EQ(Tools(ToolFormat::kHermes, {open + "\n" + open + "\n</tool_call>"}), "|f({})|f({})");
  EXPECT_EQ(Tools(ToolFormat::kErnieX1, {open + open + "</tool_call>"}), open + "|f({})");
  // FastDeploy mends this for the thinking model.
  const std::string brace = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}\n</tool_call>";
  EXPECT_EQ(Tools(ToolFormat::kErnie45VlThinking, {brace}), "|f({\"a\": 1})");
  EXPECT_EQ(Tools(ToolFormat::kHermes, {brace}), brace);
}

TEST(ToolParserTest, SameForEveryCut) {
  const std::vector<std::string> texts = {
      "",
      " ",
      "plain",
      kCall,
      StrCat("\n \n", kCall, "\n\n", kCall, " \n"),
      StrCat("text ", kCall, " more"),
      "<tool_call>{\"name\": \"f, \"arguments\": {}}\n</tool_call> <tool_call>{\"name\":\"g\"}</tool_call>",
      "<tool_call><tool_call></tool_call></tool_call>",
      "<tool_call>{\"name\":\"a\"}<tool_call>{\"name\":\"b\"}",
      "<tool_call>{\"name\":\"a\"<tool_call>{\"name\":\"b\"}</tool_call><tool_call",
      "<<tool_call>>{}</tool_call>",
      "\n<tool_call>{\"name\":\"a\",\"arguments\":{\"t\":\"</tool_call>\\\"<tool_call>\"}}</tool_call>\n",
      "<tool_call>\"\n\"</tool_call>\"<tool_call>",
      "<tool_call>\n\\\"</tool_call>",
      "</tool_call></tool_call",
      "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":1}\n</tool_call>x<tool_call>{\"name\":\"f\"}</"
      "tool_call>",
  };
  for (ToolFormat format : kToolFormats) {
    for (const std::string& text : texts) {
      ExpectSameForAllCuts(text, [&](const std::vector<std::string>& p) { return Tools(format, p); });
    }
  }
}

// Random sequences of fragments: the two parsers behind each other, as a server uses them.
TEST(ParsersTest, SameForEveryCutOfRandomText) {
  const std::vector<std::string> fragments = {"<think>",
                                              "</think>",
                                              "<response>",
                                              "</response>",
                                              "<tool_call>",
                                              "</tool_call>",
                                              "\n",
                                              " ",
                                              "{\"name\": \"f\"",
                                              ", \"arguments\": {\"a\": \"",
                                              "\"}}",
                                              "}",
                                              "\"",
                                              "\\",
                                              "word",
                                              "<",
                                              "</",
                                              "\xe4\xbd\xa0"};
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    std::string text;
    for (uint32_t count = random() % 14; count > 0; --count) text += fragments[random() % fragments.size()];
    const ReasoningFormat reasoning = kReasoningFormats[random() % 5];
    const ReasoningStart start = kStarts[random() % 3];
    const ToolFormat tool = kToolFormats[random() % 4];
    const auto parse = [&](const std::vector<std::string>& pieces) {
      ReasoningParser first(reasoning, start);
      ToolParser second(tool);
      std::string thought, content, calls;
      const auto add = [&](ToolParser::Piece piece) {
        for (const ToolCall& c : piece.calls) {
          calls += StrCat("|", c.name, c.arguments, "@", content.size() + c.content_offset);
        }
        content += piece.content;
      };
      const auto feed = [&](ReasoningParser::Piece piece) {
        thought += piece.reasoning;
        add(second.Push(piece.answer));
      };
      for (const std::string& p : pieces) feed(first.Push(p));
      feed(first.Finish());
      add(second.Finish());
      return StrCat(thought, "|", content, calls);
    };
    ExpectSameForAllCuts(text, parse);
  }
}

TEST(ParsersTest, LongTextTakesLinearTime) {
  // A million steps of one byte each; quadratic work would not end.
  for (const char* unit : {"\n", "<", "<tool_call>", "a<\""}) {
    ReasoningParser reasoning(ReasoningFormat::kErnieX1, ReasoningStart::kAnswer);
    ToolParser tools(ToolFormat::kHermes);
    size_t bytes = 0;
    for (int i = 0; i < 1000000; ++i) bytes += tools.Push(reasoning.Push(unit).answer).content.size();
    bytes += tools.Push(reasoning.Finish().answer).content.size();
    bytes += tools.Finish().content.size();
    EXPECT_LE(bytes, 1000000 * std::string_view(unit).size());
  }
}

TEST(ParsersTest, UnknownNamesListTheKnownOnes) {
  EXPECT_EQ(*ReasoningFormatNamed(""), ReasoningFormat::kNone);
  EXPECT_EQ(*ReasoningFormatNamed("qwen3"), ReasoningFormat::kQwen3);
  EXPECT_EQ(*ToolFormatNamed("qwen"), ToolFormat::kHermes);
  EXPECT_EQ(*ToolFormatNamed("hermes"), ToolFormat::kHermes);
  EXPECT_EQ(
      ReasoningFormatNamed("erine-45-vl").status().message(),
      "--reasoning-parser: \"erine-45-vl\" is not known; this server has ernie-45-vl, ernie-45-vl-thinking, "
      "ernie-x1, qwen3; did you mean ernie-45-vl?");
  EXPECT_EQ(
      ToolFormatNamed("zzzzzzzzzzzz").status().message(),
      "--tool-call-parser: \"zzzzzzzzzzzz\" is not known; this server has ernie-x1, ernie-45-vl-thinking, "
      "hermes, qwen");
}

}  // namespace
}  // namespace fd
