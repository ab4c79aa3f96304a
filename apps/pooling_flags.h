// --runner, --convert, --task and --pooler-config: whether a server generates or makes embeddings, and which.
#pragma once

#include <optional>
#include <string>

#include "engine/plan/options.h"
#include "flag_set.h"

namespace fd {

// What a server that makes embeddings makes where a request does not say.
struct PoolerConfig {
  PoolingType type = PoolingType::kLast;
  bool normalize = true;
  std::optional<int64_t> dimensions;
};

struct PoolingFlags {
  std::string runner = "auto";
  std::string convert = "auto";
  std::string task = "generate";
  std::optional<PoolerConfig> config;  // --pooler-config
};

void AddPoolingFlags(FlagSet& flags, PoolingFlags* values);
// Of JSON as vLLM and FastDeploy have it: pooling_type, normalize, dimensions; other keys only at values that
// ask for nothing.
StatusOr<PoolerConfig> ParsePoolerConfig(const std::string& text);
// Absent: the server generates. An error when flags contradict each other.
StatusOr<std::optional<PoolerConfig>> ResolvePooling(const PoolingFlags& values);

}  // namespace fd
