// Rows of bfloat16 in tiles, times one weight or each expert's own: weights and rows go through a ring of
// shared memory, weights become bfloat16 in registers. Every tile adds over k in the same order, so that a
// row's bits do not depend on the other rows or their number.
//
// A block takes 8 panels, or 2 where that would leave multiprocessors idle; a warp takes two of them and its
// part of the rows. With kGateUp these are a panel
// of gate features and the one of the up features that belong to them.
#include <algorithm>

#include "compute/kernels/cuda/launch.cuh"
#include "compute/kernels/cuda/linear_quant.cuh"
#include "compute/kernels/cuda/mma.cuh"

namespace fd::cuda {
namespace {

constexpr int kRowBytes = kQuantStepK * 2;

template <int kBits, bool kGrouped, int kPanels, int kRows>
struct Tile {
  static constexpr int kFeatureWarps = kPanels / 2;
  static constexpr int kRowWarps = kPanels == 2 ? kRows / 16 : kRows >= 64 ? 2 : 1;
  static constexpr int kThreads = 32 * kFeatureWarps * kRowWarps;
  static constexpr int kRowTiles = kRows / kRowWarps / 8;  // of a warp
  static constexpr int kWeightBytes = kPanels * kSlabBytes<kBits>;
  static constexpr int kStageBytes = kWeightBytes + kRows * kRowBytes;
  // 4 for full tiles; 48 to 60 KiB where bytes in flight are what counts.
  static constexpr int kStages = kPanels == 8 && kRows >= 64 ? 4 : (60 << 10) / kStageBytes;
  static constexpr int kMinBlocks = kGrouped && kRows == 128 ? 1 : 2;  // sums of groups beside their total
  static constexpr int kSharedBytes = kStages * kStageBytes;
};

struct Args {
  LinearFinish finish;
  const bf16* in;
  int64_t in_stride;
  const char* panels;
  const bf16* scales;
  int64_t panel_bytes;
  int m, n, k, num_panels, groups, group_steps;
  const int32_t* offsets;  // null: one weight
  int experts;
  const void* const* expert_panels;
  const void* const* expert_scales;
};

struct Place {
  int expert, first_row, end_row;
};
// The tile-th tile of `rows` rows, counted over the experts; expert -1: there are fewer. For a whole warp.
__device__ Place FindTile(const int32_t* offsets, int experts, int rows, int tile) {
  const int lane = threadIdx.x % 32;
  for (int base = 0; base < experts; base += 32) {
    const int e = base + lane;
    const int begin = e < experts ? offsets[e] : 0, end = e < experts ? offsets[e + 1] : 0;
    const int tiles = (end - begin + rows - 1) / rows;
    int up_to = tiles;
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      const int other = __shfl_up_sync(0xffffffffu, up_to, d);
      if (lane >= d) up_to += other;
    }
    const int before = up_to - tiles;
    const unsigned found = __ballot_sync(0xffffffffu, tile >= before && tile < up_to);
    if (found != 0) {
      const int at = __ffs(static_cast<int>(found)) - 1;
      const int first = begin + (tile - before) * rows;
      return {base + at, __shfl_sync(0xffffffffu, first, at), __shfl_sync(0xffffffffu, end, at)};
    }
    tile -= __shfl_sync(0xffffffffu, up_to, 31);
  }
  return {-1, 0, 0};
}

// Two neighbouring features of a row.
__device__ __forceinline__ void StorePair(const LinearFinish& finish, int64_t row, int column, int columns,
                                          bool pairs, float a, float b) {
  if (pairs && column + 1 < columns && finish.bias == nullptr) {
    if (finish.out_bf16) {
      *reinterpret_cast<__nv_bfloat162*>(static_cast<bf16*>(finish.out) + row * finish.stride + column) =
          __floats2bfloat162_rn(a, b);
    } else {
      *reinterpret_cast<float2*>(static_cast<float*>(finish.out) + row * finish.stride + column) =
          make_float2(a, b);
    }
    return;
  }
  if (column < columns) finish.Store(row, column, a);
  if (column + 1 < columns) finish.Store(row, column + 1, b);
}

template <typename T, int kBits, bool kGrouped, int kPanels, int kRows, bool kGateUp>
__global__ void __launch_bounds__(T::kThreads, T::kMinBlocks) Tiled(Args a) {
  LetNextBegin();
  extern __shared__ uint4 ring[];  // [stage]{[panel][slab], [row][64 k]}
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
  const int warp_panel = warp % T::kFeatureWarps * 2, warp_row = warp / T::kFeatureWarps * (8 * T::kRowTiles);
  Place place = {0, static_cast<int>(blockIdx.y) * kRows, a.m};
  if (a.offsets != nullptr) {
    WaitForPrevious();
    place = FindTile(a.offsets, a.experts, kRows, static_cast<int>(blockIdx.y));
    if (place.expert < 0) return;
    a.panels = static_cast<const char*>(a.expert_panels[place.expert]);
    a.scales = static_cast<const bf16*>(a.expert_scales[place.expert]);
  }
  // Of the block's i-th panel. Beyond the last: that one again, whose results are not stored.
  const auto panel_of = [&](int i) {
    const int half = a.num_panels / 2, first = static_cast<int>(blockIdx.x) * kPanels;
    return kGateUp ? i % 2 * half + min((first + i) / 2, half - 1) : min(first + i, a.num_panels - 1);
  };
  // A thread copies the same chunk of several panels, and of several rows.
  const uint32_t ring_address = static_cast<uint32_t>(__cvta_generic_to_shared(ring));
  const int thread = static_cast<int>(threadIdx.x);
  const auto copy_weights = [&](int stage, int step) {
    constexpr int kAtOnce = T::kThreads / kSlabChunks<kBits>;
    const int first = thread / kSlabChunks<kBits>, chunk = thread % kSlabChunks<kBits>;
    const int64_t at = static_cast<int64_t>(step) * kSlabBytes<kBits> + chunk * 16;
    const bool inside = at < a.panel_bytes;
    const uint32_t to =
        ring_address + stage * T::kStageBytes + first * kSlabBytes<kBits> + SlabOffset<kBits>(chunk);
    if (kAtOnce > kPanels && first >= kPanels) return;
#pragma unroll
    for (int i = 0; i < kPanels; i += kAtOnce) {
      CopyAsync16(to + i * kSlabBytes<kBits>,
                  a.panels + panel_of(first + i) * a.panel_bytes + (inside ? at : 0), inside ? 16 : 0);
    }
  };
  // Odd rows have their halves exchanged: reads of two rows' halves then meet every bank once.
  const auto copy_rows = [&](int stage, int step) {
    constexpr int kAtOnce = T::kThreads / 8;
    static_assert(kAtOnce % 2 == 0 && kRows % kAtOnce == 0);
    const int row = thread / 8, chunk = thread % 8, at = step * kQuantStepK + chunk * 8;
    const uint32_t to = ring_address + stage * T::kStageBytes + T::kWeightBytes + row * kRowBytes +
                        (chunk ^ (row % 2 * 4)) * 16;
    const bf16* from = a.in + (place.first_row + row) * a.in_stride + at;
#pragma unroll
    for (int i = 0; i < kRows; i += kAtOnce) {
      const bool inside = at < a.k && place.first_row + row + i < place.end_row;
      CopyAsync16(to + i * kRowBytes, inside ? from + i * a.in_stride : a.in, inside ? 16 : 0);
    }
  };
  const int steps = (a.k + kQuantStepK - 1) / kQuantStepK;
#pragma unroll
  for (int s = 0; s < T::kStages - 1; ++s) {
    if (s < steps) copy_weights(s, s);
  }
  if (a.offsets == nullptr) WaitForPrevious();
#pragma unroll
  for (int s = 0; s < T::kStages - 1; ++s) {
    if (s < steps) copy_rows(s, s);
    CommitCopies();  // the first with all the weights above
  }

  const bf16* scales[2];
  uint32_t scale[2];
#pragma unroll
  for (int p = 0; p < 2; ++p) {
    scales[p] = a.scales + static_cast<int64_t>(panel_of(warp_panel + p)) * a.groups * kPanelFeatures;
    scale[p] = LoadScales(scales[p], g);
  }
  float sum[2][T::kRowTiles][4] = {};
  float total[2][kGrouped ? T::kRowTiles : 1][4] = {};
  int group = 0, left = a.group_steps;
  const auto end_group = [&] {
#pragma unroll
    for (int p = 0; p < 2; ++p) {
#pragma unroll
      for (int r = 0; r < (kGrouped ? T::kRowTiles : 0); ++r) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          total[p][r][e] =
              fmaf(sum[p][r][e], e < 2 ? LowScale(scale[p]) : HighScale(scale[p]), total[p][r][e]);
          sum[p][r][e] = 0;
        }
      }
    }
  };
  for (int step = 0; step < steps; ++step) {
    WaitCopies<T::kStages - 2>();
    __syncthreads();  // everyone's copies are there, and everyone has done with the stage filled next
    if (const int next = step + T::kStages - 1; next < steps) {
      copy_weights(next % T::kStages, next);
      copy_rows(next % T::kStages, next);
    }
    CommitCopies();
    const char* stage = reinterpret_cast<const char*>(ring) + step % T::kStages * T::kStageBytes;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      uint32_t low[2][4], high[2][4];
#pragma unroll
      for (int p = 0; p < 2; ++p) {
        LoadWeights<kBits>(stage + (warp_panel + p) * kSlabBytes<kBits>, h, g, c, low[p], high[p]);
      }
      const char* rows =
          stage + T::kWeightBytes + (warp_row + g) * kRowBytes + ((4 * h + c) ^ (g % 2 * 4)) * 16;
#pragma unroll
      for (int r = 0; r < T::kRowTiles; ++r) {
        const uint4 x = *reinterpret_cast<const uint4*>(rows + r * (8 * kRowBytes));
#pragma unroll
        for (int p = 0; p < 2; ++p) {
          Mma16816(sum[p][r], low[p], x.x, x.y);
          Mma16816(sum[p][r], high[p], x.z, x.w);
        }
      }
      if constexpr (kGrouped) {
        if (--left == 0) {
          end_group();
          left = a.group_steps;
          group = min(group + 1, a.groups - 1);  // the last one's scale serves zeros behind k
#pragma unroll
          for (int p = 0; p < 2; ++p) scale[p] = LoadScales(scales[p] + group * kPanelFeatures, g);
        }
      }
    }
  }
  if constexpr (kGrouped) end_group();  // one that k has cut short, or zeros

  const auto result = [&](int p, int r, int e) {
    if constexpr (kGrouped) {
      return total[p][r][e];
    } else {
      return sum[p][r][e] * (e < 2 ? LowScale(scale[p]) : HighScale(scale[p]));
    }
  };
  const int columns = kGateUp ? a.n / 2 : a.n;
  const bool pairs = a.finish.stride % 2 == 0 &&
                     reinterpret_cast<uintptr_t>(a.finish.out) % (a.finish.out_bf16 ? 4 : 8) == 0;
