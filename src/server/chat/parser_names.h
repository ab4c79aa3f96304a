// The name after --reasoning-parser or --tool-call-parser. Internal to this folder.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "base/strings.h"

namespace fd {

template <typename Format>
struct NamedFormat {
  const char* name;
  Format format;
  bool is_alias = false;  // left out of messages
};

// An unknown name is an error that lists the known ones, and the nearest of them.
template <typename Format, size_t kCount>
StatusOr<Format> FormatNamed(const NamedFormat<Format> (&formats)[kCount], const std::string& name,
                             const std::string& flag) {
  std::vector<std::string> names;
  std::string nearest;
  int best = 5;  // "vl-thinking" for "ernie-45-vl-thinking" is no slip of the finger
  for (const auto& f : formats) {
    if (name == f.name) return f.format;
    if (f.is_alias) continue;
    names.emplace_back(f.name);
    if (const int distance = EditDistance(LowerAscii(name), f.name); distance < best) {
      best = distance;
      nearest = f.name;
    }
  }
  return InvalidArgument(StrCat(flag, ": \"", name, "\" is not known; this server has ", Join(names, ", "),
                                nearest.empty() ? "" : StrCat("; did you mean ", nearest, "?")),
                         flag);
}

}  // namespace fd
