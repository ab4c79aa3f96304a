// Flash attention for Hopper, bfloat16: a producer warp brings blocks of 128 keys and values by TMA, two or
// three warpgroups of 64 packed rows each multiply them by wgmma; the scores of the next block are computed
// while the values of this one are summed. Keys are visited from the first on, as in attention_mma.cu. Of
// pages of bytes, the whole warpgroup of the producer widens what comes.
//
// Where a batch has fewer tiles of rows than the chip has multiprocessors, as a short chunk of a long prompt,
// the keys of a tile are split between blocks and MergeKernel adds up. Where args.invariant, always after the
// same numbers of keys: what a row sees of a split, and the order in which splits are added, are then its
// own.
#include <cuda.h>

#include <algorithm>
#include <climits>
#include <type_traits>

#include "compute/kernels/cuda/attention_tile.cuh"
#include "compute/kernels/cuda/attention_wgmma.cuh"
#include "compute/kernels/cuda/attention_widen.cuh"
#include "compute/kernels/cuda/cuda_check.cuh"

namespace fd::cuda::attention {
namespace {

constexpr int kKeys = 128;
constexpr int kStages = 2;
constexpr int kBoxBytes = 64 * 128;  // 64 rows of 64 elements, swizzled by 128 bytes
constexpr int kRawTiles = 4;         // of bytes that come or wait to be widened, keys and values in turn

template <int D, DType B>
struct Config {
  static constexpr int kBoxes = (D + 63) / 64;  // the last one's columns beyond D are zeros
  static constexpr int kGroups = D > 64 ? 2 : 3;
  static constexpr int kRows = 64 * kGroups;
  static constexpr int kThreads = 128 * (kGroups + 1);
  static constexpr int kTileBytes = kKeys / 64 * kBoxes * kBoxBytes;
  static constexpr int kQueryBytes = kGroups * kBoxes * kBoxBytes;
  static constexpr int kRawBytes = HoldsBytes(B) ? kRawTiles * kRawTileBytes<D> : 0;
  static constexpr int kScaleBytes = HoldsBytes(B) ? 2 * kStages * kKeys : 0;
  static constexpr int kBytes =
      1024 + kQueryBytes + 2 * kStages * kTileBytes + kRawBytes + kScaleBytes + 8 * (4 * kStages + kRawTiles);
  static_assert(kBytes <= 227 * 1024);
  // Together no more than the block is launched with, else an increase would wait for ever: 168 or 128 for
  // each of its warpgroups.
  static constexpr int kConsumerRegisters = kGroups == 3 ? 160 : HoldsBytes(B) ? 232 : 240;
  static constexpr int kProducerRegisters = kGroups == 3 ? 32 : HoldsBytes(B) ? 40 : 24;
  static constexpr int kPartialFloats = D + 4;  // of a row: sums, maximum, sum of weights
};

// Units are tiles of one kv head, and splits of them once they are split.
struct Splitting {
  int multiprocessors = 0;  // 0: nothing is split
  int max_blocks = 0;       // of kKeys, of the longest context
  bool invariant = false;

