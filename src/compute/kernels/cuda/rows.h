// Kernels that work row by row. Strides are in elements from row to row; `act` is float32 or bfloat16 unless
// said otherwise. All operands lie on the device of the calling thread.
#pragma once

#include <cstdint>

#include "compute/tensor/dtype.h"

namespace fd::cuda {

// out[i] = in[rows[i]] (rows null: in[i]), converted. Both types float32 or bfloat16, or one and the same
// type. A row index outside [0, in_rows) gives NaN (0xff bytes), never a wild read.
void GatherRows(void* out, DType out_type, int64_t out_stride, const void* in, DType in_type,
                int64_t in_stride, int64_t in_rows, const int32_t* rows, int64_t m, int64_t n, void* stream);
// out[rows[i]] = in[i]; an index outside [0, out_rows) writes nothing.
void ScatterRows(void* out, int64_t out_stride, int64_t out_rows, const void* in, int64_t in_stride,
                 DType type, const int32_t* rows, int64_t m, int64_t n, void* stream);

// ops/rows: ids[i] = max(drawn[source[i]], 0) where source[i] is in [0, drawn_rows).
void TakeDrawnTokens(int32_t* ids, const int32_t* source, const int32_t* drawn, int64_t tokens,
                     int64_t drawn_rows, void* stream);
// ops/random.
void FillRandom(DType act, void* out, int64_t n, uint64_t key, int64_t first_index, float scale,
                void* stream);

// ops/norm. residual may be null; otherwise residual += in (rounded) first and the sum is normalised. All of
// type `act`; out may be in.
void RmsNorm(DType act, void* out, int64_t out_stride, void* residual, int64_t residual_stride,
             const void* in, int64_t in_stride, const void* weight, int64_t rows, int64_t n, float eps,
             void* stream);
void LayerNorm(DType act, void* out, int64_t out_stride, const void* in, int64_t in_stride,
               const void* weight, const void* bias, int64_t rows, int64_t n, float eps, void* stream);

// ops/elementwise.
void SwiGlu(DType act, void* out, int64_t out_stride, const void* gate_up, int64_t in_stride, int64_t rows,
            int64_t n, void* stream);
void QuickGelu(DType act, void* out, int64_t out_stride, const void* in, int64_t in_stride, int64_t rows,
               int64_t n, void* stream);
void Gelu(DType act, void* out, int64_t out_stride, const void* in, int64_t in_stride, int64_t rows,
          int64_t n, void* stream);
void Add(DType act, void* out, int64_t out_stride, const void* a, int64_t a_stride, const void* b,
         int64_t b_stride, int64_t rows, int64_t n, void* stream);
// Row = 3 planes of `plane` values: (in - offset[c]) / divisor[c]; offset and divisor in host memory.
void NormalizePixels(DType act, void* out, int64_t out_stride, const uint8_t* in, int64_t in_stride,
                     int64_t rows, int64_t plane, const float* offset, const float* divisor, void* stream);

// ops/rope. cos_sin [tokens][2][half] contiguous; positions row a begins at a * positions_stride.
void RopeCosSin(float* cos_sin, const int32_t* positions, int64_t positions_stride, const float* inv_freq,
                const int32_t* axis, int64_t tokens, int64_t half, float scale, void* stream);

// ApplyRope (kv_heads 0: q alone) and RopeAndWriteKv, one launch each. Nothing is written to k.
struct RopeArgs {
  void* q = nullptr;        // [tokens, heads, head_dim], rotated in place
  const void* k = nullptr;  // [tokens, kv_heads, head_dim]
  const void* v = nullptr;
  void* k_pages = nullptr;  // [*, kv_heads, 64, head_dim], or of bytes as in AttentionArgs
  void* v_pages = nullptr;
  const float* cos_sin = nullptr;  // [tokens][2][head_dim / 2]
  const int32_t* slots = nullptr;  // [tokens]; below 0 the token's key and value go nowhere
  int64_t q_stride = 0;
  int64_t k_stride = 0;
  int64_t v_stride = 0;
  int64_t tokens = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  bool interleaved = false;
  DType page_type = DType::kBFloat16;  // kFloat8E4M3 or kInt8; any other: pages of the activation type
};
void Rope(DType act, const RopeArgs& args, void* stream);

// ops/moe. bias may be null. experts <= kMaxRouteExperts.
inline constexpr int64_t kMaxRouteExperts = 1024;
void RouteSoftmax(int32_t* expert_ids, int64_t ids_stride, float* expert_weights, int64_t weights_stride,
                  const float* logits, int64_t logits_stride, const float* bias, int64_t tokens,
                  int64_t experts, int64_t top_k, float norm_min, bool round_weights, void* stream);

}  // namespace fd::cuda
