#include "server/openai/sampling_fields.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "server/openai/fields.h"

namespace fd {
namespace {

constexpr double kMaxRepetitionPenalty = 100;
constexpr double kMaxBias = 100;  // OpenAI's

Status ReadPenalties(const Service& service, const JsonObject& body, SamplingParams& s) {
  const GenerationDefaults& defaults = service.defaults;
  FD_ASSIGN_OR_RETURN(auto repetition, ReadNumber(body, "repetition_penalty", 0, kMaxRepetitionPenalty));
  FD_ASSIGN_OR_RETURN(auto presence, ReadNumber(body, "presence_penalty", -2, 2));
  FD_ASSIGN_OR_RETURN(auto frequency, ReadNumber(body, "frequency_penalty", -2, 2));
  s.repetition_penalty = static_cast<float>(repetition.value_or(defaults.repetition_penalty));
  s.presence_penalty = static_cast<float>(presence.value_or(defaults.presence_penalty));
  s.frequency_penalty = static_cast<float>(frequency.value_or(defaults.frequency_penalty));
  if (!(s.repetition_penalty > 0)) {
    return BadField("repetition_penalty",
                    StrCat("a number above 0 and at most ", kMaxRepetitionPenalty, ", for example 1.1"),
                    *body.Find("repetition_penalty"));
  }
  return OkStatus();
}

// {"1234": -100}: keys are token ids as JSON can only have text there.
Status ReadLogitBias(const Service& service, const JsonObject& body, SamplingParams& s) {
  const char* where = "logit_bias";
  FD_ASSIGN_OR_RETURN(const JsonObject* biases, ReadObject(body, where));
  FD_ASSIGN_OR_RETURN(const JsonObject* arguments, ReadObject(body, "logits_processors_args"));
  if (arguments != nullptr) {  // FastDeploy's place
    for (const auto& [key, value] : *arguments) {
      if (key == "logit_bias") continue;
      return Unimplemented(
          StrCat("logits_processors_args.", key, " is still to come in this server; leave it out"),
          "logits_processors_args");
    }
    if (biases == nullptr) {
      FD_ASSIGN_OR_RETURN(biases, ReadObject(*arguments, "logit_bias"));
    }
  }
  if (biases == nullptr) return OkStatus();
  const int64_t most = service.limits.max_logit_bias;
  if (static_cast<int64_t>(biases->size()) > most) {
    return InvalidArgument(StrCat("logit_bias has ", biases->size(), " tokens; at most ", most,
                                  " are allowed (--max-logit-bias)"),
                           where);
  }
  std::map<int32_t, float> by_id;
  for (const auto& [key, value] : *biases) {
    int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0 || id >= service.vocab_size) {
      return InvalidArgument(
          StrCat("logit_bias: the key ", Shown(Json(key)), " must be a token id from 0 to ",
                 service.vocab_size - 1, ", for example {\"42\": -100}"),
          where);
    }
    if (!value.is_number() || !(value.as_double() >= -kMaxBias && value.as_double() <= kMaxBias)) {
      return InvalidArgument(StrCat("logit_bias[\"", key, "\"] must be a number from ", -kMaxBias, " to ",
                                    kMaxBias, "; got ", Shown(value)),
                             where);
    }
    const auto bias = static_cast<float>(value.as_double());
    by_id[id] = bias;  // "7" and "07" are one token; the last one counts
  }
  s.logit_bias.assign(by_id.begin(), by_id.end());
  return OkStatus();
}

// A word as it is tokenised at the begin of a text and after a space, and as one token spelled exactly so.
void AddWord(const Tokenizer& tokenizer, const std::string& word, SamplingParams& s) {
  const auto add = [&](std::vector<int32_t> ids) {
    if (ids.empty() || std::find(s.bad_words.begin(), s.bad_words.end(), ids) != s.bad_words.end()) return;
    s.bad_words.push_back(std::move(ids));
  };
  add(tokenizer.Encode(word, false));
  if (!word.starts_with(' ')) add(tokenizer.Encode(" " + word, false));
  if (const auto id = tokenizer.TokenId(word); id && !tokenizer.IsSpecial(*id)) add({*id});
}

Status ReadBadWords(const Service& service, const JsonObject& body, SamplingParams& s) {
  const int64_t most = service.limits.max_banned_tokens;
  const auto check = [&](const char* field) -> Status {
    int64_t tokens = 0;
    for (const auto& word : s.bad_words) tokens += std::ssize(word);
    if (tokens <= most) return OkStatus();
    return InvalidArgument(
        StrCat(field, ": more than ", most, " tokens, which is the limit (--max-banned-tokens)"), field);
  };
  FD_ASSIGN_OR_RETURN(const JsonArray* words, ReadArray(body, "bad_words"));
  if (words != nullptr) {
    for (size_t i = 0; i < words->size(); ++i) {
      const Json& word = (*words)[i];
      const std::string where = StrCat("bad_words[", i, "]");
      if (!word.is_string() || word.as_string().empty()) {
        return InvalidArgument(StrCat(where, " must be a string that is not empty; got ", Shown(word)),
                               "bad_words");
      }
      if (static_cast<int64_t>(word.as_string().size()) > service.limits.max_stop_bytes) {
        return InvalidArgument(StrCat(where, " has ", word.as_string().size(), " bytes; at most ",
                                      service.limits.max_stop_bytes, " are allowed (--max-stop-bytes)"),
                               "bad_words");
      }
      AddWord(*service.tokenizer, word.as_string(), s);
      FD_RETURN_IF_ERROR(check("bad_words"));
    }
  }
  const char* field = "bad_words_token_ids";
  FD_ASSIGN_OR_RETURN(const JsonArray* ids, ReadArray(body, field));
  if (ids == nullptr) return OkStatus();
  if (static_cast<int64_t>(ids->size()) > most) {
    return InvalidArgument(
        StrCat(field, " has ", ids->size(), " entries; at most ", most, " are allowed (--max-banned-tokens)"),
        field);
  }
  for (size_t i = 0; i < ids->size(); ++i) {
    const Json& entry = (*ids)[i];
    const std::string where = StrCat(field, "[", i, "]");
    const Json word = entry.is_array() ? entry : Json(JsonArray{entry});
    FD_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, ReadTokenIds(word, where, field, service.vocab_size));
    if (tokens.empty()) return InvalidArgument(StrCat(where, " is an empty array"), field);
    s.bad_words.push_back(std::move(tokens));
  }
  return check(field);
}

