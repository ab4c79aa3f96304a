#pragma once

#include "server/chat/jinja/interpreter.h"

namespace fd::jinja {

using Filter = Value (*)(Interpreter& it, const Value& input, Args& args);
// nullptr when there is none of that name.
Filter FindFilter(std::string_view name);
Filter FindTextFilter(std::string_view name);
bool IsTest(Interpreter& it, std::string_view name);

}  // namespace fd::jinja
