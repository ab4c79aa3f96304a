// Flash attention for bfloat16 on any GPU from sm_80 on: 64 packed rows a block, 16 a warp; blocks of 64 keys
// come through shared memory by cp.async, double-buffered. Keys are visited from the first on, so that a
// row's result depends neither on the batch nor on how its prompt was cut.
#include <type_traits>

#include "compute/kernels/cuda/attention_tile.cuh"
#include "compute/kernels/cuda/bytes.cuh"
#include "compute/kernels/cuda/cuda_check.cuh"

namespace fd::cuda::attention {
namespace {

constexpr int kWarps = 4;
constexpr int kRows = 16 * kWarps;
constexpr int kKeys = kKvPageTokens;

template <int D>
inline constexpr int kPitch = D + 8;  // elements of a row in shared memory: an odd number of 16-byte units
template <int D>
inline constexpr int kTileElements = kKeys * kPitch<D>;

__device__ inline uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
// bytes 0: zeros instead.
__device__ inline void CopyAsync16(void* to, const void* from, bool copy) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(SharedAddress(to)), "l"(from),
               "r"(copy ? 16 : 0));
}
__device__ inline void LoadMatrix4(uint32_t* r, const void* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(p)));
}
__device__ inline void LoadMatrix4Transposed(uint32_t* r, const void* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(p)));
}

// A block of keys or values in bytes on its way to shared memory: read into registers before the block ahead
// of it is computed, widened and stored after that.
template <int D, DType B>
struct ByteTile {
  static constexpr int kUnits = kKeys * D / 16;  // of 16 bytes
  static constexpr int kEach = (kUnits + 32 * kWarps - 1) / (32 * kWarps);
  uint4 units[kEach];
  float scale;

  // keys: of the block, those of the context; the scales of the others are 0, their bytes whatever lies
  // there.
  __device__ void Read(const void* base, int64_t head, int keys) {
    const auto* from = static_cast<const char*>(base) + head * ByteHeadSize(D);
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int unit = threadIdx.x + i * 32 * kWarps;
      if (unit < kUnits) units[i] = *reinterpret_cast<const uint4*>(from + 16 * unit);
    }
    const int key = static_cast<int>(threadIdx.x);
    scale =
        key < min(keys, kKeys) ? WidenScale(reinterpret_cast<const uint16_t*>(from + kKeys * D)[key]) : 0.0f;
  }
  __device__ void Write(__nv_bfloat16* tile, float* scales) const {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int unit = threadIdx.x + i * 32 * kWarps;
      if (unit >= kUnits) continue;
      auto* to = tile + unit / (D / 16) * kPitch<D> + unit % (D / 16) * 16;
      const uint32_t x[4] = {units[i].x, units[i].y, units[i].z, units[i].w};
      uint32_t wide[8];
#pragma unroll
      for (int j = 0; j < 8; ++j) wide[j] = WidenPair<B>(x[j / 2], j % 2);
      *reinterpret_cast<uint4*>(to) = make_uint4(wide[0], wide[1], wide[2], wide[3]);
      *reinterpret_cast<uint4*>(to + 8) = make_uint4(wide[4], wide[5], wide[6], wide[7]);
    }
    if (threadIdx.x < kKeys) scales[threadIdx.x] = scale;
  }
};
struct NoTile {
  __device__ void Read(const void*, int64_t, int) {}
  __device__ void Write(__nv_bfloat16*, float*) const {}
};

