// Takes tool calls out of an answer while its text arrives: <tool_call> {"name": ..., "arguments": {...}}
// </tool_call>. What comes out does not depend on how the text is cut into pieces. Linear in the text; keeps
// at most the call that is open. One object a sequence; one thread.
//
// A call is given out when it is complete, because arguments that were sent cannot be taken back: whatever is
// no valid call stays text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace fd {

// FastDeploy's names of --tool-call-parser in small letters.
enum class ToolFormat {
  kNone,               // everything is content
  kErnieX1,            // ernie-x1: only calls that </tool_call> closes
  kErnie45VlThinking,  // ernie-45-vl-thinking: only calls that no text precedes; the last '}' may be missing
  kHermes,             // hermes, qwen
};

// "" is kNone. An unknown name is an error that lists the known ones.
StatusOr<ToolFormat> ToolFormatNamed(const std::string& name);
std::vector<std::string_view> ToolMarkers(ToolFormat format);

struct ToolCall {
  std::string name;           // not empty
  std::string arguments;      // a JSON object, as the model wrote it
  size_t content_offset = 0;  // bytes of its piece's content that stand before it
};

class ToolParser {
 public:
  explicit ToolParser(ToolFormat format = ToolFormat::kNone) : format_(format) {}

  struct Piece {
    std::string content;
    std::vector<ToolCall> calls;
  };
  Piece Push(std::string_view text);
  // The rest, once no more text comes.
  Piece Finish();
  bool found_call() const { return found_call_; }
  // The last text belongs to a call, or may turn out to.
  bool may_be_call() const { return in_body_ || !pending_.empty(); }

 private:
  Piece Run(bool at_end);
  bool StepText(std::string_view& rest, Piece& piece, bool at_end);
  bool StepBody(std::string_view& rest, Piece& piece, bool at_end);
  void Open();
  void Close(bool with_marker, Piece& piece);

  ToolFormat format_ = ToolFormat::kNone;
  std::string pending_;  // the beginning of a marker, perhaps
  std::string held_;     // whitespace before the first text, or after a call
  bool quiet_ = true;    // only whitespace since the beginning or since a call
  bool found_call_ = false;

  bool in_body_ = false;
  std::string body_;
  // Of the JSON in the body: a marker inside a string is no marker. A string with a raw newline is no JSON;
  // from there on every marker counts.
  bool in_string_ = false;
  bool escaped_ = false;
  bool broken_ = false;
};

}  // namespace fd
