#include "server/openai/request.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/strings.h"
#include "server/openai/errors.h"
#include "server/openai/fields.h"
#include "server/openai/request_extras.h"
#include "server/openai/sampling_fields.h"

namespace fd {
namespace {

constexpr int64_t kMaxInt64 = std::numeric_limits<int64_t>::max();
constexpr int64_t kMaxNameBytes = 512;
// FastDeploy's rule: below it the answer is the greedy one.
constexpr double kGreedyTemperature = 1e-5;
constexpr double kMinTopP = 1e-5;

bool IsNumber(const Json& v, double neutral) { return v.is_number() && v.as_double() == neutral; }
bool IsEmptyArray(const Json& v) { return v.is_array() && v.as_array().empty(); }
bool IsEmptyObject(const Json& v) { return v.is_object() && v.as_object().empty(); }
bool IsFalse(const Json& v) { return v.is_bool() && !v.as_bool(); }
bool IsTrue(const Json& v) { return v.is_bool() && v.as_bool(); }
bool IsText(const Json& v, std::string_view a, std::string_view b = {}) {
  return v.is_string() && (v.as_string() == a || (!b.empty() && v.as_string() == b));
}

// A field that OpenAI or FastDeploy knows and this server cannot honour yet. At its neutral value it says
// nothing, so it is taken; otherwise the request is refused: an answer that ignored it would be wrong.
struct ComingField {
  const char* name;
  bool (*is_neutral)(const Json&);  // null: only null itself
  const char* neutral;              // how the message shows it
};

constexpr ComingField kComing[] = {
    {"length_penalty", [](const Json& v) { return IsNumber(v, 1); }, "1"},
    {"use_beam_search", IsFalse, "false"},
    {"early_stopping", IsFalse, "false"},
    {"detokenize", IsTrue, "true"},
    {"kv_transfer_params", nullptr, nullptr},
    {"include_draft_logprobs", IsFalse, "false"},
    {"suffix", [](const Json& v) { return IsText(v, ""); }, "\"\""},
    {"response_format",
     [](const Json& v) {
       const Json* type = v.Find("type");
       return type != nullptr && IsText(*type, "text");
     },
     "{\"type\": \"text\"}"},
    {"guided_json", nullptr, nullptr},
    {"guided_regex", nullptr, nullptr},
    {"guided_choice", nullptr, nullptr},
    {"guided_grammar", nullptr, nullptr},
    {"structural_tag", nullptr, nullptr},
    {"functions", IsEmptyArray, "[]"},
    {"function_call", [](const Json& v) { return IsText(v, "auto", "none"); }, "\"auto\" or \"none\""},
    {"add_generation_prompt", IsTrue, "true"},
    {"continue_final_message", IsFalse, "false"},
    {"mm_hashes", IsEmptyArray, "[]"},
    {"disaggregate_info", IsEmptyObject, "{}"},
    {"collect_metrics", IsFalse, "false"},
    {"audio", nullptr, nullptr},
    {"modalities",
     [](const Json& v) {
       return v.is_array() && v.as_array().size() == 1 && IsText(v.as_array()[0], "text");
     },
     "[\"text\"]"},
};

Status RefuseComingFields(const JsonObject& body) {
  for (const ComingField& field : kComing) {
    const Json* value = body.Find(field.name);
    if (value == nullptr || value->is_null()) continue;
    if (field.is_neutral != nullptr && field.is_neutral(*value)) continue;
    std::string message = StrCat(field.name, " is still to come in this server; leave it out");
    if (field.neutral != nullptr) message += StrCat(" or set it to ", field.neutral);
    return Unimplemented(StrCat(message, "; got ", Shown(*value)), field.name);
  }
  return OkStatus();
}

// A choice that the model must keep to needs structured output.
Status RefuseForcedTools(const JsonObject& body) {
  if (const Json* choice = body.Find("tool_choice"); choice != nullptr && !choice->is_null()) {
    if (!IsText(*choice, "auto", "none")) {
      const Json* type = choice->Find("type");
      const bool known = IsText(*choice, "required") || (type != nullptr && IsText(*type, "function"));
      if (!known) {
        return BadField("tool_choice", "\"auto\", \"none\", \"required\" or a function", *choice);
      }
      return Unimplemented(StrCat("tool_choice: a call that must be made comes with structured output, which "
                                  "is still to come; use \"auto\" or \"none\"; got ",
                                  Shown(*choice)),
                           "tool_choice");
    }
  }
  FD_ASSIGN_OR_RETURN(const auto parallel, ReadBool(body, "parallel_tool_calls"));
  if (!parallel.value_or(true)) {
    return Unimplemented(
        "parallel_tool_calls: false comes with structured output, which is still to come; leave it out or "
        "set "
        "it to true",
        "parallel_tool_calls");
  }
  return OkStatus();
}

// The field itself, else its old place.
StatusOr<std::optional<int64_t>> ReadReasoningBudget(const Service& service, const JsonObject& body) {
  constexpr const char* kName = "reasoning_max_tokens";
  FD_ASSIGN_OR_RETURN(auto budget, ReadInteger(body, kName, 1, kMaxInt64));
  if (!budget) {
    FD_ASSIGN_OR_RETURN(const JsonObject* metadata, ReadObject(body, "metadata"));
    if (metadata != nullptr) {
      FD_ASSIGN_OR_RETURN(budget, ReadInteger(*metadata, kName, 1, kMaxInt64));
    }
  }
  if (budget && service.reasoning_format == ReasoningFormat::kNone) {
    return InvalidArgument(StrCat(kName,
                                  " needs a server with --reasoning-parser, which says where a thought ends, "
                                  "for example --reasoning-parser ernie-45-vl; got ",
                                  *budget),
                           kName);
  }
  return budget;
}

Status ReadSampling(const Service& service, const JsonObject& body, RequestFields& out) {
  const GenerationDefaults& defaults = service.defaults;
  FD_ASSIGN_OR_RETURN(auto temperature, ReadNumber(body, "temperature", 0, 100));
  FD_ASSIGN_OR_RETURN(auto top_p, ReadNumber(body, "top_p", 0, 1));
  FD_ASSIGN_OR_RETURN(auto top_k, ReadInteger(body, "top_k", -1, std::numeric_limits<int32_t>::max()));
  FD_ASSIGN_OR_RETURN(auto min_p, ReadNumber(body, "min_p", 0, 1));
  FD_ASSIGN_OR_RETURN(auto seed, ReadInteger(body, "seed", std::numeric_limits<int64_t>::min(), kMaxInt64));
  FD_ASSIGN_OR_RETURN(auto ignore_eos, ReadBool(body, "ignore_eos"));
  SamplingParams& s = out.sampling;
  const double t = temperature.value_or(defaults.temperature);
  s.temperature = t < kGreedyTemperature ? 0.0f : static_cast<float>(t);
  s.top_p = static_cast<float>(std::max(top_p.value_or(defaults.top_p), kMinTopP));
  s.top_k = static_cast<int32_t>(std::max<int64_t>(top_k.value_or(defaults.top_k), 0));
  s.min_p = static_cast<float>(min_p.value_or(defaults.min_p));
  s.ignore_eos = ignore_eos.value_or(false);
  if (seed) out.seed = static_cast<uint64_t>(*seed);
  return OkStatus();
}

Status ReadStops(const Service& service, const JsonObject& body, RequestFields& out) {
  const RequestLimits& limits = service.limits;
  if (const Json* stop = body.Find("stop"); stop != nullptr && !stop->is_null()) {
    const auto add = [&](const Json& value) -> Status {
      if (!value.is_string()) {
        return InvalidArgument(StrCat("stop must be a string or an array of strings; got ", Shown(value)),
                               "stop");
      }
      const std::string& text = value.as_string();
      if (text.empty())
        return InvalidArgument("stop: an empty string would stop before the first token", "stop");
      if (static_cast<int64_t>(text.size()) > limits.max_stop_bytes) {
        return InvalidArgument(StrCat("stop: a string of ", text.size(), " bytes; at most ",
                                      limits.max_stop_bytes, " are allowed (--max-stop-bytes)"),
                               "stop");
      }
      out.stop.push_back(text);
      return OkStatus();
    };
    if (stop->is_array()) {
      if (static_cast<int64_t>(stop->as_array().size()) > limits.max_stop_strings) {
        return InvalidArgument(StrCat("stop has ", stop->as_array().size(), " strings; at most ",
                                      limits.max_stop_strings, " are allowed (--max-stop-strings)"),
                               "stop");
      }
      for (const Json& value : stop->as_array()) FD_RETURN_IF_ERROR(add(value));
    } else {
      FD_RETURN_IF_ERROR(add(*stop));
    }
  }
  if (const Json* ids = body.Find("stop_token_ids"); ids != nullptr && !ids->is_null()) {
    if (ids->is_array() && static_cast<int64_t>(ids->as_array().size()) > limits.max_stop_token_ids) {
      return InvalidArgument(StrCat("stop_token_ids has ", ids->as_array().size(), " ids; at most ",
                                    limits.max_stop_token_ids, " are allowed (--max-stop-token-ids)"),
                             "stop_token_ids");
    }
    FD_ASSIGN_OR_RETURN(out.sampling.stop_token_ids,
                        ReadTokenIds(*ids, "stop_token_ids", "stop_token_ids", service.vocab_size));
  }
  FD_ASSIGN_OR_RETURN(auto include_stop, ReadBool(body, "include_stop_str_in_output"));
  out.include_stop = include_stop.value_or(false);
  return OkStatus();
}

Status ReadStreaming(const JsonObject& body, RequestFields& out) {
  FD_ASSIGN_OR_RETURN(auto stream, ReadBool(body, "stream"));
  out.stream = stream.value_or(false);
  FD_ASSIGN_OR_RETURN(const JsonObject* options, ReadObject(body, "stream_options"));
  if (options != nullptr) {
    if (!out.stream) {
      return InvalidArgument("stream_options is allowed only together with \"stream\": true",
                             "stream_options");
    }
    FD_ASSIGN_OR_RETURN(auto include_usage, ReadBool(*options, "include_usage"));
    FD_ASSIGN_OR_RETURN(auto continuous, ReadBool(*options, "continuous_usage_stats"));
    out.include_usage = include_usage.value_or(true);  // FastDeploy's default inside the object
    out.continuous_usage = continuous.value_or(false);
  }
  FD_ASSIGN_OR_RETURN(auto grouped, ReadInteger(body, "max_streaming_response_tokens", 0, kMaxInt64));
  out.tokens_per_chunk = std::max<int64_t>(grouped.value_or(1), 1);
  return OkStatus();
}

}  // namespace

Status ReadNames(const Service& service, const JsonObject& body, RequestFields& out) {
  FD_ASSIGN_OR_RETURN(out.model, ReadModelName(service, body));
  FD_ASSIGN_OR_RETURN(auto user, ReadString(body, "user", kMaxNameBytes));
  FD_ASSIGN_OR_RETURN(auto request_id, ReadString(body, "request_id", kMaxNameBytes));
  out.user = user.value_or("");
  out.request_id = request_id.value_or("");
  // They stand in the reply's id and in log lines.
  for (const auto& [name, value] : {std::pair{"user", &out.user}, std::pair{"request_id", &out.request_id}}) {
    for (unsigned char c : *value) {
      if (c < 0x20 || c == 0x7f)
        return InvalidArgument(StrCat(name, " may not hold control characters"), name);
    }
  }
  return OkStatus();
}

StatusOr<std::string> ReadModelName(const Service& service, const JsonObject& body) {
  FD_ASSIGN_OR_RETURN(auto model, ReadString(body, "model", kMaxNameBytes));
  const auto& names = service.model_names;
  if (!model) return names.front();
  if (std::find(names.begin(), names.end(), *model) != names.end()) return *model;
  if (service.check_model_name && *model != "default") return ModelNotFound(*model, names.front());
  return names.front();
}

StatusOr<RequestFields> ReadFields(const Service& service, ApiEndpoint endpoint, const JsonObject& body) {
  RequestFields out;
  FD_RETURN_IF_ERROR(ReadNames(service, body, out));
  FD_RETURN_IF_ERROR(RefuseComingFields(body));
  FD_RETURN_IF_ERROR(RefuseForcedTools(body));
  FD_RETURN_IF_ERROR(ReadSampling(service, body, out));
  FD_RETURN_IF_ERROR(ReadStops(service, body, out));
  FD_RETURN_IF_ERROR(ReadStreaming(body, out));
  FD_RETURN_IF_ERROR(ReadExtras(service, body, out));

  FD_ASSIGN_OR_RETURN(auto n, ReadInteger(body, "n", 1, service.limits.max_choices));
  out.n = n.value_or(1);
  if (const Json* best_of = body.Find("best_of"); best_of != nullptr && !best_of->is_null()) {
    if (!IsNumber(*best_of, static_cast<double>(out.n))) {
      return Unimplemented(StrCat("best_of is still to come in this server; leave it out or set it to n (",
                                  out.n, "); got ", Shown(*best_of)),
                           "best_of");
    }
  }
  const int64_t least = MayDrawNothing(endpoint, body) ? 0 : 1;
  FD_ASSIGN_OR_RETURN(auto max_tokens, ReadInteger(body, "max_tokens", least, service.max_model_len));
  FD_ASSIGN_OR_RETURN(auto max_completion_tokens,
                      ReadInteger(body, "max_completion_tokens", least, service.max_model_len));
  out.max_tokens = max_completion_tokens ? max_completion_tokens : max_tokens;
  FD_RETURN_IF_ERROR(ReadSamplingControls(service, endpoint, body, out));
  FD_ASSIGN_OR_RETURN(out.reasoning_max_tokens, ReadReasoningBudget(service, body));
  FD_ASSIGN_OR_RETURN(auto return_token_ids, ReadBool(body, "return_token_ids"));
  out.return_token_ids = return_token_ids.value_or(false);
  FD_ASSIGN_OR_RETURN(auto skip_special, ReadBool(body, "skip_special_tokens"));
  out.skip_special_tokens = skip_special.value_or(true);
  if (endpoint == ApiEndpoint::kCompletions) {
    if (const Json* kwargs = body.Find("mm_processor_kwargs");
        kwargs != nullptr && !kwargs->is_null() && !IsEmptyObject(*kwargs)) {
      return InvalidArgument("mm_processor_kwargs belongs to /v1/chat/completions; leave it out",
                             "mm_processor_kwargs");
    }
    FD_ASSIGN_OR_RETURN(auto echo, ReadBool(body, "echo"));
    out.echo = echo.value_or(false);
  }
  return out;
}

StatusOr<std::vector<Prompt>> ReadCompletionPrompts(const Service& service, const JsonObject& body,
                                                    bool with_text) {
  const char* field = "prompt_token_ids";
  const Json* value = body.Find(field);
  const bool ids_only = value != nullptr && !value->is_null();
  if (!ids_only) value = body.Find(field = "prompt");
  if (value == nullptr || value->is_null()) {
    if (body.Find("messages") != nullptr) {
      return InvalidArgument(
          "prompt is missing; messages belong to /v1/chat/completions, here it is for example {\"prompt\": "
          "\"Hello\", \"max_tokens\": 16}",
          "prompt");
    }
    return InvalidArgument("prompt is missing; example: {\"prompt\": \"Hello\", \"max_tokens\": 16}",
                           "prompt");
  }
  const std::string what = StrCat(ids_only ? "" : "a string, an array of strings, ",
                                  "an array of token ids or an array of such arrays");

  std::vector<Prompt> prompts;
  const auto add_text = [&](const std::string& text) {
    Prompt p;
    p.expanded.token_ids = service.tokenizer->EncodeWithBos(text);
    if (with_text) p.text = text;
    prompts.push_back(std::move(p));
  };
  const auto add_ids = [&](const Json& ids, const std::string& where) -> Status {
    FD_ASSIGN_OR_RETURN(std::vector<int32_t> token_ids, ReadTokenIds(ids, where, field, service.vocab_size));
    Prompt p;
    if (with_text) p.text = service.tokenizer->Decode(token_ids, /*skip_special=*/true);
    p.expanded.token_ids = std::move(token_ids);
    prompts.push_back(std::move(p));
    return OkStatus();
  };

  if (value->is_string() && !ids_only) {
    add_text(value->as_string());
  } else if (value->is_array()) {
    const JsonArray& array = value->as_array();
    if (array.empty()) return InvalidArgument(StrCat(field, " is an empty array"), field);
    if (array[0].is_number()) {
      FD_RETURN_IF_ERROR(add_ids(*value, field));
    } else {
      if (static_cast<int64_t>(array.size()) > service.limits.max_choices) {
        return InvalidArgument(StrCat(field, " has ", array.size(), " prompts; at most ",
                                      service.limits.max_choices, " are allowed (--max-choices)"),
                               field);
      }
      for (size_t i = 0; i < array.size(); ++i) {
        if (array[i].is_string() && array[0].is_string() && !ids_only) {
          add_text(array[i].as_string());
        } else if (array[i].is_array() && array[0].is_array()) {
          FD_RETURN_IF_ERROR(add_ids(array[i], StrCat(field, "[", i, "]")));
        } else {
          return InvalidArgument(
              StrCat(field, " must be ", what, "; ", field, "[", i, "] is ", Shown(array[i])), field);
        }
      }
    }
  } else {
    return BadField(field, what, *value);
  }
  for (size_t i = 0; i < prompts.size(); ++i) {
    FD_RETURN_IF_ERROR(TruncatePrompt(service, body, &prompts[i]));
    const auto count = static_cast<int64_t>(prompts[i].expanded.token_ids.size());
    if (count == 0) return InvalidArgument(StrCat(field, " is empty: it has no tokens"), field);
    if (count >= service.max_model_len) return ContextLengthExceeded(count, service.max_model_len, field);
  }
  return prompts;
}

}  // namespace fd