// B: what pages hold; kBFloat16: elements as they are.
template <int D, bool kPaged, DType B>
__global__ void __launch_bounds__(32 * kWarps) MmaKernel(AttentionArgs a, bool skip_decode) {
  constexpr bool kBytes = HoldsBytes(B);
  extern __shared__ __align__(128) __nv_bfloat16 shared[];
  __nv_bfloat16* k_tiles = shared;  // two of each
  __nv_bfloat16* v_tiles = shared + 2 * kTileElements<D>;
  auto* scales = reinterpret_cast<float*>(shared + 4 * kTileElements<D>);  // [2 tiles][keys, values][64]
  const int lane = threadIdx.x & 31, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
  const int group = static_cast<int>(a.heads / a.kv_heads), kv = static_cast<int>(blockIdx.x % a.kv_heads);
  Tile tile;
  if (!FindTile(a, kRows, skip_decode, static_cast<int>(blockIdx.x / a.kv_heads), &tile)) return;
  const float scale = a.scale * 1.4426950408889634f;
  const int32_t* table = kPaged ? a.block_tables + a.table_offsets[tile.seq] : nullptr;

  auto copy_tile = [&](__nv_bfloat16* to, const void* base, int64_t stride, int block) {
    const auto* from = static_cast<const __nv_bfloat16*>(base);
    if constexpr (kPaged) {
      const int64_t page = table[block];
      from += (page * a.kv_heads + kv) * (kKeys * D);
      stride = D;
    } else {
      from += (tile.first_token + static_cast<int64_t>(block) * kKeys) * stride + kv * D;
    }
    const int keys = tile.context - block * kKeys;  // beyond them: zeros, the memory may hold NaN
    for (int i = threadIdx.x; i < kKeys * D / 8; i += 32 * kWarps) {
      const int key = i / (D / 8), part = i % (D / 8) * 8;
      const bool inside = key < keys;
      CopyAsync16(to + key * kPitch<D> + part, from + (inside ? key * stride : 0) + part, inside);
    }
  };
  auto commit = [] { asm volatile("cp.async.commit_group;\n"); };

  // Queries through the second K buffer into registers.
  uint32_t q[D / 16][4];
  for (int i = threadIdx.x; i < kRows * D / 8; i += 32 * kWarps) {
    const int r = i / (D / 8), part = i % (D / 8) * 8, row = min(tile.first_row + r, tile.rows - 1);
    CopyAsync16(k_tiles + kTileElements<D> + r * kPitch<D> + part,
                static_cast<const __nv_bfloat16*>(a.q) + (tile.first_token + row / group) * a.q_stride +
                    (kv * group + row % group) * D + part,
                true);
  }
  commit();
  [[maybe_unused]] std::conditional_t<kBytes, ByteTile<D, kBytes ? B : DType::kInt8>, NoTile> k_ahead,
      v_ahead;
  [[maybe_unused]] auto read_bytes = [&](int block) {
    const int64_t head = table[block] * a.kv_heads + kv;
    k_ahead.Read(a.k, head, tile.context - block * kKeys);
    v_ahead.Read(a.v, head, tile.context - block * kKeys);
  };
  [[maybe_unused]] auto write_bytes = [&](int slot) {
    k_ahead.Write(k_tiles + slot * kTileElements<D>, scales + slot * 2 * kKeys);
    v_ahead.Write(v_tiles + slot * kTileElements<D>, scales + slot * 2 * kKeys + kKeys);
  };
  if constexpr (kBytes) {
    read_bytes(0);
    write_bytes(0);
    asm volatile("cp.async.wait_group 0;\n");
  } else {
    copy_tile(k_tiles, a.k, a.k_stride, 0);
    copy_tile(v_tiles, a.v, a.v_stride, 0);
    commit();
    asm volatile("cp.async.wait_group 1;\n");
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < D / 16; ++i) {
    LoadMatrix4(q[i],
                k_tiles + kTileElements<D> + (16 * warp + lane % 16) * kPitch<D> + 16 * i + lane / 16 * 8);
  }
  __syncthreads();

  const int row0 = tile.first_row + 16 * warp + g;
  const int visible[2] = {Visible(a, tile, row0, group), Visible(a, tile, row0 + 8, group)};
  const int blocks = (Visible(a, tile, tile.first_row + kRows - 1, group) + kKeys - 1) / kKeys;
  float o[D / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  for (int block = 0; block < blocks; ++block) {
    const int now = block & 1, next = now ^ 1;
    if constexpr (kBytes) {
      if (block + 1 < blocks) read_bytes(block + 1);
    } else if (block + 1 < blocks) {
      copy_tile(k_tiles + next * kTileElements<D>, a.k, a.k_stride, block + 1);
      copy_tile(v_tiles + next * kTileElements<D>, a.v, a.v_stride, block + 1);
      commit();
      asm volatile("cp.async.wait_group 1;\n");
    } else {
      asm volatile("cp.async.wait_group 0;\n");
    }
    __syncthreads();
    const __nv_bfloat16* k = k_tiles + now * kTileElements<D>;
    const __nv_bfloat16* v = v_tiles + now * kTileElements<D>;

    float s[kKeys / 8][4] = {};
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
#pragma unroll
      for (int n = 0; n < kKeys / 16; ++n) {
        uint32_t b[4];
        LoadMatrix4(b, k + (16 * n + lane % 8 + lane / 16 * 8) * kPitch<D> + 16 * i + lane / 8 % 2 * 8);
        Mma16816(s[2 * n], q[i], b[0], b[1]);
        Mma16816(s[2 * n + 1], q[i], b[2], b[3]);
      }
    }
    [[maybe_unused]] const float* key_scales = scales + now * 2 * kKeys;
    if constexpr (kBytes) {
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
        const float2 by = *reinterpret_cast<const float2*>(key_scales + 8 * n + 2 * c);
#pragma unroll
        for (int e = 0; e < 4; ++e) s[n][e] *= e & 1 ? by.y : by.x;
      }
    }
    const int base = block * kKeys;
    if (base + kKeys > min(visible[0], visible[1])) {
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if (base + 8 * n + 2 * c + (e & 1) >= visible[e / 2]) s[n][e] = -INFINITY;
        }
      }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float m = top[h];
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) m = fmaxf(m, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
      m = fmaxf(m, __shfl_xor_sync(~0u, m, 1));
      m = fmaxf(m, __shfl_xor_sync(~0u, m, 2));
      // Every row sees the first key, so m is finite.
      const float old = Exp2((top[h] - m) * scale), shift = m * scale;
      top[h] = m;
      sum[h] *= old;
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
        s[n][2 * h] = Exp2(fmaf(s[n][2 * h], scale, -shift));
        s[n][2 * h + 1] = Exp2(fmaf(s[n][2 * h + 1], scale, -shift));
        sum[h] += s[n][2 * h] + s[n][2 * h + 1];
      }
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
        o[n][2 * h] *= old;
        o[n][2 * h + 1] *= old;
      }
    }
    if constexpr (kBytes) {
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
        const float2 by = *reinterpret_cast<const float2*>(key_scales + kKeys + 8 * n + 2 * c);
#pragma unroll
        for (int e = 0; e < 4; ++e) s[n][e] *= e & 1 ? by.y : by.x;
      }
    }
