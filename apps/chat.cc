// fastdeploy chat: a conversation from the terminal or from a script, a line a turn.
//
// Lines are read as the terminal gives them: a line-editing library would be the only dependency that one
// subcommand has for itself, and `rlwrap fastdeploy chat` gives arrows and history to who wants them.
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "chat_line.h"
#include "command.h"
#include "conversation.h"
#include "flag_set.h"
#include "model_flags.h"
#include "stop_signal.h"

namespace fd {
namespace {

constexpr int kExitTerminated = 128 + 15;

struct ChatFlags {
  ModelFlags model;
  AnswerFlags answer;
  RequestLimits limits;
  bool verbose = false;
};

class Chat {
 public:
  // All must outlive it. attachments: for the first question.
  Chat(const LoadedModel& model, const ChatFlags& flags, std::vector<Attachment> attachments,
       StopSignal& stop)
      : model_(model),
        flags_(flags),
        stop_(stop),
        interactive_(isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1),
        system_(flags.answer.system),
        attachments_(std::move(attachments)) {}

  // Until the input ends, /quit or a signal; the exit code.
  int Run() {
    if (interactive_) {
      Note(StrCat(model_.service->model_names.front(), ": /help lists the commands, Ctrl-D ends"));
    }
    std::string line;
    while (!end_) {
      if (interactive_) Prompt();
      if (!std::getline(std::cin, line)) {
        if (interactive_) std::puts("");
        break;
      }
      Take(line);
    }
    return exit_code_;
  }

 private:
  static void Note(const std::string& text) { std::fputs(StrCat("[", text, "]\n").c_str(), stderr); }
  void Prompt() const {
    if (!attachments_.empty()) std::fputs(StrCat("[", attachments_.size(), " attached] ").c_str(), stdout);
    std::fputs("> ", stdout);
    std::fflush(stdout);
  }
  // Who runs a script learns by the exit code that a line of it failed.
  void Error(const Status& status) {
    Failure("chat", status);
    if (!interactive_) exit_code_ = kExitFailure;
  }
  std::string Turns() const {
    const size_t turns = messages_.size() / 2;
    return StrCat(turns, turns == 1 ? " turn" : " turns");
  }

  void Take(const std::string& text) {
    StatusOr<ChatLine> line = ParseChatLine(text);
    if (!line.ok()) return Error(line.status());
    using Kind = ChatLine::Kind;
    switch (line->kind) {
      case Kind::kNothing:
        return;
      case Kind::kQuestion:
        return Question(line->text);
      case Kind::kImage:
        return Attach({Attachment::Kind::kImage, line->text});
      case Kind::kVideo:
        return Attach({Attachment::Kind::kVideo, line->text});
      case Kind::kSystem:
        system_ = line->text;
        return Note(system_.empty() ? "no system message" : "system message set");
      case Kind::kClear:
        messages_.clear();
        attachments_.clear();
        return Note("a new conversation");
      case Kind::kUndo:
        return Undo();
      case Kind::kHelp:
        std::fputs(ChatHelp().c_str(), stderr);
        return;
      case Kind::kQuit:
        end_ = true;
        return;
    }
  }

  void Attach(Attachment attachment) {
    if (!model_.service->media) {
      return Error(
          InvalidArgument(StrCat("the model ", model_.service->model_names.front(), " takes no pictures")));
    }
    if (Status status = CheckAttachment(attachment); !status.ok()) return Error(status);
    attachments_.push_back(std::move(attachment));
  }

  void Undo() {
    if (messages_.empty()) return Note("there is nothing to undo");
    messages_.resize(messages_.size() - 2);
    Note(StrCat("the last turn is forgotten, ", Turns(), " left"));
  }

