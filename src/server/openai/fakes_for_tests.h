// A tokenizer whose tokens are bytes and an engine that plays a script, for the tests of this tier: what is
// tested is the server, and every token is known.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "server/openai/service.h"

namespace fd {

class ByteTokenizer : public Tokenizer {
 public:
  static constexpr int32_t kEnd = 256;
  static constexpr int32_t kThinkEnd = 257;
  static constexpr int32_t kBos = 258;

  std::vector<int32_t> EncodeSpans(const std::vector<TextSpan>& spans) const override {
    std::vector<int32_t> ids;
    for (const TextSpan& span : spans) {
      for (char c : span.text) ids.push_back(static_cast<uint8_t>(c));
    }
    return ids;
  }
  std::vector<int32_t> EncodeWithBos(std::string_view text) const override {
    return EncodeSpans({{text, true}});
  }
  std::string Decode(const std::vector<int32_t>& ids, bool skip_special) const override {
    std::string out;
    for (int32_t id : ids) out += TokenBytes(id, skip_special);
    return out;
  }
  std::string TokenBytes(int32_t id, bool skip_special) const override {
    if (id >= 0 && id < 256) return std::string(1, static_cast<char>(id));
    return id == kThinkEnd && !skip_special ? "</think>" : "";
  }
  int64_t vocab_size() const override { return 259; }
  std::optional<int32_t> TokenId(std::string_view token) const override {
    return token == "</think>" ? std::optional<int32_t>(kThinkEnd) : std::nullopt;
  }
  bool IsSpecial(int32_t id) const override { return id >= 256; }
  const std::string& bos_token() const override { return none_; }
  const std::string& eos_token() const override { return none_; }
  const std::string& pad_token() const override { return none_; }
  const std::string& unk_token() const override { return none_; }

 private:
  std::string none_;
};

// Plays `script` to every request, a token each `step`: ids of ByteTokenizer, then the end token.
class ScriptedEngine {
 public:
  explicit ScriptedEngine(std::string script, std::chrono::microseconds step = std::chrono::microseconds(200))
      : step_(step) {
    for (char c : script) script_.push_back(static_cast<uint8_t>(c));
    thread_ = std::thread([this] { Loop(); });
  }
  ~ScriptedEngine() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    thread_.join();
  }
  // Between construction and the first request.
  std::vector<int32_t>& script() { return script_; }

