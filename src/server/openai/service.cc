#include "server/openai/service.h"

#include <atomic>

#include "base/strings.h"

namespace fd {

GenerationDefaults DefaultsOf(const ModelConfig& config) {
  GenerationDefaults d;
  if (config.default_temperature) d.temperature = *config.default_temperature;
  if (config.default_top_p) d.top_p = *config.default_top_p;
  if (config.default_top_k) d.top_k = *config.default_top_k;
  return d;
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
