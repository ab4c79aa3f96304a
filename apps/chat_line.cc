#include "chat_line.h"

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "base/strings.h"
#include "base/suggestion.h"
#include "base/utf8.h"
#include "flag_set.h"

namespace fd {
namespace {

using Kind = ChatLine::Kind;

enum class Takes { kNothing, kPath, kText };
struct ChatCommand {
  std::string_view name;
  Kind kind;
  Takes takes;
  std::string_view help;  // empty: another name of the command before
};
constexpr ChatCommand kCommands[] = {
    {"/image", Kind::kImage, Takes::kPath, "a picture for the next question; several are allowed"},
    {"/video", Kind::kVideo, Takes::kPath, "a video for the next question; several are allowed"},
    {"/system", Kind::kSystem, Takes::kText, "the system message; without TEXT there is none"},
    {"/undo", Kind::kUndo, Takes::kNothing, "forgets the last question and its answer"},
    {"/clear", Kind::kClear, Takes::kNothing, "forgets everything but the system message; also /new"},
    {"/new", Kind::kClear, Takes::kNothing, ""},
    {"/help", Kind::kHelp, Takes::kNothing, "these lines"},
    {"/quit", Kind::kQuit, Takes::kNothing, "ends, as Ctrl-D does; also /exit"},
    {"/exit", Kind::kQuit, Takes::kNothing, ""},
};

std::string_view ArgumentName(Takes takes) {
  return takes == Takes::kPath ? " PATH" : takes == Takes::kText ? " TEXT" : "";
}

// Without the quotes that terminals put around a dropped file; ~/ is the home directory, as in a shell.
std::string PathOf(std::string_view text) {
  if (text.size() >= 2 && text.front() == text.back() && (text.front() == '\'' || text.front() == '"')) {
    return std::string(text.substr(1, text.size() - 2));
  }
  const char* home = std::getenv("HOME");
  if (text.starts_with("~/") && home != nullptr) return StrCat(home, text.substr(1));
  return std::string(text);
}

}  // namespace

StatusOr<ChatLine> ParseChatLine(std::string_view line) {
  if (!IsValidUtf8(line)) return InvalidArgument("the line is not UTF-8 text");
  const std::string_view trimmed = Trim(line);
  if (trimmed.empty()) return ChatLine{};
  if (trimmed.front() != '/') return ChatLine{Kind::kQuestion, std::string(trimmed)};
  if (trimmed.starts_with("//")) return ChatLine{Kind::kQuestion, std::string(trimmed.substr(1))};
  const std::string_view name = trimmed.substr(0, trimmed.find_first_of(" \t"));
  const std::string_view rest = Trim(trimmed.substr(name.size()));
  const auto* command =
      std::find_if(std::begin(kCommands), std::end(kCommands), [&](const auto& c) { return c.name == name; });
  if (command == std::end(kCommands)) {
    std::vector<std::string> names;
    for (const ChatCommand& c : kCommands) names.emplace_back(c.name);
    const std::string near = DidYouMean(name, names);
    return InvalidArgument(StrCat("there is no command ", name.substr(0, 60),
                                  near.empty() ? "" : StrCat("; did you mean ", near, "?"),
                                  " /help lists the commands, // begins a question with /"));
  }
  if (command->takes == Takes::kNothing && !rest.empty())
    return InvalidArgument(StrCat(name, " takes nothing behind it"));
  if (command->takes == Takes::kPath && rest.empty()) {
    return InvalidArgument(StrCat(name, " needs a file, for example ", name,
                                  command->kind == Kind::kVideo ? " clip.mp4" : " photo.jpg"));
  }
  return ChatLine{command->kind, command->takes == Takes::kPath ? PathOf(rest) : std::string(rest)};
}

std::string ChatHelp() {
  std::string text;
  for (const ChatCommand& c : kCommands) {
    if (c.help.empty()) continue;
    const std::string head = StrCat("  ", c.name, ArgumentName(c.takes));
    text += StrCat(head, std::string(16 - head.size(), ' '), c.help, "\n");
  }
  return text +
         "  anything else  a question; // at its begin stands for /\n  Ctrl-C stops an answer; the next "
         "one, or one while nothing is answered, ends\n";
}

}  // namespace fd