  static constexpr int kLeastBlocks = 16, kMostSplits = 64, kInvariantBlocks = 64;
  // What a block does before its first keys and after its last, in blocks of keys.
  static constexpr int kOverheadBlocks = 5;
  // Of units that are split, together.
  int64_t MostUnits(int64_t units) const {
    if (invariant) return units * ((max_blocks + kInvariantBlocks - 1) / kInvariantBlocks);
    return 4 * multiprocessors;
  }
  // Blocks of keys of one split, such that the waves of units end first. Called by whole warps.
  __device__ int Size(int units) const {
    if (multiprocessors == 0 || units == 0) return max(max_blocks, 1);
    if (invariant) return kInvariantBlocks;
    int best = INT_MAX;  // estimate and number of splits, to be compared together
#pragma unroll
    for (int i = 0; i < kMostSplits / 32; ++i) {
      const int splits = 32 * i + (threadIdx.x & 31) + 1, size = (max_blocks + splits - 1) / splits;
      if (splits > 1 && (size < kLeastBlocks || units * splits > 4 * multiprocessors)) continue;
      const int waves = (units * splits + multiprocessors - 1) / multiprocessors;
      best = min(best,
                 min(waves * (size + kOverheadBlocks), INT_MAX / kMostSplits - 1) * kMostSplits + splits - 1);
    }
    best = __reduce_min_sync(~0u, best);
    const int splits = best % kMostSplits + 1;
    return max((max_blocks + splits - 1) / splits, 1);
  }
  __device__ int Splits(int size) const { return max((max_blocks + size - 1) / size, 1); }
};

// What a block does.
struct Work {
  Tile tile;
  int first_block, blocks;  // of keys; 0: nothing
  bool partial;             // others do the rest of the tile's keys
};
// Called by whole warps.
template <int kRows, bool kPaged>
__device__ inline Work FindWork(const AttentionArgs& a, bool skip_decode, const Splitting& splitting) {
  Work work{};
  int index = static_cast<int>(blockIdx.x / a.kv_heads), most = INT_MAX;
  if (kPaged && splitting.multiprocessors > 0) {
    most = splitting.Size(CountTiles(a, kRows, skip_decode) * static_cast<int>(a.kv_heads));
    const int splits = splitting.Splits(most);
    work.first_block = index % splits * most;
    index /= splits;
  }
  if (!FindTile(a, kRows, skip_decode, index, &work.tile)) return work;
  const int group = static_cast<int>(a.heads / a.kv_heads);
  const int all = (Visible(a, work.tile, work.tile.first_row + kRows - 1, group) + kKeys - 1) / kKeys;
  work.blocks = min(all - work.first_block, most);
  work.partial = work.blocks < all;
  return work;
}

__device__ inline void InitBarrier(uint32_t at, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(count));
}
__device__ inline void Arrive(uint32_t at) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");
}
__device__ inline void ExpectBytes(uint32_t at, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(bytes) : "memory");
}
__device__ inline void Wait(uint32_t at, int parity) {
  asm volatile(
      "{\n.reg .pred p;\nagain:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@p bra done;\nbra "
      "again;\ndone:\n}\n" ::"r"(at),
      "r"(parity)
      : "memory");
}
__device__ inline void LoadBox(uint32_t to, const CUtensorMap* map, int column, int head, int row,
                               uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], "
      "[%5];" ::"r"(to),
      "l"(map), "r"(column), "r"(head), "r"(row), "r"(barrier)
      : "memory");
}
__device__ inline void LoadRow(uint32_t to, const void* from, int bytes, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}
// leading: bytes between boxes of 64 columns, where columns are the contiguous dimension.
__device__ inline uint64_t Descriptor(uint32_t address, int leading) {
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) | static_cast<uint64_t>(leading >> 4) << 16 |
         static_cast<uint64_t>(1024 >> 4) << 32 | uint64_t{1} << 62;
}
__device__ inline void WgmmaBegin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void WgmmaCommit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kLeft>
__device__ inline void WgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
}
// Keeps the compiler from moving uses of accumulators over a wait.
template <int N>
__device__ inline void Pin(float (&d)[N][4]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
#pragma unroll
    for (int e = 0; e < 4; ++e) asm volatile("" : "+f"(d[i][e])::"memory");
  }
}

