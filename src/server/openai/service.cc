#include "server/openai/service.h"

#include <atomic>
#include <cstdlib>

#include "base/strings.h"

namespace fd {
namespace {

constexpr char kThinkEndVariable[] = "FD_LIMIT_THINKING_CONTENT_TRUNCATE_STR";

void AddMarkerTokens(Service& service, const std::vector<std::string_view>& markers) {
  for (std::string_view marker : markers) {
    if (const auto id = service.tokenizer->TokenId(marker)) service.marker_tokens[*id] = marker;
  }
}

Status ReadThinkEnd(Service& service) {
  service.think_end_ids = {service.think_end_id};
  const char* given = std::getenv(kThinkEndVariable);
  if (given == nullptr || *given == '\0') return OkStatus();
  std::string text = given;
  for (size_t at = 0; (at = text.find("\\n", at)) != std::string::npos;) text.replace(at, 2, "\n");
  // </think> by its token, whatever a tokenizer makes of the text around it.
  const size_t marker = text.find("</think>");
  if (marker == std::string::npos) {
    return InvalidArgument(
        StrCat(kThinkEndVariable, " must hold </think>, for example \"\\n</think>\\n\\n\""),
        kThinkEndVariable);
  }
  const auto encode = [&](const std::string& part) {
    return part.empty() ? std::vector<int32_t>{}
                        : service.tokenizer->EncodeSpans({{part, /*allow_special=*/true}});
  };
  service.think_end_ids = encode(text.substr(0, marker));
  service.think_end_ids.push_back(service.think_end_id);
  for (int32_t id : encode(text.substr(marker + 8))) service.think_end_ids.push_back(id);
  return OkStatus();
}

}  // namespace

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
  FD_ASSIGN_OR_RETURN(service.reasoning_format, ReasoningFormatNamed(name));
  service.think_end_id = -1;
  service.think_end_ids.clear();
  if (service.reasoning_format == ReasoningFormat::kNone) return OkStatus();
  const std::optional<int32_t> id = service.tokenizer->TokenId("</think>");
  if (!id) {
    service.reasoning_format = ReasoningFormat::kNone;
    return InvalidArgument(
        StrCat("--reasoning-parser ", name,
               ": the vocabulary has no token </think>; leave the flag out for this model"),
        "--reasoning-parser");
  }
  service.think_end_id = *id;
  AddMarkerTokens(service, ReasoningMarkers(service.reasoning_format));
  return ReadThinkEnd(service);
}

Status SetToolParser(Service& service, const std::string& name) {
  FD_ASSIGN_OR_RETURN(service.tool_format, ToolFormatNamed(name));
  AddMarkerTokens(service, ToolMarkers(service.tool_format));
  return OkStatus();
}

RequestId NextRequestId() {
  static std::atomic<RequestId> next{1};
  return next.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace fd
