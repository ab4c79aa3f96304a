#include "server/chat/reasoning.h"

#include <gtest/gtest.h>

namespace fd {
namespace {

TEST(Reasoning, TagSplitAnywhere) {
  const std::string text = "a </thin b</think>\n\nc</think>";
  for (size_t step = 1; step <= text.size(); ++step) {
    ReasoningSplitter s(true);
    ReasoningText all;
    for (size_t at = 0; at < text.size(); at += step) {
      ReasoningText part = s.Push(text.substr(at, step));
      all.reasoning += part.reasoning;
      all.content += part.content;
    }
    all.reasoning += s.Finish().reasoning;
    EXPECT_EQ(all.reasoning, "a </thin b") << step;
    EXPECT_EQ(all.content, "\n\nc</think>") << step;
  }
}

TEST(Reasoning, WholeAnswers) {
  EXPECT_EQ(SplitReasoning("cut off </th", true).reasoning, "cut off </th");
  EXPECT_EQ(SplitReasoning("a</think>b", false).content, "a</think>b");
}

TEST(Reasoning, PromptDecides) {
  EXPECT_TRUE(PromptOpensThinking({{"x", true}, {"\nAssistant: <think>", false}}));
  EXPECT_FALSE(PromptOpensThinking({{"\nAssistant: <think>\n\n</think>\n\n", false}}));
  EXPECT_FALSE(PromptOpensThinking({{"<think>", true}}));
}

}  // namespace
}  // namespace fd
