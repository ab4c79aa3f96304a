// The prompt of /v1/chat/completions: messages checked, media taken out, template, tokens.
#include <algorithm>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

#include "base/strings.h"
#include "server/openai/content_parts.h"
#include "server/openai/errors.h"
#include "server/openai/fields.h"
#include "server/openai/media_options.h"
#include "server/openai/request.h"
#include "server/openai/request_extras.h"

namespace fd {
namespace {

bool IsOneOf(std::string_view value, std::initializer_list<std::string_view> allowed) {
  return std::find(allowed.begin(), allowed.end(), value) != allowed.end();
}

// Text models' templates expect a string; the parts are joined as other servers do it.
void JoinTextParts(Json& content) {
  std::string joined;
  for (const Json& part : content.as_array()) {
    if (!joined.empty()) joined += '\n';
    joined += part.as_object().Find("text")->as_string();
  }
  content = Json(std::move(joined));
}

// OpenAI sends a call's arguments as JSON text; templates print them as an object.
Status ReadToolCalls(Json& calls, const std::string& where) {
  if (calls.is_null()) return OkStatus();
  if (!calls.is_array())
    return InvalidArgument(StrCat(where, " must be an array; got ", Shown(calls)), "messages");
  for (size_t i = 0; i < calls.as_array().size(); ++i) {
    const std::string here = StrCat(where, "[", i, "]");
    Json& call = calls.as_array()[i];
    Json* function = call.is_object() ? call.as_object().Find("function") : nullptr;
    if (function == nullptr || !function->is_object()) {
      return InvalidArgument(StrCat(here, " must be {\"function\": {\"name\": ..., \"arguments\": ...}}"),
                             "messages");
    }
    const Json* name = function->Find("name");
    if (name == nullptr || !name->is_string()) {
      return InvalidArgument(StrCat(here, ".function.name must be a string"), "messages");
    }
    Json* arguments = function->as_object().Find("arguments");
    if (arguments == nullptr || !arguments->is_string()) continue;
    if (arguments->as_string().empty()) {
      *arguments = JsonObject{};
      continue;
    }
    StatusOr<Json> parsed = ParseJson(arguments->as_string());
    if (!parsed.ok()) {
      return InvalidArgument(StrCat(here, ".function.arguments is no JSON: ", parsed.status().message()),
                             "messages");
    }
    *arguments = std::move(parsed).value();
  }
  return OkStatus();
}

Status ReadMessage(const Service& service, const MediaOptions& options, Json& message,
                   const std::string& where, std::vector<MediaSpec>* media) {
  if (!message.is_object()) {
    return InvalidArgument(
        StrCat(where, " must be an object such as {\"role\": \"user\", \"content\": \"Hello\"}; got ",
               Shown(message)),
        "messages");
  }
  JsonObject& object = message.as_object();
  Json* role = object.Find("role");
  if (role == nullptr || !role->is_string()) {
    return InvalidArgument(StrCat(where, ".role is missing; allowed are system, user, assistant and tool"),
                           "messages");
  }
  if (IsOneOf(role->as_string(), {"developer"})) *role = Json("system");
  if (IsOneOf(role->as_string(), {"bot"})) *role = Json("assistant");
  const std::string name = role->as_string();
  if (!IsOneOf(name, {"system", "user", "assistant", "tool"})) {
    return InvalidArgument(
        StrCat(where, ".role must be one of system, user, assistant, tool; got ", Shown(*role)), "messages");
  }
  bool has_calls = false;
  if (Json* calls = object.Find("tool_calls"); calls != nullptr && name == "assistant") {
    FD_RETURN_IF_ERROR(ReadToolCalls(*calls, StrCat(where, ".tool_calls")));
    has_calls = calls->is_array() && !calls->as_array().empty();
  }
  Json* content = object.Find("content");
  if (content == nullptr || content->is_null()) {
    // An assistant's turn may be nothing but calls; every other turn says something.
    if (!has_calls) {
      return InvalidArgument(StrCat(where, ".content is missing; it must be a string or an array of parts"),
                             "messages");
    }
    object.Set("content", Json(""));
    return OkStatus();
  }
  if (content->is_string()) return OkStatus();
  if (!content->is_array()) {
    return InvalidArgument(
        StrCat(where, ".content must be a string or an array of parts; got ", Shown(*content)), "messages");
  }
  JsonArray& parts = content->as_array();
  for (size_t i = 0; i < parts.size(); ++i) {
    FD_RETURN_IF_ERROR(
        ReadContentPart(service, options, parts[i], StrCat(where, ".content[", i, "]"), media));
  }
  if (!service.media) JoinTextParts(*content);
  return OkStatus();
}

StatusOr<Json> ReadTools(const Service& service, JsonObject& body) {
  Json* tools = body.Find("tools");
  if (tools == nullptr || tools->is_null()) return Json();
  if (!tools->is_array()) return BadField("tools", "an array", *tools);
  const JsonArray& array = tools->as_array();
  if (array.empty()) return Json();
  if (static_cast<int64_t>(array.size()) > service.limits.max_tools) {
    return InvalidArgument(StrCat("tools has ", array.size(), " entries; at most ", service.limits.max_tools,
                                  " are allowed (--max-tools)"),
                           "tools");
  }
  for (size_t i = 0; i < array.size(); ++i) {
    const Json* type = array[i].Find("type");
    const Json* function = array[i].Find("function");
    const Json* name = function != nullptr ? function->Find("name") : nullptr;
    if (type == nullptr || !type->is_string() || type->as_string() != "function" || name == nullptr ||
        !name->is_string()) {
      return InvalidArgument(
          StrCat("tools[", i, "] must be {\"type\": \"function\", \"function\": {\"name\": ..., ...}}"),
          "tools");
    }
    const Json* parameters = function->Find("parameters");
    if (parameters != nullptr && !parameters->is_null() && !parameters->is_object()) {
      return InvalidArgument(StrCat("tools[", i, "].function.parameters must be an object"), "tools");
    }
  }
  if (const Json* choice = body.Find("tool_choice");
      choice != nullptr && choice->is_string() && choice->as_string() == "none") {
    return Json();
  }
  return std::move(*tools);
}

// FastDeploy's order: chat_template_kwargs.options.thinking_mode, chat_template_kwargs.enable_thinking,
// metadata.enable_thinking, the model's default. The top-level field, which its guide shows and its code
// ignores, stands between the second and the third.
StatusOr<std::optional<bool>> ReadThinking(const Service& service, const JsonObject& body,
                                           const JsonObject& kwargs) {
  FD_ASSIGN_OR_RETURN(const JsonObject* options, ReadObject(kwargs, "options"));
  if (options != nullptr) {
    if (const Json* mode = options->Find("thinking_mode"); mode != nullptr && !mode->is_null()) {
      if (mode->is_bool()) return std::optional<bool>(mode->as_bool());
      if (!mode->is_string())
        return BadField("chat_template_kwargs.options.thinking_mode", "a string", *mode);
      return std::optional<bool>(!IsOneOf(mode->as_string(), {"close", "false"}));
    }
  }
  FD_ASSIGN_OR_RETURN(auto from_kwargs, ReadBool(kwargs, "enable_thinking"));
  if (from_kwargs) return from_kwargs;
  FD_ASSIGN_OR_RETURN(auto top_level, ReadBool(body, "enable_thinking"));
  if (top_level) return top_level;
  FD_ASSIGN_OR_RETURN(const JsonObject* metadata, ReadObject(body, "metadata"));
  if (metadata != nullptr) {
    FD_ASSIGN_OR_RETURN(auto from_metadata, ReadBool(*metadata, "enable_thinking"));
    if (from_metadata) return from_metadata;
  }
  return service.thinking_by_default;
}

// What the template's last word about thinking was.
ReasoningStart HowReasoningStarts(const std::vector<PromptPiece>& pieces, std::optional<bool> thinking,
                                  ReasoningFormat format) {
  for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) {
    if (piece->from_user) continue;
    const size_t open = piece->text.rfind("<think>");
    const size_t close = piece->text.rfind("</think>");
    if (close != std::string::npos && (open == std::string::npos || close > open)) {
      return ReasoningStart::kAnswer;
    }
    if (open != std::string::npos) return ReasoningStart::kReasoning;
    break;
  }
  const bool on = format != ReasoningFormat::kQwen3 && thinking.value_or(false);
  return on ? ReasoningStart::kReasoning : ReasoningStart::kModel;
}

// The server's options with the request's mm_processor_kwargs laid over them.
StatusOr<MediaOptions> ReadRequestOptions(const Service& service, const JsonObject& body) {
  const OptionPlace place{"mm_processor_kwargs.", "mm_processor_kwargs"};
  FD_ASSIGN_OR_RETURN(const JsonObject* kwargs, ReadObject(body, "mm_processor_kwargs"));
  MediaOptions options;
  if (service.media) options = *service.media;
  if (kwargs == nullptr || kwargs->empty()) return options;
  if (!service.media) {
    return InvalidArgument(StrCat("mm_processor_kwargs: the model ", service.model_names.front(),
                                  " takes no pictures; leave it out"),
                           place.param);
  }
  FD_ASSIGN_OR_RETURN(const MediaOverrides overrides, ReadProcessorKwargs(*kwargs, place, *service.media));
  FD_RETURN_IF_ERROR(SetRequestOptions(overrides, *service.media, place, &options));
  return options;
}

// The request's own template where it brings one and may, else the server's. `own` holds the former.
StatusOr<const ChatTemplate*> ReadTemplate(const Service& service, const JsonObject& body,
                                           std::optional<ChatTemplate>& own) {
  constexpr const char* kName = "chat_template";
  FD_ASSIGN_OR_RETURN(const auto source, ReadString(body, kName, std::numeric_limits<int64_t>::max()));
  if (!source) {
    if (service.chat_template) return &*service.chat_template;
    return InvalidArgument(StrCat("the model ", service.model_names.front(), " has no chat template (",
                                  service.chat_template_error, "); use /v1/completions"),
                           "messages");
  }
  if (!service.trust_request_chat_template) {
    return InvalidArgument(
        "chat_template: this server takes no templates of requests; leave the field out, or start the server "
        "with --trust-request-chat-template",
        kName);
  }
  if (std::ssize(*source) > service.limits.max_chat_template_bytes) {
    return InvalidArgument(
        StrCat("chat_template has ", source->size(), " bytes; at most ",
               service.limits.max_chat_template_bytes, " are allowed (--max-chat-template-bytes)"),
        kName);
  }
  StatusOr<ChatTemplate> parsed = ChatTemplate::FromSource(*source, service.template_tokens);
  if (!parsed.ok()) return InvalidArgument(StrCat("chat_template: ", parsed.status().message()), kName);
  own = std::move(parsed).value();
  return &*own;
}

// For the variable of this name; null where the request has none.
StatusOr<Json> ReadDocuments(const Service& service, const JsonObject& body,
                             const ChatTemplate& chat_template) {
  constexpr const char* kName = "documents";
  FD_ASSIGN_OR_RETURN(const JsonArray* documents, ReadArray(body, kName));
  if (documents == nullptr || documents->empty()) return Json();
  if (std::ssize(*documents) > service.limits.max_documents) {
    return InvalidArgument(StrCat("documents has ", documents->size(), " entries; at most ",
                                  service.limits.max_documents, " are allowed (--max-documents)"),
                           kName);
  }
  for (const Json& document : *documents) {
    if (!document.is_object()) {
      return BadField(kName, "an array of objects such as {\"title\": \"...\", \"text\": \"...\"}", document);
    }
  }
  if (!chat_template.names_documents()) {
    return InvalidArgument(
        "documents: the chat template in use does not read them; put their text into a message", kName);
  }
  return Json(*documents);
}

Status CheckLength(const Service& service, int64_t tokens, const char* param) {
  if (tokens == 0) return InvalidArgument(StrCat(param, " is empty: the prompt has no tokens"), param);
  if (tokens >= service.max_model_len) return ContextLengthExceeded(tokens, service.max_model_len, param);
  return OkStatus();
}

// disable_chat_template: the first message's text is the prompt, read as /v1/completions reads one.
Status ReadRawPrompt(const Service& service, const JsonObject& body, const JsonArray& messages,
                     Prompt* prompt) {
  const Json* content = messages[0].Find("content");
  if (content == nullptr || !content->is_string() || !prompt->media.empty()) {
    return InvalidArgument(
        "disable_chat_template needs a first message whose content is a string, and no media",
        "disable_chat_template");
  }
  prompt->text = content->as_string();
  prompt->expanded.token_ids = service.tokenizer->EncodeWithBos(prompt->text);
  FD_RETURN_IF_ERROR(TruncatePrompt(service, body, prompt));
  prompt->reasoning =
      HowReasoningStarts({{prompt->text, /*from_user=*/false}}, std::nullopt, service.reasoning_format);
  return CheckLength(service, std::ssize(prompt->expanded.token_ids), "messages");
}

}  // namespace

