#include "model/config/config_reader.h"

#include <cmath>

#include "base/strings.h"

namespace fd {
namespace {

// A value as an error message shows it: short, whatever the file holds.
std::string Show(const Json& value) {
  std::string text = WriteJson(value);
  if (text.size() > 60) text = StrCat(std::string_view(text).substr(0, 57), "...");
  return text;
}

std::string Describe(IntRange range) { return StrCat("an integer from ", range.low, " to ", range.high); }

// Integers, also when written as 1024.0 or 1e5.
std::optional<int64_t> AsInteger(const Json& value) {
  if (value.is_int()) return value.as_int();
  if (!value.is_double()) return std::nullopt;
  double d = value.as_double();
  if (!(std::fabs(d) < 1e15) || d != std::floor(d)) return std::nullopt;
  return static_cast<int64_t>(d);
}

bool InRange(std::optional<int64_t> v, IntRange range) { return v && *v >= range.low && *v <= range.high; }

}  // namespace

const Json* ConfigReader::Find(std::string_view key) const {
  if (object_ == nullptr) return nullptr;
  const Json* value = object_->Find(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

int64_t ConfigReader::Int(std::string_view key, IntRange range, std::optional<int64_t> fallback) {
  const Json* value = Find(key);
  if (value == nullptr) {
    if (!fallback) FailMissing(key, Describe(range));
    return fallback.value_or(range.low);
  }
  std::optional<int64_t> v = AsInteger(*value);
  if (!InRange(v, range)) {
    Fail(key, Describe(range));
    return range.low;
  }
  return *v;
}

std::vector<int64_t> ConfigReader::Ints(std::string_view key, IntRange range, size_t min_count,
                                        size_t max_count) {
  const Json* value = Find(key);
  if (value == nullptr) return {};
  std::vector<int64_t> out;
  bool good = true;
  if (value->is_array()) {
    good = value->as_array().size() >= min_count && value->as_array().size() <= max_count;
    for (size_t i = 0; good && i < value->as_array().size(); ++i) {
      std::optional<int64_t> v = AsInteger(value->as_array()[i]);
      good = InRange(v, range);
      if (good) out.push_back(*v);
    }
  } else {
    std::optional<int64_t> v = AsInteger(*value);
    good = min_count <= 1 && InRange(v, range);
    if (good) out.push_back(*v);
  }
  if (good) return out;
  std::string count = min_count == max_count ? StrCat(min_count) : StrCat(min_count, " to ", max_count);
  Fail(key, max_count == 1 ? Describe(range)
                           : StrCat(min_count <= 1 ? "an integer or " : "", "a list of ", count,
                                    " integers from ", range.low, " to ", range.high));
  return {};
}

double ConfigReader::Number(std::string_view key, double low, double high, std::optional<double> fallback) {
  std::string allowed = StrCat("a number from ", low, " to ", high);
  const Json* value = Find(key);
  if (value == nullptr) {
    if (!fallback) FailMissing(key, allowed);
    return fallback.value_or(low);
  }
  if (!value->is_number() || !(value->as_double() >= low && value->as_double() <= high)) {
    Fail(key, allowed);
    return low;
  }
  return value->as_double();
}

bool ConfigReader::Bool(std::string_view key, bool fallback) {
  const Json* value = Find(key);
  if (value == nullptr) return fallback;
  if (!value->is_bool()) {
    Fail(key, "true or false");
    return fallback;
  }
  return value->as_bool();
}

std::string ConfigReader::String(std::string_view key, std::string fallback) {
  const Json* value = Find(key);
  if (value == nullptr) return fallback;
  if (!value->is_string()) {
    Fail(key, "a string");
    return fallback;
  }
  return value->as_string();
}

ConfigReader ConfigReader::Child(std::string_view key) {
  const Json* value = Find(key);
  if (value != nullptr && !value->is_object()) {
    Fail(key, "an object");
    value = nullptr;
  }
  return ConfigReader(value, StrCat(prefix_, key, "."), status_);
}

void ConfigReader::Fail(std::string_view key, std::string_view allowed) {
  const Json* value = object_ == nullptr ? nullptr : object_->Find(key);
  FailStatus(InvalidArgument(
      StrCat(prefix_, key, " is ", value == nullptr ? "absent" : Show(*value), "; allowed: ", allowed)));
}

void ConfigReader::FailMissing(std::string_view key, std::string_view allowed) {
  FailStatus(InvalidArgument(StrCat(prefix_, key, " is missing; allowed: ", allowed)));
}

void ConfigReader::FailStatus(Status status) {
  if (status_->ok()) *status_ = std::move(status);
}

}  // namespace fd
