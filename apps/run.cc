// fastdeploy run: one question from the terminal, through the same generation path as HTTP.
#include <unistd.h>

#include <condition_variable>
#include <cstdio>
#include <deque>
#include <iostream>
#include <iterator>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "base/strings.h"
#include "base/utf8.h"
#include "command.h"
#include "flag_set.h"
#include "loaded_model.h"
#include "model_flags.h"
#include "progress_bar.h"
#include "server/openai/generation.h"
#include "server/openai/media_url.h"
#include "stop_signal.h"

namespace fd {
namespace {

constexpr int kStopPollMs = 50;
constexpr int kExitInterrupted = 130;

struct RunFlags {
  ModelFlags model;
  std::string prompt;
  std::string system;
  std::vector<std::string> images;
  std::vector<std::string> stop;
  std::optional<int64_t> max_tokens;
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int64_t> top_k;
  std::optional<int64_t> seed;
  bool thinking = false;
  bool no_thinking = false;
  bool verbose = false;
};

// Events from the engine thread to this one.
class EventQueue {
 public:
  void Add(TokenEvent&& event) {
    std::lock_guard<std::mutex> lock(mutex_);
    events_.push_back(std::move(event));
    ready_.notify_one();
  }
  std::optional<TokenEvent> Take(int timeout_ms) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (!ready_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [this] { return !events_.empty(); }))
      return {};
    TokenEvent event = std::move(events_.front());
    events_.pop_front();
    return event;
  }

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<TokenEvent> events_;
};

// The answer on standard output; reasoning dim before it on a terminal, else on standard error, so that a
// pipe gets the answer alone.
class Printer {
 public:
  void Reasoning(const std::string& text) {
    std::string_view rest = in_reasoning_ ? std::string_view(text) : Trimmed(text);
    if (rest.empty()) return;
    FILE* out = terminal_ ? stdout : stderr;
    if (!in_reasoning_ && terminal_) std::fputs("\x1b[2m", out);
    in_reasoning_ = true;
    Put(out, rest);
  }
  void Answer(const std::string& text) {
    std::string_view rest = in_answer_ ? std::string_view(text) : Trimmed(text);
    if (rest.empty()) return;
    if (!in_answer_) EndReasoning();
    in_answer_ = true;
    Put(stdout, rest);
  }
  void End() {
    if (!in_answer_) EndReasoning();
    if (in_answer_) Put(stdout, "\n");
  }

 private:
  static std::string_view Trimmed(std::string_view text) {
    size_t begin = text.find_first_not_of("\n ");
    return begin == std::string_view::npos ? std::string_view() : text.substr(begin);
  }
  void Put(FILE* out, std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), out);
    std::fflush(out);
  }
  void EndReasoning() {
    if (!in_reasoning_) return;
    Put(terminal_ ? stdout : stderr, terminal_ ? "\x1b[0m\n" : "\n");
    in_reasoning_ = false;
  }
  bool terminal_ = isatty(STDOUT_FILENO) == 1;
  bool in_reasoning_ = false;
  bool in_answer_ = false;
};

StatusOr<std::string> PictureUrl(const std::string& path) {
  if (IsDirectory(path))
    return InvalidArgument(StrCat("--image ", path, ": is a directory; give a PNG, JPEG, WebP or GIF file"));
  StatusOr<std::string> bytes = ReadFile(path);
  if (!bytes.ok()) return bytes.status().WithContext("--image");
  const char* type = bytes->starts_with("\x89PNG")    ? "image/png"
                     : bytes->starts_with("\xff\xd8") ? "image/jpeg"
                     : bytes->starts_with("GIF8")     ? "image/gif"
                                                      : "image/webp";
  return StrCat("data:", type, ";base64,", EncodeBase64(*bytes));
}

StatusOr<Json> RequestBody(const RunFlags& flags) {
  JsonArray messages;
  if (!flags.system.empty()) messages.push_back(JsonObject{{"role", "system"}, {"content", flags.system}});
  if (flags.images.empty()) {
    messages.push_back(JsonObject{{"role", "user"}, {"content", flags.prompt}});
  } else {
    JsonArray parts;
    for (const std::string& path : flags.images) {
      FD_ASSIGN_OR_RETURN(std::string url, PictureUrl(path));
      parts.push_back(JsonObject{{"type", "image_url"}, {"image_url", JsonObject{{"url", std::move(url)}}}});
    }
    parts.push_back(JsonObject{{"type", "text"}, {"text", flags.prompt}});
    messages.push_back(JsonObject{{"role", "user"}, {"content", std::move(parts)}});
  }
  JsonObject body{{"messages", std::move(messages)}, {"stream", true}};
  if (flags.max_tokens) body.Set("max_tokens", *flags.max_tokens);
  if (flags.temperature) body.Set("temperature", *flags.temperature);
  if (flags.top_p) body.Set("top_p", *flags.top_p);
  if (flags.top_k) body.Set("top_k", *flags.top_k);
  if (flags.seed) body.Set("seed", *flags.seed);
  if (!flags.stop.empty()) {
    JsonArray stop;
    for (const std::string& text : flags.stop) stop.push_back(text);
    body.Set("stop", std::move(stop));
  }
  if (flags.thinking || flags.no_thinking) {
    body.Set("chat_template_kwargs", JsonObject{{"enable_thinking", flags.thinking}});
  }
  return Json(std::move(body));
}

