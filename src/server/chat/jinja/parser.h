#pragma once

#include "server/chat/jinja/ast.h"

namespace fd::jinja {

// Template source -> statements. Errors name the line. Nesting is bounded, so that neither parsing nor
// rendering nor freeing can exhaust the stack.
StatusOr<Body> ParseTemplate(std::string_view source);

}  // namespace fd::jinja
