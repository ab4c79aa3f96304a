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
  // bos_token and so on, as tokenizer_config.json has them; empty without the file.
  static StatusOr<JsonObject> LoadSpecialTokens(const std::string& model_dir);
  static StatusOr<ChatTemplate> FromSource(std::string_view source, JsonObject special_tokens);

  // Errors carry the param `messages` or `chat_template_kwargs`.
  // messages: an OpenAI array; tools, documents: array or null; kwargs: object (chat_template_kwargs; may not
  // shadow what the server sets, the special tokens or what transformers' apply_chat_template takes beside
  // the template's variables: kInvalidArgument).
  StatusOr<std::vector<PromptPiece>> Render(const Json& messages, const Json& tools, const JsonObject& kwargs,
                                            bool add_generation_prompt, const Json& documents = Json()) const;
  // Whether these names may be set: the part of Render that looks at no value.
  Status CheckKwargs(const JsonObject& kwargs) const;
  // Whether the template's text speaks of documents.
  bool names_documents() const { return names_documents_; }

 private:
  ChatTemplate(JinjaTemplate jinja, JsonObject special_tokens, bool names_documents)
      : jinja_(std::move(jinja)),
        special_tokens_(std::move(special_tokens)),
        names_documents_(names_documents) {}
  JinjaTemplate jinja_;
  JsonObject special_tokens_;
  bool names_documents_ = false;
};

}  // namespace fd
