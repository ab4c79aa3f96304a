#include "server/openai/fields.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/strings.h"
#include "base/utf8.h"

namespace fd {
namespace {

const Json* FindValue(const JsonObject& object, const char* name) {
  const Json* value = object.Find(name);
  return value == nullptr || value->is_null() ? nullptr : value;
}

std::optional<int64_t> AsInteger(const Json& value) {
  if (value.is_int()) return value.as_int();
  if (!value.is_double()) return std::nullopt;
  const double d = value.as_double();
  // Beyond 2^53 a double no longer says which integer was meant.
  if (std::fabs(d) > 9007199254740992.0 || d != std::floor(d)) return std::nullopt;
  return static_cast<int64_t>(d);
}

// "0.7" in quotes: the number that was meant, where it is one.
std::optional<Json> QuotedNumber(const Json& value) {
  if (!value.is_string()) return std::nullopt;
  StatusOr<Json> number = ParseJson(value.as_string());
  if (!number.ok() || !number->is_number()) return std::nullopt;
  return std::move(number).value();
}

// A wrong type is a beginner's mistake, so the message ends with what would be right.
Status WrongType(const char* name, const std::string& what, const Json& got, const Json& example) {
  const Status status = BadField(name, what, got);
  return InvalidArgument(StrCat(status.message(), "; for example {\"", name, "\": ", WriteJson(example), "}"),
                         name);
}

}  // namespace

std::string Shown(const Json& value) {
  constexpr size_t kMaxShown = 40;
  if (value.is_string()) {
    const std::string& s = value.as_string();
    std::string quoted;
    if (s.size() <= kMaxShown) {
      AppendJsonString(quoted, s);
      return quoted + " (a string)";
    }
    // Cut at a character, so that the message stays UTF-8.
    size_t cut = 0;
    while (cut < kMaxShown)
      cut += static_cast<size_t>(DecodeUtf8(std::string_view(s).substr(cut)).length_bytes);
    AppendJsonString(quoted, s.substr(0, cut));
    return StrCat(quoted, "... (a string of ", s.size(), " bytes)");
  }
  if (value.is_array()) return StrCat("an array of ", value.as_array().size());
  if (value.is_object()) return "an object";
  return WriteJson(value);
}

Status BadField(const std::string& field, const std::string& what, const Json& got) {
  return InvalidArgument(StrCat(field, " must be ", what, "; got ", Shown(got)), field);
}

StatusOr<std::optional<double>> ReadNumber(const JsonObject& object, const char* name, double min,
                                           double max) {
  const Json* value = FindValue(object, name);
  if (value == nullptr) return std::optional<double>();
  const std::string what = StrCat("a number from ", min, " to ", max);
  if (!value->is_number()) {
    const double meant = QuotedNumber(*value).value_or(Json(1)).as_double();
    return WrongType(name, what, *value,
                     Json(meant >= min && meant <= max ? meant : std::clamp(1.0, min, max)));
  }
  const double d = value->as_double();
  if (!(d >= min && d <= max)) return BadField(name, what, *value);
  return std::optional<double>(d);
}

StatusOr<std::optional<int64_t>> ReadInteger(const JsonObject& object, const char* name, int64_t min,
                                             int64_t max) {
  const Json* value = FindValue(object, name);
  if (value == nullptr) return std::optional<int64_t>();
  const std::optional<int64_t> i = AsInteger(*value);
  if (!i || *i < min || *i > max) {
    const bool open = max == std::numeric_limits<int64_t>::max();
    const bool any = open && min == std::numeric_limits<int64_t>::min();
    const std::string what = any    ? "a 64-bit integer"
                             : open ? StrCat("an integer of at least ", min)
                                    : StrCat("an integer from ", min, " to ", max);
    if (!value->is_number()) {
      const int64_t meant = AsInteger(QuotedNumber(*value).value_or(Json(1))).value_or(1);
      return WrongType(name, what, *value, Json(std::clamp(meant, min, max)));
    }
    return BadField(name, what, *value);
  }
  return i;
}

StatusOr<std::optional<bool>> ReadBool(const JsonObject& object, const char* name) {
  const Json* value = FindValue(object, name);
  if (value == nullptr) return std::optional<bool>();
  if (!value->is_bool()) return WrongType(name, "true or false", *value, Json(true));
  return std::optional<bool>(value->as_bool());
}

StatusOr<std::optional<std::string>> ReadString(const JsonObject& object, const char* name,
                                                int64_t max_bytes) {
  const Json* value = FindValue(object, name);
  if (value == nullptr) return std::optional<std::string>();
  if (!value->is_string()) return BadField(name, "a string", *value);
  if (static_cast<int64_t>(value->as_string().size()) > max_bytes) {
    return BadField(name, StrCat("at most ", max_bytes, " bytes long"), *value);
  }
  return std::optional<std::string>(value->as_string());
}

StatusOr<const JsonObject*> ReadObject(const JsonObject& object, const char* name) {
  const Json* value = FindValue(object, name);
  if (value == nullptr) return static_cast<const JsonObject*>(nullptr);
  if (!value->is_object()) return BadField(name, "an object", *value);
  return &value->as_object();
}

StatusOr<const JsonArray*> ReadArray(const JsonObject& object, const char* name) {
  const Json* value = FindValue(object, name);
  if (value == nullptr) return static_cast<const JsonArray*>(nullptr);
  if (!value->is_array()) return BadField(name, "an array", *value);
  return &value->as_array();
}

StatusOr<std::vector<int32_t>> ReadTokenIds(const Json& value, const std::string& where,
                                            const std::string& param, int64_t vocab_size) {
  if (!value.is_array()) return BadField(where, "an array of token ids", value);
  std::vector<int32_t> ids;
  ids.reserve(value.as_array().size());
  for (const Json& element : value.as_array()) {
    const std::optional<int64_t> id = AsInteger(element);
    if (!id || *id < 0 || *id >= vocab_size) {
      return InvalidArgument(StrCat(where, "[", ids.size(), "] must be a token id from 0 to ", vocab_size - 1,
                                    "; got ", Shown(element)),
                             param);
    }
    ids.push_back(static_cast<int32_t>(*id));
  }
  return ids;
}

}  // namespace fd
