#include "server/http/openapi_requests.h"

#include <string_view>
#include <utility>

#include "base/check.h"
#include "base/strings.h"

namespace fd {
namespace {

struct FieldShape {
  const char* name;
  const char*
      kinds;  // letters as in request_schema.cc; "": all that know the field and have no line of their own
  const char* fragment;  // laid over the field's type; a null takes a key away
};

// What is only taken without effect is not looked at.
constexpr const char* kUnread = R"({"type":null})";
constexpr const char* kNever = R"({"type":"null"})";  // refused, whatever it is

constexpr FieldShape kShapes[] = {
    {"model", "", R"({"maxLength":512})"},
    {"messages", "", R"({"minItems":1,"maxItems":"$max_messages","items":{"$ref":"#ChatMessage"}})"},
    {"messages", "m", R"({"type":"array","minItems":1,"items":{"$ref":"#MessageTurn"}})"},
    {"max_tokens", "m", R"({"type":"integer","minimum":1,"maximum":"$max_model_len"})"},
    {"metadata", "m", R"({"properties":{"user_id":{"type":["string","null"]}}})"},
    {"system", "",
     R"({"anyOf":[{"type":["string","null"]},{"type":"array","items":{"$ref":"#TextBlock"}}]})"},
    {"stop_sequences", "", R"({"maxItems":"$max_stop_strings","items":{"type":"string","minLength":1}})"},
    {"thinking", "", R"({"required":["type"],"properties":{"type":{"enum":["enabled","disabled","adaptive"]},
       "budget_tokens":{"type":["integer","null"]}}})"},
    {"tool_choice", "m", R"({"type":["object","null"],"required":["type"],"properties":{
       "type":{"enum":["auto","none"]}}})"},
    {"output_format", "", kNever},
    {"container", "", kNever},
    {"mcp_servers", "", R"({"maxItems":0})"},
    {"context_management", "m", kNever},
    {"input", "ep", R"({"anyOf":[{"type":"string","minLength":1},
       {"type":"array","minItems":1,"items":{"type":"string","minLength":1}},
       {"type":"array","minItems":1,"items":{"$ref":"#TokenId"}},
       {"type":"array","minItems":1,"items":{"type":"array","minItems":1,"items":{"$ref":"#TokenId"}}},
       {"type":"null"}]})"},
    {"encoding_format", "", R"({"enum":["float","base64",null]})"},
    {"dimensions", "", R"({"minimum":1})"},
    {"embed_dtype", "", R"({"enum":["float32",null]})"},
    {"endianness", "", R"({"enum":["native","little",null]})"},
    {"task", "", R"({"enum":["embed",null]})"},
    {"prompt", "t", R"({"anyOf":[{"type":"string","minLength":1},
       {"type":"array","minItems":1,"maxItems":"$max_choices","items":{"type":"string","minLength":1}},
       {"type":"array","minItems":1,"items":{"$ref":"#TokenId"}},
       {"type":"array","minItems":1,"maxItems":"$max_choices",
        "items":{"type":"array","minItems":1,"items":{"$ref":"#TokenId"}}},
       {"type":"null"}]})"},
    {"prompt", "k", R"({"type":["string","null"]})"},
    {"prompt", "r", kNever},
    {"prompt_token_ids", "c", R"({"minItems":1,"items":{"$ref":"#TokenId"}})"},
    {"prompt_token_ids", "t", R"({"minItems":1,"maxItems":"$max_choices","items":{"anyOf":[
       {"$ref":"#TokenId"},{"type":"string"},{"type":"array","minItems":1,"items":{"$ref":"#TokenId"}}]}})"},
    {"tokens", "", R"({"type":"array","items":{"$ref":"#TokenId"}})"},
    {"n", "", R"({"minimum":1,"maximum":"$max_choices"})"},
    {"best_of", "", R"({"minimum":1,"maximum":"$max_choices"})"},
    {"max_tokens", "", R"({"minimum":1,"maximum":"$max_model_len"})"},
    {"max_tokens", "t", R"({"minimum":0,"maximum":"$max_model_len"})"},  // 0: only the prompt, with echo
    {"max_completion_tokens", "t", R"({"minimum":0,"maximum":"$max_model_len"})"},
    {"max_completion_tokens", "", R"({"minimum":1,"maximum":"$max_model_len"})"},
    {"max_output_tokens", "", R"({"minimum":1,"maximum":"$max_model_len"})"},
    {"min_tokens", "", R"({"minimum":0,"maximum":"$max_model_len"})"},
    {"temperature", "", R"({"minimum":0,"maximum":100})"},
    {"top_p", "", R"({"minimum":0,"maximum":1})"},
    {"top_k", "", R"({"minimum":-1,"maximum":2147483647})"},
    {"min_p", "", R"({"minimum":0,"maximum":1})"},
    {"seed", "", R"({"minimum":-9223372036854775808,"maximum":9223372036854775807})"},
    {"frequency_penalty", "", R"({"minimum":-2,"maximum":2})"},
    {"presence_penalty", "", R"({"minimum":-2,"maximum":2})"},
    {"repetition_penalty", "", R"({"exclusiveMinimum":0,"maximum":100})"},
    {"logit_bias", "", R"({"$ref":"#LogitBias","type":null})"},
    {"logits_processors_args", "",
     R"({"properties":{"logit_bias":{"$ref":"#LogitBias"}},"additionalProperties":false})"},
    {"bad_words", "", R"({"items":{"type":"string","minLength":1}})"},
    {"bad_words_token_ids", "", R"({"items":{"anyOf":[{"$ref":"#TokenId"},
       {"type":"array","minItems":1,"items":{"$ref":"#TokenId"}}]}})"},
    {"allowed_token_ids", "", R"({"minItems":1,"items":{"$ref":"#TokenId"}})"},
    {"stop", "", R"({"anyOf":[{"type":"string","minLength":1},
       {"type":"array","maxItems":"$max_stop_strings","items":{"type":"string","minLength":1}},
       {"type":"null"}]})"},
    {"stop_token_ids", "", R"({"maxItems":"$max_stop_token_ids","items":{"$ref":"#TokenId"}})"},
    {"logprobs", "c", R"({"type":["boolean","null"]})"},
    {"logprobs", "t", R"({"anyOf":[{"type":"integer","minimum":0,"maximum":"$max_logprobs"},
       {"const":false},{"type":"null"}]})"},
    {"top_logprobs", "cr", R"({"minimum":0,"maximum":"$max_logprobs"})"},
    {"top_logprobs", "t", R"({"enum":[0,null]})"},
    {"prompt_logprobs", "", R"({"minimum":0,"maximum":"$max_logprobs"})"},
    {"include_draft_logprobs", "", R"({"enum":[false,null]})"},
    {"temp_scaled_logprobs", "", R"({"enum":[false,null]})"},
    {"top_p_normalized_logprobs", "", R"({"enum":[false,null]})"},
    {"stream_options", "ct", R"({"properties":{"include_usage":{"type":["boolean","null"]},
       "continuous_usage_stats":{"type":["boolean","null"]}}})"},
    {"max_streaming_response_tokens", "", R"({"minimum":0})"},
    {"suffix", "", R"({"enum":["",null]})"},
    {"tools", "ck", R"({"maxItems":"$max_tools","items":{"$ref":"#ChatTool"}})"},
    {"tool_choice", "c", R"({"enum":["auto","none",null]})"},
    {"parallel_tool_calls", "", R"({"enum":[true,null]})"},
    {"functions", "", R"({"maxItems":0})"},
    {"function_call", "", R"({"enum":["auto","none",null]})"},
    {"response_format", "", R"({"properties":{"type":{"const":"text"}},"required":["type"]})"},
    {"guided_json", "", kNever},
    {"guided_regex", "", kNever},
    {"guided_choice", "", kNever},
    {"guided_grammar", "", kNever},
    {"structural_tag", "", kNever},
    {"chat_template_kwargs", "", R"({"properties":{"enable_thinking":{"type":["boolean","null"]},
       "options":{"type":["object","null"],
                  "properties":{"thinking_mode":{"type":["boolean","string","null"]}}}}})"},
    {"add_generation_prompt", "c", R"({"enum":[true,null]})"},
    {"continue_final_message", "", R"({"enum":[false,null]})"},
    {"documents", "", R"({"items":{"type":"object"}})"},
    {"reasoning_max_tokens", "", R"({"minimum":1})"},
    {"response_max_tokens", "", R"({"minimum":1,"maximum":"$max_model_len"})"},
    {"truncate_prompt_tokens", "", R"({"minimum":-1,"maximum":"$max_model_len"})"},
    {"timeout", "", R"({"minimum":0.001,"maximum":1000000})"},
    {"priority", "", R"({"minimum":-9223372036854775808,"maximum":9223372036854775807})"},
    {"cache_salt", "", R"({"minLength":1,"maxLength":4096})"},
    {"kv_transfer_params", "", kNever},
    {"length_penalty", "", R"({"enum":[1,null]})"},
    {"use_beam_search", "", R"({"enum":[false,null]})"},
    {"early_stopping", "", R"({"enum":[false,null]})"},
    {"detokenize", "", R"({"enum":[true,null]})"},
    {"completion_token_ids", "", R"({"items":{"$ref":"#TokenId"}})"},
    {"mm_processor_kwargs", "t", R"({"maxProperties":0})"},
    {"mm_hashes", "", R"({"maxItems":0})"},
    {"modalities", "", R"({"enum":[["text"],null]})"},
    {"audio", "", kNever},
    {"metadata", "ct", R"({"properties":{"enable_thinking":{"type":["boolean","null"]},
       "reasoning_max_tokens":{"type":["integer","null"],"minimum":1}},
       "additionalProperties":{"type":"string"}})"},
    {"metadata", "r", R"({"maxProperties":16,"propertyNames":{"maxLength":64},
       "additionalProperties":{"type":"string","maxLength":512}})"},
    {"user", "", R"({"maxLength":512,"pattern":"^[^\\u0000-\\u001f\\u007f]*$"})"},
    {"request_id", "", R"({"maxLength":512,"pattern":"^[^\\u0000-\\u001f\\u007f]*$"})"},
    {"trace_context", "", kUnread},
    {"disaggregate_info", "", R"({"maxProperties":0})"},
    {"collect_metrics", "", R"({"enum":[false,null]})"},
    {"store", "ct", kUnread},
    {"service_tier", "ct", kUnread},
    {"safety_identifier", "ct", kUnread},
    {"prompt_cache_key", "ct", kUnread},
    {"input", "r", R"({"anyOf":[{"type":"string","minLength":1},
       {"type":"array","minItems":1,"items":{"$ref":"#InputItem"}}]})"},
    {"reasoning", "", R"({"properties":{"effort":{"type":["string","null"]}}})"},
    {"text", "", R"({"properties":{"format":{"type":["object","null"],
       "properties":{"type":{"const":"text"}},"required":["type"]}}})"},
    {"truncation", "", R"({"enum":["disabled",null]})"},
    {"previous_response_id", "", kNever},
    {"conversation", "", kNever},
    {"background", "", R"({"enum":[false,null]})"},
    {"context_management", "r", kNever},
    {"moderation", "", kNever},
    {"req_ids", "", R"({"maxItems":4096,"items":{"type":"string"}})"},
};

