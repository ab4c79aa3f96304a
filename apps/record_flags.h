// The flags that a record keeps, so that `fastdeploy replay FILE` needs none.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace fd {

// Of the flags that were given to `serve` (FlagSet::Given) those that `replay` takes too: which model, which
// numbers. The folder as it was given.
JsonObject RecordedFlags(const JsonObject& given, const std::string& model_dir);
// As a command line; a record may come from anybody, so flags that choose no model or numbers are an error.
StatusOr<std::vector<std::string>> ArgsOf(const JsonObject& recorded);

}  // namespace fd
