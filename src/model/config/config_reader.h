// Typed reading of one JSON object of a configuration file: every value is checked against its range, the
// first thing wrong is kept as a Status that names key, value and what is allowed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace fd {

struct IntRange {
  int64_t low;
  int64_t high;
};

class ConfigReader {
 public:
  // `object` may be null: then every key is absent. `prefix` stands before each key in messages
  // ("text_config."). The first failure goes to *status, which all readers of one file share.
  ConfigReader(const Json* object, std::string prefix, Status* status)
      : object_(object), prefix_(std::move(prefix)), status_(status) {}

  // The member, or null when it is absent or JSON null.
  const Json* Find(std::string_view key) const;
  bool Has(std::string_view key) const { return Find(key) != nullptr; }

  // Absent: `fallback`, or an error when there is none.
  int64_t Int(std::string_view key, IntRange range, std::optional<int64_t> fallback = {});
  // An integer or a list of `min_count` to `max_count` integers. Absent: empty.
  std::vector<int64_t> Ints(std::string_view key, IntRange range, size_t min_count, size_t max_count);
  // In [low, high].
  double Number(std::string_view key, double low, double high, std::optional<double> fallback = {});
  bool Bool(std::string_view key, bool fallback);
  std::string String(std::string_view key, std::string fallback);

  // A reader of a nested object; an error when the member is something else.
  ConfigReader Child(std::string_view key);

  // Records "KEY is VALUE; allowed: `allowed`" unless something failed before.
  void Fail(std::string_view key, std::string_view allowed);
  void FailMissing(std::string_view key, std::string_view allowed);
  void FailStatus(Status status);
  bool ok() const { return status_->ok(); }
  std::string Name(std::string_view key) const { return prefix_ + std::string(key); }

 private:
  const Json* object_;
  std::string prefix_;
  Status* status_;
};

}  // namespace fd