Status ReadAllowedTokens(const Service& service, const JsonObject& body, SamplingParams& s) {
  const char* field = "allowed_token_ids";
  const Json* ids = body.Find(field);
  if (ids == nullptr || ids->is_null()) return OkStatus();
  const int64_t most = service.limits.max_allowed_token_ids;
  if (ids->is_array() && std::ssize(ids->as_array()) > most) {
    return InvalidArgument(StrCat(field, " has ", ids->as_array().size(), " ids; at most ", most,
                                  " are allowed (--max-allowed-token-ids)"),
                           field);
  }
  const int64_t drawable = std::min(service.vocab_size, service.tokenizer->vocab_size());
  FD_ASSIGN_OR_RETURN(s.allowed_token_ids, ReadTokenIds(*ids, field, field, drawable));
  if (s.allowed_token_ids.empty()) {
    return InvalidArgument(
        StrCat(field, " is an empty array, so no token could be drawn; leave it out to allow all"), field);
  }
  std::sort(s.allowed_token_ids.begin(), s.allowed_token_ids.end());
  s.allowed_token_ids.erase(std::unique(s.allowed_token_ids.begin(), s.allowed_token_ids.end()),
                            s.allowed_token_ids.end());
  return OkStatus();
}

Status ReadMinTokens(const Service& service, const JsonObject& body, RequestFields& out) {
  FD_ASSIGN_OR_RETURN(auto min_tokens, ReadInteger(body, "min_tokens", 0, service.max_model_len));
  out.sampling.min_tokens = min_tokens.value_or(0);
  if (out.max_tokens && out.sampling.min_tokens > *out.max_tokens) {
    return InvalidArgument(StrCat("min_tokens is ", out.sampling.min_tokens, " and max_tokens is ",
                                  *out.max_tokens, "; min_tokens must be from 0 to max_tokens"),
                           "min_tokens");
  }
  return OkStatus();
}

StatusOr<std::optional<int64_t>> ReadLogprobCount(const Service& service, const JsonObject& body,
                                                  const char* field) {
  auto count = ReadInteger(body, field, 0, service.limits.max_logprobs);
  if (!count.ok()) return InvalidArgument(StrCat(count.status().message(), " (--max-logprobs)"), field);
  return count;
}

// After ReadLogprobs: an echoed prompt has log-probabilities where the answer has.
Status ReadPromptLogprobs(const Service& service, ApiEndpoint endpoint, const JsonObject& body,
                          RequestFields& out) {
  FD_ASSIGN_OR_RETURN(auto count, ReadLogprobCount(service, body, "prompt_logprobs"));
  if (count && out.stream) {
    return InvalidArgument(
        "prompt_logprobs are not available with \"stream\": true; leave out one of the two",
        "prompt_logprobs");
  }
  out.prompt_logprobs = static_cast<int32_t>(count.value_or(-1));
  out.sampling.prompt_logprobs = out.prompt_logprobs;
  if (endpoint != ApiEndpoint::kCompletions) return OkStatus();
  FD_ASSIGN_OR_RETURN(auto echo, ReadBool(body, "echo"));
  if (echo.value_or(false)) {
    out.sampling.prompt_logprobs = std::max(out.prompt_logprobs, out.sampling.top_logprobs);
  }
  return OkStatus();
}

