#include "pooling_flags.h"

#include <algorithm>

#include "base/json.h"
#include "base/strings.h"

namespace fd {
namespace {

constexpr const char* kExample = "--pooler-config '{\"pooling_type\": \"MEAN\", \"normalize\": true}'";
constexpr const char* kNoScoreHead =
    "needs a model with a score head, and this server knows none; embeddings: --runner pooling";

Status ReadType(const Json& value, PoolingType* type) {
  const std::string name = value.is_string() ? LowerAscii(value.as_string()) : std::string();
  if (name == "last") {
    *type = PoolingType::kLast;
  } else if (name == "mean") {
    *type = PoolingType::kMean;
  } else if (name == "cls") {
    *type = PoolingType::kCls;
  } else {
    return InvalidArgument(StrCat("needs LAST, MEAN or CLS for 'pooling_type', got ", WriteJson(value),
                                  "; a vector for each token (ALL, STEP) is not offered, for example ",
                                  kExample));
  }
  return OkStatus();
}

// --task and --convert name it too; what they mean by the other values.
Status CheckTask(const std::string& text) {
  for (const char* known : {"generate", "auto", "embed", "embedding"}) {
    if (text == known) return OkStatus();
  }
  for (const char* scores : {"classify", "score", "reward"}) {
    if (text == scores) return Unimplemented(kNoScoreHead);
  }
  return InvalidArgument("must be one of generate, auto, embed");
}

}  // namespace

StatusOr<PoolerConfig> ParsePoolerConfig(const std::string& text) {
  FD_ASSIGN_OR_RETURN(const JsonObject object, ParseObject(text, kExample));
  PoolerConfig config;
  for (const auto& [key, value] : object) {
    if (value.is_null()) continue;
    if (key == "pooling_type" || key == "seq_pooling_type") {
      FD_RETURN_IF_ERROR(ReadType(value, &config.type));
    } else if (key == "normalize" || key == "use_activation") {
      if (!value.is_bool()) {
        return InvalidArgument(StrCat("needs true or false for '", key, "', for example ", kExample));
      }
      config.normalize = value.as_bool();
    } else if (key == "dimensions") {
      if (!value.is_int() || value.as_int() < 1) {
        return InvalidArgument("needs a number of at least 1 for 'dimensions'");
      }
      config.dimensions = value.as_int();
    } else if (key == "enable_chunked_processing") {
      if (!value.is_bool() || value.as_bool()) {
        return Unimplemented(
            "'enable_chunked_processing', embeddings of inputs longer than --max-model-len, is still to "
            "come; set it "
            "to false (prompts are always computed in chunks)");
      }
    } else if (key == "max_embed_len") {
      return Unimplemented(
          "'max_embed_len' is still to come; --max-model-len limits the input, and truncate_prompt_tokens of "
          "a "
          "request cuts it");
    } else {
      return InvalidArgument(StrCat("has the key '", key,
                                    "'; known are pooling_type, normalize and dimensions, for example ",
                                    kExample));
    }
  }
  return config;
}

void AddPoolingFlags(FlagSet& flags, PoolingFlags* values) {
  flags.Choice(
      "runner", &values->runner, {"auto", "generate", "pooling"},
      "pooling: embeddings at /v1/embeddings and /pooling in place of text; auto: by --convert and --task");
  flags.Custom("convert", "auto|none|embed", "embed: as --runner pooling", values->convert,
               [values](const std::string& text) -> Status {
                 if (text != "auto" && text != "none" && text != "embed") {
                   if (text == "classify" || text == "reward") return Unimplemented(kNoScoreHead);
                   return InvalidArgument("must be one of auto, none, embed");
                 }
                 values->convert = text;
                 return OkStatus();
               });
  flags.Custom("task", "generate|embed", "embed: as --runner pooling", values->task,
               [values](const std::string& text) -> Status {
                 values->task = text;
                 return CheckTask(text);
               });
  const auto parse = [values](const std::string& text) -> Status {
    FD_ASSIGN_OR_RETURN(values->config, ParsePoolerConfig(text));
    return OkStatus();
  };
  flags.Custom(
      "pooler-config", "JSON",
      "Embeddings: pooling_type LAST, MEAN or CLS, normalize, and dimensions where the model was made for it",
      "{\"pooling_type\": \"LAST\", \"normalize\": true}", parse);
  flags.Custom("override-pooler-config", "JSON", "The same under FastDeploy's name", "as above", parse);
}

StatusOr<std::optional<PoolerConfig>> ResolvePooling(const PoolingFlags& values) {
  const bool task = values.task.starts_with("embed");
  const bool converts = values.convert == "embed" || task;
  const std::string asking = values.convert == "embed" ? "--convert embed" : "--task embed";
  if (values.runner == "generate" && converts) {
    return InvalidArgument(
        StrCat("--runner generate and ", asking, " contradict each other; leave one of them out"),
        "--runner");
  }
  const bool pools = values.runner == "pooling" || converts;
  if (pools && values.convert == "none") {
    return InvalidArgument(
        "--convert none asks for a model that was made for pooling, and this server knows none; models that "
        "generate "
        "are converted: leave --convert out, or give --convert embed",
        "--convert");
  }
  if (!pools) {
    if (values.config) {
      return InvalidArgument("--pooler-config is for embeddings; give --runner pooling too, or leave it out",
                             "--pooler-config");
    }
    return std::optional<PoolerConfig>();
  }
  return std::optional<PoolerConfig>(values.config.value_or(PoolerConfig{}));
}

}  // namespace fd
