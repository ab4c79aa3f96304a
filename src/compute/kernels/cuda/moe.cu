#include "compute/kernels/cuda/moe.h"

#include <cuda_bf16.h>

#include "compute/kernels/cuda/cuda_check.cuh"
#include "compute/kernels/cuda/grouped_gemm.h"
#include "compute/kernels/cuda/launch.cuh"
#include "compute/kernels/cuda/linear_quant.h"

namespace fd::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxPairsOneLaunch = 4096;
constexpr int kMaxExperts = 1024;

__device__ int BlockSum(int value) {
  __shared__ int sums[kThreads / 32];
  value = __reduce_add_sync(0xffffffffu, value);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();
  value = 0;
  for (int i = 0; i < kThreads / 32; ++i) value += sums[i];
  __syncthreads();
  return value;
}

__device__ void CopyRow(char* to, const char* from, int64_t bytes) {
  if (((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from) | bytes) & 15) == 0) {
    for (int64_t i = threadIdx.x; i < bytes / 16; i += blockDim.x) {
      reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(from)[i];
    }
  } else {
    for (int64_t i = threadIdx.x; i < bytes / 2; i += blockDim.x) {
      reinterpret_cast<uint16_t*>(to)[i] = reinterpret_cast<const uint16_t*>(from)[i];
    }
  }
}

// counts -> offsets in place over shared memory [experts + 1]; the last element becomes the total.
__device__ void ExclusiveScan(int* counts, int experts) {
  if (threadIdx.x < 32) {
    int before = 0;
    for (int base = 0; base <= experts; base += 32) {
      const int i = base + static_cast<int>(threadIdx.x);
      const int own = i < experts ? counts[i] : 0;
      int sum = own;
      for (int d = 1; d < 32; d *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, sum, d);
        if (threadIdx.x >= d) sum += other;
      }
      if (i <= experts) counts[i] = before + sum - own;
      before += __shfl_sync(0xffffffffu, sum, 31);
    }
  }
  __syncthreads();
}

__device__ int IdOf(const MoeArgs& a, int pair) {
  if (a.ids_stride == a.top_k) return a.expert_ids[pair];
  const int top_k = static_cast<int>(a.top_k);
  return a.expert_ids[pair / top_k * a.ids_stride + pair % top_k];
}

// Few pairs: block p counts where pair p goes and copies its row, the last block makes the offsets.
__global__ void GroupAndPermuteFew(MoeArgs a, int row_bytes) {
  LetNextBegin();
  WaitForPrevious();
  __shared__ int counts[kMaxExperts + 1];
  const int pairs = static_cast<int>(a.tokens * a.top_k);
  const int own = static_cast<int>(blockIdx.x);
  if (own == pairs) {
    for (int e = threadIdx.x; e <= a.experts; e += kThreads) counts[e] = 0;
    __syncthreads();
    for (int p = threadIdx.x; p < pairs; p += kThreads) atomicAdd(&counts[IdOf(a, p)], 1);
    __syncthreads();
    ExclusiveScan(counts, static_cast<int>(a.experts));
    for (int e = threadIdx.x; e <= a.experts; e += kThreads) a.offsets[e] = counts[e];
    return;
  }
  const int expert = IdOf(a, own);
  int before = 0;
  for (int p = threadIdx.x; p < pairs; p += kThreads) {
    const int e = IdOf(a, p);
    before += e < expert || (e == expert && p < own);
  }
  const int slot = BlockSum(before);
  if (threadIdx.x == 0) a.slots[own] = slot;
  CopyRow(static_cast<char*>(a.rows) + static_cast<int64_t>(slot) * row_bytes,
          static_cast<const char*>(a.in) + own / a.top_k * a.in_stride * (row_bytes / a.hidden), row_bytes);
}

// Many pairs: block e finds those of expert e, each thread in a run of consecutive pairs.
constexpr int kGroupThreads = 1024;
__global__ void __launch_bounds__(kGroupThreads) GroupMany(MoeArgs a) {
  __shared__ int warp_less[kGroupThreads / 32], warp_equal[kGroupThreads / 32];
  const int expert = static_cast<int>(blockIdx.x), pairs = static_cast<int>(a.tokens * a.top_k);
  const int run = (pairs + kGroupThreads - 1) / kGroupThreads;
  const int begin = min(pairs, static_cast<int>(threadIdx.x) * run), end = min(pairs, begin + run);
  int less = 0, equal = 0;
#pragma unroll 4
  for (int p = begin; p < end; ++p) {
    const int id = IdOf(a, p);
    less += id < expert;
    equal += id == expert;
  }
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  less = __reduce_add_sync(0xffffffffu, less);
  int up_to = equal;
  for (int d = 1; d < 32; d *= 2) {
    const int other = __shfl_up_sync(0xffffffffu, up_to, d);
    if (lane >= d) up_to += other;
  }
  if (lane == 31) {
    warp_less[warp] = less;
    warp_equal[warp] = up_to;
  }
  __syncthreads();
  const int first = __reduce_add_sync(0xffffffffu, warp_less[lane]);
  int slot = first + up_to - equal + __reduce_add_sync(0xffffffffu, lane < warp ? warp_equal[lane] : 0);
  if (threadIdx.x == 0) {
    a.offsets[expert] = first;
    if (expert == a.experts - 1) a.offsets[a.experts] = pairs;
  }
  if (equal == 0) return;
  for (int p = begin; p < end; ++p) {
    if (IdOf(a, p) == expert) a.slots[p] = slot++;
  }
}

