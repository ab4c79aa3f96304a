// Reads the fields of a JSON object by name, type and range. null and absent are the same. Every error names
// the field, what is allowed and what came. Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace fd {

StatusOr<std::optional<double>> ReadNumber(const JsonObject& object, const char* name, double min,
                                           double max);
// A number without a fraction counts as an integer, however it is written.
StatusOr<std::optional<int64_t>> ReadInteger(const JsonObject& object, const char* name, int64_t min,
                                             int64_t max);
StatusOr<std::optional<bool>> ReadBool(const JsonObject& object, const char* name);
// At most max_bytes long.
StatusOr<std::optional<std::string>> ReadString(const JsonObject& object, const char* name,
                                                int64_t max_bytes);
// Null when absent.
StatusOr<const JsonObject*> ReadObject(const JsonObject& object, const char* name);
StatusOr<const JsonArray*> ReadArray(const JsonObject& object, const char* name);

// An array of token ids in [0, vocab_size). `where` stands in messages: "prompt", "prompt[3]".
StatusOr<std::vector<int32_t>> ReadTokenIds(const Json& value, const std::string& where,
                                            const std::string& param, int64_t vocab_size);

// "\"abc\" (a string)", "1.5", "an array of 3": what came, short enough for a message.
std::string Shown(const Json& value);
// <field> must be <what>; got <value>
Status BadField(const std::string& field, const std::string& what, const Json& got);

}  // namespace fd
