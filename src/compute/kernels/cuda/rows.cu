#include "base/rng.h"
#include "compute/kernels/cuda/rows.h"

#include <algorithm>

#include "compute/kernels/cuda/values.cuh"

namespace fd::cuda {
namespace {

constexpr int kThreads = 256;

// Units of any size that are moved unchanged.
template <typename T>
__device__ __forceinline__ void Convert(T* out, const T& in) {
  *out = in;
}
__device__ __forceinline__ void Convert(float* out, const bf16& in) { *out = __bfloat162float(in); }
__device__ __forceinline__ void Convert(bf16* out, const float& in) { *out = __float2bfloat16_rn(in); }

// Both sides in units of their types; kScatter: `rows` says where to, otherwise where from.
template <typename Out, typename In, bool kScatter>
__global__ void MoveRows(Out* out, int64_t out_stride, const In* in, int64_t in_stride, const int32_t* rows,
                         int64_t indexed_rows, int64_t m, int64_t n) {
  const int64_t total = m * n;
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < total;
       i += int64_t{gridDim.x} * kThreads) {
    const int64_t r = i / n, c = i - r * n;
    const int64_t indexed = rows != nullptr ? rows[r] : r;
    if (indexed < 0 || indexed >= indexed_rows) {
      if constexpr (!kScatter) {
        for (size_t b = 0; b < sizeof(Out); ++b)
          reinterpret_cast<uint8_t*>(out + r * out_stride + c)[b] = 0xff;
      }
      continue;
    }
    if constexpr (kScatter) {
      Convert(out + indexed * out_stride + c, in[r * in_stride + c]);
    } else {
      Convert(out + r * out_stride + c, in[indexed * in_stride + c]);
    }
  }
}

template <typename Out, typename In, bool kScatter>
void Launch(void* out, int64_t out_stride, const void* in, int64_t in_stride, const int32_t* rows,
            int64_t indexed_rows, int64_t m, int64_t n, void* stream) {
  const int64_t blocks = std::min<int64_t>((m * n + kThreads - 1) / kThreads, 1 << 16);
  MoveRows<Out, In, kScatter><<<static_cast<unsigned>(blocks), kThreads, 0, AsStream(stream)>>>(
      static_cast<Out*>(out), out_stride, static_cast<const In*>(in), in_stride, rows, indexed_rows, m, n);
  FD_CUDA_CHECK(cudaGetLastError());
}

// The same type on both sides: the widest unit that divides everything.
template <bool kScatter>
void MoveBytes(void* out, int64_t out_stride, const void* in, int64_t in_stride, int64_t element_bytes,
               const int32_t* rows, int64_t indexed_rows, int64_t m, int64_t n, void* stream) {
  const int64_t row_bytes = n * element_bytes, to = out_stride * element_bytes,
                from = in_stride * element_bytes;
  const uint64_t all = static_cast<uint64_t>(row_bytes) | static_cast<uint64_t>(to) |
                       static_cast<uint64_t>(from) | reinterpret_cast<uint64_t>(out) |
                       reinterpret_cast<uint64_t>(in);
  if (all % 16 == 0) {
    Launch<uint4, uint4, kScatter>(out, to / 16, in, from / 16, rows, indexed_rows, m, row_bytes / 16,
                                   stream);
  } else if (all % 4 == 0) {
    Launch<uint32_t, uint32_t, kScatter>(out, to / 4, in, from / 4, rows, indexed_rows, m, row_bytes / 4,
                                         stream);
  } else if (all % 2 == 0) {
    Launch<uint16_t, uint16_t, kScatter>(out, to / 2, in, from / 2, rows, indexed_rows, m, row_bytes / 2,
                                         stream);
  } else {
    Launch<uint8_t, uint8_t, kScatter>(out, to, in, from, rows, indexed_rows, m, row_bytes, stream);
  }
}

__global__ void TakeDrawn(int32_t* ids, const int32_t* source, const int32_t* drawn, int64_t tokens,
                          int64_t drawn_rows) {
  const int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (i >= tokens) return;
  const int32_t row = source[i];
  if (row >= 0 && row < drawn_rows) ids[i] = max(drawn[row], 0);
}

template <typename T>
__global__ void Fill(T* out, int64_t n, uint64_t key, int64_t first_index, float scale) {
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < n; i += step) {
    const uint32_t bits = FillBits(key, static_cast<uint64_t>(first_index + i));
    const float value = static_cast<float>(static_cast<int32_t>(bits)) * 0x1p-31f * scale;
    out[i] = Round<T>(Load(Round<bf16>(value)));
  }
}

}  // namespace

void TakeDrawnTokens(int32_t* ids, const int32_t* source, const int32_t* drawn, int64_t tokens,
                     int64_t drawn_rows, void* stream) {
  if (tokens == 0) return;
  const auto blocks = static_cast<unsigned>((tokens + kThreads - 1) / kThreads);
  TakeDrawn<<<blocks, kThreads, 0, AsStream(stream)>>>(ids, source, drawn, tokens, drawn_rows);
  FD_CUDA_CHECK(cudaGetLastError());
}

void FillRandom(DType act, void* out, int64_t n, uint64_t key, int64_t first_index, float scale,
                void* stream) {
  if (n == 0) return;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>((n + kThreads - 1) / kThreads, 1 << 16));
  ForAct(act, [&]<typename T>(T) {
    Fill<<<blocks, kThreads, 0, AsStream(stream)>>>(static_cast<T*>(out), n, key, first_index, scale);
  });
  FD_CUDA_CHECK(cudaGetLastError());
}

void GatherRows(void* out, DType out_type, int64_t out_stride, const void* in, DType in_type,
                int64_t in_stride, int64_t in_rows, const int32_t* rows, int64_t m, int64_t n, void* stream) {
  if (m == 0 || n == 0) return;
  if (out_type == in_type) {
    MoveBytes<false>(out, out_stride, in, in_stride, DTypeBytes(in_type), rows, in_rows, m, n, stream);
  } else if (out_type == DType::kFloat32 && in_type == DType::kBFloat16) {
    Launch<float, bf16, false>(out, out_stride, in, in_stride, rows, in_rows, m, n, stream);
  } else if (out_type == DType::kBFloat16 && in_type == DType::kFloat32) {
    Launch<bf16, float, false>(out, out_stride, in, in_stride, rows, in_rows, m, n, stream);
  } else {
    FD_CHECK(false, "no such conversion");
  }
}

void ScatterRows(void* out, int64_t out_stride, int64_t out_rows, const void* in, int64_t in_stride,
                 DType type, const int32_t* rows, int64_t m, int64_t n, void* stream) {
  if (m == 0 || n == 0) return;
  MoveBytes<true>(out, out_stride, in, in_stride, DTypeBytes(type), rows, out_rows, m, n, stream);
}

}  // namespace fd::cuda