__global__ void PermuteMany(MoeArgs a, int row_bytes) {
  const int64_t token = blockIdx.x;
  const char* from = static_cast<const char*>(a.in) + token * a.in_stride * (row_bytes / a.hidden);
  for (int64_t j = 0; j < a.top_k; ++j) {
    CopyRow(static_cast<char*>(a.rows) + static_cast<int64_t>(a.slots[token * a.top_k + j]) * row_bytes, from,
            row_bytes);
  }
}

template <typename T>
__device__ float Widen(T v) {
  return static_cast<float>(v);
}
template <typename T>
__device__ T Round(float v) {
  return static_cast<T>(v);
}

template <typename T>
__global__ void SwiGluRows(T* out, const T* gate_up, int64_t count, int64_t width) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const int64_t row = i / width, column = i % width;
  const float gate = Widen(gate_up[row * 2 * width + column]);
  const float up = Widen(gate_up[row * 2 * width + width + column]);
  const float silu = Widen(Round<T>(gate / (1.0f + expf(-gate))));
  out[i] = Round<T>(silu * up);
}

// kVector elements of one token per thread; products and sums rounded separately, as on the CPU.
template <typename T, int kVector>
__global__ void Combine(MoeArgs a) {
  struct alignas(sizeof(T) * kVector) Pack {
    T v[kVector];
  };
  LetNextBegin();
  WaitForPrevious();
  const int64_t token = blockIdx.x;
  const int64_t column = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * kVector;
  if (column >= a.hidden) return;
  const T* values = static_cast<const T*>(a.rows);
  float sum[kVector] = {};
#pragma unroll 2
  for (int64_t j = 0; j < a.top_k; ++j) {
    const int64_t slot = a.slots[token * a.top_k + j];
    const float w = a.expert_weights[token * a.weights_stride + j];
    const Pack pack = *reinterpret_cast<const Pack*>(values + slot * a.hidden + column);
#pragma unroll
    for (int i = 0; i < kVector; ++i) sum[i] = __fadd_rn(sum[i], __fmul_rn(w, Widen(pack.v[i])));
  }
  Pack pack;
#pragma unroll
  for (int i = 0; i < kVector; ++i) pack.v[i] = Round<T>(sum[i]);
  *reinterpret_cast<Pack*>(static_cast<T*>(a.out) + token * a.out_stride + column) = pack;
}

template <typename T>
void LaunchCombine(const MoeArgs& a, cudaStream_t stream) {
  constexpr int kVector = 16 / sizeof(T);
  const bool aligned = a.hidden % kVector == 0 && a.out_stride % kVector == 0 &&
                       ((reinterpret_cast<uintptr_t>(a.out) | reinterpret_cast<uintptr_t>(a.rows)) & 15) == 0;
  const int per_block = 128 * (aligned ? kVector : 1);
  const dim3 grid(static_cast<unsigned>(a.tokens),
                  static_cast<unsigned>((a.hidden + per_block - 1) / per_block));
  if (aligned) {
    LaunchOverlapped(Combine<T, kVector>, grid, 128, 0, stream, a);
  } else {
    LaunchOverlapped(Combine<T, 1>, grid, 128, 0, stream, a);
  }
}

const void* const* Addresses(const MoeArgs& a) {
  return reinterpret_cast<const void* const*>(static_cast<const char*>(a.table) +
                                              2 * a.experts * kTensorMapBytes);
}

template <typename T>
void LaunchSwiGlu(const MoeArgs& a, cudaStream_t stream) {
  const int64_t count = a.tokens * a.top_k * a.width;
  SwiGluRows<<<static_cast<unsigned>((count + kThreads - 1) / kThreads), kThreads, 0, stream>>>(
      static_cast<T*>(a.activated), static_cast<const T*>(a.gate_up), count, a.width);
  FD_CUDA_CHECK(cudaGetLastError());
}
void SwiGluApart(const MoeArgs& a, cudaStream_t stream) {
  a.act == DType::kBFloat16 ? LaunchSwiGlu<__nv_bfloat16>(a, stream) : LaunchSwiGlu<float>(a, stream);
}

// out [pairs, n] = in [pairs, k] times each expert's quantised weight.
QuantLinear QuantProduct(const MoeArgs& a, const ExpertQuant& quant, void* out, const void* in, int64_t n,
                         int64_t k, int64_t first_address) {
  QuantLinear q;
  q.linear.out = out;
  q.linear.in = in;
  q.linear.out_type = q.linear.in_type = a.act;
  q.linear.m = a.tokens * a.top_k;
  q.linear.n = q.linear.out_stride = n;
  q.linear.k = q.linear.in_stride = k;
  q.bits = quant.bits;
  q.group_size = quant.group_size;
  q.offsets = a.offsets;
  q.experts = a.experts;
  q.expert_weights = Addresses(a) + first_address;
  q.expert_scales = Addresses(a) + 2 * a.experts + first_address;
  return q;
}

