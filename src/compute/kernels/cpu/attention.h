// Flash-style attention of a tile of query rows that share one kv head.
//
// The keys of a sequence are walked in fixed partitions: blocks of 64 tokens (a page), kSplitBlocks blocks a
// split. Inside a split the softmax is online, block by block; splits are merged in ascending order. A row's
// arithmetic depends on its own query and on the keys it sees, not on the tile, the chunk or the thread.
//
// A block holds the keys or the values of 64 tokens of one kv head, on every instruction set in the same
// order, made so that the products read it from front to back:
//   bfloat16  keys [ceil(head_dim / 2)][64 tokens][2 neighbours of a token, 0 past an odd head_dim]
//             values [32 pairs of tokens][columns][2 tokens]
//   float32   keys [head_dim][64 tokens], values [64 tokens][columns]
// A block of bytes (kFloat8E4M3, kInt8) holds one byte for each element in that same order, head_dim even and
// values of head_dim columns, then 64 bfloat16 scales, one a token (ops/attention.h has the rule).
// Tokens that were not written may hold anything: nothing of them shows in a result.
#pragma once

#include <cstdint>

#include "compute/tensor/dtype.h"

namespace fd::cpu {

inline constexpr int64_t kBlockTokens = 64;
inline constexpr int64_t kSplitBlocks = 8;
inline constexpr int64_t kSplitTokens = kBlockTokens * kSplitBlocks;

// The element of a block that holds component i of a token's key or value.
inline int64_t KeyElement(DType act, int64_t token, int64_t i) {
  return act == DType::kBFloat16 ? (i / 2 * kBlockTokens + token) * 2 + i % 2 : i * kBlockTokens + token;
}
inline int64_t ValueElement(DType act, int64_t columns, int64_t token, int64_t i) {
  return act == DType::kBFloat16 ? (token / 2 * columns + i) * 2 + token % 2 : token * columns + i;
}

// Row r of the tile is token r / group, head r % group. Strides in elements.
struct AttentionTile {
  const void* q;  // token i, head h: q + i * q_stride + h * head_dim
  void* out;
  int64_t q_stride;
  int64_t out_stride;
  int64_t tokens;
  int64_t group;
  int64_t head_dim;
  int64_t first_visible;  // keys that token 0 sees
  int64_t visible_step;   // 1: token i sees i more (causal); 0: all see the same
  // Block b: (blocks == nullptr ? b : blocks[b]) strides after k and v, of the block's elements.
  const void* k;
  const void* v;
  const int32_t* blocks;
  int64_t k_block_stride;
  int64_t v_block_stride;
  int64_t value_columns;                // of a block of values
  float scale;                          // above 0
  DType block_type = DType::kBFloat16;  // kFloat8E4M3 or kInt8; any other: elements of the activation type

  int64_t rows() const { return tokens * group; }
  int64_t max_visible() const { return first_visible + (tokens - 1) * visible_step; }
  int64_t splits() const { return (max_visible() + kSplitTokens - 1) / kSplitTokens; }
};

struct AttentionKernels {
  // Bytes of scratch for one thread, for tiles of at most `rows`.
  int64_t (*scratch_bytes)(int64_t rows, int64_t head_dim);
  // Floats of the partial result of one split.
  int64_t (*partial_floats)(int64_t rows, int64_t head_dim);
  // All splits; writes tile.out. scratch: 64-byte aligned.
  void (*attend)(const AttentionTile& tile, void* scratch);
  // One split into `partial`; then, once all are there, `merge` of [splits][partial_floats] writes tile.out.
  // Together the same result as `attend`, bit by bit.
  void (*attend_split)(const AttentionTile& tile, int64_t split, float* partial, void* scratch);
  void (*merge)(const AttentionTile& tile, const float* partials, void* scratch);
  // Write `count` rows as tokens offset .. offset + count <= 64 of a block. Threads may write different
  // tokens of one block at once.
  void (*write_keys)(void* block, int64_t offset, const void* rows, int64_t stride, int64_t count,
                     int64_t head_dim);
  void (*write_values)(void* block, int64_t offset, const void* rows, int64_t stride, int64_t count,
                       int64_t head_dim, int64_t columns);
  // The same for blocks of `bytes`, kFloat8E4M3 or kInt8.
  void (*quantize_keys)(void* block, int64_t offset, const void* rows, int64_t stride, int64_t count,
                        int64_t head_dim, DType bytes);
  void (*quantize_values)(void* block, int64_t offset, const void* rows, int64_t stride, int64_t count,
                          int64_t head_dim, DType bytes);
};

// The table of the current instruction set for float32 or bfloat16.
const AttentionKernels& GetAttentionKernels(DType act);

}  // namespace fd::cpu
