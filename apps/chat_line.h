// What a line of `fastdeploy chat` says: a question or a command. Pure.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace fd {

struct ChatLine {
  enum class Kind { kNothing, kQuestion, kImage, kVideo, kSystem, kClear, kUndo, kHelp, kQuit };
  Kind kind = Kind::kNothing;
  std::string text;  // the question, the path, the system message ("" takes it away)
};

// line: without its newline. "//x" is the question "/x". Errors say what is wrong with the line and how it
// is written.
StatusOr<ChatLine> ParseChatLine(std::string_view line);

// A line for each command.
std::string ChatHelp();

}  // namespace fd