  void Question(const std::string& text) {
    StatusOr<Json> message = UserMessage(text, std::exchange(attachments_, {}), flags_.answer.video);
    if (!message.ok()) return Error(message.status());
    messages_.push_back(std::move(*message));
    stop_.Arm();
    const Answer answer = Ask(*model_.service, RequestBody(system_, messages_, flags_.answer), stop_);
    const bool terminated = stop_.terminated();
    stop_.Disarm();
    if (answer.text.empty()) {  // an answer that never came: the question leaves the history too
      messages_.pop_back();
    } else {
      messages_.push_back(JsonObject{{"role", "assistant"}, {"content", answer.text}});
    }
    if (terminated || (answer.stopped && !interactive_)) {
      end_ = true;
      exit_code_ = terminated ? kExitTerminated : kExitInterrupted;
    } else if (!model_.engine->DeviceStatus().ok()) {
      Failure("chat", answer.status.ok() ? model_.engine->DeviceStatus() : answer.status);
      end_ = true;
      exit_code_ = kExitDeviceLost;
    } else {
      Tell(answer);
    }
  }

  void Tell(const Answer& answer) {
    const std::string kept = answer.text.empty()
                                 ? StrCat("the question is taken back, ", Turns(), " kept")
                                 : std::string("what came of it is kept; /undo takes it back");
    if (!answer.status.ok()) {
      return Error({answer.status.code(),
                    StrCat(answer.status.message(), " [", kept, "; /undo and /clear make room for more]")});
    }
    if (answer.stopped) return Note(StrCat("stopped; ", kept));
    if (answer.cut) {
      return Note(StrCat("cut after ", answer.usage.completion_tokens,
                         " tokens; see --max-tokens and --max-model-len; ", kept));
    }
    if (answer.text.empty()) Note(StrCat("no answer; ", kept));
  }

  const LoadedModel& model_;
  const ChatFlags& flags_;
  StopSignal& stop_;
  const bool interactive_;
  std::string system_;
  JsonArray messages_;                   // user and assistant in turns
  std::vector<Attachment> attachments_;  // of the next question
  bool end_ = false;
  int exit_code_ = kExitOk;
};

}  // namespace

int RunChat(const std::vector<std::string>& args) {
  ChatFlags values;
  values.model.max_num_seqs = 1;
  values.limits.images_per_prompt = values.limits.videos_per_prompt = 100;
  FlagSet flags("fastdeploy chat MODEL [FLAGS]",
                "A conversation with a model: a line is a question, and the model remembers those before. "
                "/image PATH and /video PATH attach files, /help lists all commands. From a pipe: a line a "
                "turn, answers on standard output; exit code 1 when a line failed.");
  AddAnswerFlags(flags, &values.answer);
  AddModelFlags(flags, &values.model, false);
  flags.Group("Other");
  AddMediaLimitFlag(flags, &values.limits.images_per_prompt, &values.limits.videos_per_prompt,
                    "Pictures and videos of a conversation");
  flags.Switch("verbose", &values.verbose, "Also tell about loading and memory");
  auto parsed = flags.Parse(args);
  if (!parsed.ok()) return UsageError("chat", parsed.status());
  if (!*parsed) return kExitOk;
  std::vector<std::string> words = flags.words();
  if (Status status = TakeModel(&values.model.model_dir, &words); !status.ok())
    return UsageError("chat", status);
  if (!words.empty()) {
    return UsageError("chat", InvalidArgument(StrCat("unexpected word '", words[0],
                                                     "'; questions come on standard input, `fastdeploy run` "
                                                     "takes one on the command line")));
  }
  if (Status status = CheckAnswerFlags(values.answer); !status.ok()) return UsageError("chat", status);
  if (Status status = CheckModelFolder(values.model.model_dir); !status.ok()) return Failure("chat", status);
  StopSignal stop;
  auto attachments = AttachmentsOf(values.answer);
  if (!attachments.ok()) return Failure("chat", attachments.status());
  auto loaded = LoadForTerminal(values.model, values.limits, values.verbose);
  if (!loaded.ok()) return Failure("chat", loaded.status());
  return Chat(**loaded, values, std::move(*attachments), stop).Run();
}

}  // namespace fd