// What a body must have, laid over its schema.
struct BodyShape {
  RequestKind kind;
  const char* fragment;
};

constexpr BodyShape kBodies[] = {
    {RequestKind::kChat, R"({"anyOf":[{"required":["messages"]},{"required":["prompt_token_ids"]}]})"},
    {RequestKind::kCompletions, R"({"anyOf":[{"required":["prompt"]},{"required":["prompt_token_ids"]}]})"},
    {RequestKind::kTokenize, R"({"anyOf":[{"required":["prompt"]},{"required":["messages"]}]})"},
    {RequestKind::kDetokenize, R"({"required":["tokens"]})"},
    {RequestKind::kAbort, R"({"anyOf":[{"required":["req_ids"]},{"required":["abort_all"]}]})"},
    {RequestKind::kResponses, R"({"required":["input"]})"},
    {RequestKind::kMessages, R"({"required":["messages","max_tokens"]})"},
    {RequestKind::kEmbeddings, R"({"anyOf":[{"required":["input"]},{"required":["messages"]}]})"},
    {RequestKind::kPooling, R"({"anyOf":[{"required":["input"]},{"required":["messages"]}]})"},
};

struct NamedFragment {
  const char* name;
  const char* fragment;
};

constexpr NamedFragment kParts[] = {
    {"TokenId", R"({"type":"integer","minimum":0,"maximum":"$last_token_id"})"},
    {"LogitBias", R"({"type":["object","null"],"propertyNames":{"pattern":"^[0-9]+$"},
       "additionalProperties":{"type":"number","minimum":-100,"maximum":100}})"},
    {"ChatMessage", R"({"type":"object","required":["role"],"anyOf":[
       {"required":["content"],
        "properties":{"role":{"enum":["system","developer","user","tool","assistant","bot"]},
                      "content":{"$ref":"#ChatContent"}}},
       {"required":["tool_calls"],
        "properties":{"role":{"enum":["assistant","bot"]},
                      "content":{"anyOf":[{"$ref":"#ChatContent"},{"type":"null"}]},
                      "tool_calls":{"type":"array","minItems":1,"items":{"$ref":"#ToolCallOfTurn"}}}}]})"},
    {"ChatContent", R"({"anyOf":[{"type":"string"},
       {"type":"array","items":{"$ref":"#ContentPart"}}]})"},
    {"ContentPart", R"({"anyOf":[
       {"type":"object","required":["type","text"],
        "properties":{"type":{"const":"text"},"text":{"type":"string"}}},
       {"type":"object","required":["type","image_url"],
        "properties":{"type":{"const":"image_url"},"image_url":{"$ref":"#MediaUrl"}}},
       {"type":"object","required":["type","video_url"],
        "properties":{"type":{"const":"video_url"},"video_url":{"$ref":"#MediaUrl"}}}]})"},
    {"MediaUrl", R"({"type":"object","required":["url"],
       "properties":{"url":{"type":"string","description":"data:, http:, https: or file:, as the server allows"}},
       "examples":[{"url":"data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="}]})"},
    {"ToolCallOfTurn", R"({"type":"object","required":["function"],"properties":{"id":{"type":"string"},
       "type":{"const":"function"},
       "function":{"type":"object","required":["name"],"properties":{"name":{"type":"string"},
         "arguments":{"type":"string","description":"JSON","examples":["{\"a\": 1}"]}}}}})"},
    {"ChatTool", R"({"type":"object","required":["type","function"],"properties":{"type":{"const":"function"},
       "function":{"type":"object","required":["name"],"properties":{"name":{"type":"string"},
         "description":{"type":"string"},"parameters":{"type":["object","null"]}}}}})"},
    {"TextBlock", R"({"type":"object","required":["type","text"],"properties":{"type":{"const":"text"},
       "text":{"type":"string"}}})"},
    {"MessageTurn", R"({"type":"object","required":["role","content"],"properties":{
       "role":{"enum":["user","assistant"]},
       "content":{"anyOf":[{"type":"string"},{"type":"array","items":{"type":"object","required":["type"],
         "properties":{"type":{"enum":["text","image","tool_use","tool_result","thinking"]}},
         "examples":[{"type":"text","text":"Hello"}]}}]}}})"},
    {"InputItem", R"({"type":"object","properties":{"type":{"type":"string"},"role":{"type":"string"}},
       "examples":[{"role":"user","content":"Hello"}]})"},
};

