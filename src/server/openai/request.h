// A request's JSON, field by field, into plain structs. Internal to this folder; generation.h is the door.
// Pure functions on a worker thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "engine/plan/request.h"
#include "server/multimodal/media_loader.h"
#include "server/multimodal/processor.h"
#include "server/openai/generation.h"
#include "server/openai/service.h"

namespace fd {

// Everything but the prompt.
struct RequestFields {
  std::string model;  // the name for the reply
  std::string request_id;
  std::string user;
  int64_t n = 1;
  SamplingParams sampling;  // seed and max_tokens are set per choice
  std::optional<uint64_t> seed;
  std::optional<int64_t> max_tokens;
  std::optional<int64_t> reasoning_max_tokens;
  std::vector<std::string> stop;
  bool include_stop = false;
  bool skip_special_tokens = true;
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;
  bool return_token_ids = false;
  int64_t tokens_per_chunk = 1;
  bool echo = false;  // completions
  int64_t priority = 0;
  std::string cache_salt;
  std::optional<double> timeout_s;
  std::optional<int64_t> response_max_tokens;
  bool tokens_as_ids = false;  // log-probabilities name tokens by id
  // Of the reply's prompt_logprobs; -1: not asked for. sampling.prompt_logprobs has what echo needs too.
  int32_t prompt_logprobs = -1;
};

// One prompt. Without media it is ready for the engine; with media, `expanded` is filled once they are
// loaded.
struct Prompt {
  ExpandedPrompt expanded;
  SectionedPrompt sections;           // with media
  std::vector<MediaSpec> media;       // in order of appearance
  std::string text;                   // what echo gives back; of a completion empty without echo
  std::vector<int32_t> begun_answer;  // completion_token_ids; put behind the prompt once it is expanded
  ReasoningStart reasoning = ReasoningStart::kAnswer;
  bool parse_tools = false;  // calls become tool_calls
};

// Checks every field that is not part of the prompt, and refuses by name what is still to come.
StatusOr<RequestFields> ReadFields(const Service& service, ApiEndpoint endpoint, const JsonObject& body);

// model, user and request_id.
Status ReadNames(const Service& service, const JsonObject& body, RequestFields& out);

// The model that a request names, as the reply names it; an error for a name that this server does not have.
StatusOr<std::string> ReadModelName(const Service& service, const JsonObject& body);

struct ChatPromptOptions {
  bool add_generation_prompt = true;
  bool check_length =
      true;  // against what leaves room for an answer; pictures are checked by the caller anyway
};
// messages (or prompt_token_ids), tools, chat_template_kwargs, mm_processor_kwargs. Moves the media URLs out
// of `body`; nothing is fetched or decoded.
StatusOr<Prompt> ReadChatPrompt(const Service& service, JsonObject& body,
                                const ChatPromptOptions& options = {});

// prompt: a string, strings, token ids, or lists of them (or prompt_token_ids). Prompt::text, for which ids
// are decoded, only when asked for.
StatusOr<std::vector<Prompt>> ReadCompletionPrompts(const Service& service, const JsonObject& body,
                                                    bool with_text);

}  // namespace fd
