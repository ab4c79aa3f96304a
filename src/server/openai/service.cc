#include "server/openai/service.h"

#include <atomic>

#include "base/strings.h"

namespace fd {

GenerationDefaults DefaultsOf(const ModelConfig& config) {
  GenerationDefaults d;
  if (config.default_temperature) d.temperature = *config.default_temperature;
  if (config.default_top_p) d.top_p = *config.default_top_p;
  if (config.default_top_k) d.top_k = *config.default_top_k;
  if (config.default_min_p) d.min_p = *config.default_min_p;
  if (config.default_repetition_penalty) d.repetition_penalty = *config.default_repetition_penalty;
  if (config.default_presence_penalty) d.presence_penalty = *config.default_presence_penalty;
  if (config.default_frequency_penalty) d.frequency_penalty = *config.default_frequency_penalty;
  return d;
}

void StartMediaLoader(Service& service, const MediaPolicy& policy, const MediaLoaderOptions& options) {
  const std::shared_ptr<Metrics> metrics = service.metrics;
  MediaEvents events;
  events.fetched = [metrics](double seconds) { metrics->MediaFetched(seconds); };
  events.prepared = [metrics](MediaKind kind, double seconds) {
    metrics->MediaPrepared(kind == MediaKind::kVideo, seconds);
  };
  events.looked_up = [metrics](bool hit) { metrics->ProcessorCacheLookup(hit); };
  service.media_loader = std::make_shared<MediaLoader>(*service.media, ReadersFor(*service.media, policy),
                                                       options, std::move(events));
}

Status SetReasoningParser(Service& service, const std::string& name) {
  service.think_end_id = -1;
  if (name.empty()) return OkStatus();
  if (name != "ernie-45-vl") {
    return InvalidArgument(
        StrCat("--reasoning-parser: \"", name, "\" is not known; this server has ernie-45-vl"),
        "--reasoning-parser");
  }
  const std::optional<int32_t> id = service.tokenizer->TokenId("</think>");
  if (!id) {
    return InvalidArgument(
        "--reasoning-parser ernie-45-vl: the vocabulary has no token </think>; leave the flag out for this "
        "model",
        "--reasoning-parser");
  }
  service.think_end_id = *id;
  return OkStatus();
}

RequestId NextRequestId() {
  static std::atomic<RequestId> next{1};
  return next.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace fd
