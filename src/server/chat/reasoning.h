// The ernie-45-vl reasoning parser: the answer's text before "</think>" is reasoning, after it content. The
// opening tag stands in the prompt, so only PromptOpensThinking tells whether an answer starts inside.
// Newlines around the tag are kept, as FastDeploy does. One splitter per choice; not thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "server/chat/chat_template.h"

namespace fd {

struct ReasoningText {
  std::string reasoning, content;
};

class ReasoningSplitter {
 public:
  // starts_thinking false: everything is content.
  explicit ReasoningSplitter(bool starts_thinking) : thinking_(starts_thinking) {}
  // What of the text so far can be told apart: an end that may be the start of "</think>" is held back.
  ReasoningText Push(std::string_view delta);
  // What was held back; without "</think>" it is reasoning.
  ReasoningText Finish();
  bool thinking() const { return thinking_; }

 private:
  bool thinking_;
  std::string held_;
};

// A whole answer. Without "</think>" a cut-off thought is reasoning, the same as in a stream.
ReasoningText SplitReasoning(std::string_view text, bool starts_thinking);

// Does the generation prompt leave the model inside <think>? Only the template's own text at the end counts.
bool PromptOpensThinking(const std::vector<PromptPiece>& pieces);

}  // namespace fd
