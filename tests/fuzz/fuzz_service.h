// What the fuzzers of this folder put behind the server's doors: a text service and a vision service whose
// tokens are bytes, and an engine that answers inside Submit, so that a run is the same every time.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "server/openai/fakes_for_tests.h"

namespace fd::fuzz {

inline void Require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "violated: %s\n", what);
  std::abort();
}

// What the engine may rely on without looking: the server has checked it.
inline void RequireSaneRequest(const Service& service, const GenerateRequest& r) {
  const auto all_ids = [&](const std::vector<int32_t>& ids) {
    for (const int32_t id : ids) {
      if (id < 0 || id >= service.vocab_size) return false;
    }
    return true;
  };
  const auto within = [](double value, double low, double high) {
    return std::isfinite(value) && value >= low && value <= high;
  };
  const SamplingParams& s = r.sampling;
  const auto prompt_tokens = static_cast<int64_t>(r.token_ids.size());
  Require(prompt_tokens >= 1 && all_ids(r.token_ids), "the prompt's ids lie in the vocabulary");
  Require(s.max_tokens >= 1 && prompt_tokens + s.max_tokens <= service.max_model_len,
          "prompt and answer fit the model");
  Require(within(s.temperature, 0, 100) && within(s.top_p, 1e-6, 1) && within(s.min_p, 0, 1) && s.top_k >= 0,
          "sampling numbers are in their ranges");
  Require(within(s.presence_penalty, -2, 2) && within(s.frequency_penalty, -2, 2) &&
              within(s.repetition_penalty, 0, 100) && s.repetition_penalty > 0,
          "penalties are in their ranges");
  Require(s.min_tokens >= 0 && s.min_tokens <= service.max_model_len, "min_tokens is in its range");
  Require(s.top_logprobs >= -1 && s.top_logprobs <= service.limits.max_logprobs, "top_logprobs");
  Require(all_ids(s.stop_token_ids) &&
              static_cast<int64_t>(s.stop_token_ids.size()) <= service.limits.max_stop_token_ids,
          "stop_token_ids");
  Require(static_cast<int64_t>(s.logit_bias.size()) <= service.limits.max_logit_bias, "logit_bias: a limit");
  for (const auto& [id, bias] : s.logit_bias) {
    Require(id >= 0 && id < service.vocab_size && within(bias, -100, 100), "logit_bias");
  }
  for (const auto& word : s.bad_words) Require(!word.empty() && all_ids(word), "bad_words");
  Require(s.thinking.max_tokens == 0 || !s.thinking.forced_ids.empty(), "a thought can be ended");
}

// Answers inside submit: `script` as tokens, then the end. Shared by every request of the service.
class InstantEngine {
 public:
  explicit InstantEngine(std::string script) : script_(std::move(script)) {}
  void SetScript(std::string_view script) { script_ = script; }

  EngineDoor Door(const Service& service) {
    return {[this, &service](GenerateRequest r) {
              RequireSaneRequest(service, r);
              Answer(r);
              return OkStatus();
            },
            [](RequestId) {},
            [] { return EngineStats{.running = 0, .free_pages = 9, .used_pages = 1, .total_pages = 10}; },
            [] { return Clock::now(); }, [] {}};
  }

 private:
  void Answer(const GenerateRequest& r) const {
    const int32_t top = r.sampling.top_logprobs;
    size_t at = 0;
    for (int64_t made = 0;;) {
      TokenEvent event;
      event.request_id = r.id;
      event.scheduled_at = r.arrived_at;
      // One token, then two, then three: what a speculative engine sends.
      for (int64_t count = 1 + made % 3; count > 0 && !event.finish_reason; --count) {
        const bool ends = at == script_.size();
        event.token_ids.push_back(ends ? ByteTokenizer::kEnd : static_cast<uint8_t>(script_[at++]));
        event.logprobs.push_back(-0.5f);
        event.top_logprobs.push_back(std::vector<TokenLogprob>(static_cast<size_t>(std::max(top, 0)),
                                                               TokenLogprob{event.token_ids.back(), -0.5f}));
        ++made;
        event.stopped_by_end_token = ends;
        if (ends) {
          event.finish_reason = FinishReason::kStop;
        } else if (made == r.sampling.max_tokens) {
          event.finish_reason = FinishReason::kLength;
        }
      }
      const bool over = event.finish_reason.has_value();
      r.sink(std::move(event));
      if (over) return;
    }
  }
  std::string script_;
};

inline constexpr char kMediaTemplate[] =
    "{%- for m in messages -%}{%- if m.content is string -%}{{ m.content }}{%- else -%}{%- for part in "
    "m.content -%}{%- if part.type == 'image_url' -%}<|image@placeholder|>{%- elif part.type == 'video_url' "
    "-%}<|video@placeholder|>{%- else -%}{{ part.text }}{%- endif -%}{%- endfor -%}{%- endif -%};{%- endfor "
    "-%}";

// vision: takes pictures and videos, which nobody loads.
inline std::shared_ptr<Service> FuzzService(InstantEngine& engine, bool vision) {
  auto service = std::make_shared<Service>();
  service->model_names = {"tiny"};
  service->created_unix_s = 1700000000;
  service->tokenizer = std::make_shared<ByteTokenizer>();
  auto chat_template = ChatTemplate::FromSource(vision ? kMediaTemplate : kTestTemplate, JsonObject{});
  Require(chat_template.ok(), "the template parses");
  service->chat_template = std::move(chat_template).value();
  if (vision) {
    MediaConfig config;
    config.image_min_pixels = config.video_min_pixels = 784;
    config.image_placeholder_id = 'I';
    config.video_placeholder_id = 'V';
    service->media = config;
    service->limits.images_per_prompt = service->limits.videos_per_prompt = 4;
  }
  service->max_model_len = 512;
  service->vocab_size = 259;
  service->defaults.top_p = 1.0f;
  service->metrics = std::make_shared<Metrics>();
  Require(SetReasoningParser(*service, "ernie-45-vl").ok() && SetToolParser(*service, "hermes").ok(),
          "the parsers' names");
  service->engine = engine.Door(*service);
  return service;
}

}  // namespace fd::fuzz
