// /tokenize, /detokenize and /v1/abort_requests: JSON in, JSON or a plan out. Pure functions on a worker
// thread. The names are vLLM's, those of abort FastDeploy's.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "server/openai/service.h"

namespace fd {

// Either the reply, or a conversation that has to be rendered first.
struct TokenizeWork {
  std::string reply;
  std::optional<Json> chat;  // the body of a chat request
  bool token_strings = false;
  std::vector<std::string> ignored_fields;
};
StatusOr<TokenizeWork> Tokenize(const Service& service, std::string_view body);
// {"count", "max_model_len", "tokens", "token_strs" (where asked for)}
std::string TokensJson(const Service& service, const std::vector<int32_t>& token_ids, bool token_strings);

struct DetokenizeReply {
  std::string json;  // {"prompt"}
  std::vector<std::string> ignored_fields;
};
StatusOr<DetokenizeReply> Detokenize(const Service& service, std::string_view body);

struct AbortWork {
  bool all = false;
  std::vector<std::string> ids;
};
StatusOr<AbortWork> ReadAbort(std::string_view body);

}  // namespace fd
