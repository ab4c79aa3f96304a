// Fields that vLLM's and FastDeploy's clients send besides OpenAI's: where they may stand, and what they ask
// of the queue, the prompt and the reply. Internal to this folder. Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "server/openai/request.h"
#include "server/openai/request_schema.h"
#include "server/openai/service.h"

namespace fd {

// Lifts fields out of the places where clients put what their library does not know: the members of
// "extra_body" (an object that was meant for the library), then those of "metadata" that FastDeploy reads:
// fields that this kind of request knows, with values that are no strings (OpenAI's own notes are strings). A
// field that stands at the top already stays. "extra_body" is gone afterwards.
Status MergeExtraPlaces(RequestKind kind, JsonObject& body);

// priority, timeout, response_max_tokens, return_tokens_as_token_ids into out; the types of those that have
// no effect here.
Status ReadExtras(const Service& service, const JsonObject& body, RequestFields& out);

// truncate_prompt_tokens: the last so many tokens of a prompt without media stay, and the text that belongs
// to them; -1: what leaves room for max_tokens.
Status TruncatePrompt(const Service& service, const JsonObject& body, Prompt* prompt);
// For prompts that cannot be cut: refuses the field by name.
Status RefuseTruncation(const JsonObject& body, const char* why);

// completion_token_ids: the beginning of the answer, as tokens; empty where there is none.
StatusOr<std::vector<int32_t>> ReadBegunAnswer(const Service& service, const JsonObject& body);
// Puts it behind the prompt, positions and experts of text included, and finds out whether the thought is
// still open. Refuses what leaves no room for a token.
Status AppendBegunAnswer(const Service& service, const std::vector<int32_t>& begun, Prompt* prompt);

}  // namespace fd