// FastDeploy's two. Without log-probabilities they have nothing to change.
Status ReadLogprobShape(const JsonObject& body, SamplingParams& s) {
  FD_ASSIGN_OR_RETURN(auto scaled, ReadBool(body, "temp_scaled_logprobs"));
  FD_ASSIGN_OR_RETURN(auto normalized, ReadBool(body, "top_p_normalized_logprobs"));
  s.temp_scaled_logprobs = scaled.value_or(false);
  s.top_p_normalized_logprobs = normalized.value_or(false);
  return OkStatus();
}

// The chat field pair logprobs (true) and top_logprobs (a count); completions have logprobs as the count.
Status ReadLogprobs(const Service& service, ApiEndpoint endpoint, const JsonObject& body,
                    RequestFields& out) {
  if (endpoint == ApiEndpoint::kChat) {
    FD_ASSIGN_OR_RETURN(auto wanted, ReadBool(body, "logprobs"));
    FD_ASSIGN_OR_RETURN(auto count, ReadLogprobCount(service, body, "top_logprobs"));
    if (wanted.value_or(false)) {
      out.sampling.top_logprobs = static_cast<int32_t>(count.value_or(0));
    } else if (count.value_or(0) > 0) {
      return InvalidArgument("top_logprobs is allowed only together with \"logprobs\": true", "top_logprobs");
    }
    return OkStatus();
  }
  if (const Json* top = body.Find("top_logprobs"); top != nullptr && !top->is_null()) {
    if (!top->is_number() || top->as_double() != 0) {
      return InvalidArgument(
          "top_logprobs belongs to /v1/chat/completions; here logprobs is the number, for example "
          "{\"logprobs\": 5}",
          "top_logprobs");
    }
  }
  const Json* off = body.Find("logprobs");
  if (off != nullptr && off->is_bool() && !off->as_bool()) return OkStatus();
  FD_ASSIGN_OR_RETURN(auto count, ReadLogprobCount(service, body, "logprobs"));
  if (!count) return OkStatus();
  out.sampling.top_logprobs = static_cast<int32_t>(*count);
  return OkStatus();
}

}  // namespace

Status ReadSamplingControls(const Service& service, ApiEndpoint endpoint, const JsonObject& body,
                            RequestFields& out) {
  FD_RETURN_IF_ERROR(ReadPenalties(service, body, out.sampling));
  FD_RETURN_IF_ERROR(ReadLogitBias(service, body, out.sampling));
  FD_RETURN_IF_ERROR(ReadBadWords(service, body, out.sampling));
  FD_RETURN_IF_ERROR(ReadAllowedTokens(service, body, out.sampling));
  FD_RETURN_IF_ERROR(ReadMinTokens(service, body, out));
  FD_RETURN_IF_ERROR(ReadLogprobs(service, endpoint, body, out));
  FD_RETURN_IF_ERROR(ReadLogprobShape(body, out.sampling));
  return ReadPromptLogprobs(service, endpoint, body, out);
}

bool MayDrawNothing(ApiEndpoint endpoint, const JsonObject& body) {
  if (endpoint != ApiEndpoint::kCompletions) return false;
  const Json* echo = body.Find("echo");
  const Json* prompt_logprobs = body.Find("prompt_logprobs");
  return (echo != nullptr && echo->is_bool() && echo->as_bool()) ||
         (prompt_logprobs != nullptr && prompt_logprobs->is_number());
}

Status CheckPromptLogprobs(const Service& service, const RequestFields& fields, int64_t prompt_tokens) {
  const int64_t each = fields.sampling.prompt_logprobs + 1, most = service.limits.max_prompt_logprobs;
  if (each == 0 || prompt_tokens * each <= most) return OkStatus();
  const char* field = fields.prompt_logprobs >= 0 ? "prompt_logprobs" : "logprobs";
  return InvalidArgument(
      StrCat(field, ": ", prompt_tokens, " prompt tokens (all choices together) with ", each,
             " log-probabilities each are ", prompt_tokens * each, "; at most ", most,
             " are allowed (--max-prompt-logprobs): ask for fewer, or send fewer prompts at once"),
      field);
}

}  // namespace fd
