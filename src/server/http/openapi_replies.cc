#include "server/http/openapi_replies.h"

#include <algorithm>

#include "server/http/openapi_requests.h"

namespace fd {
namespace {

constexpr const char* kJson = "application/json";

struct RouteReply {
  RouteKind kind;
  ReplyShape shape;
};

constexpr RouteReply kReplies[] = {
    {RouteKind::kChat, {"ChatCompletion", kJson, "ChatEvent"}},
    {RouteKind::kCompletions, {"Completion", kJson, "CompletionEvent"}},
    {RouteKind::kModels, {"ModelList", kJson, ""}},
    {RouteKind::kModel, {"Model", kJson, ""}},
    {RouteKind::kRender, {"RenderedChat", kJson, ""}},
    {RouteKind::kResponses, {"Response", kJson, "ResponseEvent"}},
    {RouteKind::kMessages, {"Message", kJson, "MessageEvent"}},
    {RouteKind::kCountMessagesTokens, {"InputTokens", kJson, ""}},
    {RouteKind::kEmbeddings, {"Embeddings", kJson, ""}},
    {RouteKind::kPooling, {"Pooled", kJson, ""}},
    {RouteKind::kTokenize, {"Tokens", kJson, ""}},
    {RouteKind::kDetokenize, {"Text", kJson, ""}},
    {RouteKind::kHealth, {"", "", ""}},
    {RouteKind::kLive, {"", "", ""}},
    {RouteKind::kLoad, {"Load", kJson, ""}},
    {RouteKind::kVersion, {"Version", kJson, ""}},
    {RouteKind::kConfigInfo, {"ConfigInfo", kJson, ""}},
    {RouteKind::kOpenApi, {"OpenApi", kJson, ""}},
    {RouteKind::kMetrics, {"MetricsText", "text/plain", ""}},
    {RouteKind::kAbort, {"Aborted", kJson, ""}},
    {RouteKind::kPause, {"Paused", kJson, ""}},
    {RouteKind::kResume, {"Paused", kJson, ""}},
    {RouteKind::kIsPaused, {"Paused", kJson, ""}},
};

struct NamedFragment {
  const char* name;
  const char* fragment;
};

constexpr NamedFragment kParts[] = {
    {"Count", R"({"type":"integer","minimum":0})"},
    {"TokenIds", R"({"type":"array","items":{"$ref":"#TokenId"}})"},
    {"Usage",
     R"({"type":"object","required":["prompt_tokens","completion_tokens","total_tokens"],"properties":{
       "prompt_tokens":{"$ref":"#Count"},"completion_tokens":{"$ref":"#Count"},"total_tokens":{"$ref":"#Count"},
       "prompt_tokens_details":{"type":"object","additionalProperties":{"$ref":"#Count"}},
       "completion_tokens_details":{"type":"object","additionalProperties":{"$ref":"#Count"}}}})"},
    {"ToolCall", R"({"type":"object","required":["id","type","function"],"properties":{"id":{"type":"string"},
       "type":{"const":"function"},"function":{"type":"object","required":["name","arguments"],
         "properties":{"name":{"type":"string"},"arguments":{"type":"string","description":"JSON"}}}}})"},
    {"TokenLogprob", R"({"type":"object","required":["token","logprob","bytes"],"properties":{
       "token":{"type":"string"},"logprob":{"type":"number","maximum":0},
       "bytes":{"type":"array","items":{"type":"integer","minimum":0,"maximum":255}},
       "top_logprobs":{"type":"array","maxItems":"$max_logprobs","items":{"$ref":"#TokenLogprob"}}}})"},
    {"ChatMessageOfReply", R"({"type":"object","required":["role","content"],"properties":{
       "role":{"const":"assistant"},"content":{"type":["string","null"]},
       "reasoning_content":{"type":["string","null"]},
       "tool_calls":{"anyOf":[{"type":"array","minItems":1,"items":{"$ref":"#ToolCall"}},{"type":"null"}]},
       "prompt_token_ids":{"$ref":"#TokenIds"},"completion_token_ids":{"$ref":"#TokenIds"}}})"},
    {"PromptLogprobs",
     R"({"type":"array","items":{"type":["object","null"],"additionalProperties":{"type":"object",
       "required":["logprob","rank","decoded_token"],"properties":{"logprob":{"type":"number","maximum":0},
       "rank":{"type":"integer","minimum":1},"decoded_token":{"type":"string"}}}}})"},
    {"ChatLogprobs", R"({"type":["object","null"],"required":["content"],"properties":{
       "content":{"type":"array","items":{"$ref":"#TokenLogprob"}},"refusal":{"type":"null"}}})"},
    {"ChatChoice",
     R"({"type":"object","required":["index","message","logprobs","finish_reason"],"properties":{
       "index":{"$ref":"#Count"},"message":{"$ref":"#ChatMessageOfReply"},
       "logprobs":{"$ref":"#ChatLogprobs"},
       "finish_reason":{"enum":["stop","length","tool_calls"]}}})"},
    {"ChatCompletion", R"({"type":"object","required":["id","object","created","model","choices","usage"],
       "properties":{"id":{"type":"string"},"object":{"const":"chat.completion"},
       "created":{"$ref":"#Count"},"model":{"type":"string"},"system_fingerprint":{"type":"string"},
       "choices":{"type":"array","minItems":1,"maxItems":"$max_choices","items":{"$ref":"#ChatChoice"}},
       "prompt_logprobs":{"$ref":"#PromptLogprobs"},"usage":{"$ref":"#Usage"}}})"},
    {"CompletionLogprobs",
     R"({"type":"object","required":["tokens","token_logprobs","top_logprobs","text_offset"],
       "properties":{"tokens":{"type":"array","items":{"type":"string"}},
       "token_logprobs":{"type":"array","items":{"type":["number","null"],"maximum":0}},
       "top_logprobs":{"type":["array","null"],"items":{"type":["object","null"],
         "additionalProperties":{"type":"number","maximum":0}}},
       "text_offset":{"type":"array","items":{"$ref":"#Count"}}}})"},
    {"CompletionChoice",
     R"({"type":"object","required":["index","text","logprobs","finish_reason"],"properties":{
       "index":{"$ref":"#Count"},"text":{"type":"string"},
       "logprobs":{"anyOf":[{"type":"null"},{"$ref":"#CompletionLogprobs"}]},
       "prompt_token_ids":{"$ref":"#TokenIds"},"completion_token_ids":{"$ref":"#TokenIds"},
       "prompt_logprobs":{"$ref":"#PromptLogprobs"},"finish_reason":{"enum":["stop","length"]}}})"},
    {"Completion", R"({"type":"object","required":["id","object","created","model","choices","usage"],
       "properties":{"id":{"type":"string"},"object":{"const":"text_completion"},
       "created":{"$ref":"#Count"},"model":{"type":"string"},"system_fingerprint":{"type":"string"},
       "choices":{"type":"array","minItems":1,"maxItems":"$max_choices","items":{"$ref":"#CompletionChoice"}},
       "usage":{"$ref":"#Usage"}}})"},
    {"Model", R"({"type":"object","required":["id","object","created","owned_by"],"properties":{
       "id":{"type":"string"},"object":{"const":"model"},"created":{"$ref":"#Count"},
       "owned_by":{"type":"string"},"root":{"type":"string"},"parent":{"type":"null"},
       "max_model_len":{"const":"$max_model_len"},"permission":{"type":"array"},
       "deterministic":{"type":"boolean"},"system_fingerprint":{"type":"string"}}})"},
    {"ModelList", R"({"type":"object","required":["object","data"],"properties":{"object":{"const":"list"},
       "data":{"type":"array","minItems":1,"items":{"$ref":"#Model"}}}})"},
    {"RenderedChat",
     R"({"type":"object","required":["id","object","model","prompt","token_ids","prompt_tokens",
       "max_tokens","image_tokens","video_tokens","media","max_model_len"],"properties":{"id":{"type":"string"},
       "object":{"const":"chat.completion.render"},"model":{"type":"string"},"prompt":{"type":"string"},
       "token_ids":{"$ref":"#TokenIds"},"prompt_tokens":{"$ref":"#Count"},"max_tokens":{"$ref":"#Count"},
       "image_tokens":{"$ref":"#Count"},"video_tokens":{"$ref":"#Count"},"max_model_len":{"$ref":"#Count"},
       "media":{"type":"array","items":{"type":"object","required":["first_token","num_tokens","grid"],
         "properties":{"first_token":{"$ref":"#Count"},"num_tokens":{"$ref":"#Count"},
         "grid":{"type":"array","minItems":3,"maxItems":3,"items":{"$ref":"#Count"}}}}}}})"},
    {"ResponseItem",
     R"({"type":"object","required":["id","type","status"],"properties":{"id":{"type":"string"},
       "type":{"enum":["reasoning","message","function_call"]},"status":{"enum":["completed","incomplete"]}},
       "anyOf":[
         {"required":["content","summary"],"properties":{"type":{"const":"reasoning"},
           "content":{"type":"array","items":{"type":"object","required":["type","text"],
             "properties":{"type":{"const":"reasoning_text"},"text":{"type":"string"}}}}}},
         {"required":["content","role"],"properties":{"type":{"const":"message"},"role":{"const":"assistant"},
           "content":{"type":"array","items":{"type":"object","required":["type","text","annotations","logprobs"],
             "properties":{"type":{"const":"output_text"},"text":{"type":"string"},
             "annotations":{"type":"array","maxItems":0},
             "logprobs":{"type":"array","items":{"$ref":"#TokenLogprob"}}}}}}},
         {"required":["call_id","name","arguments"],"properties":{"type":{"const":"function_call"},
           "call_id":{"type":"string"},"name":{"type":"string"},"arguments":{"type":"string"}}}]})"},
    {"Response",
     R"({"type":"object","required":["id","object","created_at","status","error","incomplete_details",
       "model","output","usage"],"properties":{"id":{"type":"string","pattern":"^resp_"},
       "object":{"const":"response"},"created_at":{"$ref":"#Count"},"completed_at":{"type":["integer","null"]},
       "status":{"enum":["completed","incomplete"]},"error":{"type":"null"},
       "incomplete_details":{"anyOf":[{"type":"null"},
         {"type":"object","required":["reason"],"properties":{"reason":{"const":"max_output_tokens"}}}]},
       "model":{"type":"string"},"output":{"type":"array","minItems":1,"items":{"$ref":"#ResponseItem"}},
       "usage":{"type":"object","required":["input_tokens","output_tokens","total_tokens"],"properties":{
         "input_tokens":{"$ref":"#Count"},"output_tokens":{"$ref":"#Count"},"total_tokens":{"$ref":"#Count"}}}}})"},
    {"MessageBlock", R"({"type":"object","required":["type"],"anyOf":[
       {"required":["thinking","signature"],"properties":{"type":{"const":"thinking"},
         "thinking":{"type":"string"},"signature":{"type":"string"}}},
       {"required":["text"],"properties":{"type":{"const":"text"},"text":{"type":"string","minLength":1}}},
       {"required":["id","name","input"],"properties":{"type":{"const":"tool_use"},"id":{"type":"string"},
         "name":{"type":"string"},"input":{"type":"object"}}}]})"},
    {"Message",
     R"({"type":"object","required":["id","type","role","model","content","stop_reason","stop_sequence",
       "usage"],"properties":{"id":{"type":"string","pattern":"^msg_"},"type":{"const":"message"},
       "role":{"const":"assistant"},"model":{"type":"string"},
       "content":{"type":"array","items":{"$ref":"#MessageBlock"}},
       "stop_reason":{"enum":["end_turn","max_tokens","stop_sequence","tool_use","model_context_window_exceeded"]},
       "stop_sequence":{"type":["string","null"]},
       "usage":{"type":"object","required":["input_tokens","output_tokens"],"properties":{
         "input_tokens":{"$ref":"#Count"},"output_tokens":{"$ref":"#Count"},
         "cache_creation_input_tokens":{"$ref":"#Count"},"cache_read_input_tokens":{"$ref":"#Count"}}}}})"},
    {"InputTokens", R"({"type":"object","required":["input_tokens"],"properties":{
       "input_tokens":{"$ref":"#Count"}}})"},
    {"Vector", R"({"anyOf":[{"type":"string","description":"base64 of little-endian float32"},
         {"type":"array","minItems":1,"items":{"type":"number"}}]})"},
    {"Embeddings",
     R"({"type":"object","required":["id","object","created","model","data","usage"],"properties":{
       "id":{"type":"string"},"object":{"const":"list"},"created":{"$ref":"#Count"},"model":{"type":"string"},
       "data":{"type":"array","minItems":1,"items":{"type":"object","required":["index","object","embedding"],
         "properties":{"index":{"$ref":"#Count"},"object":{"const":"embedding"},"embedding":{"$ref":"#Vector"}}}},
       "usage":{"type":"object","required":["prompt_tokens","total_tokens"],"properties":{
         "prompt_tokens":{"$ref":"#Count"},"total_tokens":{"$ref":"#Count"}}}}})"},
    {"Pooled", R"({"type":"object","required":["id","object","created","model","data","usage"],"properties":{
       "id":{"type":"string"},"object":{"const":"list"},"created":{"$ref":"#Count"},"model":{"type":"string"},
       "data":{"type":"array","minItems":1,"items":{"type":"object","required":["index","object","data"],
         "properties":{"index":{"$ref":"#Count"},"object":{"const":"pooling"},"data":{"$ref":"#Vector"}}}},
       "usage":{"type":"object","required":["prompt_tokens","total_tokens"],"properties":{
         "prompt_tokens":{"$ref":"#Count"},"total_tokens":{"$ref":"#Count"}}}}})"},
    {"Tokens", R"({"type":"object","required":["count","max_model_len","tokens"],"properties":{
       "count":{"$ref":"#Count"},"max_model_len":{"const":"$max_model_len"},"tokens":{"$ref":"#TokenIds"},
       "token_strs":{"type":"array","items":{"type":"string"}}}})"},
    {"Text", R"({"type":"object","required":["prompt"],"properties":{"prompt":{"type":"string"}}})"},
    {"Load",
     R"({"type":"object","required":["server_load","num_requests_running","num_requests_waiting","paused",
       "routes"],"properties":{"server_load":{"$ref":"#Count"},"num_requests_running":{"$ref":"#Count"},
       "num_requests_waiting":{"$ref":"#Count"},"paused":{"type":"boolean"},
       "routes":{"type":"array","items":{"type":"object","required":["path","methods","tags"],"properties":{
         "path":{"type":"string"},"methods":{"type":"array","items":{"type":"string"}},
         "tags":{"type":"array"}}}}}})"},
    {"Version", R"({"type":"object","required":["version"],"properties":{"version":{"type":"string"}}})"},
    {"ConfigInfo", R"({"type":"object"})"},
    {"OpenApi", R"({"type":"object","required":["openapi","info","paths","components"],"properties":{
       "openapi":{"const":"3.1.0"},"info":{"type":"object"},"paths":{"type":"object"},
       "components":{"type":"object"}}})"},
    {"MetricsText", R"({"type":"string","description":"Prometheus' text format"})"},
    {"Aborted", R"({"type":"object","required":["aborted","req_ids","not_found"],"properties":{
       "aborted":{"$ref":"#Count"},"req_ids":{"type":"array","items":{"type":"string"}},
       "not_found":{"type":"array","items":{"type":"string"}}}})"},
    {"Paused", R"({"type":"object","required":["is_paused"],"properties":{"is_paused":{"type":"boolean"}}})"},
    {"ChatDelta",
     R"({"type":"object","properties":{"role":{"const":"assistant"},"content":{"type":["string","null"]},
       "reasoning_content":{"type":["string","null"]},"prompt_token_ids":{"$ref":"#TokenIds"},
       "completion_token_ids":{"$ref":"#TokenIds"},
       "tool_calls":{"type":"array","minItems":1,"items":{"type":"object","required":["index","function"],
         "properties":{"index":{"$ref":"#Count"},"id":{"type":"string"},"type":{"const":"function"},
         "function":{"type":"object","required":["arguments"],"properties":{"name":{"type":"string"},
           "arguments":{"type":"string"}}}}}}}})"},
    {"ChatChunk", R"({"type":"object","required":["id","object","created","model","choices"],"properties":{
       "id":{"type":"string"},"object":{"const":"chat.completion.chunk"},"created":{"$ref":"#Count"},
       "model":{"type":"string"},"system_fingerprint":{"type":"string"},"usage":{"anyOf":[{"$ref":"#Usage"},{"type":"null"}]},
       "choices":{"type":"array","maxItems":1,"items":{"type":"object","required":["index","delta","finish_reason"],
         "properties":{"index":{"$ref":"#Count"},"delta":{"$ref":"#ChatDelta"},
         "logprobs":{"$ref":"#ChatLogprobs"},"finish_reason":{"enum":["stop","length","tool_calls",null]}}}}}})"},
    {"CompletionChunk",
     R"({"type":"object","required":["id","object","created","model","choices"],"properties":{
       "id":{"type":"string"},"object":{"const":"text_completion"},"created":{"$ref":"#Count"},
       "model":{"type":"string"},"system_fingerprint":{"type":"string"},"usage":{"anyOf":[{"$ref":"#Usage"},{"type":"null"}]},
       "choices":{"type":"array","maxItems":1,"items":{"type":"object","required":["index","text","finish_reason"],
         "properties":{"index":{"$ref":"#Count"},"text":{"type":"string"},
         "logprobs":{"anyOf":[{"type":"null"},{"$ref":"#CompletionLogprobs"}]},
         "finish_reason":{"enum":["stop","length",null]}}}}}})"},
    {"ChatEvent", R"({"type":"object","required":["data"],"properties":{"event":{"type":"string"},
       "data":{"type":"string"}},"anyOf":[{"properties":{"data":{"const":"[DONE]"}}},
         {"properties":{"data":{
         "contentMediaType":"application/json","contentSchema":{"anyOf":[{"$ref":"#ChatChunk"},{"$ref":"#Error"}]}}}}]})"},
    {"CompletionEvent", R"({"type":"object","required":["data"],"properties":{"event":{"type":"string"},
       "data":{"type":"string"}},"anyOf":[{"properties":{"data":{"const":"[DONE]"}}},
         {"properties":{"data":{
         "contentMediaType":"application/json","contentSchema":{"anyOf":[{"$ref":"#CompletionChunk"},{"$ref":"#Error"}]}}}}]})"},
    {"ResponseEvent", R"({"type":"object","required":["data"],"properties":{"event":{"type":"string"},
       "data":{"type":"string"}},"anyOf":[{"properties":{"data":{
         "contentMediaType":"application/json","contentSchema":{"type":"object",
         "required":["type","sequence_number"],"properties":{"type":{"type":"string","pattern":"^response\\.|^error$"},
  "sequence_number" : {"$ref" : "#Count"},
  "response" : {"type" : "object"}
}
}
}
}
}]
})"},
    {"MessageEvent", R"({"type":"object","required":["data"],"properties":{"event":{"type":"string"},
       "data":{"type":"string"}},"anyOf":[{"properties":{"data":{
         "contentMediaType":"application/json","contentSchema":{"type":"object",
         "required":["type"],"properties":{"type":{"enum":["message_start","content_block_start",
           "content_block_delta","content_block_stop","message_delta","message_stop","ping","error"]}}}}}}]})"},
    {"Error", R"({"type":"object","required":["error"],"properties":{"error":{"type":"object",
       "required":["message","type","param","code"],"properties":{"message":{"type":"string","minLength":1},
       "type":{"type":"string"},"param":{"type":["string","null"]},"code":{"type":["string","null"]}}}}})"},
    {"AnthropicError", R"({"type":"object","required":["type","error"],"properties":{"type":{"const":"error"},
       "error":{"type":"object","required":["type","message"],"properties":{
         "type":{"enum":["invalid_request_error","authentication_error","permission_error","not_found_error",
           "request_too_large","rate_limit_error","timeout_error","overloaded_error","api_error"]},
         "message":{"type":"string","minLength":1}}},"request_id":{"type":"string"}}})"},
};

}  // namespace

const ReplyShape* ReplyShapeOf(RouteKind kind) {
  for (const RouteReply& reply : kReplies) {
    if (reply.kind == kind) return &reply.shape;
  }
  return nullptr;
}

JsonObject ReplyParts(const ApiBounds& bounds) {
  JsonObject parts;
  for (const NamedFragment& part : kParts) parts.Set(part.name, ParseFragment(part.fragment, bounds));
  return parts;
}

std::vector<int> ErrorStatuses(const Route& route, const std::string& method) {
  // Of the head (400, 403, 431), of its body where it has one (408, 413, 415, 417), of a server that is full,
  // ends or failed (429, 500, 503).
  std::vector<int> statuses = {400, 403, 408, 413, 415, 417, 429, 431, 500, 503};
  if (route.access != Access::kPublic) statuses.push_back(401);
  const bool by_name = std::string(route.path).find('{') != std::string::npos;
  if (by_name || method == "post") statuses.push_back(404);  // a model or a thing of another name
  if (method == "post") statuses.push_back(411);
  std::sort(statuses.begin(), statuses.end());
  return statuses;
}

}  // namespace fd
