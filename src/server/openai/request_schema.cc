#include "server/openai/request_schema.h"

#include <algorithm>
#include <string_view>
#include <unordered_set>

#include "base/strings.h"
#include "base/suggestion.h"

namespace fd {
namespace {

// c: chat completions, t: text completions, k: tokenize, d: detokenize, a: abort, r: responses, m: messages
// and their count, e: embeddings, p: pooling. In the order of RequestKind.
constexpr char kLetters[] = {'c', 't', 'k', 'd', 'a', 'r', 'm', 'e', 'p'};

constexpr RequestField kFields[] = {
    {"model", FieldType::kString, "ctkdrmep", "A name of /v1/models, or \"default\""},
    {"messages", FieldType::kArray, "ckmep", "The conversation"},
    {"prompt", FieldType::kAny, "tkr",
     "A text, texts, token ids or lists of them; tokenize: a text; responses: refused"},
    {"prompt_token_ids", FieldType::kArray, "ct", "The prompt as token ids, in place of the text"},
    {"tokens", FieldType::kArray, "d", "Token ids"},
    {"n", FieldType::kInteger, "ct", "Answers to each prompt"},
    {"best_of", FieldType::kInteger, "ct", "Only as many as n"},
    {"max_tokens", FieldType::kInteger, "ctm", "Tokens of the answer at most"},
    {"max_completion_tokens", FieldType::kInteger, "ct", "The same under its newer name"},
    {"min_tokens", FieldType::kInteger, "ctrm", "Tokens of the answer at least"},
    {"temperature", FieldType::kNumber, "ctrm", "0: the likeliest token"},
    {"top_p", FieldType::kNumber, "ctrm", "Share of probability to draw from"},
    {"top_k", FieldType::kInteger, "ctrm", "Tokens to draw from; 0 or -1: all"},
    {"min_p", FieldType::kNumber, "ctrm", "Least probability, as a share of the largest"},
    {"seed", FieldType::kInteger, "ctrm", "The same seed gives the same answer"},
    {"frequency_penalty", FieldType::kNumber, "ctrm", "Taken from a token's logit for each use"},
    {"presence_penalty", FieldType::kNumber, "ctrm", "Taken from a token's logit once used"},
    {"repetition_penalty", FieldType::kNumber, "ctrm", "Divides the logits of used tokens"},
    {"logit_bias", FieldType::kObject, "ctrm", "Added to the logits of tokens, by id"},
    {"logits_processors_args", FieldType::kObject, "ctrm", "FastDeploy's place for logit_bias"},
    {"bad_words", FieldType::kArray, "ctrm", "Words that may not be said"},
    {"bad_words_token_ids", FieldType::kArray, "ctrm", "Token ids that may not be said"},
    {"allowed_token_ids", FieldType::kArray, "ctrm", "Token ids that alone may be said"},
    {"stop", FieldType::kAny, "ctr", "A text or texts that end the answer"},
    {"stop_token_ids", FieldType::kArray, "ctrm", "Token ids that end the answer"},
    {"include_stop_str_in_output", FieldType::kBoolean, "ctrm", "Keeps the stop text in the answer"},
    {"ignore_eos", FieldType::kBoolean, "ctrm", "Goes on after the end token"},
    {"skip_special_tokens", FieldType::kBoolean, "ctdrm", "Leaves special tokens out of the text"},
    {"logprobs", FieldType::kAny, "ct", "Log-probabilities of the answer's tokens"},
    {"top_logprobs", FieldType::kInteger, "ctr", "Alternatives for each token"},
    {"return_tokens_as_token_ids", FieldType::kBoolean, "ct", "Log-probabilities name tokens as token_id:7"},
    {"prompt_logprobs", FieldType::kInteger, "ct",
     "Log-probabilities of the prompt's tokens: how many likeliest"},
    {"include_draft_logprobs", FieldType::kBoolean, "ct", "FastDeploy's log-probabilities of drafts"},
    {"temp_scaled_logprobs", FieldType::kBoolean, "ctr", "Log-probabilities after the temperature"},
    {"top_p_normalized_logprobs", FieldType::kBoolean, "ctr", "Log-probabilities within top_p"},
    {"stream", FieldType::kBoolean, "ctrm", "Server-sent events in place of one reply"},
    {"stream_options", FieldType::kObject, "ctr",
     "include_usage, continuous_usage_stats; responses: include_obfuscation"},
    {"max_streaming_response_tokens", FieldType::kInteger, "ctrm", "Tokens of an event at most"},
    {"return_token_ids", FieldType::kBoolean, "ct", "Adds the ids of prompt and answer"},
    {"echo", FieldType::kBoolean, "t", "Puts the prompt before the answer"},
    {"suffix", FieldType::kAny, "t", "Text that follows the answer"},
    {"tools", FieldType::kArray, "ckrm", "Functions that the model may call"},
    {"tool_choice", FieldType::kAny, "crm", "Which function is to be called"},
    {"parallel_tool_calls", FieldType::kBoolean, "cr", "Only true: as many calls as the model makes"},
    {"functions", FieldType::kArray, "c", "The older name of tools"},
    {"function_call", FieldType::kAny, "c", "The older name of tool_choice"},
    {"response_format", FieldType::kObject, "ct", "The form of the answer"},
    {"guided_json", FieldType::kAny, "ctrm", "A JSON schema that the answer follows"},
    {"guided_regex", FieldType::kString, "ctrm", "A regular expression that the answer follows"},
    {"guided_choice", FieldType::kArray, "ctrm", "Texts of which the answer is one"},
    {"guided_grammar", FieldType::kString, "ctrm", "A grammar that the answer follows"},
    {"structural_tag", FieldType::kAny, "ctrm", "Tags whose contents follow a schema"},
    {"chat_template", FieldType::kString, "ckrep", "The request's own template, where the server allows it"},
    {"chat_template_kwargs", FieldType::kObject, "ckrmep", "Variables of the template"},
    {"disable_chat_template", FieldType::kBoolean, "cr", "The first message's text is the whole prompt"},
    {"add_generation_prompt", FieldType::kBoolean, "ckrep", "Ends the prompt where the answer begins"},
    {"continue_final_message", FieldType::kBoolean, "ckrep", "Goes on with the last message"},
    {"documents", FieldType::kArray, "crkm", "Documents for a template that reads them"},
    {"enable_thinking", FieldType::kBoolean, "ckrmep", "Whether the model thinks first"},
    {"reasoning_max_tokens", FieldType::kInteger, "crm", "Tokens of thought at most"},
    {"response_max_tokens", FieldType::kInteger, "crm", "Tokens after the thought at most"},
    {"completion_token_ids", FieldType::kArray, "c", "Token ids that the answer has begun with already"},
    {"truncate_prompt_tokens", FieldType::kInteger, "ctrmep",
     "The prompt's last so many tokens; -1: as many as fit; embeddings: of each input"},
    {"mm_processor_kwargs", FieldType::kObject, "ctkrmep", "How pictures and videos are prepared"},
    {"mm_hashes", FieldType::kArray, "c", "Names of media that the server may know"},
    {"modalities", FieldType::kArray, "c", "Only [\"text\"]"},
    {"audio", FieldType::kObject, "c", "Sound is not made"},
    {"metadata", FieldType::kObject, "ctrmep",
     "Notes; fields of requests in it count unless their values are strings; messages: notes alone"},
    {"extra_body", FieldType::kObject, "ct", "Fields in it count as if they stood beside it"},
    {"user", FieldType::kString, "ctrep", "Stands in the reply's id"},
    {"request_id", FieldType::kString, "ctrmep", "The reply's id"},
    {"trace_context", FieldType::kAny, "ctr", "Taken without effect"},
    {"cache_salt", FieldType::kString, "ctrm", "Only requests of the same salt share cached prefixes"},
    {"vllm_xargs", FieldType::kObject, "ct", "Taken without effect"},
    {"spaces_between_special_tokens", FieldType::kBoolean, "ct",
     "Texts have no such spaces; taken without effect"},
    {"kv_transfer_params", FieldType::kObject, "ct", "Only null"},
    {"length_penalty", FieldType::kNumber, "ct", "Only 1"},
    {"use_beam_search", FieldType::kBoolean, "ct", "Only false"},
    {"early_stopping", FieldType::kBoolean, "ct", "Only false"},
    {"detokenize", FieldType::kBoolean, "ct", "Only true"},
    {"disaggregate_info", FieldType::kObject, "ct", "Of separate prefill and decode instances"},
    {"collect_metrics", FieldType::kBoolean, "ct", "Times of this request in the reply"},
    {"store", FieldType::kBoolean, "ctr", "Nothing is stored; taken without effect"},
    {"service_tier", FieldType::kString, "ctrm", "Taken without effect"},
    {"safety_identifier", FieldType::kString, "ctr", "Taken without effect"},
    {"prompt_cache_key", FieldType::kString, "ctr", "Taken without effect"},
    {"system", FieldType::kAny, "m", "A text or text blocks before the conversation"},
    {"stop_sequences", FieldType::kArray, "m", "Texts that end the answer"},
    {"thinking", FieldType::kObject, "m", "Whether the model thinks first, and its budget_tokens"},
    {"cache_control", FieldType::kObject, "m", "Prefixes are kept anyway; taken without effect"},
    {"output_config", FieldType::kObject, "m", "effort has no effect; format is still to come"},
    {"output_format", FieldType::kAny, "m", "The form of the answer; still to come"},
    {"inference_geo", FieldType::kString, "m", "Taken without effect"},
    {"speed", FieldType::kString, "m", "Taken without effect"},
    {"diagnostics", FieldType::kObject, "m", "Taken without effect"},
    {"container", FieldType::kAny, "m", "No code is run for the model"},
    {"mcp_servers", FieldType::kArray, "m", "No tools are called by the server"},
    {"context_management", FieldType::kAny, "rm", "Refused: conversations are neither edited nor compacted"},
    {"add_special_tokens", FieldType::kBoolean, "kep", "With the tokens that begin a text; true"},
    {"return_token_strs", FieldType::kBoolean, "k", "Adds the text of each token"},
    {"input", FieldType::kAny, "rep", "A text, texts, token ids or lists of them"},
    {"instructions", FieldType::kString, "r", "What the system says first"},
    {"max_output_tokens", FieldType::kInteger, "r", "Tokens of the answer at most, thoughts included"},
    {"include", FieldType::kArray, "r", "message.output_text.logprobs; the rest is taken without effect"},
    {"reasoning", FieldType::kObject, "r", "effort none or minimal: no thought; the others: a thought first"},
    {"text", FieldType::kObject, "r", "format: only text; verbosity without effect"},
    {"truncation", FieldType::kString, "r", "Only disabled"},
    {"max_tool_calls", FieldType::kInteger, "r", "Of built-in tools, so without effect"},
    {"previous_response_id", FieldType::kString, "r", "Refused: nothing is stored"},
    {"conversation", FieldType::kAny, "r", "Refused: nothing is stored"},
    {"background", FieldType::kBoolean, "r", "Only false: nothing is stored"},
    {"moderation", FieldType::kObject, "r", "Refused: there is no moderation model"},
    {"prompt_cache_retention", FieldType::kString, "r", "Taken without effect"},
    {"prompt_cache_options", FieldType::kObject, "r", "Taken without effect"},
    {"encoding_format", FieldType::kString, "ep", "float: numbers; base64: little-endian float32"},
    {"dimensions", FieldType::kInteger, "ep", "Values of an embedding, where the model was made for it"},
    {"normalize", FieldType::kBoolean, "ep", "To length 1; the server's --pooler-config where absent"},
    {"priority", FieldType::kInteger, "ctrmep",
     "Lower ones leave the queue earlier; 0; embeddings: without effect"},
    {"timeout", FieldType::kNumber, "ctrm",
     "Seconds for the whole request; then 408, or an error in the stream"},
    {"embed_dtype", FieldType::kString, "ep", "Only float32"},
    {"endianness", FieldType::kString, "ep", "Only native or little"},
    {"task", FieldType::kString, "p", "Only embed"},
    {"abort_all", FieldType::kBoolean, "a", "Ends every request"},
    {"req_ids", FieldType::kArray, "a", "Ids of replies, or x-request-id of requests"},
};

}  // namespace

char LetterOf(RequestKind kind) { return kLetters[static_cast<size_t>(kind)]; }

namespace {

bool Knows(const RequestField& field, RequestKind kind) {
  return std::string_view(field.kinds).find(LetterOf(kind)) != std::string_view::npos;
}

const std::unordered_set<std::string_view>& Names(RequestKind kind) {
  static const std::vector<std::unordered_set<std::string_view>> sets = [] {
    std::vector<std::unordered_set<std::string_view>> made(std::size(kLetters));
    for (size_t k = 0; k < made.size(); ++k) {
      for (const RequestField& field : kFields) {
        if (Knows(field, static_cast<RequestKind>(k))) made[k].insert(field.name);
      }
    }
    return made;
  }();
  return sets[static_cast<size_t>(kind)];
}

// What stands in a header or a message.
std::string SafeName(const std::string& name) {
  constexpr size_t kMaxNameBytes = 64;
  if (name.empty()) return "?";
  std::string out = name.substr(0, kMaxNameBytes);
  for (char& c : out) {
    const char lower = LowerAscii(c);
    const bool plain =
        (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
    if (!plain) c = '?';
  }
  return out;
}

}  // namespace

std::vector<RequestField> FieldsOf(RequestKind kind) {
  std::vector<RequestField> fields;
  for (const RequestField& field : kFields) {
    if (Knows(field, kind)) fields.push_back(field);
  }
  return fields;
}

std::vector<std::string> UnknownFields(RequestKind kind, const JsonObject& body) {
  std::vector<std::string> unknown;
  for (const JsonMember& member : body) {
    if (!Names(kind).contains(member.first)) unknown.push_back(member.first);
  }
  return unknown;
}

Status RefuseUnknownFields(RequestKind kind, const std::vector<std::string>& unknown) {
  if (unknown.empty()) return OkStatus();
  const std::string name = SafeName(unknown.front());
  const std::vector<std::string> known(Names(kind).begin(), Names(kind).end());
  const std::string near = DidYouMean(name, known);
  return InvalidArgument(
      StrCat("unknown field ", name, near.empty() ? std::string() : StrCat("; did you mean ", near, "?"),
             " The server refuses unknown fields (--strict-requests)"),
      name);
}

std::string IgnoredHeader(const std::vector<std::string>& unknown) {
  constexpr size_t kMaxNames = 16;
  std::vector<std::string> names;
  for (size_t i = 0; i < std::min(unknown.size(), kMaxNames); ++i) names.push_back(SafeName(unknown[i]));
  std::string out = Join(names, ", ");
  if (unknown.size() > kMaxNames) out += StrCat(", and ", unknown.size() - kMaxNames, " more");
  return out;
}

}  // namespace fd
