#include "flag_set.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "base/strings.h"
#include "base/suggestion.h"

namespace fd {
namespace {

class HelpFormatter : public CLI::Formatter {
 public:
  explicit HelpFormatter(std::string usage) : usage_(std::move(usage)) { column_width(34); }
  std::string make_usage(const CLI::App*, std::string) const override {
    return StrCat("Usage: ", usage_, "\n");
  }
  std::string make_option_opts(const CLI::Option* option) const override {
    return option->get_type_name().empty() ? std::string() : StrCat(" ", option->get_type_name());
  }

 private:
  std::string usage_;
};

std::string WithDefault(const std::string& help, const std::string& default_text) {
  return default_text.empty() ? help : StrCat(help, " [", default_text, "]");
}

std::string RealText(double value) { return StrCat(value); }

StatusOr<double> ParseReal(const std::string& name, const std::string& text, RealRange range) {
  double value = 0;
  const char* end = text.data() + text.size();
  auto [stop, error] = std::from_chars(text.data(), end, value);
  bool ok = error == std::errc() && stop == end && std::isfinite(value) && value <= range.max &&
            (range.min_excluded ? value > range.min : value >= range.min);
  if (!ok) {
    return InvalidArgument(StrCat("must be a number ", range.min_excluded ? "above " : "from ",
                                  RealText(range.min), range.min_excluded ? " and at most " : " to ",
                                  RealText(range.max), ", for example --", name, " ",
                                  RealText(range.example)));
  }
  return value;
}

}  // namespace

StatusOr<int64_t> ParseInteger(const std::string& name, const std::string& text, IntegerRange range) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || value < range.min || value > range.max) {
    return InvalidArgument(StrCat("must be a whole number from ", range.min, " to ", range.max,
                                  ", for example --", name, " ", range.example));
  }
  return value;
}

StatusOr<JsonObject> ParseObject(const std::string& text, std::string_view example) {
  StatusOr<Json> json = ParseJson(text);
  if (!json.ok()) {
    return InvalidArgument(StrCat("is no JSON (", json.status().message(), "), for example ", example));
  }
  if (!json->is_object()) {
    return InvalidArgument(
        StrCat("must be a JSON object, not ", json->TypeName(), ", for example ", example));
  }
  return std::move(json->as_object());
}

struct FlagSet::Impl {
  explicit Impl(std::string summary) : app(std::move(summary), "fastdeploy") {}
  CLI::App app;
  std::string group = "Options";
  std::vector<std::string> names;  // "--port"; for suggestions
  std::map<std::string, FlagKind> kinds;
  Status failure;  // the first error of a value
  struct Value {
    std::string name;
    std::string text;  // the default until the flag is given
    bool shown = false;
    bool given = false;
  };
  std::vector<Value> values;  // in the order of --help

  // Its place in `values`.
  size_t Remember(const std::string& name, const std::string& default_text) {
    values.push_back({name, default_text, !group.empty(), false});
    return values.size() - 1;
  }
  void Given(size_t index, const std::string& text) {
    values[index].text = text;
    values[index].given = true;
  }
};

FlagSet::FlagSet(std::string usage, std::string summary) : impl_(std::make_unique<Impl>(std::move(summary))) {
  impl_->app.formatter(std::make_shared<HelpFormatter>(std::move(usage)));
  impl_->app.allow_extras();
  impl_->app.get_help_ptr()->group("Help");
  impl_->names.push_back("--help");
}

FlagSet::~FlagSet() = default;

void FlagSet::Group(std::string title) { impl_->group = std::move(title); }

void FlagSet::Custom(const std::string& name, const std::string& value_name, const std::string& help,
                     const std::string& default_text, std::function<Status(const std::string&)> parse) {
  Impl* impl = impl_.get();
  std::string flag = StrCat("--", name);
  impl->names.push_back(flag);
  impl->kinds[name] = FlagKind::kValue;
  const size_t index = impl->Remember(name, default_text);
  impl->app
      .add_option_function<std::vector<std::string>>(
          flag,
          [impl, flag, index, parse = std::move(parse)](const std::vector<std::string>& values) {
            const std::string& text = values.back();
            impl->Given(index, text);
            Status status = parse(text);
            if (!status.ok() && impl->failure.ok()) {
              impl->failure = Status(
                  status.code(), StrCat(flag, " ", text.empty() ? "''" : text, ": ", status.message()), flag);
            }
          },
          WithDefault(help, default_text))
      ->type_name(value_name)
      ->type_size(1)
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->group(impl->group);
}