// B: what pages hold; kBFloat16: elements as they are, which the maps describe.
template <int D, bool kPaged, DType B>
__global__ void __launch_bounds__(Config<D, B>::kThreads, 1)
    WgmmaKernel(AttentionArgs a, bool skip_decode, Splitting splitting,
                const __grid_constant__ CUtensorMap k_map, const __grid_constant__ CUtensorMap v_map) {
  using C = Config<D, B>;
  extern __shared__ uint8_t raw[];
  const uint32_t raw_address = static_cast<uint32_t>(__cvta_generic_to_shared(raw));
  const uint32_t base = (raw_address + 1023) / 1024 * 1024;
  uint8_t* shared = raw + (base - raw_address);
  const uint32_t q_at = base, k_at = q_at + C::kQueryBytes, v_at = k_at + kStages * C::kTileBytes,
                 raw_at = v_at + kStages * C::kTileBytes, scales_at = raw_at + C::kRawBytes,
                 barriers = scales_at + C::kScaleBytes;
  // Barriers: K full, V full, K empty, V empty of each stage; then raw tiles full.
  auto barrier = [&](int kind, int stage) { return barriers + 8 * (kind * kStages + stage); };
  [[maybe_unused]] auto raw_barrier = [&](int raw_tile) { return barriers + 8 * (4 * kStages + raw_tile); };
  // Of the keys of a stage, [kKeys] bfloat16.
  [[maybe_unused]] auto key_scales = [&](int stage) {
    return reinterpret_cast<uint16_t*>(shared + (scales_at - base)) + stage * kKeys;
  };

  const int group = static_cast<int>(a.heads / a.kv_heads), kv = static_cast<int>(blockIdx.x % a.kv_heads);
  __shared__ Work work;
  if (threadIdx.x < 32) {
    const Work mine = FindWork<C::kRows, kPaged>(a, skip_decode, splitting);
    if (threadIdx.x == 0) {
      work = mine;
      for (int s = 0; s < kStages; ++s) {
        InitBarrier(barrier(0, s), 1);
        InitBarrier(barrier(1, s), 1);
        InitBarrier(barrier(2, s), 4 * C::kGroups);
        InitBarrier(barrier(3, s), 4 * C::kGroups);
      }
      if constexpr (HoldsBytes(B)) {
        for (int r = 0; r < kRawTiles; ++r) InitBarrier(raw_barrier(r), 1);
      }
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
  }
  __syncthreads();
  const Tile tile = work.tile;
  // Blocks are counted from first_block on. The same for all threads, which the compiler is told.
  const int first_block = __shfl_sync(~0u, work.first_block, 0), blocks = __shfl_sync(~0u, work.blocks, 0);
  if (blocks <= 0) return;

  if (threadIdx.x < 128) {  // the producer
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(C::kProducerRegisters));
    const int last_page = (tile.context - 1) / kKvPageTokens;
    const int32_t* table = kPaged ? a.block_tables + a.table_offsets[tile.seq] : nullptr;
    if constexpr (HoldsBytes(B)) {
      // Tile t: the keys of block t / 2, or with odd t its values. They come in order, so the ids of the next
      // block's pages can be read ahead.
      const int thread = static_cast<int>(threadIdx.x), tiles = 2 * blocks;
      int ids[kKeys / 64];
      auto read_ids = [&](int block) {
#pragma unroll
        for (int i = 0; i < kKeys / 64; ++i) {
          ids[i] = table[min((first_block + block) * (kKeys / 64) + i, last_page)];
        }
      };
      auto bring = [&](int t) {
        const uint32_t full = raw_barrier(t % kRawTiles), to = raw_at + t % kRawTiles * kRawTileBytes<D>;
        ExpectBytes(full, kRawTileBytes<D>);
#pragma unroll
        for (int i = 0; i < kKeys / 64; ++i) {
          const auto* from =
              static_cast<const char*>(t % 2 == 0 ? a.k : a.v) + (ids[i] * a.kv_heads + kv) * ByteHeadSize(D);
          LoadRow(to + i * static_cast<int>(ByteHeadSize(D)), from, static_cast<int>(ByteHeadSize(D)), full);
        }
        if (t % 2 == 1) read_ids(t / 2 + 1);
      };
      auto widen = [&]<int kKind>(std::integral_constant<int, kKind>, int block) {
        const int t = 2 * block + kKind, stage = block % kStages, turn = block / kStages;
        Wait(raw_barrier(t % kRawTiles), t / kRawTiles & 1);
        if (turn > 0) Wait(barrier(2 + kKind, stage), (turn - 1) & 1);
        const uint32_t to = (kKind == 0 ? k_at : v_at) + stage * C::kTileBytes;
        WidenTile<D, B, kKind == 1>(shared + (raw_at - base) + t % kRawTiles * kRawTileBytes<D>,
                                    shared + (to - base), key_scales(stage), thread);
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        __syncwarp();
        asm volatile("bar.sync 6, 128;" ::: "memory");  // the tile is written, the raw one read
        if (thread == 0) {
          Arrive(barrier(kKind, stage));
          if (t + kRawTiles < tiles) bring(t + kRawTiles);
        }
        __syncwarp();
      };
      if (thread == 0) {
        read_ids(0);
        for (int t = 0; t < min(kRawTiles, tiles); ++t) bring(t);
      }
      __syncwarp();
      for (int block = 0; block < blocks; ++block) {
        widen(std::integral_constant<int, 0>{}, block);
        widen(std::integral_constant<int, 1>{}, block);
      }
      return;
    }
    if (threadIdx.x != 0) return;
    for (int block = 0; block < blocks; ++block) {
      const int stage = block % kStages, turn = block / kStages;
      int rows[kKeys / 64];
#pragma unroll
      for (int i = 0; i < kKeys / 64; ++i) {
        const int page = min((first_block + block) * (kKeys / 64) + i, last_page);
        if constexpr (kPaged) {
          rows[i] = static_cast<int>((table[page] * a.kv_heads + kv) * kKvPageTokens);
        } else {
          rows[i] = tile.first_token + page * 64;
        }
      }
#pragma unroll
      for (int kind = 0; kind < 2; ++kind) {
        if (turn > 0) Wait(barrier(2 + kind, stage), (turn - 1) & 1);
        const uint32_t full = barrier(kind, stage), to = (kind == 0 ? k_at : v_at) + stage * C::kTileBytes;
        ExpectBytes(full, C::kTileBytes);
#pragma unroll
        for (int i = 0; i < kKeys / 64; ++i) {
#pragma unroll
          for (int box = 0; box < C::kBoxes; ++box) {
            LoadBox(to + (box * (kKeys / 64) + i) * kBoxBytes, kind == 0 ? &k_map : &v_map, 64 * box,
                    kPaged ? 0 : kv, rows[i], full);
          }
        }
      }
    }
    return;
  }

  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(C::kConsumerRegisters));
  const int thread = threadIdx.x % 128, wg = threadIdx.x / 128 - 1;
  const int lane = threadIdx.x & 31, g = lane / 4, c = lane % 4;
  const float scale = a.scale * 1.4426950408889634f;
  // This warpgroup's queries, swizzled as the tensor cores read them.
  for (int i = thread; i < 64 * D / 8; i += 128) {
    const int r = i / (D / 8), part = i % (D / 8), row = min(tile.first_row + 64 * wg + r, tile.rows - 1);
    const auto* from = static_cast<const __nv_bfloat16*>(a.q) +
                       (tile.first_token + row / group) * a.q_stride + (kv * group + row % group) * D +
                       8 * part;
    *reinterpret_cast<uint4*>(shared + (wg * C::kBoxes + part / 8) * kBoxBytes + r * 128 +
                              ((part % 8) ^ (r & 7)) * 16) = *reinterpret_cast<const uint4*>(from);
  }
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  asm volatile("bar.sync %0, 128;" ::"r"(2 + wg) : "memory");

  const uint32_t my_q = q_at + wg * C::kBoxes * kBoxBytes;
  const int row0 = tile.first_row + 64 * wg + thread / 32 * 16 + g;
  const int visible[2] = {Visible(a, tile, row0, group), Visible(a, tile, row0 + 8, group)};
  const int all_see = min(visible[0], visible[1]);
  float o[D / 8][4] = {}, s[kKeys / 8][4], top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, old[2];
  uint32_t p[kKeys / 16][4];

  auto scores = [&](int block) {
    const int stage = block % kStages;
    Wait(barrier(0, stage), block / kStages & 1);
    WgmmaBegin();
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      WgmmaScores(
          s, Descriptor(my_q + i / 4 * kBoxBytes + i % 4 * 32, 16),
          Descriptor(k_at + stage * C::kTileBytes + i / 4 * (kKeys / 64 * kBoxBytes) + i % 4 * 32, 16),
          i > 0);
    }
    WgmmaCommit();
  };
  auto values = [&](int block) {
    const int stage = block % kStages;
    Wait(barrier(1, stage), block / kStages & 1);
    const int keys = tile.context - (first_block + block) * kKeys;
    if (keys < kKeys) {  // the last block: memory beyond the context may hold NaN
      const int count = (kKeys - keys) * 8;
      for (int i = threadIdx.x - 128; i < count; i += C::kThreads - 128) {
#pragma unroll
        for (int box = 0; box < C::kBoxes; ++box) {
          *reinterpret_cast<uint4*>(shared + (v_at - base) + stage * C::kTileBytes +
                                    box * (kKeys / 64 * kBoxBytes) + keys * 128 + i * 16) =
              make_uint4(0, 0, 0, 0);
        }
      }
      asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
      asm volatile("bar.sync 1, %0;" ::"n"(C::kThreads - 128) : "memory");
    }
    WgmmaBegin();
#pragma unroll
    for (int i = 0; i < kKeys / 16; ++i) {
      WgmmaValues(o, p[i], Descriptor(v_at + stage * C::kTileBytes + i * 2048, kKeys / 64 * kBoxBytes));
    }
    WgmmaCommit();
  };
  auto release = [&](int kind, int block) {
    if (lane == 0) Arrive(barrier(kind, block % kStages));
  };
  // Releases the keys of a block, whose scores are there: of bytes once their scales have met the scores.
  auto end_scores = [&](int block) {
    if constexpr (HoldsBytes(B)) {
      const auto* scales = reinterpret_cast<const uint32_t*>(key_scales(block % kStages));
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
        const uint32_t two = scales[4 * n + c];  // of keys 8 n + 2 c and + 1
        const float by[2] = {__uint_as_float(two << 16), __uint_as_float(two & 0xffff0000u)};
#pragma unroll
        for (int e = 0; e < 4; ++e) s[n][e] *= by[e & 1];
      }
      __syncwarp();
    }
    release(2, block);
  };
  auto softmax = [&](int block) {
    const int first = (first_block + block) * kKeys;
    if (first + kKeys > all_see) {
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if (first + 8 * n + 2 * c + (e & 1) >= visible[e / 2]) s[n][e] = -INFINITY;
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
      // A row sees the first key of all, but perhaps none of a later split.
      const float safe = m == -INFINITY ? 0.0f : m, shift = safe * scale;
      old[h] = Exp2((top[h] - safe) * scale);
      top[h] = m;
      float total = 0;
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
        s[n][2 * h] = Exp2(fmaf(s[n][2 * h], scale, -shift));
        s[n][2 * h + 1] = Exp2(fmaf(s[n][2 * h + 1], scale, -shift));
        total += s[n][2 * h] + s[n][2 * h + 1];
      }
      sum[h] = sum[h] * old[h] + total;
    }
  };
  auto pack = [&] {
#pragma unroll
    for (int i = 0; i < kKeys / 16; ++i) {
      p[i][0] = PackBf16(s[2 * i][0], s[2 * i][1]);
      p[i][1] = PackBf16(s[2 * i][2], s[2 * i][3]);
      p[i][2] = PackBf16(s[2 * i + 1][0], s[2 * i + 1][1]);
      p[i][3] = PackBf16(s[2 * i + 1][2], s[2 * i + 1][3]);
    }
  };

  // Two warpgroups take turns: one multiplies while the other computes exponentials.
  auto wait_turn = [&] {
    if constexpr (C::kGroups == 2) asm volatile("bar.sync %0, 256;" ::"r"(4 + wg) : "memory");
  };
  auto give_turn = [&] {
    if constexpr (C::kGroups == 2) asm volatile("bar.arrive %0, 256;" ::"r"(5 - wg) : "memory");
  };
  if (wg == 1 && blocks > 1) give_turn();

  scores(0);
  WgmmaWait<0>();
  Pin(s);
  end_scores(0);
  softmax(0);
  pack();
  for (int block = 1; block < blocks; ++block) {
    wait_turn();
    scores(block);
    values(block - 1);
    if (wg == 0 || block + 1 < blocks) give_turn();
    WgmmaWait<1>();
    Pin(s);
    end_scores(block);
    softmax(block);
    WgmmaWait<0>();
    Pin(o);
    release(3, block - 1);
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) o[n][e] *= old[e / 2];
    }
    pack();
  }
  values(blocks - 1);
  WgmmaWait<0>();
  Pin(o);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    sum[h] += __shfl_xor_sync(~0u, sum[h], 1);
    sum[h] += __shfl_xor_sync(~0u, sum[h], 2);
    const int row = row0 + 8 * h;
    if (row >= tile.rows) continue;
    if (kPaged && work.partial) {
      float* part = a.scratch +
                    (static_cast<int64_t>(blockIdx.x) * C::kRows + row - tile.first_row) * C::kPartialFloats;
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
        *reinterpret_cast<float2*>(part + 8 * n + 2 * c) = make_float2(o[n][2 * h], o[n][2 * h + 1]);
      }
      if (c == 0) *reinterpret_cast<float2*>(part + D) = make_float2(top[h], sum[h]);
      continue;
    }
    const float inverse = 1.0f / sum[h];
    auto* out = static_cast<__nv_bfloat16*>(a.out) + (tile.first_token + row / group) * a.out_stride +
                (kv * group + row % group) * D + 2 * c;
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      *reinterpret_cast<uint32_t*>(out + 8 * n) = PackBf16(o[n][2 * h] * inverse, o[n][2 * h + 1] * inverse);
    }
  }
}

