// fastdeploy run: one question from the terminal, through the same generation path as HTTP.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/strings.h"
#include "base/utf8.h"
#include "command.h"
#include "conversation.h"
#include "flag_set.h"
#include "model_flags.h"
#include "stop_signal.h"

namespace fd {
namespace {

struct RunFlags {
  ModelFlags model;
  AnswerFlags answer;
  std::string prompt;
  bool verbose = false;
};

// A wrong file is told before the model is read.
StatusOr<Json> Body(const RunFlags& flags) {
  FD_ASSIGN_OR_RETURN(const std::vector<Attachment> attachments, AttachmentsOf(flags.answer));
  FD_ASSIGN_OR_RETURN(Json message, UserMessage(flags.prompt, attachments, flags.answer.video));
  return RequestBody(flags.answer.system, {std::move(message)}, flags.answer);
}

int Run(const RunFlags& flags) {
  StopSignal stop;
  StatusOr<Json> body = Body(flags);
  if (!body.ok()) return Failure("run", body.status());
  RequestLimits limits;
  limits.images_per_prompt = std::max<int64_t>(1, static_cast<int64_t>(flags.answer.images.size()));
  limits.videos_per_prompt = std::max<int64_t>(1, static_cast<int64_t>(flags.answer.videos.size()));
  auto loaded = LoadForTerminal(flags.model, limits, flags.verbose);
  if (!loaded.ok()) return Failure("run", loaded.status());
  LoadedModel& model = **loaded;
  stop.Arm();
  const Answer answer = Ask(*model.service, std::move(*body), stop);
  if (!answer.status.ok()) {
    Failure("run", answer.status);
    return model.engine->DeviceStatus().ok() ? kExitFailure : kExitDeviceLost;
  }
  if (answer.stopped) return kExitInterrupted;
  const Usage& usage = answer.usage;
  if (answer.cut) {
    std::fputs(
        StrCat("[cut after ", usage.completion_tokens, " tokens; see --max-tokens and --max-model-len]\n")
            .c_str(),
        stderr);
  }
  if (flags.verbose) {
    LogInfo(usage.prompt_tokens, " prompt tokens, first token after ", Fixed(answer.first_token_s * 1000, 1),
            " ms; ", usage.completion_tokens, " tokens in ", Fixed(answer.total_s, 3), " s, ",
            Fixed((usage.completion_tokens - 1) / std::max(1e-9, answer.total_s - answer.first_token_s), 1),
            " tokens/s");
  }
  return kExitOk;
}

}  // namespace

int RunRun(const std::vector<std::string>& args) {
  RunFlags values;
  values.model.max_num_seqs = 1;
  FlagSet flags("fastdeploy run MODEL [PROMPT] [FLAGS]",
                "Asks a model one question and prints the answer as it comes. Without PROMPT it is read from "
                "standard input. `fastdeploy chat` takes several turns.");
  AddAnswerFlags(flags, &values.answer);
  AddModelFlags(flags, &values.model, false);
  flags.Group("Other");
  flags.Switch("verbose", &values.verbose, "Also tell about loading, memory and speed");
  auto parsed = flags.Parse(args);
  if (!parsed.ok()) return UsageError("run", parsed.status());
  if (!*parsed) return kExitOk;
  std::vector<std::string> words = flags.words();
  if (Status status = TakeModel(&values.model.model_dir, &words); !status.ok())
    return UsageError("run", status);
  if (Status status = CheckAnswerFlags(values.answer); !status.ok()) return UsageError("run", status);
  if (words.empty() || (words.size() == 1 && words[0] == "-")) {
    if (isatty(STDIN_FILENO) == 1) {
      return UsageError(
          "run",
          InvalidArgument("what is the question? Give it after the model or on standard input, for example "
                          "fastdeploy run models/ernie-4.5-vl-tiny \"What is 12 + 30?\""));
    }
    values.prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
    while (!values.prompt.empty() && values.prompt.back() == '\n') values.prompt.pop_back();
  } else {
    values.prompt = Join(words, " ");
  }
  if (values.prompt.empty() && values.answer.images.empty() && values.answer.videos.empty())
    return UsageError("run", InvalidArgument("the question is empty"));
  if (!IsValidUtf8(values.prompt))
    return UsageError("run", InvalidArgument("the question is not UTF-8 text"));
  if (Status status = CheckModelFolder(values.model.model_dir); !status.ok()) return Failure("run", status);
  return Run(values);
}

}  // namespace fd
