// --chat-template and --generation-config: what of a model's folder is replaced. Before the weights are read.
#pragma once

#include <string>

#include "base/json.h"
#include "base/status.h"
#include "model/config/model_config.h"
#include "server/chat/chat_template.h"

namespace fd {

// value: a file, or the template's own text, which holds a '{'. Errors name the flag.
StatusOr<ChatTemplate> ReadChatTemplate(const std::string& value, JsonObject special_tokens);

// value: auto (leaves `config`), vllm (neutral values in place of generation_config.json's), or a folder with
// a generation_config.json.
Status ChooseGenerationConfig(const std::string& value, ModelConfig& config);

}  // namespace fd
