// The names of the fields that requests may have: what is not in this table is unknown. One table for the
// warning about unknown fields, for --strict-requests and for /openapi.json. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace fd {

enum class RequestKind : uint8_t {
  kChat,
  kCompletions,
  kTokenize,
  kDetokenize,
  kAbort,
  kResponses,
  kMessages,
  kEmbeddings,
  kPooling
};

enum class FieldType : uint8_t { kString, kInteger, kNumber, kBoolean, kObject, kArray, kAny };

struct RequestField {
  const char* name;
  FieldType type;
  const char* kinds;  // letters of the requests that know it, see request_schema.cc
  const char* meaning;
};

// The letter of a kind in RequestField::kinds.
char LetterOf(RequestKind kind);
// In the order of the table.
std::vector<RequestField> FieldsOf(RequestKind kind);

// Top-level fields of `body` that a request of this kind does not know, in the order of the body.
std::vector<std::string> UnknownFields(RequestKind kind, const JsonObject& body);
// --strict-requests: an error that names the first one and what may have been meant.
Status RefuseUnknownFields(RequestKind kind, const std::vector<std::string>& unknown);
// The value of the header x-fastdeploy-ignored: bounded, and of characters that a header may hold.
std::string IgnoredHeader(const std::vector<std::string>& unknown);

}  // namespace fd
