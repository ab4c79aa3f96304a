#include "conversation.h"

#include <unistd.h>

#include <condition_variable>
#include <cstdio>
#include <deque>
#include <mutex>
#include <string_view>
#include <utility>

#include "base/log.h"
#include "base/strings.h"
#include "base/utf8.h"
#include "progress_bar.h"

namespace fd {
namespace {

constexpr int kStopPollMs = 50;

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

}  // namespace

void AddAnswerFlags(FlagSet& flags, AnswerFlags* values) {
  flags.Group("Question");
  flags.List("image", &values->images, "A picture file (PNG, JPEG, WebP, GIF); may be repeated", "FILE");
  flags.List("video", &values->videos,
             "A video file (MP4, MOV, WebM, MKV, AVI, GIF, animated WebP); may be repeated", "FILE");
  flags.Real("video-fps", &values->video.fps, {0, 1000, 2, true}, "Frames a second that are looked at",
             "the model's");
  flags.Integer("video-frames", &values->video.frames, {2, 1 << 20, 32},
                "Frames of a video that are looked at, spread over its length", "by --video-fps");
  flags.Text("system", &values->system, "A system message before the first question", "TEXT", "none");
  flags.Switch("thinking", &values->thinking, "Let the model think first");
  flags.Switch("no-thinking", &values->no_thinking, "Ask for the answer alone");
  flags.Group("Sampling");
  flags.Integer("max-tokens", &values->max_tokens, {1, int64_t{1} << 24, 256}, "Tokens to generate at most",
                "until the model ends");
  flags.Real("temperature", &values->temperature, {0, 100, 0.7}, "0: always the likeliest token",
             "the checkpoint's");
  flags.Real("top-p", &values->top_p, {0, 1, 0.8}, "Likeliest tokens up to this share", "the checkpoint's");
  flags.Integer("top-k", &values->top_k, {-1, 1 << 20, 40},
                "Likeliest tokens up to this number; 0 or -1: off", "the checkpoint's");
  flags.Integer("seed", &values->seed, {0, 922337203685477580, 1}, "The same seed gives the same answer",
                "random");
  flags.List("stop", &values->stop, "Text that ends the answer; may be repeated", "TEXT");
}

Status CheckAnswerFlags(const AnswerFlags& flags) {
  if (flags.thinking && flags.no_thinking)
    return InvalidArgument("--thinking and --no-thinking exclude each other");
  if (flags.video.fps && flags.video.frames)
    return InvalidArgument("--video-fps and --video-frames exclude each other");
  if (!IsValidUtf8(flags.system)) return InvalidArgument("--system is not UTF-8 text");
  return OkStatus();
}

StatusOr<std::vector<Attachment>> AttachmentsOf(const AnswerFlags& flags) {
  std::vector<Attachment> out;
  for (const std::string& path : flags.images) out.push_back({Attachment::Kind::kImage, path});
  for (const std::string& path : flags.videos) out.push_back({Attachment::Kind::kVideo, path});
  for (const Attachment& attachment : out) {
    if (Status status = CheckAttachment(attachment); !status.ok()) {
      return status.WithContext(attachment.kind == Attachment::Kind::kImage ? "--image" : "--video");
    }
  }
  return out;
}

Json RequestBody(const std::string& system, const JsonArray& messages, const AnswerFlags& flags) {
  JsonArray all;
  if (!system.empty()) all.push_back(JsonObject{{"role", "system"}, {"content", system}});
  all.insert(all.end(), messages.begin(), messages.end());
  JsonObject body{{"messages", std::move(all)}, {"stream", true}};
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

StatusOr<std::unique_ptr<LoadedModel>> LoadForTerminal(const ModelFlags& flags, const RequestLimits& limits,
                                                       bool verbose) {
  ServiceFlags service_flags;
  service_flags.reasoning_parser = kReasoningParserIfKnown;
  service_flags.limits = limits;
  // Who sits at the terminal may read what this program may, and wait for it.
  service_flags.media_policy.local_path = "/";
  service_flags.media.video_limits.max_file_bytes = int64_t{8} << 30;
  service_flags.media.video_limits.timeout_s = 3600;
  ProgressBar bar("loading weights");
  if (!verbose) SetLogLevel(LogLevel::kWarning);
  auto loaded =
      LoadService(flags, service_flags, [&bar](int64_t done, int64_t total) { bar.Update(done, total); });
  bar.Finish();
  if (loaded.ok() && verbose) LogModel(**loaded);
  return loaded;
}

Answer Ask(const Service& service, Json body, const StopSignal& stop) {
  Answer answer;
  const Clock::time_point begin = Clock::now();
  auto prepared = Generation::Prepare(service, ApiEndpoint::kChat, std::move(body), begin);
  if (!prepared.ok()) {
    answer.status = prepared.status();
    return answer;
  }
  Generation& generation = **prepared;
  // The engine may still tell of a step after the generation has ended here.
  const auto queue = std::make_shared<EventQueue>();
  answer.status = generation.Submit([queue](int, TokenEvent&& event) { queue->Add(std::move(event)); });
  if (!answer.status.ok()) return answer;

  Printer printer;
  std::optional<double> first_token_s;
  while (!generation.finished() && generation.status().ok() && !stop.requested()) {
    std::optional<TokenEvent> event = queue->Take(kStopPollMs);
    if (!event) continue;
    if (!first_token_s) first_token_s = SecondsSince(begin);
    Delta delta = generation.Push(0, std::move(*event));
    printer.Reasoning(delta.reasoning_content);
    printer.Answer(delta.content);
    answer.text += delta.content;
    if (delta.finish_reason) answer.cut = *delta.finish_reason == "length";
  }
  printer.End();
  answer.stopped = stop.requested() && !generation.finished();
  answer.status = generation.status();
  answer.usage = generation.usage();
  answer.total_s = SecondsSince(begin);
  answer.first_token_s = first_token_s.value_or(answer.total_s);
  return answer;
}

}  // namespace fd
