// What the attention kernels share: finding the rows of a block in a ragged batch.
// Rows are packed: row r of a sequence is its query r / group under head kv * group + r % group, so that all
// heads of one kv head share the keys they read.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "compute/kernels/cuda/attention.h"
#include "compute/kernels/cuda/mma.cuh"

namespace fd::cuda::attention {

struct Tile {
  int seq;
  int first_row;  // packed
  int rows;       // of the whole sequence, packed
  int first_token;
  int queries;
  int context;
};

// The index-th tile of tile_rows packed rows, the last of a sequence first (it sees the most keys). Called by
// whole warps; false beyond the last tile.
__device__ inline bool FindTile(const AttentionArgs& a, int tile_rows, bool skip_decode, int index,
                                Tile* tile) {
  const int lane = threadIdx.x & 31, group = static_cast<int>(a.heads / a.kv_heads);
  for (int s0 = 0; s0 < a.seqs; s0 += 32) {
    const int s = s0 + lane;
    int first = 0, queries = 0, tiles = 0;
    if (s < a.seqs) {
      first = a.query_offsets[s];
      queries = a.query_offsets[s + 1] - first;
      if (!(skip_decode && queries * group <= kDecodeRows))
        tiles = (queries * group + tile_rows - 1) / tile_rows;
    }
    int sum = tiles;
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      const int other = __shfl_up_sync(~0u, sum, d);
      if (lane >= d) sum += other;
    }
    const unsigned beyond = __ballot_sync(~0u, sum > index);
    if (beyond != 0) {
      const int from = __ffs(beyond) - 1;
      const int end = __shfl_sync(~0u, sum, from);
      tile->seq = s0 + from;
      tile->first_token = __shfl_sync(~0u, first, from);
      tile->queries = __shfl_sync(~0u, queries, from);
      tile->rows = tile->queries * group;
      tile->first_row = (end - 1 - index) * tile_rows;
      // Reversed inside the sequence: its last index is its first tile.
      tile->context = a.block_tables != nullptr ? a.context_tokens[tile->seq] : tile->queries;
      return true;
    }
    index -= __shfl_sync(~0u, sum, 31);
  }
  return false;
}

// An upper bound of the tiles of a batch that the host can know.
inline int64_t MaxTiles(const AttentionArgs& a, int tile_rows) {
  const int64_t group = a.heads / a.kv_heads;
  return a.tokens * group / tile_rows + (a.seqs < a.tokens ? a.seqs : a.tokens);
}

// The tiles of a batch. Called by whole warps.
__device__ inline int CountTiles(const AttentionArgs& a, int tile_rows, bool skip_decode) {
  const int group = static_cast<int>(a.heads / a.kv_heads);
  int tiles = 0;
  for (int s = threadIdx.x & 31; s < a.seqs; s += 32) {
    const int rows = (a.query_offsets[s + 1] - a.query_offsets[s]) * group;
    if (!(skip_decode && rows <= kDecodeRows)) tiles += (rows + tile_rows - 1) / tile_rows;
  }
#pragma unroll
  for (int d = 16; d > 0; d /= 2) tiles += __shfl_xor_sync(~0u, tiles, d);
  return tiles;
}

// Keys that a packed row sees.
__device__ inline int Visible(const AttentionArgs& a, const Tile& t, int row, int group) {
  if (a.block_tables == nullptr) return t.context;
  const int last = t.rows - 1;
  return t.context - t.queries + (row < last ? row : last) / group + 1;
}

__device__ inline uint32_t PackBf16(float lo, float hi) {
  const __nv_bfloat162 p = __floats2bfloat162_rn(lo, hi);
  return *reinterpret_cast<const uint32_t*>(&p);
}

__device__ inline float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace fd::cuda::attention