Json TypeOf(FieldType type) {
  const auto or_null = [](const char* name) { return Json(JsonArray{name, "null"}); };
  switch (type) {
    case FieldType::kString:
      return or_null("string");
    case FieldType::kInteger:
      return or_null("integer");
    case FieldType::kNumber:
      return or_null("number");
    case FieldType::kBoolean:
      return or_null("boolean");
    case FieldType::kObject:
      return or_null("object");
    case FieldType::kArray:
      return or_null("array");
    case FieldType::kAny:
      break;
  }
  return Json();
}

const FieldShape* ShapeOfField(RequestKind kind, std::string_view name) {
  const FieldShape* found = nullptr;
  for (const FieldShape& shape : kShapes) {
    if (name != shape.name) continue;
    const std::string_view kinds = shape.kinds;
    if (kinds.find(LetterOf(kind)) != std::string_view::npos) return &shape;
    if (kinds.empty()) found = &shape;
  }
  return found;
}

void LayOver(const Json& fragment, JsonObject& schema) {
  for (const JsonMember& member : fragment.as_object()) {
    schema.Erase(member.first);
    if (!member.second.is_null()) schema.Set(member.first, member.second);
  }
}

Json BoundNamed(std::string_view name, const ApiBounds& bounds) {
  const std::pair<std::string_view, int64_t> all[] = {
      {"max_model_len", bounds.max_model_len},       {"last_token_id", bounds.vocab_size - 1},
      {"max_choices", bounds.max_choices},           {"max_logprobs", bounds.max_logprobs},
      {"max_messages", bounds.max_messages},         {"max_tools", bounds.max_tools},
      {"max_stop_strings", bounds.max_stop_strings}, {"max_stop_token_ids", bounds.max_stop_token_ids}};
  for (const auto& [known, value] : all) {
    if (known == name) return Json(value);
  }
  FD_CHECK(false, "no bound has this name: ", name);
  return Json();
}