void FlagSet::Text(const std::string& name, std::string* value, const std::string& help,
                   const std::string& value_name, const std::string& default_text) {
  Custom(name, value_name, help, default_text.empty() ? *value : default_text,
         [value](const std::string& text) {
           *value = text;
           return OkStatus();
         });
}

void FlagSet::Integer(const std::string& name, int64_t* value, IntegerRange range, const std::string& help,
                      const std::string& default_text) {
  Custom(name, "N", help, default_text.empty() ? StrCat(*value) : default_text,
         [name, value, range](const std::string& text) -> Status {
           FD_ASSIGN_OR_RETURN(*value, ParseInteger(name, text, range));
           return OkStatus();
         });
}

void FlagSet::Integer(const std::string& name, int* value, IntegerRange range, const std::string& help,
                      const std::string& default_text) {
  Custom(name, "N", help, default_text.empty() ? StrCat(*value) : default_text,
         [name, value, range](const std::string& text) -> Status {
           FD_ASSIGN_OR_RETURN(const int64_t number, ParseInteger(name, text, range));
           *value = static_cast<int>(number);
           return OkStatus();
         });
}

void FlagSet::Integer(const std::string& name, std::optional<int64_t>* value, IntegerRange range,
                      const std::string& help, const std::string& default_text) {
  Custom(name, "N", help, default_text, [name, value, range](const std::string& text) -> Status {
    FD_ASSIGN_OR_RETURN(*value, ParseInteger(name, text, range));
    return OkStatus();
  });
}

void FlagSet::Real(const std::string& name, double* value, RealRange range, const std::string& help) {
  Custom(name, "X", help, RealText(*value), [name, value, range](const std::string& text) -> Status {
    FD_ASSIGN_OR_RETURN(*value, ParseReal(name, text, range));
    return OkStatus();
  });
}

void FlagSet::Real(const std::string& name, std::optional<double>* value, RealRange range,
                   const std::string& help, const std::string& default_text) {
  Custom(name, "X", help, default_text, [name, value, range](const std::string& text) -> Status {
    FD_ASSIGN_OR_RETURN(*value, ParseReal(name, text, range));
    return OkStatus();
  });
}

void FlagSet::Choice(const std::string& name, std::string* value, const std::vector<std::string>& allowed,
                     const std::string& help) {
  Custom(name, Join(allowed, "|"), help, *value, [name, value, allowed](const std::string& text) -> Status {
    for (const std::string& candidate : allowed) {
      if (candidate == text) {
        *value = text;
        return OkStatus();
      }
    }
    return InvalidArgument(
        StrCat("must be one of ", Join(allowed, ", "), ", for example --", name, " ", allowed.front()));
  });
}

void FlagSet::Switch(const std::string& name, bool* value, const std::string& help) {
  OnSwitch(name, help, [value] { *value = true; });
}

void FlagSet::OnSwitch(const std::string& name, const std::string& help, std::function<void()> seen) {
  std::string flag = StrCat("--", name);
  impl_->names.push_back(flag);
  impl_->kinds[name] = FlagKind::kSwitch;
  const size_t index = impl_->Remember(name, "false");
  impl_->app
      .add_flag_callback(
          flag,
          [impl = impl_.get(), index, seen = std::move(seen)] {
            impl->Given(index, "true");
            seen();
          },
          help)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)
      ->group(impl_->group);
}

void FlagSet::List(const std::string& name, std::vector<std::string>* values, const std::string& help,
                   const std::string& value_name) {
  std::string flag = StrCat("--", name);
  impl_->names.push_back(flag);
  impl_->kinds[name] = FlagKind::kList;
  const size_t index = impl_->Remember(name, "");
  impl_->app
      .add_option_function<std::vector<std::string>>(
          flag,
          [impl = impl_.get(), index, values](const std::vector<std::string>& given) {
            impl->Given(index, Join(given, ","));
            *values = given;
          },
          help)
      ->type_name(value_name)
      ->type_size(1)
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->group(impl_->group);
}

