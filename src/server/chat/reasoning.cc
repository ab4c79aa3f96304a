#include "server/chat/reasoning.h"

#include <algorithm>

namespace fd {
namespace {
constexpr std::string_view kOpen = "<think>", kClose = "</think>";
}

ReasoningText ReasoningSplitter::Push(std::string_view delta) {
  if (!thinking_) return {"", std::string(delta)};
  held_.append(delta);
  size_t close = held_.find(kClose);
  if (close != std::string::npos) {
    ReasoningText out{held_.substr(0, close), held_.substr(close + kClose.size())};
    thinking_ = false;
    held_.clear();
    return out;
  }
  size_t keep = std::min(held_.size(), kClose.size() - 1);
  while (!kClose.starts_with(std::string_view(held_).substr(held_.size() - keep))) --keep;
  ReasoningText out{held_.substr(0, held_.size() - keep), ""};
  held_.erase(0, held_.size() - keep);
  return out;
}

ReasoningText ReasoningSplitter::Finish() {
  ReasoningText out{std::move(held_), ""};
  held_.clear();
  return out;
}

ReasoningText SplitReasoning(std::string_view text, bool starts_thinking) {
  ReasoningSplitter splitter(starts_thinking);
  ReasoningText out = splitter.Push(text);
  out.reasoning += splitter.Finish().reasoning;
  return out;
}

bool PromptOpensThinking(const std::vector<PromptPiece>& pieces) {
  if (pieces.empty() || pieces.back().from_user) return false;
  const std::string& tail = pieces.back().text;
  size_t open = tail.rfind(kOpen), close = tail.rfind(kClose);
  return open != std::string::npos && (close == std::string::npos || close < open);
}

}  // namespace fd
