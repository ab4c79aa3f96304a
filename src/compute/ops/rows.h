// Moving whole rows: embedding, gather, scatter, host-to-device copies.
#pragma once

#include "compute/ops/context.h"

namespace fd::ops {

// out[i] = table[ids[i]]. out [tokens, hidden] act; table [vocab, hidden] bfloat16 or float32; ids int32
// [tokens], each in [0, vocab).
void Embedding(const Context& ctx, const TensorView& out, const TensorView& table, const TensorView& ids);
// out[i] = in[rows[i]]. out [m, n], in [*, n] of one dtype; rows int32 [m].
void GatherRows(const Context& ctx, const TensorView& out, const TensorView& in, const TensorView& rows);
// out[rows[i]] = in[i]; rows are distinct. out [*, n], in [m, n] of one dtype; rows int32 [m].
void ScatterRows(const Context& ctx, const TensorView& out, const TensorView& in, const TensorView& rows);
// Same shape; dtypes may differ (float32 <-> bfloat16), devices may differ. Ordered on ctx's stream.
void Copy(const Context& ctx, const TensorView& out, const TensorView& in);

// ids[i] = drawn[source[i]] where source[i] >= 0, else ids[i] stays: the tokens that the step before drew,
// which the host has not seen yet. ids, source int32 [tokens]; drawn int32, ids below 0 (no valid token)
// become 0.
void TakeDrawnTokens(const Context& ctx, const TensorView& ids, const TensorView& source,
                     const TensorView& drawn);

}  // namespace fd::ops
