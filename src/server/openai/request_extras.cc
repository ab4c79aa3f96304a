#include "server/openai/request_extras.h"

#include <algorithm>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

#include "base/strings.h"
#include "server/openai/errors.h"
#include "server/openai/fields.h"

namespace fd {
namespace {

constexpr int64_t kMinInt64 = std::numeric_limits<int64_t>::min(),
                  kMaxInt64 = std::numeric_limits<int64_t>::max();
// Longer than any answer; far from where a time point would overflow.
constexpr double kMaxTimeoutSeconds = 1e6;
constexpr double kMinTimeoutSeconds = 1e-3;
constexpr int64_t kMaxSaltBytes = 4096;
constexpr size_t kMaxExtraFields = 1024;
constexpr const char* kTruncate = "truncate_prompt_tokens";
constexpr const char* kBegun = "completion_token_ids";

bool IsSet(const JsonObject& body, std::string_view name) {
  const Json* value = body.Find(name);
  return value != nullptr && !value->is_null();
}

// Fields that are read for their type alone.
Status CheckFieldsWithoutEffect(const JsonObject& body) {
  FD_RETURN_IF_ERROR(ReadBool(body, "spaces_between_special_tokens").status());
  return ReadObject(body, "vllm_xargs").status();
}

StatusOr<std::string> ReadSalt(const JsonObject& body) {
  FD_ASSIGN_OR_RETURN(auto salt, ReadString(body, "cache_salt", kMaxSaltBytes));
  if (salt && salt->empty()) {
    return InvalidArgument("cache_salt must be a string that is not empty, for example \"tenant-7\"",
                           "cache_salt");
  }
  return salt.value_or("");
}

}  // namespace

Status MergeExtraPlaces(RequestKind kind, JsonObject& body) {
  FD_ASSIGN_OR_RETURN(const JsonObject* extra, ReadObject(body, "extra_body"));
  if (extra != nullptr) {
    if (extra->size() > kMaxExtraFields) {
      return InvalidArgument(
          StrCat("extra_body has ", extra->size(), " members; at most ", kMaxExtraFields, " are allowed"),
          "extra_body");
    }
    const JsonObject members = *extra;
    body.Erase("extra_body");
    for (const auto& [name, value] : members) {
      if (name == "extra_body") return InvalidArgument("extra_body may not stand in extra_body", name);
      if (!IsSet(body, name)) body.Set(name, value);
    }
  } else {
    body.Erase("extra_body");  // null
  }
  FD_ASSIGN_OR_RETURN(const JsonObject* metadata, ReadObject(body, "metadata"));
  if (metadata == nullptr) return OkStatus();
  if (IsSet(*metadata, "raw_request")) {  // as FastDeploy
    return InvalidArgument("metadata.raw_request is not supported; leave it out", "metadata");
  }
  std::vector<std::pair<std::string, Json>> found;
  for (const RequestField& field : FieldsOf(kind)) {
    const Json* value = metadata->Find(field.name);
    if (value == nullptr || value->is_null() || value->is_string() || IsSet(body, field.name)) continue;
    if (std::string_view(field.name) != "metadata") found.emplace_back(field.name, *value);
  }
  for (auto& [name, value] : found) body.Set(std::move(name), std::move(value));
  return OkStatus();
}

Status ReadExtras(const Service& service, const JsonObject& body, RequestFields& out) {
  FD_RETURN_IF_ERROR(CheckFieldsWithoutEffect(body));
  FD_ASSIGN_OR_RETURN(out.cache_salt, ReadSalt(body));
  FD_ASSIGN_OR_RETURN(auto priority, ReadInteger(body, "priority", kMinInt64, kMaxInt64));
  out.priority = priority.value_or(0);
  FD_ASSIGN_OR_RETURN(out.timeout_s, ReadNumber(body, "timeout", kMinTimeoutSeconds, kMaxTimeoutSeconds));
  FD_ASSIGN_OR_RETURN(out.response_max_tokens,
                      ReadInteger(body, "response_max_tokens", 1, service.max_model_len));
  FD_ASSIGN_OR_RETURN(auto as_ids, ReadBool(body, "return_tokens_as_token_ids"));
  out.tokens_as_ids = as_ids.value_or(false);
  return OkStatus();
}

Status TruncatePrompt(const Service& service, const JsonObject& body, Prompt* prompt) {
  std::vector<int32_t>& token_ids = prompt->expanded.token_ids;
  const int64_t longest = service.max_model_len - 1;
  FD_ASSIGN_OR_RETURN(auto keep, ReadInteger(body, kTruncate, -1, longest));
  if (!keep) return OkStatus();
  if (*keep == 0) {
    return BadField(kTruncate, StrCat("from 1 to ", longest, ", or -1 for what leaves room for max_tokens"),
                    *body.Find(kTruncate));
  }
  if (*keep < 0) {
    int64_t answer = 1;
    for (const char* name : {"max_tokens", "max_completion_tokens"}) {
      FD_ASSIGN_OR_RETURN(auto tokens, ReadInteger(body, name, 1, service.max_model_len));
      answer = tokens.value_or(answer);
    }
    keep = std::max<int64_t>(service.max_model_len - answer, 1);
  }
  const int64_t drop = std::ssize(token_ids) - *keep;
  if (drop <= 0) return OkStatus();
  token_ids.erase(token_ids.begin(), token_ids.begin() + drop);
  if (!prompt->text.empty()) prompt->text = service.tokenizer->Decode(token_ids, /*skip_special=*/false);
  return OkStatus();
}

Status RefuseTruncation(const JsonObject& body, const char* why) {
  if (!IsSet(body, kTruncate)) return OkStatus();
  return Unimplemented(StrCat(kTruncate, ": ", why, "; leave it out; got ", Shown(*body.Find(kTruncate))),
                       kTruncate);
}

StatusOr<std::vector<int32_t>> ReadBegunAnswer(const Service& service, const JsonObject& body) {
  if (!IsSet(body, kBegun)) return std::vector<int32_t>();
  return ReadTokenIds(*body.Find(kBegun), kBegun, kBegun, service.vocab_size);
}

Status AppendBegunAnswer(const Service& service, const std::vector<int32_t>& begun, Prompt* prompt) {
  if (begun.empty()) return OkStatus();
  ExpandedPrompt& p = prompt->expanded;
  const int64_t before = std::ssize(p.token_ids), count = std::ssize(begun), after = before + count;
  if (after >= service.max_model_len) return ContextLengthExceeded(after, service.max_model_len, kBegun);
  p.token_ids.insert(p.token_ids.end(), begun.begin(), begun.end());
  if (!p.positions.empty()) {  // those of generated tokens
    std::vector<int32_t> positions;
    positions.reserve(static_cast<size_t>(3 * after));
    for (int64_t axis = 0; axis < 3; ++axis) {
      const auto row = p.positions.begin() + axis * before;
      positions.insert(positions.end(), row, row + before);
      for (int64_t n = before; n < after; ++n)
        positions.push_back(static_cast<int32_t>(n + p.position_delta));
    }
    p.positions = std::move(positions);
  }
  if (!p.vision_expert.empty()) p.vision_expert.resize(static_cast<size_t>(after), 0);
  if (!p.media_type.empty()) p.media_type.resize(static_cast<size_t>(after), 0);
  const std::string text = service.tokenizer->Decode(begun, /*skip_special=*/false);
  if (!prompt->text.empty()) prompt->text += text;
  const size_t open = text.rfind("<think>"), close = text.rfind("</think>");
  if (close != std::string::npos && (open == std::string::npos || close > open)) {
    prompt->reasoning = ReasoningStart::kAnswer;
  } else if (open != std::string::npos) {
    prompt->reasoning = ReasoningStart::kReasoning;
  } else if (prompt->reasoning == ReasoningStart::kModel) {
    prompt->reasoning = ReasoningStart::kAnswer;  // a thought would have begun the answer
  }
  return OkStatus();
}

}  // namespace fd
