// --config FILE: flags in a file, as vLLM and FastDeploy have them. YAML as people write it for flags: keys
// with scalars, quoted texts, lists and maps, in blocks or as JSON. Anchors, tags, texts of several lines and
// several documents are refused by line. One thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "flag_set.h"

namespace fd {

// A value in block or flow style. Plain scalars become null, booleans and numbers where YAML 1.2 says so.
struct ConfigEntry {
  std::string key;
  int line = 0;
  std::string text;  // of a scalar, as it stands there
  Json value;
};
// Errors begin with "line N: ".
StatusOr<std::vector<ConfigEntry>> ParseConfig(std::string_view text);

// Puts the flags of the file that --config in `args` names before those of `args`. Flags that `args` gives
// are left out, so lists do not grow together. An unknown key is an error, unlike in FastDeploy: it would be
// a limit or a key that is not there. Nothing without --config.
Status ExpandConfigFile(const FlagSet& flags, std::vector<std::string>* args);

}  // namespace fd