void Expand(Json& value, const ApiBounds& bounds) {
  if (value.is_array()) {
    for (Json& element : value.as_array()) Expand(element, bounds);
  } else if (value.is_object()) {
    for (JsonMember& member : value.as_object()) {
      if (member.first == "$ref") {
        member.second = Json(StrCat("#/components/schemas/", member.second.as_string().substr(1)));
      } else {
        Expand(member.second, bounds);
      }
    }
  } else if (value.is_string() && value.as_string().starts_with('$')) {
    value = BoundNamed(std::string_view(value.as_string()).substr(1), bounds);
  }
}

}  // namespace

Json ParseFragment(const std::string& text, const ApiBounds& bounds) {
  StatusOr<Json> parsed = ParseJson(text);
  FD_CHECK(parsed.ok(), "a fragment of the schemas is no JSON: ", text);
  Expand(*parsed, bounds);
  return std::move(parsed).value();
}

Json RequestSchema(RequestKind kind, const ApiBounds& bounds) {
  JsonObject properties;
  for (const RequestField& field : FieldsOf(kind)) {
    JsonObject property;
    // Null counts as absent, so every field may be null.
    if (Json type = TypeOf(field.type); !type.is_null()) property.Set("type", std::move(type));
    if (field.type == FieldType::kArray) property.Set("items", JsonObject{});
    property.Set("description", field.meaning);
    if (const FieldShape* shape = ShapeOfField(kind, field.name)) {
      LayOver(ParseFragment(shape->fragment, bounds), property);
    }
    properties.Set(field.name, std::move(property));
  }
  JsonObject schema{{"type", "object"}, {"properties", std::move(properties)}};
  for (const BodyShape& body : kBodies) {
    if (body.kind == kind) LayOver(ParseFragment(body.fragment, bounds), schema);
  }
  return schema;
}

JsonObject RequestParts(const ApiBounds& bounds) {
  JsonObject parts;
  for (const NamedFragment& part : kParts) parts.Set(part.name, ParseFragment(part.fragment, bounds));
  return parts;
}

}  // namespace fd
