// Attention over paged keys and values for ragged batches, and bidirectional attention inside segments.
#pragma once

#include "compute/ops/context.h"
#include "compute/ops/rope.h"

namespace fd::ops {

// A page holds the keys or the values of so many tokens. Tensors of pages are [pages, kv_heads, 64,
// head_dim]; on CUDA that is where each value lies, on the CPU it only counts them: within a page and kv head
// they lie as kernels/cpu/attention.h says, in the order in which the kernel reads them. Only RopeAndWriteKv
// writes pages and only PagedAttention reads them; what a token left there does not show once the page is
// another sequence's.
//
// Pages of kFloat8E4M3 or kInt8 are [pages, kv_heads, 64 * (head_dim + 2)]: of a head its 64 * head_dim bytes
// in the same order, then 64 bfloat16 scales, one for each token. A value is byte * scale; in float32, scale
// = the row's absmax / 448 or / 127, rounded up to the next bfloat16 (itself where it is one), so that no
// element passes the largest byte; byte = value * (1 / scale) rounded to nearest even. A row whose absmax is
// below 1e-30 is zeros with scale 0; one that is not finite is zeros with scale NaN. A scale belongs to a
// token and not to a page, because a page's would depend on how the prompt was cut into chunks: a token's
// depends on the token alone.
inline constexpr int64_t kPageTokens = 64;
constexpr bool PagesHoldBytes(DType pages) { return pages == DType::kFloat8E4M3 || pages == DType::kInt8; }
// The shape of a tensor of pages.
Shape PagesShape(DType pages, int64_t num_pages, int64_t kv_heads, int64_t head_dim);

// The ragged batch of one step: prefill chunks and decodes together. Device tensors; the scalar fields are
// host copies for planning.
struct AttentionBatch {
  TensorView query_offsets;   // int32 [seqs + 1]: tokens of sequence s are rows query_offsets[s] ..
                              // query_offsets[s + 1]
  TensorView context_tokens;  // int32 [seqs]: tokens of s in the cache after this step, its new ones included
  TensorView table_offsets;   // int32 [seqs + 1]
  TensorView block_tables;  // int32 [*]: the page of token i of s is block_tables[table_offsets[s] + i / 64]
  TensorView slots;  // int32 [tokens]: page * 64 + offset where each token's key and value go; below 0:
                     // nowhere (a row that pads a CUDA graph)
  int64_t max_query_tokens = 0;
  int64_t max_context_tokens = 0;
};

// Rotates q in place; k_pages[slots[t]] = rotated k[t], v_pages[slots[t]] = v[t], nothing where slots[t] < 0.
// What k holds afterwards is unspecified. The bits are those of ApplyRope on q and k; pages of bytes get
// those, rounded once more. q [tokens, heads, head_dim], k, v [tokens, kv_heads, head_dim] act, rows may be
// strided, no two may overlap; no slot twice; k_pages, v_pages of PagesShape, act or bytes; cos_sin float32
// [tokens, 2, head_dim / 2]; slots int32 [tokens].
void RopeAndWriteKv(const Context& ctx, const TensorView& q, const TensorView& k_pages,
                    const TensorView& v_pages, const TensorView& k, const TensorView& v,
                    const TensorView& cos_sin, const TensorView& slots, RopeStyle style);

// What PagedAttention takes from ctx.workspace at most, for steps of so many tokens in so many sequences,
// none longer than max_context_tokens.
int64_t PagedAttentionScratchBytes(const Context& ctx, DType act, int64_t heads, int64_t kv_heads,
                                   int64_t head_dim, int64_t tokens, int64_t seqs,
                                   int64_t max_context_tokens);
// The same for SegmentAttention of so many rows in so many segments, segment_rows of them in the longest.
int64_t SegmentAttentionScratchBytes(const Context& ctx, DType act, int64_t heads, int64_t head_dim,
                                     int64_t rows, int64_t segments, int64_t segment_rows);

// Causal: query i of sequence s sees its first context_tokens[s] - (queries of s) + i + 1 tokens. Query head
// h uses kv head h / (heads / kv_heads). float32 scores and softmax; a row's result does not depend on the
// batch, on how the prompt was cut into chunks or on the number of threads. On CUDA without
// ctx.batch_invariant it does in its last bits: a single query takes another kernel, and so do keys beyond
// the first 2,048 of batches with few rows. out, q [tokens, heads, head_dim]
// act (q's rows may be strided); k_pages, v_pages of PagesShape, act or bytes; head_dim even on the CPU,
// scale above 0.
void PagedAttention(const Context& ctx, const TensorView& out, const TensorView& q, const TensorView& k_pages,
                    const TensorView& v_pages, const AttentionBatch& batch, float scale);

// Each row attends to all rows of its own segment (one picture or frame). out, q, k, v [rows, heads,
// head_dim] act, q, k, v may be strided; scale above 0; segment_offsets int32 [segments + 1], the last =
// rows; max_segment_rows: host copy of the longest.
void SegmentAttention(const Context& ctx, const TensorView& out, const TensorView& q, const TensorView& k,
                      const TensorView& v, const TensorView& segment_offsets, int64_t max_segment_rows,
                      float scale);

}  // namespace fd::ops
