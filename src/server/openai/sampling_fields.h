// Request fields that change logits or ask for log-probabilities. Internal to this folder. Pure functions.
#pragma once

#include "base/json.h"
#include "base/status.h"
#include "server/openai/generation.h"
#include "server/openai/request.h"
#include "server/openai/service.h"

namespace fd {

// Penalties, logit_bias, bad_words, allowed_token_ids, min_tokens, logprobs into out.sampling; max_tokens is
// read already. Every refusal names the field, what came and what is allowed.
Status ReadSamplingControls(const Service& service, ApiEndpoint endpoint, const JsonObject& body,
                            RequestFields& out);

// A completion that asks for its prompt alone may say max_tokens 0.
bool MayDrawNothing(ApiEndpoint endpoint, const JsonObject& body);

// Whether log-probabilities of so many prompt tokens, all choices together, are within the limit.
Status CheckPromptLogprobs(const Service& service, const RequestFields& fields, int64_t prompt_tokens);

}  // namespace fd
