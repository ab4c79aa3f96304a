#include "server/messages/messages_request.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "base/strings.h"
#include "server/messages/content_blocks.h"
#include "server/messages/messages_writer.h"
#include "server/openai/fields.h"
#include "server/openai/request_schema.h"

namespace fd {
namespace {

// Fields of Anthropic's that have their own function below, or no effect here. Everything else that
// request_schema.cc knows is a field of ours under its own name.
constexpr std::string_view kTranslated[] = {
    "messages",      "system",        "stop_sequences", "tools",        "tool_choice",        "thinking",
    "metadata",      "cache_control", "speed",          "container",    "mcp_servers",        "inference_geo",
    "output_config", "diagnostics",   "output_format",  "service_tier", "context_management",
};

bool IsTranslated(std::string_view name) {
  return std::find(std::begin(kTranslated), std::end(kTranslated), name) != std::end(kTranslated);
}

// What needs machinery of Anthropic's, or structured output. Empty values ask for nothing.
Status RefuseForeignFields(const JsonObject& body) {
  struct Foreign {
    const char* name;
    const char* why;
  };
  constexpr Foreign kForeign[] = {
      {"container", "this server runs no code for the model"},
      {"mcp_servers", "this server calls no tools; run them in the client and send tool_result blocks"},
      {"context_management", "this server edits no conversations"},
      {"output_format", "it comes with structured output, which is still to come"},
  };
  for (const auto& [name, why] : kForeign) {
    const Json* value = body.Find(name);
    if (value == nullptr || value->is_null()) continue;
    if (value->is_array() && value->as_array().empty()) continue;
    if (value->is_object() && value->as_object().empty()) continue;
    return Unimplemented(StrCat(name, ": ", why, "; leave it out; got ", Shown(*value)), name);
  }
  FD_ASSIGN_OR_RETURN(const JsonObject* output, ReadObject(body, "output_config"));
  const Json* format = output != nullptr ? output->Find("format") : nullptr;
  if (format != nullptr && !format->is_null()) {
    return Unimplemented(
        "output_config.format comes with structured output, which is still to come; leave it out",
        "output_config");
  }
  return OkStatus();
}

// Taken without effect, but of the right type.
Status CheckNotes(const JsonObject& body) {
  for (const char* name : {"service_tier", "inference_geo", "speed"}) {
    FD_RETURN_IF_ERROR(ReadString(body, name, 512).status());
  }
  for (const char* name : {"metadata", "cache_control", "diagnostics"}) {
    FD_RETURN_IF_ERROR(ReadObject(body, name).status());
  }
  return OkStatus();
}

StatusOr<Json> ToStop(const Service& service, const JsonObject& body) {
  constexpr const char* kName = "stop_sequences";
  FD_ASSIGN_OR_RETURN(const JsonArray* stops, ReadArray(body, kName));
  if (stops == nullptr || stops->empty()) return Json();
  const RequestLimits& limits = service.limits;
  if (std::ssize(*stops) > limits.max_stop_strings) {
    return InvalidArgument(StrCat(kName, " has ", stops->size(), " strings; at most ",
                                  limits.max_stop_strings, " are allowed (--max-stop-strings)"),
                           kName);
  }
  for (size_t i = 0; i < stops->size(); ++i) {
    const Json& stop = (*stops)[i];
    if (!stop.is_string() || stop.as_string().empty()) {
      return InvalidArgument(StrCat(kName, "[", i, "] must be a string that is not empty; got ", Shown(stop)),
                             kName);
    }
    if (std::ssize(stop.as_string()) > limits.max_stop_bytes) {
      return InvalidArgument(StrCat(kName, "[", i, "] has ", stop.as_string().size(), " bytes; at most ",
                                    limits.max_stop_bytes, " are allowed (--max-stop-bytes)"),
                             kName);
    }
  }
  return Json(*stops);
}

StatusOr<Json> ToTools(JsonObject& body) {
  Json* tools = body.Find("tools");
  if (tools == nullptr || tools->is_null()) return Json();
  if (!tools->is_array()) return BadField("tools", "an array", *tools);
  JsonArray out;
  for (size_t i = 0; i < tools->as_array().size(); ++i) {
    Json& tool = tools->as_array()[i];
    const std::string where = StrCat("tools[", i, "]");
    const std::string shape = StrCat(
        where,
        " must be {\"name\": ..., \"description\": ..., \"input_schema\": {\"type\": ", "\"object\", ...}}");
    if (!tool.is_object()) return InvalidArgument(StrCat(shape, "; got ", Shown(tool)), "tools");
    const Json* type = tool.Find("type");
    if (type != nullptr && type->is_string() && type->as_string() != "custom") {
      return Unimplemented(StrCat(where, ": ", Shown(*type),
                                  " is a tool of Anthropic's; this server has none. Describe it with name, "
                                  "description and input_schema and run it in the client"),
                           "tools");
    }
    const Json* strict = tool.Find("strict");
    if (strict != nullptr && strict->is_bool() && strict->as_bool()) {
      return Unimplemented(
          StrCat(where, ".strict comes with structured output, which is still to come; leave it out"),
          "tools");
    }
    Json* name = tool.as_object().Find("name");
    Json* schema = tool.as_object().Find("input_schema");
    if (name == nullptr || !name->is_string() || name->as_string().empty() || schema == nullptr ||
        !schema->is_object()) {
      return InvalidArgument(shape, "tools");
    }
    JsonObject function{{"name", std::move(*name)}};
    if (Json* about = tool.as_object().Find("description"); about != nullptr && !about->is_null()) {
      if (!about->is_string()) {
        return InvalidArgument(StrCat(where, ".description must be a string; got ", Shown(*about)), "tools");
      }
      function.Set("description", std::move(*about));
    }
    function.Set("parameters", std::move(*schema));
    out.push_back(JsonObject{{"type", "function"}, {"function", std::move(function)}});
  }
  return Json(std::move(out));
}

StatusOr<Json> ToToolChoice(const JsonObject& body) {
  constexpr const char* kName = "tool_choice";
  FD_ASSIGN_OR_RETURN(const JsonObject* choice, ReadObject(body, kName));
  if (choice == nullptr) return Json();
  const Json* type = choice->Find("type");
  const std::string name = type != nullptr && type->is_string() ? type->as_string() : "";
  if (name == "any" || name == "tool") {
    return Unimplemented(
        StrCat("tool_choice: a call that must be made comes with structured output, which is "
               "still to come; use {\"type\": \"auto\"} or {\"type\": \"none\"}; got ",
               Shown(*type)),
        kName);
  }
  if (name != "auto" && name != "none") {
    return InvalidArgument(StrCat("tool_choice.type must be \"auto\", \"any\", \"tool\" or \"none\"",
                                  type != nullptr ? StrCat("; got ", Shown(*type)) : ""),
                           kName);
  }
  auto alone = ReadBool(*choice, "disable_parallel_tool_use");
  if (!alone.ok()) return InvalidArgument(StrCat("tool_choice.", alone.status().message()), kName);
  if (alone->value_or(false)) {
    return Unimplemented(
        "tool_choice.disable_parallel_tool_use: true comes with structured output, which is still to come; "
        "leave it out or set it to false",
        kName);
  }
  return Json(name);
}

// What the chat request is told, and whether the thought is shown.
struct Thinking {
  std::optional<bool> enabled;  // absent: the server and the template decide
  std::optional<int64_t> budget_tokens;
  bool shown = true;
};

StatusOr<Thinking> ReadThinking(const Service& service, const JsonObject& body,
                                std::optional<int64_t> max_tokens) {
  constexpr const char* kName = "thinking";
  const auto wrong = [&](std::string message) { return InvalidArgument(std::move(message), kName); };
  FD_ASSIGN_OR_RETURN(const JsonObject* given, ReadObject(body, kName));
  Thinking out;
  if (given == nullptr) {
    out.enabled = false;
    return out;
  }
  const Json* type = given->Find("type");
  const std::string name = type != nullptr && type->is_string() ? type->as_string() : "";
  if (name == "disabled") {
    out.enabled = false;
    return out;
  }
  if (name != "enabled" && name != "adaptive") {
    return wrong(StrCat("thinking.type must be \"enabled\", \"disabled\" or \"adaptive\"",
                        type != nullptr ? StrCat("; got ", Shown(*type)) : ""));
  }
  auto display = ReadString(*given, "display", 64);
  if (!display.ok()) return wrong(StrCat("thinking.", display.status().message()));
  if (*display && **display != "summarized" && **display != "omitted") {
    return wrong(
        StrCat("thinking.display must be \"summarized\" or \"omitted\"; got ", Shown(Json(**display))));
  }
  out.shown = display->value_or("summarized") != "omitted";
  if (name == "adaptive") return out;
  if (service.reasoning_format == ReasoningFormat::kNone) {
    return wrong(
        "thinking needs a server with --reasoning-parser, which says where a thought ends, for example "
        "--reasoning-parser ernie-45-vl; leave it out or set it to {\"type\": \"disabled\"}");
  }
  out.enabled = true;
  auto budget = ReadInteger(*given, "budget_tokens", 1, std::numeric_limits<int64_t>::max());
  if (!budget.ok()) return wrong(StrCat("thinking.", budget.status().message()));
  out.budget_tokens = *budget;
  if (out.budget_tokens && max_tokens && *out.budget_tokens >= *max_tokens) {
    return wrong(StrCat("thinking.budget_tokens must be below max_tokens, which it counts towards; got ",
                        *out.budget_tokens, " and ", *max_tokens));
  }
  return out;
}

}  // namespace

StatusOr<TranslatedRequest> TranslateMessages(const Service& service, Json body, MessagesUse use) {
  if (!body.is_object()) {
    return InvalidArgument(StrCat("the request body must be a JSON object; got ", body.TypeName()));
  }
  JsonObject& given = body.as_object();
  TranslatedRequest out;
  out.id_prefix = "msg_";
  out.ignored_fields = UnknownFields(RequestKind::kMessages, given);
  if (service.strict_requests) {
    FD_RETURN_IF_ERROR(RefuseUnknownFields(RequestKind::kMessages, out.ignored_fields));
  }
  FD_RETURN_IF_ERROR(RefuseForeignFields(given));
  FD_RETURN_IF_ERROR(CheckNotes(given));

  FD_ASSIGN_OR_RETURN(const auto max_tokens, ReadInteger(given, "max_tokens", 1, service.max_model_len));
  if (!max_tokens && use == MessagesUse::kCreate) {
    return InvalidArgument("max_tokens is missing; example: {\"max_tokens\": 1024}", "max_tokens");
  }
  FD_ASSIGN_OR_RETURN(const Thinking thinking, ReadThinking(service, given, max_tokens));
  FD_ASSIGN_OR_RETURN(Json stop, ToStop(service, given));
  FD_ASSIGN_OR_RETURN(Json tools, ToTools(given));
  FD_ASSIGN_OR_RETURN(Json tool_choice, ToToolChoice(given));

  Json* messages = given.Find("messages");
  if (messages == nullptr || messages->is_null()) {
    return InvalidArgument(
        "messages is missing; example: {\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}",
        "messages");
  }
  if (!messages->is_array()) return BadField("messages", "an array", *messages);
  if (messages->as_array().empty()) return InvalidArgument("messages is an empty array", "messages");
  const Json* system = given.Find("system");
  FD_ASSIGN_OR_RETURN(ChatMessages chat,
                      ToChatMessages(system != nullptr ? *system : Json(), messages->as_array()));
  if (use == MessagesUse::kCreate && chat.messages.back().Find("role")->as_string() == "assistant") {
    return Unimplemented(
        "messages: the last one is the assistant's, and going on with a begun answer is still to come in "
        "this "
        "server; end with a message of the user",
        "messages");
  }
  JsonObject fields;
  const std::vector<RequestField> known = FieldsOf(RequestKind::kChat);
  for (auto& [name, value] : given) {
    const bool ours = std::any_of(known.begin(), known.end(),
                                  [&, n = std::string_view(name)](const auto& f) { return n == f.name; });
    const bool ignored =
        std::find(out.ignored_fields.begin(), out.ignored_fields.end(), name) != out.ignored_fields.end();
    if (ours && !ignored && !IsTranslated(name)) fields.Set(name, std::move(value));
  }
  fields.Set("messages", Json(std::move(chat.messages)));
  if (!stop.is_null()) fields.Set("stop", std::move(stop));
  if (!tools.is_null()) fields.Set("tools", std::move(tools));
  if (!tool_choice.is_null()) fields.Set("tool_choice", std::move(tool_choice));
  if (thinking.enabled && fields.Find("enable_thinking") == nullptr) {
    fields.Set("enable_thinking", *thinking.enabled);
  }
  if (thinking.budget_tokens) fields.Set("reasoning_max_tokens", *thinking.budget_tokens);
  out.body = Json(std::move(fields));
  out.writer = MakeMessagesWriter({.places = std::move(chat.places),
                                   .max_tokens = max_tokens.value_or(0),
                                   .show_thinking = thinking.shown});
  return out;
}

}  // namespace fd
