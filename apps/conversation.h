// What `run` and `chat` share: the flags of an answer, asking for it through the path that HTTP requests
// take, and printing it as it comes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "attachment.h"
#include "base/json.h"
#include "base/status.h"
#include "flag_set.h"
#include "loaded_model.h"
#include "server/openai/generation.h"
#include "stop_signal.h"

namespace fd {

struct AnswerFlags {
  std::string system;
  std::vector<std::string> images;
  std::vector<std::string> videos;
  VideoOptions video;
  std::vector<std::string> stop;
  std::optional<int64_t> max_tokens;
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int64_t> top_k;
  std::optional<int64_t> seed;
  bool thinking = false;
  bool no_thinking = false;
};
// Groups "Question" and "Sampling".
void AddAnswerFlags(FlagSet& flags, AnswerFlags* values);
// What no single flag can say: which exclude each other, whether system is text.
Status CheckAnswerFlags(const AnswerFlags& flags);
// --image and --video in this order. An error names the flag and the file.
StatusOr<std::vector<Attachment>> AttachmentsOf(const AnswerFlags& flags);

// The body of a chat request. messages: without a system message, `system` (may be empty) comes first.
Json RequestBody(const std::string& system, const JsonArray& messages, const AnswerFlags& flags);

// Shows how loading goes on; errors as LoadService's. verbose: log lines too.
StatusOr<std::unique_ptr<LoadedModel>> LoadForTerminal(const ModelFlags& flags, const RequestLimits& limits,
                                                       bool verbose);

struct Answer {
  Status status;         // an error: refused before it began, or failed
  bool stopped = false;  // by `stop`, before its end
  std::string text;      // without reasoning
  bool cut = false;      // at the most tokens
  Usage usage;
  double first_token_s = 0;
  double total_s = 0;
};
// Prints the answer on standard output; reasoning dim before it on a terminal, else on standard error, so
// that a pipe gets the answer alone. Returns when it has ended or a signal has come; then nothing of it runs
// any more.
Answer Ask(const Service& service, Json body, const StopSignal& stop);

}  // namespace fd
