#include "server/responses/translate.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "server/openai/fields.h"
#include "server/openai/request_schema.h"
#include "server/responses/input_items.h"
#include "server/responses/responses_writer.h"

namespace fd {
namespace {

// OpenAI's limits.
constexpr size_t kMaxMetadata = 16;
constexpr size_t kMaxMetadataKeyBytes = 64;
constexpr size_t kMaxMetadataValueBytes = 512;
constexpr int64_t kMaxNameBytes = 512;
constexpr int64_t kMaxInstructionsBytes = std::numeric_limits<int64_t>::max();

bool IsOneOf(std::string_view value, std::initializer_list<std::string_view> allowed) {
  return std::find(allowed.begin(), allowed.end(), value) != allowed.end();
}

bool Given(const JsonObject& body, const char* name) {
  const Json* value = body.Find(name);
  return value != nullptr && !value->is_null();
}

// 0.7 and not 0.699999988.
double Decimal(float value) { return std::round(static_cast<double>(value) * 1e6) / 1e6; }

// Fields of chat completions that have another name here. Ignored, the answer would be another one.
Status RefuseMovedFields(const JsonObject& body) {
  static constexpr std::pair<const char*, const char*> kMoved[] = {
      {"messages", "input"},
      {"max_tokens", "max_output_tokens"},
      {"max_completion_tokens", "max_output_tokens"},
      {"response_format", "text.format"},
      {"reasoning_effort", "reasoning.effort"},
      {"verbosity", "text.verbosity"},
      {"logprobs", "include, with \"message.output_text.logprobs\""},
      {"functions", "tools"},
      {"function_call", "tool_choice"},
  };
  for (const auto& [name, now] : kMoved) {
    if (Given(body, name)) {
      return Unimplemented(StrCat(name, " belongs to /v1/chat/completions; here it is ", now), name);
    }
  }
  return OkStatus();
}

// What would need something that an earlier request left on the server.
Status RefuseStored(const JsonObject& body) {
  const auto refuse = [](const char* name, const char* rest) {
    return Unimplemented(StrCat(name, ": nothing is stored on this server; ", rest), name);
  };
  constexpr const char* kSendAll = "send the whole conversation in input and leave it out";
  if (Given(body, "previous_response_id")) return refuse("previous_response_id", kSendAll);
  if (Given(body, "conversation")) return refuse("conversation", kSendAll);
  if (Given(body, "prompt")) return refuse("prompt", "send the text itself in instructions and input");
  FD_ASSIGN_OR_RETURN(const auto background, ReadBool(body, "background"));
  if (background.value_or(false)) {
    return refuse("background", "the answer comes in the reply; leave it out or set it to false");
  }
  // Taken without effect: the reply says false.
  FD_ASSIGN_OR_RETURN(const auto store, ReadBool(body, "store"));
  static_cast<void>(store);
  return OkStatus();
}

Status RefuseComing(const JsonObject& body) {
  FD_ASSIGN_OR_RETURN(const auto truncation, ReadString(body, "truncation", kMaxNameBytes));
  if (truncation && *truncation != "disabled") {
    if (*truncation != "auto")
      return BadField("truncation", "\"disabled\" or \"auto\"", *body.Find("truncation"));
    return Unimplemented(
        "truncation: \"auto\" is still to come in this server; leave it out or set it to \"disabled\"",
        "truncation");
  }
  FD_ASSIGN_OR_RETURN(const JsonArray* management, ReadArray(body, "context_management"));
  if (management != nullptr && !management->empty()) {
    return Unimplemented("context_management: this server does not compact a conversation; leave it out",
                         "context_management");
  }
  if (Given(body, "moderation")) {
    return Unimplemented("moderation: this server has no moderation model; leave it out", "moderation");
  }
  return OkStatus();
}

// {"type":"function","name":...} -> {"type":"function","function":{"name":...}}. echo: the tools as the reply
// shows them.
StatusOr<Json> ReadTools(const Service& service, const JsonObject& body, JsonArray* echo) {
  FD_ASSIGN_OR_RETURN(const JsonArray* tools, ReadArray(body, "tools"));
  if (tools == nullptr) return Json();
  if (static_cast<int64_t>(tools->size()) > service.limits.max_tools) {
    return InvalidArgument(StrCat("tools has ", tools->size(), " entries; at most ", service.limits.max_tools,
                                  " are allowed (--max-tools)"),
                           "tools");
  }
  JsonArray functions;
  for (size_t i = 0; i < tools->size(); ++i) {
    const Json& tool = (*tools)[i];
    const std::string where = StrCat("tools[", i, "]");
    const Json* type = tool.Find("type");
    if (type == nullptr || !type->is_string()) {
      return InvalidArgument(
          StrCat(where, " must be {\"type\": \"function\", \"name\": ..., \"parameters\": {...}}"), "tools");
    }
    if (type->as_string() != "function") {
      return Unimplemented(
          StrCat(where, ".type: this server runs no built-in tools; only functions are known; got ",
                 Shown(*type)),
          "tools");
    }
    const JsonObject& object = tool.as_object();
    const Json* name = object.Find("name");
    if (name == nullptr || !name->is_string() || name->as_string().empty()) {
      return InvalidArgument(
          StrCat(
              where, ".name is missing",
              object.Find("function") != nullptr ? "; it stands beside type here, not inside function" : ""),
          "tools");
    }
    const auto member = [&](const char* key) {
      const Json* value = object.Find(key);
      return value != nullptr ? *value : Json();
    };
    const Json description = member("description"), parameters = member("parameters"),
               strict = member("strict");
    if (!description.is_null() && !description.is_string()) {
      return InvalidArgument(StrCat(where, ".description must be a string; got ", Shown(description)),
                             "tools");
    }
    if (!parameters.is_null() && !parameters.is_object()) {
      return InvalidArgument(StrCat(where, ".parameters must be an object; got ", Shown(parameters)),
                             "tools");
    }
    if (!strict.is_null() && !strict.is_bool()) {
      return InvalidArgument(StrCat(where, ".strict must be true or false; got ", Shown(strict)), "tools");
    }
    JsonObject function{{"name", *name}};
    if (!description.is_null()) function.Set("description", description);
    if (!parameters.is_null()) function.Set("parameters", parameters);
    functions.push_back(JsonObject{{"type", "function"}, {"function", std::move(function)}});
    echo->push_back(JsonObject{{"type", "function"},
                               {"name", *name},
                               {"description", description},
                               {"parameters", parameters},
                               {"strict", strict}});
  }
  return Json(std::move(functions));
}

// What may stand in `include`. All but the first are about tools and stores that this server does not have;
// thoughts come as text, so there is nothing to encrypt.
StatusOr<bool> ReadIncludesLogprobs(const JsonObject& body) {
  constexpr std::string_view kLogprobs = "message.output_text.logprobs";
  FD_ASSIGN_OR_RETURN(const JsonArray* include, ReadArray(body, "include"));
  bool logprobs = false;
  for (size_t i = 0; include != nullptr && i < include->size(); ++i) {
    const Json& name = (*include)[i];
    const bool known =
        name.is_string() &&
        IsOneOf(name.as_string(),
                {kLogprobs, "reasoning.encrypted_content", "file_search_call.results",
                 "web_search_call.results", "web_search_call.action.sources", "message.input_image.image_url",
                 "computer_call_output.output.image_url", "code_interpreter_call.outputs"});
    if (!known) {
      return InvalidArgument(
          StrCat("include[", i, "] must be a name such as \"", kLogprobs, "\"; got ", Shown(name)),
          "include");
    }
    logprobs |= name.as_string() == kLogprobs;
  }
  return logprobs;
}

Status CheckMetadata(const JsonObject& body) {
  FD_ASSIGN_OR_RETURN(const JsonObject* metadata, ReadObject(body, "metadata"));
  if (metadata == nullptr) return OkStatus();
  if (metadata->size() > kMaxMetadata) {
    return InvalidArgument(
        StrCat("metadata has ", metadata->size(), " members; at most ", kMaxMetadata, " are allowed"),
        "metadata");
  }
  for (const auto& [key, value] : *metadata) {
    if (key.size() > kMaxMetadataKeyBytes || !value.is_string() ||
        value.as_string().size() > kMaxMetadataValueBytes) {
      return InvalidArgument(StrCat("metadata: keys may have ", kMaxMetadataKeyBytes,
                                    " bytes, and values must be strings of at most ", kMaxMetadataValueBytes,
                                    " bytes; at fault: ", Shown(Json(key))),
                             "metadata");
    }
  }
  return OkStatus();
}

// A member of the object `name`, one of `allowed`; null when absent.
StatusOr<Json> ReadChoice(const JsonObject* object, const char* name, const char* key,
                          std::initializer_list<std::string_view> allowed) {
  const Json* value = object != nullptr ? object->Find(key) : nullptr;
  if (value == nullptr || value->is_null()) return Json();
  if (value->is_string() && IsOneOf(value->as_string(), allowed)) return *value;
  const std::string field = StrCat(name, ".", key);
  return BadField(
      field, StrCat("one of ", Join(std::vector<std::string>(allowed.begin(), allowed.end()), ", ")), *value);
}

// Effort: none and minimal turn thinking off, the others on. There are no steps between.
StatusOr<JsonObject> ReadReasoning(const Service& service, const JsonObject& body, JsonObject& chat) {
  FD_ASSIGN_OR_RETURN(const JsonObject* reasoning, ReadObject(body, "reasoning"));
  FD_ASSIGN_OR_RETURN(Json effort, ReadChoice(reasoning, "reasoning", "effort",
                                              {"none", "minimal", "low", "medium", "high", "xhigh", "max"}));
  FD_ASSIGN_OR_RETURN(Json summary,
                      ReadChoice(reasoning, "reasoning", "summary", {"auto", "concise", "detailed"}));
  FD_ASSIGN_OR_RETURN(Json old_summary, ReadChoice(reasoning, "reasoning", "generate_summary",
                                                   {"auto", "concise", "detailed"}));
  if (summary.is_null()) summary = std::move(old_summary);
  if (!effort.is_null() && !Given(chat, "enable_thinking")) {
    const bool off = IsOneOf(effort.as_string(), {"none", "minimal"});
    // Without a reasoning parser a thought would stand in the answer.
    if (off || service.reasoning_format != ReasoningFormat::kNone) chat.Set("enable_thinking", Json(!off));
  }
  return JsonObject{{"effort", std::move(effort)}, {"summary", std::move(summary)}};
}

StatusOr<JsonObject> ReadTextFormat(const JsonObject& body) {
  FD_ASSIGN_OR_RETURN(const JsonObject* text, ReadObject(body, "text"));
  FD_ASSIGN_OR_RETURN(Json verbosity, ReadChoice(text, "text", "verbosity", {"low", "medium", "high"}));
  const Json* format = text != nullptr ? text->Find("format") : nullptr;
  if (format != nullptr && !format->is_null()) {
    const Json* type = format->Find("type");
    const bool known = type != nullptr && type->is_string() &&
                       IsOneOf(type->as_string(), {"text", "json_schema", "json_object"});
    if (!known) {
      return InvalidArgument("text.format.type must be \"text\", \"json_schema\" or \"json_object\"",
                             "text.format");
    }
    if (type->as_string() != "text") {
      return Unimplemented(
          StrCat("text.format: ", type->as_string(),
                 " comes with structured output, which is still to come in this server; leave "
                 "it out or set it to {\"type\": \"text\"}"),
          "text.format");
    }
  }
  if (verbosity.is_null()) verbosity = "medium";
  return JsonObject{{"format", JsonObject{{"type", "text"}}}, {"verbosity", std::move(verbosity)}};
}

Status CheckStreamOptions(const JsonObject& body) {
  FD_ASSIGN_OR_RETURN(const auto stream, ReadBool(body, "stream"));
  FD_ASSIGN_OR_RETURN(const JsonObject* options, ReadObject(body, "stream_options"));
  if (options == nullptr) return OkStatus();
  if (!stream.value_or(false)) {
    return InvalidArgument("stream_options is allowed only together with \"stream\": true", "stream_options");
  }
  // Nothing is padded to hide lengths; usage always stands in the last event.
  return ReadBool(*options, "include_obfuscation").status();
}

// Fields that mean the same in a chat request and are checked there.
void PassFields(JsonObject& body, JsonObject& chat) {
  static const std::unordered_set<std::string> kPassed = [] {
    std::unordered_set<std::string> names;
    std::unordered_set<std::string> here;
    for (const RequestField& field : FieldsOf(RequestKind::kResponses)) here.insert(field.name);
    for (const RequestField& field : FieldsOf(RequestKind::kChat)) {
      if (here.contains(field.name)) names.insert(field.name);
    }
    // Of another shape, or without a meaning for the model.
    for (const char* own : {"tools", "stream_options", "metadata", "top_logprobs"}) names.erase(own);
    return names;
  }();
  for (auto& [name, value] : body) {
    if (kPassed.contains(name)) chat.Set(name, value);
  }
}

}  // namespace

StatusOr<TranslatedRequest> TranslateResponses(const Service& service, Json json) {
  if (!json.is_object()) {
    return InvalidArgument(StrCat("the request body must be a JSON object; got ", json.TypeName()));
  }
  JsonObject& body = json.as_object();
  TranslatedRequest request;
  request.endpoint = ApiEndpoint::kChat;
  request.id_prefix = "resp_";
  FD_RETURN_IF_ERROR(RefuseMovedFields(body));
  request.ignored_fields = UnknownFields(RequestKind::kResponses, body);
  if (service.strict_requests) {
    FD_RETURN_IF_ERROR(RefuseUnknownFields(RequestKind::kResponses, request.ignored_fields));
  }
  FD_RETURN_IF_ERROR(RefuseStored(body));
  FD_RETURN_IF_ERROR(RefuseComing(body));
  FD_RETURN_IF_ERROR(CheckStreamOptions(body));
  FD_RETURN_IF_ERROR(CheckMetadata(body));

  JsonObject chat;
  PassFields(body, chat);
  FD_ASSIGN_OR_RETURN(const auto instructions, ReadString(body, "instructions", kMaxInstructionsBytes));
  FD_ASSIGN_OR_RETURN(ChatInput input, ReadInput(service, body.Find("input"), instructions.value_or("")));
  chat.Set("messages", Json(std::move(input.messages)));
  FD_ASSIGN_OR_RETURN(const auto max_output_tokens,
                      ReadInteger(body, "max_output_tokens", 1, service.max_model_len));
  if (max_output_tokens) chat.Set("max_completion_tokens", Json(*max_output_tokens));
  JsonArray tools_echo;
  FD_ASSIGN_OR_RETURN(Json tools, ReadTools(service, body, &tools_echo));
  if (!tools.is_null()) chat.Set("tools", std::move(tools));
  FD_ASSIGN_OR_RETURN(const bool includes_logprobs, ReadIncludesLogprobs(body));
  FD_ASSIGN_OR_RETURN(const auto top_logprobs,
                      ReadInteger(body, "top_logprobs", 0, service.limits.max_logprobs));
  if (includes_logprobs || top_logprobs.value_or(0) > 0) {
    chat.Set("logprobs", Json(true));
    chat.Set("top_logprobs", Json(top_logprobs.value_or(0)));
  }
  FD_ASSIGN_OR_RETURN(JsonObject reasoning, ReadReasoning(service, body, chat));
  FD_ASSIGN_OR_RETURN(JsonObject text, ReadTextFormat(body));
  FD_ASSIGN_OR_RETURN(const auto temperature, ReadNumber(body, "temperature", 0, 100));
  FD_ASSIGN_OR_RETURN(const auto top_p, ReadNumber(body, "top_p", 0, 1));
  FD_ASSIGN_OR_RETURN(const auto max_tool_calls,
                      ReadInteger(body, "max_tool_calls", 0, std::numeric_limits<int64_t>::max()));

  // Names of the client's, which the reply repeats.
  const auto name = [&](const char* field) -> StatusOr<Json> {
    FD_ASSIGN_OR_RETURN(auto value, ReadString(body, field, kMaxNameBytes));
    return value ? Json(std::move(*value)) : Json();
  };
  FD_ASSIGN_OR_RETURN(Json user, name("user"));
  FD_ASSIGN_OR_RETURN(Json safety_identifier, name("safety_identifier"));
  FD_ASSIGN_OR_RETURN(Json prompt_cache_key, name("prompt_cache_key"));
  const auto integer = [](const std::optional<int64_t>& value) { return value ? Json(*value) : Json(); };
  const auto as_given = [&](const char* field, Json otherwise) {
    return Given(body, field) ? *body.Find(field) : std::move(otherwise);
  };
  std::string echo =
      WriteJson(JsonObject{{"background", false},
                           {"instructions", instructions ? Json(*instructions) : Json()},
                           {"max_output_tokens", integer(max_output_tokens)},
                           {"max_tool_calls", integer(max_tool_calls)},
                           {"metadata", as_given("metadata", JsonObject{})},
                           {"parallel_tool_calls", true},
                           {"previous_response_id", Json()},
                           {"prompt_cache_key", std::move(prompt_cache_key)},
                           {"reasoning", std::move(reasoning)},
                           {"safety_identifier", std::move(safety_identifier)},
                           {"service_tier", "default"},
                           {"store", false},
                           {"temperature", temperature.value_or(Decimal(service.defaults.temperature))},
                           {"text", std::move(text)},
                           {"tool_choice", as_given("tool_choice", "auto")},
                           {"tools", std::move(tools_echo)},
                           {"top_logprobs", top_logprobs.value_or(0)},
                           {"top_p", top_p.value_or(Decimal(service.defaults.top_p))},
                           {"truncation", "disabled"},
                           {"user", std::move(user)}});
  request.body = Json(std::move(chat));
  request.writer = MakeResponsesWriter(echo.substr(1, echo.size() - 2), std::move(input.places));
  return request;
}

}  // namespace fd