#pragma unroll
  for (int r = 0; r < T::kRowTiles; ++r) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {  // of the two rows that a thread has of a tile
      const int row = place.first_row + warp_row + 8 * r + 2 * c + e;
      if (row >= place.end_row) continue;
      if constexpr (kGateUp) {
        const int column = (static_cast<int>(blockIdx.x) * kPanels + warp_panel) / 2 * kPanelFeatures + 2 * g;
        const auto activated = [&](int f) {
          return Load(SiluTimes(Round<bf16>(result(0, r, e + f)), Round<bf16>(result(1, r, e + f))));
        };
        StorePair(a.finish, row, column, columns, pairs, activated(0), activated(2));
      } else {
#pragma unroll
        for (int p = 0; p < 2; ++p) {
          const int panel = static_cast<int>(blockIdx.x) * kPanels + warp_panel + p;
          StorePair(a.finish, row, panel * kPanelFeatures + 2 * g, columns, pairs, result(p, r, e),
                    result(p, r, e + 2));
        }
      }
    }
  }
}

template <int kBits, bool kGrouped, int kPanels, int kRows, bool kGateUp>
void Launch(const QuantLinear& q, cudaStream_t stream) {
  using T = Tile<kBits, kGrouped, kPanels, kRows>;
  constexpr auto kernel = Tiled<T, kBits, kGrouped, kPanels, kRows, kGateUp>;
  PrepareSharedMemory<kernel>(T::kSharedBytes);
  const LinearArgs& l = q.linear;
  Args a;
  a.finish = LinearFinishOf(l);
  a.in = static_cast<const bf16*>(l.in);
  a.in_stride = l.in_stride;
  a.panels = static_cast<const char*>(l.weight);
  a.scales = static_cast<const bf16*>(q.scales);
  a.panel_bytes = PanelBytes(l.k, kBits);
  a.m = static_cast<int>(l.m);
  a.n = static_cast<int>(l.n);
  a.k = static_cast<int>(l.k);
  a.num_panels = static_cast<int>((l.n + kPanelFeatures - 1) / kPanelFeatures);
  a.groups = static_cast<int>(NumGroups(l.k, q.group_size));
  a.group_steps = static_cast<int>(q.group_size / 32);
  a.offsets = q.offsets;
  a.experts = static_cast<int>(q.experts);
  a.expert_panels = q.expert_weights;
  a.expert_scales = q.expert_scales;
  // Each expert adds at most one tile that is not full.
  const int64_t tiles =
      q.offsets == nullptr ? (l.m + kRows - 1) / kRows : l.m / kRows + std::min(l.m, q.experts);
  FD_CHECK(tiles <= 65535, l.m, " rows");
  const dim3 grid(static_cast<unsigned>((a.num_panels + kPanels - 1) / kPanels),
                  static_cast<unsigned>(tiles));
  LaunchOverlapped(kernel, grid, T::kThreads, T::kSharedBytes, stream, a);
}