void FlagSet::Refuse(const std::string& name, bool takes_value, std::string reason) {
  Impl* impl = impl_.get();
  std::string flag = StrCat("--", name);
  impl->kinds[name] = takes_value ? FlagKind::kValue : FlagKind::kSwitch;
  auto refuse = [impl, flag, reason](const std::string& value) {
    if (impl->failure.ok()) {
      impl->failure = Unimplemented(StrCat(flag, value.empty() ? "" : " ", value, ": ", reason), flag);
    }
  };
  if (takes_value) {
    impl->app
        .add_option_function<std::vector<std::string>>(
            flag, [refuse](const std::vector<std::string>& values) { refuse(values.back()); })
        ->type_size(1)
        ->expected(1)
        ->allow_extra_args(false)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->group("");
  } else {
    impl->app.add_flag_callback(flag, [refuse] { refuse(""); })->group("");
  }
}

FlagKind FlagSet::KindOf(std::string name) const {
  name.erase(0, std::min(name.find_first_not_of('-'), name.size()));
  std::replace(name.begin(), name.end(), '_', '-');
  const auto found = impl_->kinds.find(name);
  return found == impl_->kinds.end() ? FlagKind::kUnknown : found->second;
}

std::string FlagSet::NearestFlag(const std::string& name) const {
  return DidYouMean(StrCat("--", name), impl_->names);
}

StatusOr<bool> FlagSet::Parse(const std::vector<std::string>& args) {
  auto end = std::find(args.begin(), args.end(), "--");  // what follows it are words
  std::vector<std::string> reversed;                     // CLI11 takes them from the back
  for (auto it = args.begin(); it != end; ++it) {
    std::string arg = *it;
    if (arg.starts_with("--"))
      std::replace(arg.begin(), arg.begin() + std::min(arg.find('='), arg.size()), '_', '-');
    reversed.push_back(std::move(arg));
  }
  std::reverse(reversed.begin(), reversed.end());
  try {
    impl_->app.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    std::fputs(Help().c_str(), stdout);
    return false;
  } catch (const CLI::ArgumentMismatch& error) {
    std::string flag = std::string(error.what());
    flag = flag.substr(0, flag.find(':'));
    const CLI::Option* option = impl_->app.get_option_no_throw(flag);
    std::string allowed = option == nullptr ? std::string() : option->get_type_name();
    if (allowed.find('|') == std::string::npos)
      return InvalidArgument(StrCat(flag, " needs a value; see --help"), flag);
    return InvalidArgument(StrCat(flag, " needs a value, one of ", allowed, "; see --help"), flag);
  } catch (const CLI::ParseError& error) {
    return InvalidArgument(StrCat(error.what(), "; see --help"));
  }
  for (const std::string& rest : impl_->app.remaining()) {
    if (rest.size() > 1 && rest[0] == '-') {
      std::string flag = rest.substr(0, rest.find('='));
      std::string near = DidYouMean(flag, impl_->names);
      return InvalidArgument(
          StrCat("unknown flag ", flag,
                 near.empty() ? std::string("; see --help") : StrCat("; did you mean ", near, "?")),
          flag);
    }
    words_.push_back(rest);
  }
  if (end != args.end()) words_.insert(words_.end(), end + 1, args.end());
  FD_RETURN_IF_ERROR(impl_->failure);
  return true;
}

std::string FlagSet::Help() const { return impl_->app.help(); }

JsonObject FlagSet::Given() const {
  JsonObject out;
  for (const Impl::Value& value : impl_->values) {
    if (value.given) out.Set(value.name, value.text);
  }
  return out;
}

JsonObject FlagSet::Effective(const std::vector<std::string>& secret) const {
  JsonObject out;
  for (const Impl::Value& value : impl_->values) {
    if (!value.shown && !value.given) continue;
    const bool hidden = std::find(secret.begin(), secret.end(), value.name) != secret.end();
    out.Set(value.name, hidden ? Json(value.given ? "(set)" : "") : Json(value.text));
  }
  return out;
}

}  // namespace fd
