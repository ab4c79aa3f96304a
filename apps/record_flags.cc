#include "record_flags.h"

#include "base/strings.h"
#include "flag_set.h"
#include "model_flags.h"

namespace fd {
namespace {

struct KnownFlags {
  KnownFlags() : flags("", "") { AddModelFlags(flags, &values, true); }
  ModelFlags values;
  FlagSet flags;
};

}  // namespace

JsonObject RecordedFlags(const JsonObject& given, const std::string& model_dir) {
  const KnownFlags known;
  JsonObject recorded{{"model", model_dir}};
  for (const auto& [name, value] : given) {
    if (known.flags.KindOf(name) != FlagKind::kUnknown) recorded.Set(name, value);
  }
  return recorded;
}

StatusOr<std::vector<std::string>> ArgsOf(const JsonObject& recorded) {
  const KnownFlags known;
  std::vector<std::string> args;
  for (const auto& [name, value] : recorded) {
    const FlagKind kind = known.flags.KindOf(name);
    if (kind == FlagKind::kUnknown || !value.is_string())
      return InvalidArgument(StrCat("the record has the flag --", name, ", which replay does not take"));
    if (kind != FlagKind::kSwitch) {
      args.push_back(StrCat("--", name, "=", value.as_string()));
    } else if (value.as_string() == "true") {
      args.push_back(StrCat("--", name));
    }
  }
  return args;
}

}  // namespace fd