// Adds up the splits of a tile: a warp takes a row.
constexpr int kMergeWarps = 4;
template <int D>
__global__ void __launch_bounds__(32 * kMergeWarps)
    MergeKernel(AttentionArgs a, bool skip_decode, Splitting splitting) {
  using C = Config<D, DType::kBFloat16>;  // of bytes alike
  const int group = static_cast<int>(a.heads / a.kv_heads), kv_heads = static_cast<int>(a.kv_heads);
  const int kv = static_cast<int>(blockIdx.x) % kv_heads, index = static_cast<int>(blockIdx.x) / kv_heads;
  const int size = splitting.Size(CountTiles(a, C::kRows, skip_decode) * kv_heads);
  const int splits = splitting.Splits(size);
  Tile tile;
  if (splits == 1 || !FindTile(a, C::kRows, skip_decode, index, &tile)) return;
  const int blocks = (Visible(a, tile, tile.first_row + C::kRows - 1, group) + kKeys - 1) / kKeys;
  const int used = (blocks + size - 1) / size;
  if (used == 1) return;
  const float scale = a.scale * 1.4426950408889634f;
  const int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
  const int64_t stride = static_cast<int64_t>(kv_heads) * C::kRows * C::kPartialFloats;  // split to split
  const int in_tile = static_cast<int>(blockIdx.y) * kMergeWarps + warp, row = tile.first_row + in_tile;
  if (row >= tile.rows) return;
  const float* part = a.scratch + index * splits * stride + (kv * C::kRows + in_tile) * C::kPartialFloats;
  float m = -INFINITY;
  for (int s = lane; s < used; s += 32) m = fmaxf(m, part[s * stride + D]);
#pragma unroll
  for (int d = 16; d > 0; d /= 2) m = fmaxf(m, __shfl_xor_sync(~0u, m, d));
  constexpr int kPairs = (D + 63) / 64;
  float2 x[kPairs] = {};
  float total = 0;
#pragma unroll 8
  for (int s = 0; s < used; ++s) {
    const float* at = part + s * stride;
    const float weight = Exp2((at[D] - m) * scale);
    total += weight * at[D + 1];
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int dim = 64 * i + 2 * lane;
      if (dim >= D) continue;
      const float2 sums = *reinterpret_cast<const float2*>(at + dim);
      x[i].x += weight * sums.x;
      x[i].y += weight * sums.y;
    }
  }
  const float inverse = 1.0f / total;
  auto* out = static_cast<__nv_bfloat16*>(a.out) + (tile.first_token + row / group) * a.out_stride +
              (kv * group + row % group) * D;
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    const int dim = 64 * i + 2 * lane;
    if (dim < D) *reinterpret_cast<uint32_t*>(out + dim) = PackBf16(x[i].x * inverse, x[i].y * inverse);
  }
}

