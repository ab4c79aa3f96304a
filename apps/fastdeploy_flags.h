// FastDeploy 2.x flags beyond those that `serve` implements: what each may be here, and why not more. Every
// one of them is either accepted with a note, accepted at one value, or refused with a reason; none is
// ignored in silence.
#pragma once

#include <string>
#include <vector>

#include "flag_set.h"

namespace fd {

// notes: one line for each accepted flag that changes nothing, to be logged at start. Must outlive
// flags.Parse.
void AddFastDeployFlags(FlagSet& flags, std::vector<std::string>* notes);

}  // namespace fd