void QuantizedProducts(const MoeArgs& a, bool fused, cudaStream_t stream) {
  QuantLinear q = QuantProduct(a, a.gate_up_quant, a.gate_up, a.rows, 2 * a.width, a.hidden, 0);
  if (fused) {
    q.linear.out = a.activated;
    q.linear.out_stride = a.width;
    FD_CHECK(LinearQuantSwiGlu(q, stream), "rows off 16 bytes");
  } else {
    LinearQuant(q, stream);
    SwiGluApart(a, stream);
  }
  LinearQuant(QuantProduct(a, a.down_quant, a.rows, a.activated, a.hidden, a.width, a.experts), stream);
}

void PlainProducts(const MoeArgs& a, bool fused, void* stream) {
  GroupedGemm g;
  g.pairs = a.tokens * a.top_k;
  g.experts = a.experts;
  g.act = a.act;
  g.offsets = a.offsets;
  g.n = 2 * a.width;
  g.k = a.hidden;
  g.weight = a.gate_up_weight;
  g.in = a.rows;
  g.out = fused ? a.activated : a.gate_up;
  g.maps = a.table;
  g.weights = Addresses(a);
  if (fused) {
    GroupedGateUpSm90(g, stream);
  } else {
    GroupedGemmPortable(g, stream);
    SwiGluApart(a, static_cast<cudaStream_t>(stream));
  }
  g.n = a.hidden;
  g.k = a.width;
  g.weight = a.down_weight;
  g.in = a.activated;
  g.out = a.rows;
  g.maps = static_cast<const char*>(a.table) + a.experts * kTensorMapBytes;
  g.weights = Addresses(a) + a.experts;
  if (fused) {
    GroupedGemmSm90(g, stream);
  } else {
    GroupedGemmPortable(g, stream);
  }
}

}  // namespace

int64_t ExpertTableBytes(int64_t experts) { return experts * 2 * (kTensorMapBytes + 2 * 8); }

void FillExpertTable(void* host_table, const ExpertTableShape& s, const ExpertAddresses* experts) {
  FD_CHECK(s.experts <= kMaxExperts, s.experts, " experts");
  char* table = static_cast<char*>(host_table);
  memset(table, 0, static_cast<size_t>(ExpertTableBytes(s.experts)));
  const void** addresses = reinterpret_cast<const void**>(table + 2 * s.experts * kTensorMapBytes);
  const bool maps = !s.quantized && GroupedGemmSm90Usable(DType::kBFloat16, s.weight, s.width, s.hidden);
  for (int64_t e = 0; e < s.experts; ++e) {
    addresses[e] = experts[e].gate_up;
    addresses[s.experts + e] = experts[e].down;
    addresses[2 * s.experts + e] = experts[e].gate_up_scales;
    addresses[3 * s.experts + e] = experts[e].down_scales;
    if (!maps) continue;
    GroupedGateUpMapSm90(table + e * kTensorMapBytes, experts[e].gate_up, 2 * s.width, s.hidden);
    GroupedWeightMapSm90(table + (s.experts + e) * kTensorMapBytes, experts[e].down, s.hidden, s.width);
  }
}

bool MoeFused(const MoeArgs& a) {
  if (a.gate_up_quant.bits != 0) return QuantSwiGluUsable(a.act, 2 * a.width, a.hidden);
  return a.gate_up_weight == a.down_weight && GroupedGemmSm90Usable(a.act, a.down_weight, a.width, a.hidden);
}

void MoeExperts(const MoeArgs& a, void* stream) {
  const cudaStream_t s = static_cast<cudaStream_t>(stream);
  const int64_t pairs = a.tokens * a.top_k;
  const int row_bytes = static_cast<int>(a.hidden * DTypeBytes(a.act));
  FD_CHECK(a.experts <= kMaxExperts, a.experts, " experts");
  if (pairs <= kMaxPairsOneLaunch) {
    LaunchOverlapped(GroupAndPermuteFew, dim3(static_cast<unsigned>(pairs + 1)), kThreads, 0, s, a,
                     row_bytes);
  } else {
    GroupMany<<<static_cast<unsigned>(a.experts), kGroupThreads, 0, s>>>(a);
    FD_CUDA_CHECK(cudaGetLastError());
    PermuteMany<<<static_cast<unsigned>(a.tokens), kThreads, 0, s>>>(a, row_bytes);
    FD_CUDA_CHECK(cudaGetLastError());
  }
  const bool fused = MoeFused(a);
  if (a.gate_up_quant.bits != 0) {
    QuantizedProducts(a, fused, s);
  } else {
    PlainProducts(a, fused, stream);
  }
  if (a.act == DType::kBFloat16) {
    LaunchCombine<__nv_bfloat16>(a, s);
  } else {
    LaunchCombine<float>(a, s);
  }
}

}  // namespace fd::cuda