// Of the current device.
Splitting SplittingOf(const AttentionArgs& a) {
  const auto blocks = static_cast<int>((a.max_context_tokens + kKeys - 1) / kKeys);
  const int least = a.invariant ? Splitting::kInvariantBlocks : Splitting::kLeastBlocks;
  if (a.block_tables == nullptr || blocks <= least) return {};
  int device = 0, multiprocessors = 0;
  FD_CUDA_CHECK(cudaGetDevice(&device));
  FD_CUDA_CHECK(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
  return {multiprocessors, blocks, a.invariant};
}

template <int D>
int64_t ScratchFloats(const AttentionArgs& a) {
  using C = Config<D, DType::kBFloat16>;  // of bytes alike
  const Splitting splitting = SplittingOf(a);
  if (splitting.multiprocessors == 0) return 0;
  const int64_t units = MaxTiles(a, C::kRows) * a.kv_heads,
                splits = splitting.max_blocks / Splitting::kLeastBlocks + 1;
  return std::min(splitting.MostUnits(units), units * splits) * C::kRows * C::kPartialFloats;
}

// [rows, heads, head_dim] read in boxes of 64 rows and 64 columns of one head.
CUtensorMap MakeMap(const void* data, int64_t rows, int64_t heads, int64_t head_dim, int64_t row_stride) {
  static const auto encode = [] {
    void* f = nullptr;
    cudaDriverEntryPointQueryResult found;
    FD_CUDA_CHECK(
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, cudaEnableDefault, &found));
    FD_CHECK(f != nullptr, "the CUDA driver has no cuTensorMapEncodeTiled");
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(f);
  }();
  CUtensorMap map;
  const cuuint64_t dims[3] = {static_cast<cuuint64_t>(head_dim), static_cast<cuuint64_t>(heads),
                              static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(head_dim * 2),
                                 static_cast<cuuint64_t>(row_stride * 2)};
  const cuuint32_t box[3] = {64, 1, 64}, ones[3] = {1, 1, 1};
  const CUresult result =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<void*>(data), dims, strides, box, ones,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  FD_CHECK(result == CUDA_SUCCESS, "cuTensorMapEncodeTiled: ", static_cast<int>(result));
  return map;
}