#pragma unroll
    for (int i = 0; i < kKeys / 16; ++i) {
      const uint32_t p[4] = {PackBf16(s[2 * i][0], s[2 * i][1]), PackBf16(s[2 * i][2], s[2 * i][3]),
                             PackBf16(s[2 * i + 1][0], s[2 * i + 1][1]),
                             PackBf16(s[2 * i + 1][2], s[2 * i + 1][3])};
#pragma unroll
      for (int n = 0; n < D / 16; ++n) {
        uint32_t b[4];
        LoadMatrix4Transposed(b, v + (16 * i + lane % 16) * kPitch<D> + 16 * n + lane / 16 * 8);
        Mma16816(o[2 * n], p, b[0], b[1]);
        Mma16816(o[2 * n + 1], p, b[2], b[3]);
      }
    }
    if constexpr (kBytes) {
      // Nobody reads the other buffer: the barrier of this round came after the last one's products.
      if (block + 1 < blocks) write_bytes(next);
    }
    __syncthreads();
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    sum[h] += __shfl_xor_sync(~0u, sum[h], 1);
    sum[h] += __shfl_xor_sync(~0u, sum[h], 2);
    const int row = row0 + 8 * h;
    if (row >= tile.rows) continue;
    const float inverse = 1.0f / sum[h];
    auto* out = static_cast<__nv_bfloat16*>(a.out) + (tile.first_token + row / group) * a.out_stride +
                (kv * group + row % group) * D + 2 * c;
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      *reinterpret_cast<uint32_t*>(out + 8 * n) = PackBf16(o[n][2 * h] * inverse, o[n][2 * h + 1] * inverse);
    }
  }
}

template <int D, bool kPaged, DType B>
void Launch(const AttentionArgs& a, bool skip_decode, cudaStream_t stream) {
  constexpr int kBytes = 4 * kTileElements<D> * static_cast<int>(sizeof(__nv_bfloat16)) +
                         (HoldsBytes(B) ? 4 * kKeys * static_cast<int>(sizeof(float)) : 0);
  static const bool raised = [] {
    FD_CUDA_CHECK(
        cudaFuncSetAttribute(MmaKernel<D, kPaged, B>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
    return true;
  }();
  (void)raised;
  const auto blocks = static_cast<unsigned>(MaxTiles(a, kRows) * a.kv_heads);
  MmaKernel<D, kPaged, B><<<blocks, 32 * kWarps, kBytes, stream>>>(a, skip_decode);
  FD_CUDA_CHECK(cudaGetLastError());
}

template <int D>
void LaunchFor(const AttentionArgs& a, bool skip_decode, cudaStream_t stream) {
  if (a.block_tables == nullptr) return Launch<D, false, DType::kBFloat16>(a, skip_decode, stream);
  if (!HoldsBytes(a.page_type)) return Launch<D, true, DType::kBFloat16>(a, skip_decode, stream);
  ForBytes(a.page_type, [&]<DType B>(ByteType<B>) { Launch<D, true, B>(a, skip_decode, stream); });
}

}  // namespace

void Mma(const AttentionArgs& a, bool skip_decode, void* stream) {
  auto* s = static_cast<cudaStream_t>(stream);
  switch (a.head_dim) {
    case 64:
      return LaunchFor<64>(a, skip_decode, s);
    case 80:
      return LaunchFor<80>(a, skip_decode, s);
    case 128:
      return LaunchFor<128>(a, skip_decode, s);
    default:
      FD_CHECK(false, "head_dim ", a.head_dim);
  }
}

}  // namespace fd::cuda::attention
