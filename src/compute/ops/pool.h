// Sums over the rows of a sequence, for the mean of its hidden states.
#pragma once

#include "compute/ops/context.h"

namespace fd::ops {

// For each sequence i: its sum, sums[slots[i]], begins at zero where fresh[i] is not 0; then rows
// [offsets[i], offsets[i + 1]) are added. Component by component in ascending order with compensation
// (Kahan), so a sum has the same bits however its rows are cut into calls and whoever else is in them. sums
// float32 [slots, 2 * n]: the sum, then what rounding has lost of it; rows float32 [m, n]; offsets int32
// [sequences + 1], ascending, in [0, m]; slots int32 [sequences], distinct; fresh int32 [sequences].
void AddToSums(const Context& ctx, const TensorView& sums, const TensorView& rows, const TensorView& offsets,
               const TensorView& slots, const TensorView& fresh);

}  // namespace fd::ops
