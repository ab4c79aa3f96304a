#include "chat_template_flags.h"

#include <utility>

#include "base/files.h"
#include "base/strings.h"

namespace fd {

StatusOr<ChatTemplate> ReadChatTemplate(const std::string& value, JsonObject special_tokens) {
  constexpr const char* kFlag = "--chat-template";
  std::string source = value;
  std::string where = kFlag;
  if (FileExists(value)) {
    FD_ASSIGN_OR_RETURN(source, ReadFile(value));
    where = StrCat(kFlag, " ", value);
  } else if (value.find('{') == std::string::npos) {
    return InvalidArgument(
        StrCat(kFlag, " ", value,
               ": there is no such file, and it is no template, which would hold a '{'; for example "
               "--chat-template chat_template.jinja"),
        kFlag);
  }
  StatusOr<ChatTemplate> parsed = ChatTemplate::FromSource(source, std::move(special_tokens));
  if (!parsed.ok()) return InvalidArgument(StrCat(where, ": ", parsed.status().message()), kFlag);
  return parsed;
}

Status ChooseGenerationConfig(const std::string& value, ModelConfig& config) {
  constexpr const char* kFlag = "--generation-config";
  if (value == "auto") return OkStatus();
  config.default_temperature.reset();
  config.default_top_p.reset();
  config.default_top_k.reset();
  config.default_min_p.reset();
  config.default_repetition_penalty.reset();
  config.default_presence_penalty.reset();
  config.default_frequency_penalty.reset();
  if (value == "vllm") {
    config.default_top_p = 1.0f;  // FastDeploy's would be 0.7
    return OkStatus();
  }
  if (!FileExists(JoinPath(value, "generation_config.json"))) {
    return InvalidArgument(
        StrCat(kFlag, " ", value,
               ": must be auto, vllm or a folder with generation_config.json, for example ", kFlag, " vllm"),
        kFlag);
  }
  return LoadGenerationConfig(value, config).WithContext(kFlag);
}

}  // namespace fd
