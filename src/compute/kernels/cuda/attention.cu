// The attention kernel for any head_dim: a warp for each row, 32 keys at a time.
#include "compute/kernels/cuda/attention_tile.cuh"
#include "compute/kernels/cuda/bytes.cuh"
#include "compute/kernels/cuda/cuda_check.cuh"

namespace fd::cuda {
namespace {

constexpr int kMaxHeadDim = 512;

__device__ inline float Load(const float* p) { return *p; }
__device__ inline float Load(const __nv_bfloat16* p) { return __bfloat162float(*p); }
__device__ inline void Store(float* p, float v) { *p = v; }
__device__ inline void Store(__nv_bfloat16* p, float v) { *p = __float2bfloat16_rn(v); }

constexpr int kWarps = 4;

// Element i of a row of T, or of pages of bytes B.
template <typename T, DType B>
__device__ inline float Element(const void* row, int i) {
  if constexpr (HoldsBytes(B)) {
    return ByteValue<B>(static_cast<const uint8_t*>(row)[i]);
  } else {
    return Load(static_cast<const T*>(row) + i);
  }
}

template <typename T, DType B, int kParts>  // head_dim <= 32 * kParts
__global__ void __launch_bounds__(32 * kWarps) SimtKernel(AttentionArgs a) {
  __shared__ float q_rows[kWarps][32 * kParts];
  const int lane = threadIdx.x & 31, warp = threadIdx.x / 32, d = static_cast<int>(a.head_dim);
  const int group = static_cast<int>(a.heads / a.kv_heads);
  const int kv = static_cast<int>(blockIdx.x % a.kv_heads);
  attention::Tile tile;
  if (!attention::FindTile(a, kWarps, false, static_cast<int>(blockIdx.x / a.kv_heads), &tile)) return;
  const int row = tile.first_row + warp;
  if (row >= tile.rows) return;
  const int64_t token = tile.first_token + row / group, head = kv * group + row % group;
  const T* q = static_cast<const T*>(a.q) + token * a.q_stride + head * d;
  for (int i = lane; i < d; i += 32) q_rows[warp][i] = Load(q + i);
  __syncwarp();
  const int visible = attention::Visible(a, tile, row, group);
  const bool paged = a.block_tables != nullptr;
  const int32_t* table = paged ? a.block_tables + a.table_offsets[tile.seq] : nullptr;
  // The addresses of key `i`'s vectors.
  auto address = [&](const void* base, int64_t stride, int i) -> const void* {
    if constexpr (HoldsBytes(B)) {
      return static_cast<const uint8_t*>(base) +
             (table[i / kKvPageTokens] * a.kv_heads + kv) * ByteHeadSize(d) + i % kKvPageTokens * d;
    }
    const T* p = static_cast<const T*>(base);
    if (paged)
      return p + ((table[i / kKvPageTokens] * a.kv_heads + kv) * kKvPageTokens + i % kKvPageTokens) * d;
    return p + (tile.first_token + i) * stride + kv * d;
  };
  auto token_scale = [&](const void* base, int i) {
    const auto* head = static_cast<const uint8_t*>(base) +
                       (table[i / kKvPageTokens] * a.kv_heads + kv) * ByteHeadSize(d) + kKvPageTokens * d;
    return WidenScale(reinterpret_cast<const uint16_t*>(head)[i % kKvPageTokens]);
  };
  float top = -INFINITY, sum = 0, o[kParts] = {};
  for (int begin = 0; begin < visible; begin += 32) {
    const int key = begin + lane;
    float score = -INFINITY;
    if (key < visible) {
      const void* k = address(a.k, a.k_stride, key);
      float dot = 0;
      for (int i = 0; i < d; ++i) dot = fmaf(q_rows[warp][i], Element<T, B>(k, i), dot);
      if constexpr (HoldsBytes(B)) dot *= token_scale(a.k, key);
      score = dot * a.scale;
    }
    float new_top = fmaxf(top, score);
#pragma unroll
    for (int m = 16; m > 0; m /= 2) new_top = fmaxf(new_top, __shfl_xor_sync(~0u, new_top, m));
    const float old = expf(top - new_top), p = key < visible ? expf(score - new_top) : 0.0f;
    float block_sum = p;
#pragma unroll
    for (int m = 16; m > 0; m /= 2) block_sum += __shfl_xor_sync(~0u, block_sum, m);
    sum = sum * old + block_sum;
    top = new_top;
#pragma unroll
    for (int i = 0; i < kParts; ++i) o[i] *= old;
    const int keys = min(32, visible - begin);
    for (int j = 0; j < keys; ++j) {
      float weight = __shfl_sync(~0u, p, j);
      const void* v = address(a.v, a.v_stride, begin + j);
      if constexpr (HoldsBytes(B)) weight *= token_scale(a.v, begin + j);
#pragma unroll
      for (int i = 0; i < kParts; ++i) {
        if (lane + 32 * i < d) o[i] = fmaf(weight, Element<T, B>(v, lane + 32 * i), o[i]);
      }
    }
  }
  T* out = static_cast<T*>(a.out) + token * a.out_stride + head * d;
#pragma unroll
  for (int i = 0; i < kParts; ++i) {
    if (lane + 32 * i < d) Store(out + lane + 32 * i, o[i] / sum);
  }
}

template <typename T, DType B>
void LaunchSimt(const AttentionArgs& a, cudaStream_t stream) {
  const int64_t blocks = attention::MaxTiles(a, kWarps) * a.kv_heads;
  auto* kernel = a.head_dim <= 128 ? SimtKernel<T, B, 4> : SimtKernel<T, B, kMaxHeadDim / 32>;
  kernel<<<static_cast<unsigned>(blocks), 32 * kWarps, 0, stream>>>(a);
  FD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace

namespace attention {

void Simt(const AttentionArgs& a, void* stream) {
  FD_CHECK_LE(a.head_dim, int64_t{kMaxHeadDim});
  auto* s = static_cast<cudaStream_t>(stream);
  const auto of_act = [&]<DType B>(ByteType<B>) {
    if (a.dtype == DType::kFloat32) {
      LaunchSimt<float, B>(a, s);
    } else {
      LaunchSimt<__nv_bfloat16, B>(a, s);
    }
  };
  if (HoldsBytes(a.page_type)) return ForBytes(a.page_type, of_act);
  of_act(ByteType<DType::kBFloat16>{});  // elements of the activation type
}

}  // namespace attention
}  // namespace fd::cuda