StatusOr<Prompt> ReadChatPrompt(const Service& service, JsonObject& body, const ChatPromptOptions& how) {
  Prompt prompt;
  FD_ASSIGN_OR_RETURN(prompt.begun_answer, ReadBegunAnswer(service, body));
  if (const Json* ids = body.Find("prompt_token_ids"); ids != nullptr && !ids->is_null()) {
    FD_ASSIGN_OR_RETURN(prompt.expanded.token_ids,
                        ReadTokenIds(*ids, "prompt_token_ids", "prompt_token_ids", service.vocab_size));
    FD_RETURN_IF_ERROR(TruncatePrompt(service, body, &prompt));
    FD_RETURN_IF_ERROR(
        CheckLength(service, static_cast<int64_t>(prompt.expanded.token_ids.size()), "prompt_token_ids"));
    return prompt;
  }
  Json* messages = body.Find("messages");
  if (messages == nullptr || messages->is_null()) {
    if (body.Find("prompt") != nullptr) {
      return InvalidArgument(
          "messages is missing; a prompt belongs to /v1/completions, here it is for example {\"messages\": "
          "[{\"role\": \"user\", \"content\": \"Hello\"}]}",
          "messages");
    }
    return InvalidArgument(
        "messages is missing; example: {\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}",
        "messages");
  }
  if (!messages->is_array()) {
    return BadField("messages", "an array, for example [{\"role\": \"user\", \"content\": \"Hello\"}]",
                    *messages);
  }
  if (messages->as_array().empty()) return InvalidArgument("messages is an empty array", "messages");
  if (static_cast<int64_t>(messages->as_array().size()) > service.limits.max_messages) {
    return InvalidArgument(StrCat("messages has ", messages->as_array().size(), " entries; at most ",
                                  service.limits.max_messages, " are allowed (--max-messages)"),
                           "messages");
  }
  FD_ASSIGN_OR_RETURN(const auto raw, ReadBool(body, "disable_chat_template"));
  FD_ASSIGN_OR_RETURN(const MediaOptions options, ReadRequestOptions(service, body));
  FD_RETURN_IF_ERROR(CheckMediaCounts(service, messages->as_array()));
  for (size_t i = 0; i < messages->as_array().size(); ++i) {
    FD_RETURN_IF_ERROR(
        ReadMessage(service, options, messages->as_array()[i], StrCat("messages[", i, "]"), &prompt.media));
  }
  if (raw.value_or(false)) {
    FD_RETURN_IF_ERROR(ReadRawPrompt(service, body, messages->as_array(), &prompt));
    return prompt;
  }
  std::optional<ChatTemplate> own_template;
  FD_ASSIGN_OR_RETURN(const ChatTemplate* chat_template, ReadTemplate(service, body, own_template));
  FD_ASSIGN_OR_RETURN(const Json documents, ReadDocuments(service, body, *chat_template));
  FD_ASSIGN_OR_RETURN(Json tools, ReadTools(service, body));
  const bool has_tools = !tools.is_null();
  FD_ASSIGN_OR_RETURN(const JsonObject* given_kwargs, ReadObject(body, "chat_template_kwargs"));
  JsonObject kwargs = service.default_template_kwargs;
  if (given_kwargs != nullptr) {
    for (const auto& [name, value] : *given_kwargs) kwargs.Set(name, value);
  }
  FD_ASSIGN_OR_RETURN(const std::optional<bool> thinking, ReadThinking(service, body, kwargs));
  if (thinking) kwargs.Set("enable_thinking", Json(*thinking));

  auto rendered = chat_template->Render(*messages, tools, kwargs, how.add_generation_prompt, documents);
  if (!rendered.ok()) {
    const Status& s = rendered.status();
    if (own_template && s.param() == "messages")
      return Status(s.code(), StrCat("chat_template: ", s.message()), "chat_template");
    return s.param().empty() ? Status(s.code(), s.message(), "messages") : s;
  }
  const std::vector<PromptPiece>& pieces = *rendered;
  for (const PromptPiece& piece : pieces) prompt.text += piece.text;  // /v1/chat/completions/render shows it
  prompt.reasoning = HowReasoningStarts(pieces, thinking, service.reasoning_format);
  prompt.parse_tools = has_tools;

  if (service.media && !prompt.media.empty()) {
    FD_RETURN_IF_ERROR(RefuseTruncation(body, "a prompt with pictures or videos cannot be cut"));
  }
  if (service.media) {
    const auto num_images = static_cast<size_t>(
        std::count_if(prompt.media.begin(), prompt.media.end(),
                      [](const MediaSpec& spec) { return spec.kind == MediaKind::kImage; }));
    auto sections = SectionPrompt(pieces, *service.tokenizer, *service.media, num_images,
                                  prompt.media.size() - num_images);
    if (!sections.ok()) return Status(sections.status().code(), sections.status().message(), "messages");
    prompt.sections = std::move(sections).value();
    // Each picture brings at least one token.
    const int64_t tokens = prompt.sections.text_tokens + std::ssize(prompt.media);
    if (how.check_length && !prompt.media.empty()) {
      FD_RETURN_IF_ERROR(CheckLength(service, tokens, "messages"));
    }
    if (!prompt.media.empty()) return prompt;
    prompt.expanded = FillPrompt(prompt.sections, *service.media, {}, {});
  } else {
    std::vector<TextSpan> spans;
    spans.reserve(pieces.size());
    for (const PromptPiece& piece : pieces) spans.push_back({piece.text, !piece.from_user});
    prompt.expanded.token_ids = service.tokenizer->EncodeSpans(spans);
  }
  if (!how.check_length) return prompt;
  FD_RETURN_IF_ERROR(TruncatePrompt(service, body, &prompt));
  FD_RETURN_IF_ERROR(
      CheckLength(service, static_cast<int64_t>(prompt.expanded.token_ids.size()), "messages"));
  return prompt;
}

}  // namespace fd
