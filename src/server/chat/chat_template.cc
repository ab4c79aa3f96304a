#include "server/chat/chat_template.h"

#include <algorithm>
#include <ctime>
#include <filesystem>

#include "base/files.h"
#include "base/strings.h"

namespace fd {
namespace {

constexpr std::string_view kReserved[] = {
    // Set by the server.
    "messages", "tools", "documents", "add_generation_prompt", "raise_exception", "strftime_now",
    // Arguments of apply_chat_template: a client that sends one means it, and no template would see it.
    "conversation", "chat_template", "continue_final_message", "tokenize", "padding", "truncation",
    "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs"};
constexpr std::string_view kTokenNames[] = {"bos_token", "eos_token", "unk_token",  "sep_token",
                                            "pad_token", "cls_token", "mask_token", "image_token"};

// tokenizer_config.json writes a special token as text or as {"content": text}.
JsonObject SpecialTokens(const Json& config) {
  JsonObject tokens;
  for (std::string_view name : kTokenNames) {
    const Json* token = config.Find(name);
    if (token != nullptr && token->is_object()) token = token->Find("content");
    if (token != nullptr && token->is_string()) tokens.Set(std::string(name), *token);
  }
  return tokens;
}

constexpr const char* kConfigName = "/tokenizer_config.json";

StatusOr<Json> TokenizerConfig(const std::string& model_dir) {
  std::error_code error;
  if (!std::filesystem::exists(model_dir + kConfigName, error)) return Json(JsonObject{});
  return ReadJsonFile(model_dir + kConfigName);
}

Status CheckMessages(const Json& messages) {
  if (!messages.is_array())
    return InvalidArgument(StrCat("messages: expected an array, got ", messages.TypeName()), "messages");
  for (size_t i = 0; i < messages.as_array().size(); ++i) {
    const Json& message = messages.as_array()[i];
    if (!message.is_object()) {
      return InvalidArgument(
          StrCat("messages[", i,
                 "]: expected an object such as {\"role\": \"user\", \"content\": \"Hi\"}, got ",
                 message.TypeName()),
          "messages");
    }
    const Json* role = message.Find("role");
    if (role == nullptr || !role->is_string())
      return InvalidArgument(StrCat("messages[", i, "].role: expected a string such as \"user\""),
                             "messages");
    const Json* content = message.Find("content");
    if (content == nullptr || content->is_null() || content->is_string()) continue;
    if (!content->is_array()) {
      return InvalidArgument(StrCat("messages[", i, "].content: expected a string or an array of parts, got ",
                                    content->TypeName()),
                             "messages");
    }
    for (size_t k = 0; k < content->as_array().size(); ++k) {
      const Json& part = content->as_array()[k];
      const Json* type = part.Find("type");
      if (type == nullptr || !type->is_string()) {
        return InvalidArgument(StrCat("messages[", i, "].content[", k,
                                      "].type: expected a string such as \"text\" or \"image_url\""),
                               "messages");
      }
      const Json* text = part.Find("text");
      if (type->as_string() == "text" && (text == nullptr || !text->is_string())) {
        return InvalidArgument(StrCat("messages[", i, "].content[", k, "].text: expected a string"),
                               "messages");
      }
    }
  }
  return OkStatus();
}

}  // namespace

StatusOr<JsonObject> ChatTemplate::LoadSpecialTokens(const std::string& model_dir) {
  FD_ASSIGN_OR_RETURN(const Json config, TokenizerConfig(model_dir));
  return SpecialTokens(config);
}

StatusOr<ChatTemplate> ChatTemplate::Load(const std::string& model_dir) {
  const std::string config_path = model_dir + kConfigName, template_path = model_dir + "/chat_template.jinja";
  std::error_code error;
  FD_ASSIGN_OR_RETURN(const Json config, TokenizerConfig(model_dir));
  JsonObject tokens = SpecialTokens(config);
  if (std::filesystem::exists(template_path, error)) {
    FD_ASSIGN_OR_RETURN(std::string source, ReadFile(template_path));
    StatusOr<ChatTemplate> loaded = FromSource(source, std::move(tokens));
    if (!loaded.ok()) return loaded.status().WithContext(template_path);
    return loaded;
  }
  const Json* in_config = config.Find("chat_template");
  if (in_config != nullptr && in_config->is_array()) {  // [{"name": "default", "template": ...}, ...]
    const Json* chosen = nullptr;
    for (const Json& entry : in_config->as_array()) {
      const Json* name = entry.Find("name");
      if (name != nullptr && name->is_string() && name->as_string() == "default")
        chosen = entry.Find("template");
    }
    in_config = chosen;
  }
  if (in_config == nullptr || !in_config->is_string()) {
    return NotFound(StrCat(model_dir,
                           " has no chat_template.jinja, and its tokenizer_config.json no chat_template; "
                           "pass --chat-template FILE, or use /v1/completions"));
  }
  StatusOr<ChatTemplate> loaded = FromSource(in_config->as_string(), std::move(tokens));
  if (!loaded.ok()) return loaded.status().WithContext(config_path);
  return loaded;
}

StatusOr<ChatTemplate> ChatTemplate::FromSource(std::string_view source, JsonObject special_tokens) {
  FD_ASSIGN_OR_RETURN(JinjaTemplate jinja, JinjaTemplate::Parse(source));
  return ChatTemplate(std::move(jinja), std::move(special_tokens),
                      source.find("documents") != std::string_view::npos);
}

Status ChatTemplate::CheckKwargs(const JsonObject& kwargs) const {
  for (const auto& [name, value] : kwargs) {
    if (special_tokens_.Find(name) != nullptr ||
        std::find(std::begin(kReserved), std::end(kReserved), name) != std::end(kReserved) ||
        std::find(std::begin(kTokenNames), std::end(kTokenNames), name) != std::end(kTokenNames)) {
      return InvalidArgument(
          StrCat("chat_template_kwargs.", name,
                 ": this name belongs to the server; other names, e.g. enable_thinking, are free"),
          "chat_template_kwargs");
    }
  }
  return OkStatus();
}

StatusOr<std::vector<PromptPiece>> ChatTemplate::Render(const Json& messages, const Json& tools,
                                                        const JsonObject& kwargs, bool add_generation_prompt,
                                                        const Json& documents) const {
  FD_RETURN_IF_ERROR(CheckMessages(messages));
  JsonObject variables;
  std::vector<std::string> trusted;
  for (const auto& [name, token] : special_tokens_) {
    variables.Set(name, token);
    trusted.push_back(name);
  }
  FD_RETURN_IF_ERROR(CheckKwargs(kwargs));
  for (const auto& [name, value] : kwargs) variables.Set(name, value);
  variables.Set("messages", messages);
  variables.Set("tools", tools);
  variables.Set("documents", documents);
  variables.Set("add_generation_prompt", add_generation_prompt);
  std::time_t seconds = std::time(nullptr);
  std::tm now{};
  localtime_r(&seconds, &now);
  StatusOr<JinjaTemplate::Result> result = jinja_.Render(variables, {}, now, trusted);
  if (!result.ok()) return Status(result.status().code(), result.status().message(), "messages");
  std::vector<PromptPiece> pieces;
  size_t at = 0;
  auto piece = [&](size_t end, bool from_user) {
    if (end > at) pieces.push_back({result->text.substr(at, end - at), from_user});
    at = end;
  };
  for (const auto& [begin, end] : result->user_spans) {
    piece(begin, false);
    piece(end, true);
  }
  piece(result->text.size(), false);
  return pieces;
}

}  // namespace fd