template <int kBits, bool kGrouped, bool kGateUp>
void ByRows(const QuantLinear& q, cudaStream_t stream) {
  // Enough blocks for every multiprocessor come before large tiles.
  constexpr int64_t kFewBlocks = 128;
  const int64_t m = q.linear.m, feature_tiles = (q.linear.n + 127) / 128;
  if (q.offsets != nullptr && m / q.experts <= 16) {
    Launch<kBits, kGrouped, 8, 16, kGateUp>(q, stream);
  } else if (q.offsets == nullptr && m <= 32) {
    Launch<kBits, kGrouped, 2, 32, kGateUp>(q, stream);
  } else if (q.offsets == nullptr && (m + 63) / 64 * feature_tiles < kFewBlocks / 2) {
    Launch<kBits, kGrouped, 2, 64, kGateUp>(q, stream);
  } else if (m / 128 * feature_tiles < kFewBlocks || (q.offsets != nullptr && m / q.experts <= 64)) {
    Launch<kBits, kGrouped, 8, 64, kGateUp>(q, stream);
  } else {
    Launch<kBits, kGrouped, 8, 128, kGateUp>(q, stream);
  }
}

}  // namespace

bool LinearQuantTiled(const QuantLinear& q, bool gate_up, void* stream) {
  const LinearArgs& a = q.linear;
  const bool takes = a.in_type == DType::kBFloat16 && a.k % 8 == 0 && a.k <= INT32_MAX - 1024 &&
                     a.n <= INT32_MAX - 256 && a.m <= INT32_MAX - 256 && Aligned16<bf16>(a.in, a.in_stride);
  if (!takes || (gate_up && !QuantSwiGluUsable(a.in_type, a.n, a.k))) return false;
  if (a.m == 0 || a.n == 0) return true;
  ByWeight(q, [&]<int kBits, bool kGrouped>() {
    gate_up ? ByRows<kBits, kGrouped, true>(q, AsStream(stream))
            : ByRows<kBits, kGrouped, false>(q, AsStream(stream));
  });
  return true;
}

}  // namespace fd::cuda
