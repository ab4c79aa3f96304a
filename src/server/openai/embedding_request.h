// The JSON of /v1/embeddings and /pooling, field by field, into plain structs. Internal to this folder;
// embeddings.h is the door. Pure functions on a worker thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "server/openai/request.h"
#include "server/openai/request_schema.h"

namespace fd {

struct EmbeddingFields {
  RequestFields names;  // model, user and request_id of it
  bool base64 = false;
  bool normalize = true;
  std::optional<int64_t> dimensions;       // checked against the model
  std::optional<int64_t> truncate_tokens;  // 1 to max_model_len
  std::vector<Prompt> inputs;              // at least one; a conversation is one
  bool from_messages = false;
};

// kind: kEmbeddings or kPooling. Fields that this kind does not know are taken out of `body` before. The
// inputs are cut as truncate_prompt_tokens says, and none without media is longer than max_model_len.
StatusOr<EmbeddingFields> ReadEmbeddingFields(const Service& service, RequestKind kind, JsonObject& body);

// Code "context_length_exceeded". where: "input[3]", "messages".
Status InputTooLong(int64_t tokens, int64_t max_model_len, const std::string& where,
                    const std::string& param);

}  // namespace fd