template <int D, bool kPaged, DType B>
void Launch(const AttentionArgs& a, bool skip_decode, cudaStream_t stream) {
  using C = Config<D, B>;
  static const bool raised = [] {
    FD_CUDA_CHECK(cudaFuncSetAttribute(WgmmaKernel<D, kPaged, B>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       C::kBytes));
    return true;
  }();
  (void)raised;
  CUtensorMap k{}, v{};
  if constexpr (!HoldsBytes(B)) {
    const int64_t rows = kPaged ? a.pages * a.kv_heads * kKvPageTokens : a.tokens,
                  heads = kPaged ? 1 : a.kv_heads;
    k = MakeMap(a.k, rows, heads, D, kPaged ? D : a.k_stride);
    v = MakeMap(a.v, rows, heads, D, kPaged ? D : a.v_stride);
  }
  const Splitting splitting = SplittingOf(a);
  const int64_t units = MaxTiles(a, C::kRows) * a.kv_heads;
  const auto blocks = static_cast<unsigned>(std::max(units, splitting.MostUnits(units)));
  WgmmaKernel<D, kPaged, B><<<blocks, C::kThreads, C::kBytes, stream>>>(a, skip_decode, splitting, k, v);
  FD_CUDA_CHECK(cudaGetLastError());
  if (kPaged && splitting.multiprocessors > 0) {
    const dim3 grid(
        static_cast<unsigned>(splitting.invariant ? units : std::min(units, splitting.MostUnits(units) / 2)),
        C::kRows / kMergeWarps);
    MergeKernel<D><<<grid, 32 * kMergeWarps, 0, stream>>>(a, skip_decode, splitting);
    FD_CUDA_CHECK(cudaGetLastError());
  }
}

template <int D>
void LaunchFor(const AttentionArgs& a, bool skip_decode, cudaStream_t stream) {
  if (a.block_tables == nullptr) return Launch<D, false, DType::kBFloat16>(a, skip_decode, stream);
  if constexpr (D % 64 == 0) {
    if (HoldsBytes(a.page_type)) {
      return ForBytes(a.page_type, [&]<DType B>(ByteType<B>) { Launch<D, true, B>(a, skip_decode, stream); });
    }
  }
  FD_CHECK(!HoldsBytes(a.page_type), DTypeName(a.page_type), " pages of heads of ", D);
  Launch<D, true, DType::kBFloat16>(a, skip_decode, stream);
}

}  // namespace

bool HasWgmma() {
  int device = 0, major = 0;
  FD_CUDA_CHECK(cudaGetDevice(&device));
  FD_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  return major == 9;
}

int64_t WgmmaScratchFloats(const AttentionArgs& a) {
  switch (a.head_dim) {
    case 64:
      return ScratchFloats<64>(a);
    case 80:
      return ScratchFloats<80>(a);
    default:
      return ScratchFloats<128>(a);
  }
}

void Wgmma(const AttentionArgs& a, bool skip_decode, void* stream) {
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
