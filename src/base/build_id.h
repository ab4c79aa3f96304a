// Which build this program is.
#pragma once

#include <string>

namespace fd {

// The linker's hash of this program's code and data, in hexadecimal: equal for equal sources, compiler and
// flags. "" where the program was linked without one.
std::string BuildId();

}  // namespace fd