int Ask(const RunFlags& flags) {
  StopSignal stop;
  StatusOr<Json> body = RequestBody(flags);  // a wrong picture is told before the model is read
  if (!body.ok()) return Failure("run", body.status());

  ServiceFlags service_flags;
  service_flags.reasoning_parser = kReasoningParserIfKnown;
  service_flags.limits.images_per_prompt = std::max<int64_t>(1, static_cast<int64_t>(flags.images.size()));
  service_flags.media.loader.max_cache_bytes = 0;  // there is one request
  ProgressBar bar("loading weights");
  if (!flags.verbose) SetLogLevel(LogLevel::kWarning);
  auto loaded = LoadService(flags.model, service_flags,
                            [&bar](int64_t done, int64_t total) { bar.Update(done, total); });
  bar.Finish();
  if (!loaded.ok()) return Failure("run", loaded.status());
  LoadedModel& model = **loaded;
  if (flags.verbose) LogModel(model);

  Clock::time_point begin = Clock::now();
  auto prepared = Generation::Prepare(*model.service, ApiEndpoint::kChat, std::move(*body), begin);
  if (!prepared.ok()) return Failure("run", prepared.status());
  Generation& generation = **prepared;
  EventQueue queue;
  Status submitted = generation.Submit([&queue](int, TokenEvent&& event) { queue.Add(std::move(event)); });
  if (!submitted.ok()) return Failure("run", submitted);
  stop.Arm();

  Printer printer;
  std::optional<Clock::time_point> first;
  std::string finish_reason;
  while (!generation.finished() && generation.status().ok() && !stop.requested()) {
    std::optional<TokenEvent> event = queue.Take(kStopPollMs);
    if (!event) continue;
    if (!first) first = Clock::now();
    Delta delta = generation.Push(0, std::move(*event));
    printer.Reasoning(delta.reasoning_content);
    printer.Answer(delta.content);
    if (delta.finish_reason) finish_reason = *delta.finish_reason;
  }
  printer.End();
  bool interrupted = stop.requested() && !generation.finished();
  Status status = generation.status();
  Usage usage = generation.usage();
  const bool device_lost = !model.engine->DeviceStatus().ok();
  prepared->reset();     // aborts what still runs
  model.engine.reset();  // joins the thread that fills the queue
  if (!status.ok()) {
    Failure("run", status);
    return device_lost ? kExitDeviceLost : kExitFailure;
  }
  if (interrupted) return kExitInterrupted;
  if (finish_reason == "length") {
    std::fputs(
        StrCat("[cut after ", usage.completion_tokens, " tokens; see --max-tokens and --max-model-len]\n")
            .c_str(),
        stderr);
  }
  if (flags.verbose) {
    double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    double wait = first ? std::chrono::duration<double>(*first - begin).count() : seconds;
    LogInfo(usage.prompt_tokens, " prompt tokens, first token after ", Fixed(wait * 1000, 1), " ms; ",
            usage.completion_tokens, " tokens in ", Fixed(seconds, 3), " s, ",
            Fixed((usage.completion_tokens - 1) / std::max(1e-9, seconds - wait), 1), " tokens/s");
  }
  return kExitOk;
}

}  // namespace

int RunRun(const std::vector<std::string>& args) {
  RunFlags values;
  values.model.max_num_seqs = 1;
  FlagSet flags("fastdeploy run MODEL [PROMPT] [FLAGS]",
                "Asks a model one question and prints the answer as it comes. Without PROMPT it is read from "
                "standard input.");
  flags.Group("Question");
  flags.List("image", &values.images, "A picture file (PNG, JPEG, WebP, GIF); may be repeated", "FILE");
  flags.Text("system", &values.system, "A system message before the question", "TEXT", "none");
  flags.Switch("thinking", &values.thinking, "Let the model think first");
  flags.Switch("no-thinking", &values.no_thinking, "Ask for the answer alone");
  flags.Group("Sampling");
  flags.Integer("max-tokens", &values.max_tokens, {1, int64_t{1} << 24, 256}, "Tokens to generate at most",
                "until the model ends");
  flags.Real("temperature", &values.temperature, {0, 100, 0.7}, "0: always the likeliest token",
             "the checkpoint's");
  flags.Real("top-p", &values.top_p, {0, 1, 0.8}, "Likeliest tokens up to this share", "the checkpoint's");
  flags.Integer("top-k", &values.top_k, {-1, 1 << 20, 40}, "Likeliest tokens up to this number; 0 or -1: off",
                "the checkpoint's");
  flags.Integer("seed", &values.seed, {0, 922337203685477580, 1}, "The same seed gives the same answer",
                "random");
  flags.List("stop", &values.stop, "Text that ends the answer; may be repeated", "TEXT");
  AddModelFlags(flags, &values.model, false);
  flags.Group("Other");
  flags.Switch("verbose", &values.verbose, "Also tell about loading, memory and speed");
  auto parsed = flags.Parse(args);
  if (!parsed.ok()) return UsageError("run", parsed.status());
  if (!*parsed) return kExitOk;
  std::vector<std::string> words = flags.words();
  if (Status status = TakeModel(&values.model.model_dir, &words); !status.ok())
    return UsageError("run", status);
  if (values.thinking && values.no_thinking) {
    return UsageError("run", InvalidArgument("--thinking and --no-thinking exclude each other"));
  }
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
  if (values.prompt.empty() && values.images.empty())
    return UsageError("run", InvalidArgument("the question is empty"));
  if (!IsValidUtf8(values.prompt))
    return UsageError("run", InvalidArgument("the question is not UTF-8 text"));
  if (Status status = CheckModelFolder(values.model.model_dir); !status.ok()) return Failure("run", status);
  return Ask(values);
}

}  // namespace fd
