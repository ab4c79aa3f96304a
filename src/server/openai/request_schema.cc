#include "server/openai/request_schema.h"

#include <algorithm>
#include <string_view>
#include <unordered_set>

#include "base/strings.h"
#include "base/suggestion.h"

namespace fd {
namespace {

// c: chat completions, t: text completions, k: tokenize, d: detokenize, a: abort, r: responses.
constexpr char kLetters[] = {'c', 't', 'k', 'd', 'a', 'r'};

constexpr RequestField kFields[] = {
    {"model", FieldType::kString, "ctkdr", "A name of /v1/models, or \"default\""},
    {"messages", FieldType::kArray, "ck", "The conversation"},
    {"prompt", FieldType::kAny, "tkr",
     "A text, texts, token ids or lists of them; tokenize: a text; responses: refused"},
    {"prompt_token_ids", FieldType::kArray, "ct", "The prompt as token ids, in place of the text"},
    {"tokens", FieldType::kArray, "d", "Token ids"},
    {"n", FieldType::kInteger, "ct", "Answers to each prompt"},
    {"best_of", FieldType::kInteger, "ct", "Only as many as n"},
    {"max_tokens", FieldType::kInteger, "ct", "Tokens of the answer at most"},
    {"max_completion_tokens", FieldType::kInteger, "ct", "The same under its newer name"},
    {"min_tokens", FieldType::kInteger, "ctr", "Tokens of the answer at least"},
    {"temperature", FieldType::kNumber, "ctr", "0: the likeliest token"},
    {"top_p", FieldType::kNumber, "ctr", "Share of probability to draw from"},
    {"top_k", FieldType::kInteger, "ctr", "Tokens to draw from; 0 or -1: all"},
    {"min_p", FieldType::kNumber, "ctr", "Least probability, as a share of the largest"},
    {"seed", FieldType::kInteger, "ctr", "The same seed gives the same answer"},
    {"frequency_penalty", FieldType::kNumber, "ctr", "Taken from a token's logit for each use"},
    {"presence_penalty", FieldType::kNumber, "ctr", "Taken from a token's logit once used"},
    {"repetition_penalty", FieldType::kNumber, "ctr", "Divides the logits of used tokens"},
    {"logit_bias", FieldType::kObject, "ctr", "Added to the logits of tokens, by id"},
    {"logits_processors_args", FieldType::kObject, "ctr", "FastDeploy's place for logit_bias"},
    {"bad_words", FieldType::kArray, "ctr", "Words that may not be said"},
    {"bad_words_token_ids", FieldType::kArray, "ctr", "Token ids that may not be said"},
    {"allowed_token_ids", FieldType::kArray, "ctr", "Token ids that alone may be said"},
    {"stop", FieldType::kAny, "ctr", "A text or texts that end the answer"},
    {"stop_token_ids", FieldType::kArray, "ctr", "Token ids that end the answer"},
    {"include_stop_str_in_output", FieldType::kBoolean, "ctr", "Keeps the stop text in the answer"},
    {"ignore_eos", FieldType::kBoolean, "ctr", "Goes on after the end token"},
    {"skip_special_tokens", FieldType::kBoolean, "ctdr", "Leaves special tokens out of the text"},
    {"logprobs", FieldType::kAny, "ct", "Log-probabilities of the answer's tokens"},
    {"top_logprobs", FieldType::kInteger, "ctr", "Alternatives for each token"},
    {"return_tokens_as_token_ids", FieldType::kBoolean, "ct", "Log-probabilities name tokens as token_id:7"},
    {"prompt_logprobs", FieldType::kInteger, "ct", "Log-probabilities of the prompt's tokens: how many likeliest"},
    {"include_draft_logprobs", FieldType::kBoolean, "ct", "FastDeploy's log-probabilities of drafts"},
    {"temp_scaled_logprobs", FieldType::kBoolean, "ct", "Log-probabilities after the temperature"},
    {"top_p_normalized_logprobs", FieldType::kBoolean, "ct", "Log-probabilities within top_p"},
    {"stream", FieldType::kBoolean, "ctr", "Server-sent events in place of one reply"},
    {"stream_options", FieldType::kObject, "ctr",
     "include_usage, continuous_usage_stats; responses: include_obfuscation"},
    {"max_streaming_response_tokens", FieldType::kInteger, "ctr", "Tokens of an event at most"},
    {"return_token_ids", FieldType::kBoolean, "ct", "Adds the ids of prompt and answer"},
    {"echo", FieldType::kBoolean, "t", "Puts the prompt before the answer"},
    {"suffix", FieldType::kAny, "t", "Text that follows the answer"},
    {"tools", FieldType::kArray, "ckr", "Functions that the model may call"},
    {"tool_choice", FieldType::kAny, "cr", "Which function is to be called"},
    {"parallel_tool_calls", FieldType::kBoolean, "cr", "Only true: as many calls as the model makes"},
    {"functions", FieldType::kArray, "c", "The older name of tools"},
    {"function_call", FieldType::kAny, "c", "The older name of tool_choice"},
    {"response_format", FieldType::kObject, "ct", "The form of the answer"},
    {"guided_json", FieldType::kAny, "ctr", "A JSON schema that the answer follows"},
    {"guided_regex", FieldType::kString, "ctr", "A regular expression that the answer follows"},
    {"guided_choice", FieldType::kArray, "ctr", "Texts of which the answer is one"},
    {"guided_grammar", FieldType::kString, "ctr", "A grammar that the answer follows"},
    {"structural_tag", FieldType::kAny, "ctr", "Tags whose contents follow a schema"},
    {"chat_template", FieldType::kString, "ckr", "The request's own template, where the server allows it"},
    {"chat_template_kwargs", FieldType::kObject, "ckr", "Variables of the template"},
    {"disable_chat_template", FieldType::kBoolean, "cr", "The first message's text is the whole prompt"},
    {"add_generation_prompt", FieldType::kBoolean, "ckr", "Ends the prompt where the answer begins"},
    {"continue_final_message", FieldType::kBoolean, "ckr", "Goes on with the last message"},
    {"documents", FieldType::kArray, "crk", "Documents for a template that reads them"},
    {"enable_thinking", FieldType::kBoolean, "ckr", "Whether the model thinks first"},
    {"reasoning_max_tokens", FieldType::kInteger, "cr", "Tokens of thought at most"},
    {"response_max_tokens", FieldType::kInteger, "cr", "Tokens after the thought at most"},
    {"completion_token_ids", FieldType::kArray, "c", "Token ids that the answer has begun with already"},
    {"truncate_prompt_tokens", FieldType::kInteger, "ct", "The prompt's last so many tokens; -1: as many as fit"},
    {"mm_processor_kwargs", FieldType::kObject, "ctkr", "How pictures and videos are prepared"},
    {"mm_hashes", FieldType::kArray, "c", "Names of media that the server may know"},
    {"modalities", FieldType::kArray, "c", "Only [\"text\"]"},
    {"audio", FieldType::kObject, "c", "Sound is not made"},
    {"metadata", FieldType::kObject, "ctr", "Notes; fields of requests in it count, unless their values are strings"},
    {"extra_body", FieldType::kObject, "ct", "Fields in it count as if they stood beside it"},
    {"priority", FieldType::kInteger, "ct", "Lower ones leave the queue earlier; 0"},
    {"timeout", FieldType::kNumber, "ct", "Seconds for the whole request; then 408, or an error in the stream"},
    {"user", FieldType::kString, "ctr", "Stands in the reply's id"},
    {"request_id", FieldType::kString, "ctr", "The reply's id"},
    {"trace_context", FieldType::kAny, "ctr", "Taken without effect"},
    {"cache_salt", FieldType::kString, "ct", "There is no prefix cache yet; taken without effect"},
    {"vllm_xargs", FieldType::kObject, "ct", "Taken without effect"},
    {"spaces_between_special_tokens", FieldType::kBoolean, "ct", "Texts have no such spaces; taken without effect"},
    {"kv_transfer_params", FieldType::kObject, "ct", "Only null"},
    {"length_penalty", FieldType::kNumber, "ct", "Only 1"},
    {"use_beam_search", FieldType::kBoolean, "ct", "Only false"},
    {"early_stopping", FieldType::kBoolean, "ct", "Only false"},
    {"detokenize", FieldType::kBoolean, "ct", "Only true"},
    {"disaggregate_info", FieldType::kObject, "ct", "Of separate prefill and decode instances"},
    {"collect_metrics", FieldType::kBoolean, "ct", "Times of this request in the reply"},
    {"store", FieldType::kBoolean, "ctr", "Nothing is stored; taken without effect"},
    {"service_tier", FieldType::kString, "ctr", "Taken without effect"},
    {"safety_identifier", FieldType::kString, "ctr", "Taken without effect"},
    {"prompt_cache_key", FieldType::kString, "ctr", "Taken without effect"},
    {"add_special_tokens", FieldType::kBoolean, "k", "With the tokens that begin a text; true"},
    {"return_token_strs", FieldType::kBoolean, "k", "Adds the text of each token"},
    {"input", FieldType::kAny, "r", "The conversation: a text or items"},
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
    {"context_management", FieldType::kArray, "r", "Refused: conversations are not compacted"},
    {"moderation", FieldType::kObject, "r", "Refused: there is no moderation model"},
    {"prompt_cache_retention", FieldType::kString, "r", "Taken without effect"},
    {"prompt_cache_options", FieldType::kObject, "r", "Taken without effect"},
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
