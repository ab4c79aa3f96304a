// What the fuzzers of this folder put behind the server's doors: services whose tokens are bytes, and an
// engine that answers inside Submit, so that a run is the same every time.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "fuzz_require.h"
#include "server/openai/fakes_for_tests.h"

namespace fd::fuzz {

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
  Require(r.id != 0 && r.sink != nullptr, "a request has an id and a sink");
  if (service.embeddings) {  // the rest is not looked at
    Require(prompt_tokens <= service.max_model_len, "the input fits the model");
    return;
  }
  Require(s.max_tokens >= 0 && prompt_tokens + s.max_tokens <= service.max_model_len,
          "prompt and answer fit the model");
  Require(std::isfinite(r.timeout_s) && r.timeout_s >= 0, "timeout");
  Require(within(s.temperature, 0, 100) && within(s.top_p, 1e-6, 1) && within(s.min_p, 0, 1) && s.top_k >= 0,
          "sampling numbers are in their ranges");
  Require(within(s.presence_penalty, -2, 2) && within(s.frequency_penalty, -2, 2) &&
              within(s.repetition_penalty, 0, 100) && s.repetition_penalty > 0,
          "penalties are in their ranges");
  Require(s.min_tokens >= 0 && s.min_tokens <= service.max_model_len, "min_tokens is in its range");
  Require(s.top_logprobs >= -1 && s.top_logprobs <= service.limits.max_logprobs, "top_logprobs");
  Require(s.prompt_logprobs >= -1 && s.prompt_logprobs <= service.limits.max_logprobs, "prompt_logprobs");
  Require(
      s.prompt_logprobs < 0 || prompt_tokens * (s.prompt_logprobs + 1) <= service.limits.max_prompt_logprobs,
      "prompt_logprobs: a limit");
  Require(all_ids(s.allowed_token_ids) &&
              std::is_sorted(s.allowed_token_ids.begin(), s.allowed_token_ids.end(), std::less_equal<>()),
          "allowed_token_ids ascend");
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

// Answers inside submit: `script` as tokens, then the end, or a vector. Shared by every request of the
// service.
class InstantEngine {
 public:
  explicit InstantEngine(std::string script) : script_(std::move(script)) {}
  void SetScript(std::string_view script) { script_ = script; }
  // Every request fails after so many tokens; -1: none does.
  void SetFailAfter(int64_t tokens) { fail_after_ = tokens; }

  EngineDoor Door(const Service& service) {
    return {[this, &service](GenerateRequest r) {
              RequireSaneRequest(service, r);
              service.embeddings ? Embed(service, r) : Answer(r);
              return OkStatus();
            },
            [](RequestId) {},
            [] { return EngineStats{.running = 0, .free_pages = 9, .used_pages = 1, .total_pages = 10}; },
            [] { return Clock::now(); }, [] {}};
  }

 private:
  static TokenEvent EventOf(const GenerateRequest& r) {
    TokenEvent event;
    event.request_id = r.id;
    event.scheduled_at = r.arrived_at;
    return event;
  }

  void Fail(const GenerateRequest& r) const {
    TokenEvent event = EventOf(r);
    event.finish_reason = FinishReason::kError;
    event.error = Internal("the logits held a NaN");
    r.sink(std::move(event));
  }

  // Values of every size, and a vector of zeros where the prompt begins with 0.
  void Embed(const Service& service, const GenerateRequest& r) const {
    if (fail_after_ >= 0) return Fail(r);
    TokenEvent event = EventOf(r);
    event.finish_reason = FinishReason::kStop;
    for (int64_t i = 0; i < service.embeddings->hidden_size; ++i) {
      event.embedding.push_back(static_cast<float>(r.token_ids[0]) *
                                std::pow(10.0f, static_cast<float>(i % 64) - 32.0f));
    }
    r.sink(std::move(event));
  }

  // In as many events as tokens come in; ids that are never drawn have no finite number.
  static void ScorePrompt(const GenerateRequest& r) {
    const auto top = static_cast<size_t>(std::max(r.sampling.prompt_logprobs, 0));
    for (size_t at = 1; at < r.token_ids.size();) {
      TokenEvent event = EventOf(r);
      for (size_t count = 1 + at % 3; count > 0 && at < r.token_ids.size(); --count, ++at) {
        const int32_t id = r.token_ids[at];
        const float logprob = id % 7 == 0 ? -std::numeric_limits<float>::infinity() : -0.25f;
        event.prompt_logprobs.push_back({id, logprob, 1 + id, std::vector<TokenLogprob>(top, {id, logprob})});
      }
      r.sink(std::move(event));
    }
  }

  void Answer(const GenerateRequest& r) const {
    if (r.sampling.prompt_logprobs >= 0) ScorePrompt(r);
    if (r.sampling.max_tokens == 0) {
      TokenEvent event = EventOf(r);
      event.finish_reason = FinishReason::kLength;
      return r.sink(std::move(event));
    }
    const int32_t top = r.sampling.top_logprobs;
    size_t at = 0;
    for (int64_t made = 0;;) {
      if (fail_after_ >= 0 && made >= fail_after_) return Fail(r);
      TokenEvent event = EventOf(r);
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

  int64_t fail_after_ = -1;
  std::string script_;
};

inline constexpr char kMediaTemplate[] =
    "{%- for m in messages -%}{%- if m.content is string -%}{{ m.content }}{%- else -%}{%- for part in "
    "m.content -%}{%- if part.type == 'image_url' -%}<|image@placeholder|>{%- elif part.type == 'video_url' "
    "-%}<|video@placeholder|>{%- else -%}{{ part.text }}{%- endif -%}{%- endfor -%}{%- endif -%};{%- endfor "
    "-%}";

enum class FuzzModel { kText, kVision, kPooling };

// kVision takes pictures and videos, which nobody loads.
inline std::shared_ptr<Service> FuzzService(InstantEngine& engine, FuzzModel model) {
  const bool vision = model == FuzzModel::kVision;
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
  if (model == FuzzModel::kPooling) {
    service->embeddings = EmbeddingService{.normalize = true,
                                           .dimensions = {},
                                           .hidden_size = 8,
                                           .is_matryoshka = true,
                                           .matryoshka_dimensions = {}};
    service->max_num_seqs = 2;
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
