#include "server/openai/tokenize.h"

#include <algorithm>
#include <utility>

#include "base/strings.h"
#include "server/openai/errors.h"
#include "server/openai/fields.h"
#include "server/openai/request.h"
#include "server/openai/request_schema.h"

namespace fd {
namespace {

constexpr size_t kMaxAbortIds = 4096;
// A text of this many bytes for each token of the model's length is far beyond what could be used.
constexpr int64_t kMaxBytesOfAToken = 64;

StatusOr<Json> ReadBody(std::string_view body) {
  StatusOr<Json> json = ParseJson(body);
  if (!json.ok()) return BodyIsNoJson(json.status());
  if (!json->is_object()) {
    return InvalidArgument(StrCat("the request body must be a JSON object; got ", json->TypeName()));
  }
  return json;
}

StatusOr<std::vector<std::string>> Ignored(const Service& service, RequestKind kind, const JsonObject& body) {
  std::vector<std::string> unknown = UnknownFields(kind, body);
  if (service.strict_requests) FD_RETURN_IF_ERROR(RefuseUnknownFields(kind, unknown));
  return unknown;
}

bool IsAbsent(const JsonObject& body, const char* name) {
  const Json* value = body.Find(name);
  return value == nullptr || value->is_null();
}

// Beside a prompt they have no effect, but wrong ones are refused all the same.
Status CheckFieldsOfAChat(const Service& service, JsonObject body) {
  for (const char* name : {"model", "messages"}) body.Erase(name);
  if (body.empty()) return OkStatus();
  body.Set("messages", JsonArray{Json(JsonObject{{"role", "user"}, {"content", ""}})});
  return ReadChatPrompt(service, body, {.check_length = false}).status();
}

}  // namespace

std::string TokensJson(const Service& service, const std::vector<int32_t>& token_ids, bool token_strings) {
  JsonArray ids;
  JsonArray texts;
  for (const int32_t id : token_ids) {
    ids.push_back(Json(static_cast<int64_t>(id)));
    if (token_strings) texts.push_back(Json(service.tokenizer->TokenBytes(id, /*skip_special=*/false)));
  }
  JsonObject reply{{"count", static_cast<int64_t>(token_ids.size())},
                   {"max_model_len", service.max_model_len},
                   {"tokens", std::move(ids)}};
  if (token_strings) reply.Set("token_strs", std::move(texts));
  return WriteJson(std::move(reply));
}

StatusOr<TokenizeWork> Tokenize(const Service& service, std::string_view text) {
  FD_ASSIGN_OR_RETURN(Json json, ReadBody(text));
  JsonObject& body = json.as_object();
  TokenizeWork work;
  FD_ASSIGN_OR_RETURN(work.ignored_fields, Ignored(service, RequestKind::kTokenize, body));
  FD_RETURN_IF_ERROR(ReadModelName(service, body).status());
  FD_ASSIGN_OR_RETURN(auto with_special, ReadBool(body, "add_special_tokens"));
  FD_ASSIGN_OR_RETURN(auto strings, ReadBool(body, "return_token_strs"));
  work.token_strings = strings.value_or(false);
  const int64_t max_bytes = std::max<int64_t>(service.max_model_len * kMaxBytesOfAToken, 1 << 20);
  FD_ASSIGN_OR_RETURN(const auto given, ReadString(body, "prompt", max_bytes));
  const bool is_chat = !IsAbsent(body, "messages");
  if (is_chat || given) {
    for (const std::string& name : work.ignored_fields) body.Erase(name);
    for (const char* name : {"add_special_tokens", "return_token_strs", "prompt"}) body.Erase(name);
  }
  if (is_chat) {
    work.chat = std::move(json);
    return work;
  }
  if (!given) {
    return InvalidArgument(
        "prompt is missing; examples: {\"prompt\": \"Hello\"} or {\"messages\": [{\"role\": \"user\", "
        "\"content\": \"Hello\"}]}",
        "prompt");
  }
  FD_RETURN_IF_ERROR(CheckFieldsOfAChat(service, body));
  const std::vector<int32_t> ids = with_special.value_or(true)
                                       ? service.tokenizer->EncodeWithBos(*given)
                                       : service.tokenizer->Encode(*given, /*allow_special=*/true);
  work.reply = TokensJson(service, ids, work.token_strings);
  return work;
}

StatusOr<DetokenizeReply> Detokenize(const Service& service, std::string_view text) {
  FD_ASSIGN_OR_RETURN(Json json, ReadBody(text));
  const JsonObject& body = json.as_object();
  DetokenizeReply reply;
  FD_ASSIGN_OR_RETURN(reply.ignored_fields, Ignored(service, RequestKind::kDetokenize, body));
  FD_RETURN_IF_ERROR(ReadModelName(service, body).status());
  FD_ASSIGN_OR_RETURN(auto skip, ReadBool(body, "skip_special_tokens"));
  const Json* tokens = body.Find("tokens");
  if (tokens == nullptr || tokens->is_null())
    return InvalidArgument("tokens is missing; example: {\"tokens\": [1, 2, 3]}", "tokens");
  FD_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                      ReadTokenIds(*tokens, "tokens", "tokens", service.vocab_size));
  reply.json = WriteJson(JsonObject{{"prompt", service.tokenizer->Decode(ids, skip.value_or(false))}});
  return reply;
}

StatusOr<AbortWork> ReadAbort(std::string_view text) {
  FD_ASSIGN_OR_RETURN(Json json, ReadBody(text));
  const JsonObject& body = json.as_object();
  // An admin's typing error must not end nothing in silence.
  FD_RETURN_IF_ERROR(RefuseUnknownFields(RequestKind::kAbort, UnknownFields(RequestKind::kAbort, body)));
  AbortWork work;
  FD_ASSIGN_OR_RETURN(auto all, ReadBool(body, "abort_all"));
  work.all = all.value_or(false);
  FD_ASSIGN_OR_RETURN(const JsonArray* ids, ReadArray(body, "req_ids"));
  if (ids != nullptr) {
    if (ids->size() > kMaxAbortIds) {
      return InvalidArgument(
          StrCat("req_ids has ", ids->size(), " ids; at most ", kMaxAbortIds, " are allowed"), "req_ids");
    }
    for (const Json& id : *ids) {
      if (!id.is_string()) return BadField("req_ids", "an array of strings", id);
      work.ids.push_back(id.as_string());
    }
  }
  if (!work.all && work.ids.empty()) {
    return InvalidArgument(
        "which requests? examples: {\"req_ids\": [\"chatcmpl-1\"]} or {\"abort_all\": true}", "req_ids");
  }
  return work;
}

}  // namespace fd
