// Attention over paged keys and values and inside segments, on CUDA. Everything is asynchronous on `stream`,
// allocates nothing and can be captured in a graph; index arrays are read on the device alone.
#pragma once

#include <cstdint>

#include "compute/tensor/dtype.h"

namespace fd::cuda {

inline constexpr int kKvPageTokens = 64;

// One call of PagedAttention (block_tables set: keys are pages, causal) or of SegmentAttention (block_tables
// null: keys are rows beside the queries, all of a segment visible). Strides in elements, pointers on the
// device.
struct AttentionArgs {
  void* out = nullptr;  // [tokens, heads, head_dim]
  const void* q = nullptr;
  // Pages [pages, kv_heads, 64, head_dim], or rows [tokens, kv_heads, head_dim]. Pages of bytes: of a head 64
  // * head_dim bytes and 64 bfloat16 scales.
  const void* k = nullptr;
  const void* v = nullptr;
  const int32_t* query_offsets = nullptr;   // [seqs + 1]
  const int32_t* context_tokens = nullptr;  // [seqs], paged only
  const int32_t* table_offsets = nullptr;   // [seqs + 1], paged only
  const int32_t* block_tables = nullptr;    // [*], paged only
  int64_t out_stride = 0;
  int64_t q_stride = 0;
  int64_t k_stride = 0;  // segments only: one row to the next
  int64_t v_stride = 0;
  int64_t pages = 0;  // paged only: pages of the whole cache
  int64_t tokens = 0;
  int64_t seqs = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t max_query_tokens = 0;
  int64_t max_context_tokens = 0;  // of a segment: its longest
  float scale = 0;
  DType dtype = DType::kBFloat16;
  // A row's bits may not depend on how many rows of its sequence come with it: no kernel for few rows.
  bool invariant = false;
  DType page_type = DType::kBFloat16;  // kFloat8E4M3 or kInt8; any other: pages of dtype
  float* scratch = nullptr;            // AttentionScratchFloats, may be null where that is 0
};

// Floats of scratch a call needs: partial results of the splits of long contexts.
int64_t AttentionScratchFloats(const AttentionArgs& args);
void Attention(const AttentionArgs& args, void* stream);

// The kernels behind Attention; each leaves out what it was not made for (see attention_select.cc).
namespace attention {

// Sequences of at most this many packed rows (queries x heads of a kv head) take the split-KV decode kernel.
inline constexpr int kDecodeRows = 8;

void Simt(const AttentionArgs& args, void* stream);  // any head_dim up to 512, float32 and bfloat16
// bfloat16, head_dim 64, 80 and 128. skip_decode: leaves out the sequences that Decode takes.
void Mma(const AttentionArgs& args, bool skip_decode, void* stream);
// The same on Hopper (sm_90a); pages of bytes: head_dim 64 and 128.
bool HasWgmma();  // of the current device
void Wgmma(const AttentionArgs& args, bool skip_decode, void* stream);
// For partial results, where a few tiles of rows see so many keys that several blocks take them in turns.
int64_t WgmmaScratchFloats(const AttentionArgs& args);
// bfloat16, paged, head_dim 64 and 128: the sequences of at most kDecodeRows packed rows.
void Decode(const AttentionArgs& args, void* stream);
int64_t DecodeScratchFloats(const AttentionArgs& args);

}  // namespace attention
}  // namespace fd::cuda
