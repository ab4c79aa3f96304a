// The flags of one subcommand: names, defaults, limits, help. CLI11 stays behind flag_set.cc. A wrong flag is
// a Status whose message holds the value, what is allowed and an example. One thread; the targets must
// outlive Parse.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace fd {

struct IntegerRange {
  int64_t min = 0;
  int64_t max = 0;
  int64_t example = 0;
};
struct RealRange {
  double min = 0;
  double max = 0;
  double example = 0;
  bool min_excluded = false;
};

enum class FlagKind { kUnknown, kSwitch, kValue, kList };

class FlagSet {
 public:
  // usage: what follows "Usage: ".
  FlagSet(std::string usage, std::string summary);
  ~FlagSet();
  FlagSet(const FlagSet&) = delete;
  FlagSet& operator=(const FlagSet&) = delete;

  // Title of the flags that follow in --help.
  void Group(std::string title);

  // Names are given without dashes. The default in --help is the value that the target holds now, unless
  // `default_text` says what an empty or zero default means.
  void Text(const std::string& name, std::string* value, const std::string& help,
            const std::string& value_name, const std::string& default_text = {});
  void Integer(const std::string& name, int64_t* value, IntegerRange range, const std::string& help,
               const std::string& default_text = {});
  // The range fits into an int.
  void Integer(const std::string& name, int* value, IntegerRange range, const std::string& help,
               const std::string& default_text = {});
  void Integer(const std::string& name, std::optional<int64_t>* value, IntegerRange range,
               const std::string& help, const std::string& default_text);
  void Real(const std::string& name, double* value, RealRange range, const std::string& help);
  void Real(const std::string& name, std::optional<double>* value, RealRange range, const std::string& help,
            const std::string& default_text);
  void Choice(const std::string& name, std::string* value, const std::vector<std::string>& allowed,
              const std::string& help);
  void Switch(const std::string& name, bool* value, const std::string& help);
  void OnSwitch(const std::string& name, const std::string& help, std::function<void()> seen);
  void List(const std::string& name, std::vector<std::string>* values, const std::string& help,
            const std::string& value_name);
  // The last value given is handed to `parse`; its error becomes "--name VALUE: error".
  void Custom(const std::string& name, const std::string& value_name, const std::string& help,
              const std::string& default_text, std::function<Status(const std::string&)> parse);
  // A flag that exists elsewhere and is not served here: using it is an error with this reason. Not in
  // --help.
  void Refuse(const std::string& name, bool takes_value, std::string reason);

  // What a name, with or without leading dashes, stands for; '_' and '-' are the same.
  FlagKind KindOf(std::string name) const;
  // "--port" for "prot"; "" where none is near.
  std::string NearestFlag(const std::string& name) const;

  // false: --help was asked for and has been printed. '_' and '-' are the same in names.
  StatusOr<bool> Parse(const std::vector<std::string>& args);
  // What is left after the flags, in order.
  const std::vector<std::string>& words() const { return words_; }
  std::string Help() const;
  // After Parse: the flags that were given.
  JsonObject Given() const;
  // After Parse: the value of every flag that --help shows or that was given, its default where it was not.
  // Of the flags in `secret` only whether they were given.
  JsonObject Effective(const std::vector<std::string>& secret) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
  std::vector<std::string> words_;
};

// For Custom: errors say the range and an example.
StatusOr<int64_t> ParseInteger(const std::string& name, const std::string& text, IntegerRange range);
// For Custom: a JSON object. `example` is the whole flag with a value.
StatusOr<JsonObject> ParseObject(const std::string& text, std::string_view example);

}  // namespace fd
