#include "server/openai/embedding_request.h"

#include <algorithm>
#include <limits>
#include <string_view>

#include "base/strings.h"
#include "server/openai/fields.h"

namespace fd {
namespace {

constexpr int64_t kMaxInt64 = std::numeric_limits<int64_t>::max();
constexpr int64_t kMaxWordBytes = 64;  // of the fields that are one of a few words

const Json* Given(const JsonObject& body, const char* name) {
  const Json* value = body.Find(name);
  return value == nullptr || value->is_null() ? nullptr : value;
}

// A field of which only these values can be honoured.
Status OnlyWords(const JsonObject& body, const char* name, std::initializer_list<std::string_view> allowed) {
  FD_ASSIGN_OR_RETURN(const auto word, ReadString(body, name, kMaxWordBytes));
  if (!word || std::find(allowed.begin(), allowed.end(), *word) != allowed.end()) return OkStatus();
  std::vector<std::string> names;
  for (std::string_view a : allowed) names.push_back(StrCat("\"", a, "\""));
  return InvalidArgument(
      StrCat(name, " must be ", Join(names, " or "), " in this server; got ", Shown(Json(*word))), name);
}

Status ReadForm(const Service& service, RequestKind kind, const JsonObject& body, EmbeddingFields& out) {
  const EmbeddingService& embeddings = *service.embeddings;
  FD_ASSIGN_OR_RETURN(const auto format, ReadString(body, "encoding_format", kMaxWordBytes));
  FD_RETURN_IF_ERROR(OnlyWords(body, "encoding_format", {"float", "base64"}));
  out.base64 = format == "base64";
  FD_RETURN_IF_ERROR(OnlyWords(body, "embed_dtype", {"float32"}));
  FD_RETURN_IF_ERROR(OnlyWords(body, "endianness", {"native", "little"}));
  if (kind == RequestKind::kPooling) FD_RETURN_IF_ERROR(OnlyWords(body, "task", {"embed"}));
  FD_ASSIGN_OR_RETURN(const auto normalize, ReadBool(body, "normalize"));
  out.normalize = normalize.value_or(embeddings.normalize);
  FD_ASSIGN_OR_RETURN(out.dimensions, ReadInteger(body, "dimensions", 1, kMaxInt64));
  if (out.dimensions) {
    FD_RETURN_IF_ERROR(
        CheckDimensions(embeddings, *out.dimensions, service.model_names.front(), "dimensions"));
  } else {
    out.dimensions = embeddings.dimensions;
  }
  FD_ASSIGN_OR_RETURN(out.truncate_tokens, ReadInteger(body, "truncate_prompt_tokens", -1, kMaxInt64));
  if (out.truncate_tokens == -1) out.truncate_tokens = service.max_model_len;
  if (out.truncate_tokens && (*out.truncate_tokens == 0 || *out.truncate_tokens > service.max_model_len)) {
    return InvalidArgument(StrCat("truncate_prompt_tokens must be -1 or from 1 to ", service.max_model_len,
                                  " (--max-model-len); got ", *out.truncate_tokens),
                           "truncate_prompt_tokens");
  }
  return ReadInteger(body, "priority", std::numeric_limits<int64_t>::min(), kMaxInt64).status();
}

StatusOr<Prompt> ReadConversation(const Service& service, JsonObject& body) {
  if (Given(body, "input") != nullptr) {
    return InvalidArgument("input and messages contradict each other; give one of them", "messages");
  }
  if (const Json* own = Given(body, "chat_template"); own != nullptr) {
    return Unimplemented(
        StrCat("chat_template is still to come in this server; leave it out; got ", Shown(*own)),
        "chat_template");
  }
  FD_ASSIGN_OR_RETURN(const auto continues, ReadBool(body, "continue_final_message"));
  if (continues.value_or(false)) {
    return Unimplemented(
        "continue_final_message is still to come in this server; leave it out or set it to false",
        "continue_final_message");
  }
  // The template says which tokens begin and end a conversation.
  FD_RETURN_IF_ERROR(ReadBool(body, "add_special_tokens").status());
  FD_ASSIGN_OR_RETURN(const auto answers, ReadBool(body, "add_generation_prompt"));
  return ReadChatPrompt(service, body,
                        {.add_generation_prompt = answers.value_or(false), .check_length = false});
}

StatusOr<std::vector<Prompt>> ReadInputs(const Service& service, const JsonObject& body) {
  const Json* value = Given(body, "input");
  if (value == nullptr) {
    return InvalidArgument(
        "input is missing; examples: {\"input\": \"Hello\"}, {\"input\": [\"Hello\", \"Bye\"]} or "
        "{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}",
        "input");
  }
  FD_ASSIGN_OR_RETURN(const auto special, ReadBool(body, "add_special_tokens"));
  const std::string what = "a string, an array of strings, an array of token ids or an array of such arrays";
  std::vector<Prompt> inputs;
  const auto add_text = [&](const std::string& text, const std::string& where) -> Status {
    if (text.empty()) return InvalidArgument(StrCat(where, " is empty: there is nothing to embed"), "input");
    inputs.emplace_back().expanded.token_ids = special.value_or(true)
                                                   ? service.tokenizer->EncodeWithBos(text)
                                                   : service.tokenizer->Encode(text, /*allow_special=*/true);
    return OkStatus();
  };
  const auto add_ids = [&](const Json& ids, const std::string& where) -> Status {
    FD_ASSIGN_OR_RETURN(inputs.emplace_back().expanded.token_ids,
                        ReadTokenIds(ids, where, "input", service.vocab_size));
    return OkStatus();
  };
  if (value->is_string()) {
    FD_RETURN_IF_ERROR(add_text(value->as_string(), "input"));
    return inputs;
  }
  if (!value->is_array()) return BadField("input", what, *value);
  const JsonArray& array = value->as_array();
  if (array.empty()) return InvalidArgument("input is an empty array: there is nothing to embed", "input");
  if (array[0].is_number()) {
    FD_RETURN_IF_ERROR(add_ids(*value, "input"));
    return inputs;
  }
  if (std::ssize(array) > service.limits.max_embedding_inputs) {
    return InvalidArgument(
        StrCat("input has ", array.size(), " entries; at most ", service.limits.max_embedding_inputs,
               " are allowed (--max-embedding-inputs)"),
        "input");
  }
  for (size_t i = 0; i < array.size(); ++i) {
    const std::string where = StrCat("input[", i, "]");
    if (array[i].is_string() && array[0].is_string()) {
      FD_RETURN_IF_ERROR(add_text(array[i].as_string(), where));
    } else if (array[i].is_array() && array[0].is_array()) {
      FD_RETURN_IF_ERROR(add_ids(array[i], where));
    } else {
      return InvalidArgument(StrCat("input must be ", what, "; ", where, " is ", Shown(array[i])), "input");
    }
  }
  return inputs;
}

}  // namespace

Status InputTooLong(int64_t tokens, int64_t max_model_len, const std::string& where,
                    const std::string& param) {
  // OpenAI's beginning of this message; clients look for it.
  return InvalidArgument(
      StrCat("This model's maximum context length is ", max_model_len, " tokens (--max-model-len), but ",
             where, " has ", tokens, " tokens. Shorten it, or set truncate_prompt_tokens to at most ",
             max_model_len, "."),
      param);
}

StatusOr<EmbeddingFields> ReadEmbeddingFields(const Service& service, RequestKind kind, JsonObject& body) {
  EmbeddingFields out;
  FD_RETURN_IF_ERROR(ReadNames(service, body, out.names));
  FD_RETURN_IF_ERROR(ReadForm(service, kind, body, out));
  out.from_messages = Given(body, "messages") != nullptr;
  if (out.from_messages) {
    FD_ASSIGN_OR_RETURN(out.inputs.emplace_back(), ReadConversation(service, body));
    if (!out.inputs[0].media.empty()) {
      if (out.truncate_tokens) {
        return InvalidArgument(
            "truncate_prompt_tokens: a conversation with pictures or videos is not cut; leave it out",
            "truncate_prompt_tokens");
      }
      return out;
    }
  } else {
    FD_ASSIGN_OR_RETURN(out.inputs, ReadInputs(service, body));
  }
  for (size_t i = 0; i < out.inputs.size(); ++i) {
    std::vector<int32_t>& ids = out.inputs[i].expanded.token_ids;
    const std::string where = out.from_messages        ? "messages"
                              : out.inputs.size() == 1 ? "input"
                                                       : StrCat("input[", i, "]");
    const std::string param = out.from_messages ? "messages" : "input";
    // What comes first is kept: the token that begins a text is part of it.
    if (out.truncate_tokens && std::ssize(ids) > *out.truncate_tokens) {
      ids.resize(static_cast<size_t>(*out.truncate_tokens));
      ExpandedPrompt& expanded = out.inputs[i].expanded;
      expanded.positions.clear();  // of text alone: those that are taken without any
      expanded.vision_expert.clear();
    }
    if (ids.empty()) return InvalidArgument(StrCat(where, " is empty: it has no tokens"), param);
    if (std::ssize(ids) > service.max_model_len) {
      return InputTooLong(std::ssize(ids), service.max_model_len, where, param);
    }
  }
  return out;
}

}  // namespace fd
