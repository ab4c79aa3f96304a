// An ordered JSON value with a parser and a writer: request bodies, config.json, safetensors headers,
// template variables. Objects keep the order of their members, because templates and tool definitions print
// it. Values are plain data; nothing here is thread-safe beyond const access.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/status.h"

namespace fd {

class Json;
using JsonArray = std::vector<Json>;
using JsonMember = std::pair<std::string, Json>;

// Members in file order. Find is linear up to 16 members, then by an index built on demand by the parser.
class JsonObject {
 public:
  JsonObject() = default;
  JsonObject(std::initializer_list<JsonMember> members);
  const Json* Find(std::string_view key) const;
  Json* Find(std::string_view key);
  // Replaces the value of an existing key in place, else appends.
  Json& Set(std::string key, Json value);
  bool Erase(std::string_view key);
  size_t size() const;
  bool empty() const { return size() == 0; }
  auto begin() const { return members_.begin(); }
  auto end() const { return members_.end(); }
  auto begin() { return members_.begin(); }
  auto end() { return members_.end(); }

 private:
  // Positions in members_ sorted by key; used once there are more than 16 members.
  size_t Locate(std::string_view key) const;
  std::vector<JsonMember> members_;
  std::vector<uint32_t> sorted_;
};

class Json {
 public:
  Json() : value_(nullptr) {}
  Json(std::nullptr_t) : value_(nullptr) {}             // NOLINT: implicit conversions make literals readable
  Json(bool b) : value_(b) {}                           // NOLINT
  Json(int i) : value_(static_cast<int64_t>(i)) {}      // NOLINT
  Json(int64_t i) : value_(i) {}                        // NOLINT
  Json(uint64_t u);                                     // NOLINT: above 2^63 - 1 it becomes a double
  Json(double d) : value_(d) {}                         // NOLINT
  Json(const char* s) : value_(std::string(s)) {}       // NOLINT
  Json(std::string_view s) : value_(std::string(s)) {}  // NOLINT
  Json(std::string s) : value_(std::move(s)) {}         // NOLINT
  Json(JsonArray a) : value_(std::move(a)) {}           // NOLINT
  Json(JsonObject o) : value_(std::move(o)) {}          // NOLINT

  bool is_null() const { return std::holds_alternative<std::nullptr_t>(value_); }
  bool is_bool() const { return std::holds_alternative<bool>(value_); }
  bool is_int() const { return std::holds_alternative<int64_t>(value_); }
  bool is_double() const { return std::holds_alternative<double>(value_); }
  bool is_number() const { return is_int() || is_double(); }
  bool is_string() const { return std::holds_alternative<std::string>(value_); }
  bool is_array() const { return std::holds_alternative<JsonArray>(value_); }
  bool is_object() const { return std::holds_alternative<JsonObject>(value_); }
  // "null", "a boolean", "an integer", "a number", "a string", "an array", "an object": for error messages.
  const char* TypeName() const;

  // Each requires the type (FD_CHECK); test with is_x first when the value comes from a user.
  bool as_bool() const;
  int64_t as_int() const;
  double as_double() const;  // also takes an integer
  const std::string& as_string() const;
  const JsonArray& as_array() const;
  JsonArray& as_array();
  const JsonObject& as_object() const;
  JsonObject& as_object();

  // Member of an object, or nullptr (also when this is no object).
  const Json* Find(std::string_view key) const;

  bool operator==(const Json& other) const;

 private:
  std::variant<std::nullptr_t, bool, int64_t, double, std::string, JsonArray, JsonObject> value_;
};

struct JsonLimits {
  int max_depth = 64;
  int64_t max_values = 1'000'000;
};

// RFC 8259: UTF-8 without ill-formed sequences, no lone surrogates, no NaN, no trailing bytes, no byte order
// mark. Numbers without fraction or exponent that fit 64 signed bits are integers, others doubles; beyond a
// double's range: an error. A key that stands twice in one object is an error. Messages name the byte offset
// and what was expected.
StatusOr<Json> ParseJson(std::string_view text, const JsonLimits& limits = {});

// Compact ("," and ":"), UTF-8 left as is, control characters escaped. Doubles in their shortest exact form.
std::string WriteJson(const Json& value);
void AppendJson(std::string& out, const Json& value);
// The string with quotes and escapes. Input must be UTF-8; ill-formed bytes become U+FFFD.
void AppendJsonString(std::string& out, std::string_view text);

// Reads a whole file and parses it; errors name the file.
StatusOr<Json> ReadJsonFile(const std::string& path, const JsonLimits& limits = {});

}  // namespace fd
