// The environment variables of `serve`: which ones work, and what FastDeploy's others would have done.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"

namespace fd {

struct KnownVariable {
  const char* name;
  bool works;
  const char* sentence;  // what it does, or why it has no effect
};
std::span<const KnownVariable> KnownVariables();

// One line for each variable of `environment` ("NAME=value") that is set in vain: known ones say why, others
// that begin with FD_ what may have been meant.
std::vector<std::string> EnvironmentNotes(const std::vector<std::string>& environment);
std::vector<std::string> ProcessEnvironment();

// "a, b,,c" -> a, b, c.
std::vector<std::string> KeysOfList(const std::string& text);
// One key a line; empty lines and lines that begin with '#' do not count. An error names the flag and the
// file, never a key. A file without a key is an error: it would open the server to all.
StatusOr<std::vector<std::string>> KeysOfFile(const std::string& path, const char* flag);

}  // namespace fd