  void SetSilent(bool silent) {
    Locked([&] { silent_ = silent; });
  }
  void SetFrozen(bool frozen) {
    Locked([&] { frozen_ = frozen; });
  }
  void SetSubmitError(Status status) {
    Locked([&] { submit_error_ = status; });
  }
  // Every sequence fails after this many tokens.
  void SetFailAfter(int64_t tokens, Status error = Internal("the logits held a NaN")) {
    Locked([&] {
      fail_after_ = tokens;
      fail_error_ = std::move(error);
    });
  }
  int64_t running() {
    return Locked([&] { return static_cast<int64_t>(running_.size()); });
  }
  int64_t aborts() {
    return Locked([&] { return aborts_; });
  }
  std::vector<GenerateRequest> seen() {
    return Locked([&] { return seen_; });
  }
  bool WaitRunning(int64_t count) {
    for (int i = 0; i < 5000; ++i) {
      if (running() == count) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }

  EngineDoor Door() {
    return {[this](GenerateRequest r) {
              return Locked([&]() -> Status {
                if (!submit_error_.ok()) return submit_error_;
                seen_.push_back(r);
                seen_.back().sink = nullptr;
                running_.emplace(r.id, Running{std::move(r)});
                return OkStatus();
              });
            },
            [this](RequestId id) {
              Locked([&] {
                if (running_.count(id) > 0) aborted_.insert(id);
              });
            },
            [this] {
              return EngineStats{.running = running(), .free_pages = 9, .used_pages = 1, .total_pages = 10};
            },
            [this] { return Locked([&] { return heartbeat_; }); }, [] {}};
  }

 private:
  struct Running {
    GenerateRequest request;
    int64_t generated = 0;
    bool scored = false;
  };
  template <typename Fn>
  auto Locked(Fn fn) -> decltype(fn()) {
    std::lock_guard lock(mutex_);
    return fn();
  }
  void Loop() {
    while (true) {
      std::this_thread::sleep_for(step_);
      std::lock_guard lock(mutex_);
      if (stop_) return;
      if (frozen_) continue;
      heartbeat_ = Clock::now();
      for (auto it = running_.begin(); it != running_.end();) {
        TokenEvent event = Step(it->second);
        const bool over = event.finish_reason.has_value();
        const TokenSink& sink = it->second.request.sink;
        if (over || !event.token_ids.empty() || !event.prompt_logprobs.empty()) sink(std::move(event));
        it = over ? running_.erase(it) : std::next(it);
      }
    }
  }
  TokenEvent Step(Running& r) {
    TokenEvent event;
    event.request_id = r.request.id;
    event.scheduled_at = r.request.arrived_at;
    if (aborted_.erase(r.request.id) > 0) {
      ++aborts_;
      event.finish_reason = FinishReason::kAborted;
      return event;
    }
    if (silent_) return event;
    if (r.generated == fail_after_) {
      event.finish_reason = FinishReason::kError;
      event.error = fail_error_;
      return event;
    }
    const int32_t prompt_top = r.request.sampling.prompt_logprobs;
    if (prompt_top >= 0 && !std::exchange(r.scored, true)) {  // '?' was likelier everywhere
      for (size_t i = 1; i < r.request.token_ids.size(); ++i) {
        const int32_t id = r.request.token_ids[i];
        event.prompt_logprobs.push_back({id, -0.25f, 2, {{'?', -0.125f}, {id, -0.25f}, {0xe2, -2.5f}}});
        auto& top = event.prompt_logprobs.back().top;
        top.resize(std::min(top.size(), static_cast<size_t>(prompt_top)));
      }
      return event;
    }
    if (r.request.sampling.max_tokens == 0) {
      event.finish_reason = FinishReason::kLength;
      return event;
    }
    const auto length = static_cast<int64_t>(script_.size());
    const bool ends = r.generated == length && !r.request.sampling.ignore_eos;
    const int32_t id = ends ? ByteTokenizer::kEnd : script_[static_cast<size_t>(r.generated % length)];
    ++r.generated;
    event.token_ids = {id};
    event.logprobs = {-0.5f};
    if (const int32_t top = r.request.sampling.top_logprobs; top > 0) {
      event.top_logprobs = {{{id, -0.5f}, {'?', -1.5f}, {0xe2, -2.5f}}};
      if (top < 3) event.top_logprobs[0].resize(static_cast<size_t>(top));
    }
    const auto& stops = r.request.sampling.stop_token_ids;
    if (ends || std::find(stops.begin(), stops.end(), id) != stops.end()) {
      event.finish_reason = FinishReason::kStop;
      event.stopped_by_end_token = true;
    } else if (r.generated >= r.request.sampling.max_tokens) {
      event.finish_reason = FinishReason::kLength;
    }
    return event;
  }

  const std::chrono::microseconds step_;
  std::vector<int32_t> script_;
  std::mutex mutex_;
  std::map<RequestId, Running> running_;
  std::set<RequestId> aborted_;
  std::vector<GenerateRequest> seen_;
  Status submit_error_;
  Clock::time_point heartbeat_ = Clock::now();
  int64_t aborts_ = 0;
  int64_t fail_after_ = -1;
  Status fail_error_;
  bool silent_ = false;
  bool frozen_ = false;
  bool stop_ = false;
  std::thread thread_;
};

inline constexpr char kTestTemplate[] =
    "{%- for m in messages -%}{{ m.role }}: {{ m.content }}\n{% endfor -%}"
    "{%- if tools %}TOOLS {{ tools | tojson }}\n{% endif -%}"
    "bot: {{ '<think>' if enable_thinking is defined and enable_thinking else '<think></think>' }}";

// A text model with every limit at its default.
inline std::shared_ptr<Service> TestService(ScriptedEngine& engine) {
  auto service = std::make_shared<Service>();
  service->model_names = {"tiny"};
  service->created_unix_s = 1700000000;
  service->tokenizer = std::make_shared<ByteTokenizer>();
  auto chat_template = ChatTemplate::FromSource(kTestTemplate, JsonObject{});
  FD_CHECK(chat_template.ok(), chat_template.status().message());
  service->chat_template = std::move(chat_template).value();
  service->max_model_len = 512;
  service->vocab_size = 259;
  service->defaults.top_p = 1.0f;
  service->engine = engine.Door();
  service->metrics = std::make_shared<Metrics>();
  return service;
}

}  // namespace fd
