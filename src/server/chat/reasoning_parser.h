// Splits what a model says into its reasoning and its answer, while the text arrives. What comes out does not
// depend on how the text is cut into pieces. Linear in the text. One object a sequence; one thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace fd {

// FastDeploy's names of --reasoning-parser in small letters.
enum class ReasoningFormat {
  kNone,               // everything is answer
  kErnie45Vl,          // ernie-45-vl: reasoning </think> answer
  kErnie45VlThinking,  // ernie-45-vl-thinking: newlines between </think> and <tool_call> are dropped
  kErnieX1,            // ernie-x1: reasoning </think> <response> answer </response> <tool_call> ...
  kQwen3,              // qwen3: <think> reasoning </think> answer, <think> by the prompt or by the model
};

// "" is kNone. An unknown name is an error that lists the known ones.
StatusOr<ReasoningFormat> ReasoningFormatNamed(const std::string& name);
// Texts with a meaning: where one is a single token it counts also when special tokens are not shown.
std::vector<std::string_view> ReasoningMarkers(ReasoningFormat format);

// How the prompt ends.
enum class ReasoningStart {
  kReasoning,  // <think> is open
  kAnswer,     // thinking is off, or </think> is there
  kModel,      // the prompt says nothing: the model may open <think> (qwen3); answer for the others
};

class ReasoningParser {
 public:
  ReasoningParser() = default;  // kNone
  ReasoningParser(ReasoningFormat format, ReasoningStart start);

  struct Piece {
    std::string reasoning;
    std::string answer;
  };
  // What is certain after this text; the beginning of a marker waits for more.
  Piece Push(std::string_view text);
  // The rest, once no more text comes. Reasoning that never ends is reasoning.
  Piece Finish();
  // The text that comes next is reasoning, or part of the marker that ends it.
  bool in_reasoning() const { return state_ == State::kReasoning; }

 private:
  enum class State { kBeforeThink, kReasoning, kAfterThink, kAnswer, kResponse, kAfterResponse, kRest };
  Piece Run(bool at_end);
  // One marker or one run of text further; false: the rest has to wait.
  bool Step(std::string_view& rest, Piece& piece, bool at_end);
  // Whitespace before a decision is kept in held_, so that nothing is read twice.
  void Hold(std::string_view& rest, std::string_view what);

  ReasoningFormat format_ = ReasoningFormat::kNone;
  State state_ = State::kRest;
  std::string pending_;  // the beginning of a marker, perhaps
  std::string held_;     // whitespace whose meaning follows from what comes next
};

}  // namespace fd
