// Messages -> prompt text, by the checkpoint's own template. Immutable; any thread.
#pragma once

#include <string>
#include <vector>

#include "server/chat/jinja.h"

namespace fd {

// The prompt cut where user-supplied text begins and ends, so that special tokens inside user text stay text.
// The pieces are one continuous text for the tokenizer (Tokenizer::EncodeSpans).
struct PromptPiece {
  std::string text;
  bool from_user = false;  // true: added tokens do not match here
};

class ChatTemplate {
 public:
  // chat_template.jinja, else the chat_template of tokenizer_config.json. Variables bos_token, eos_token and
  // so on come from tokenizer_config.json.
  static StatusOr<ChatTemplate> Load(const std::string& model_dir);
  static StatusOr<ChatTemplate> FromSource(std::string_view source, JsonObject special_tokens);

  // Errors carry the param `messages` or `chat_template_kwargs`.
  // messages: an OpenAI array; tools: array or null; kwargs: object (chat_template_kwargs; may not shadow
  // messages, tools, documents, add_generation_prompt or the special tokens: kInvalidArgument); documents:
  // array or null.
  StatusOr<std::vector<PromptPiece>> Render(const Json& messages, const Json& tools, const JsonObject& kwargs,
                                            bool add_generation_prompt, const Json& documents = Json()) const;

 private:
  ChatTemplate(JinjaTemplate jinja, JsonObject special_tokens)
      : jinja_(std::move(jinja)), special_tokens_(std::move(special_tokens)) {}
  JinjaTemplate jinja_;
  JsonObject special_tokens_;
};

}  // namespace fd
