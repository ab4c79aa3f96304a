// Products of any number of rows, each with the bits that linear_few.cu gives it: for --deterministic. There
// eight warps take the steps of 64 k in turn and their sums are added in the order of the warps; here a block
// does one warp's steps after the other's, so that a row's sum has the same order whoever shares its batch.
//
// A block takes kFeatures features of 64 rows, a warp 32 x 32 of them. Steps come through a ring of shared
// memory. A thread has the sums of both halves of a step in registers and their total in shared memory.

#include <algorithm>

#include "compute/kernels/cuda/copy_async.cuh"
#include "compute/kernels/cuda/launch.cuh"
#include "compute/kernels/cuda/linear_finish.cuh"
#include "compute/kernels/cuda/mma.cuh"

namespace fd::cuda {
namespace {

constexpr int kStepK = 64, kTurns = 8;  // as linear_few.cu: its kStepK and kWarps
constexpr int kRows = 64, kRowWarps = 2;
constexpr int kStages = 3;
constexpr int kChunks = kStepK / 8;  // of 16 bytes, in a step of a row
// Tiles of rows that are computed beside each other before the next features come, so that both operands are
// read from L2 again.
constexpr int kRowTilesTogether = 16;

template <int kFeatureWarps>
struct Shape {
  static constexpr int kFeatures = 32 * kFeatureWarps;
  static constexpr int kThreads = 32 * kFeatureWarps * kRowWarps;
  static constexpr int kStageChunks = (kFeatures + kRows) * kChunks;
  static constexpr int kTotals = 32;  // of a thread
  static constexpr int kSharedBytes = kStages * kStageChunks * 16 + kTotals * kThreads * 4;
  static_assert(kStageChunks % kThreads == 0);
};

// Where 16 bytes of a row lie: two neighbouring rows use different halves of the banks.
__device__ __forceinline__ int ChunkOf(int row, int chunk) {
  return row * kChunks + (chunk ^ ((row & 1) << 2 | (row >> 1 & 3)));
}

template <int kFeatureWarps>
__global__ void __launch_bounds__(Shape<kFeatureWarps>::kThreads, kFeatureWarps == 4 ? 2 : 3)
    Invariant(LinearFinish finish, const bf16* in, int64_t in_stride, const bf16* weight, int m, int n, int k,
              int row_tiles, int feature_tiles) {
  using S = Shape<kFeatureWarps>;
  LetNextBegin();
  WaitForPrevious();
  extern __shared__ uint4 ring[];  // [stage][feature or row][chunk], then totals
  float* const totals = reinterpret_cast<float*>(ring + kStages * S::kStageChunks) + threadIdx.x;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
  const int warp_feature = warp % kFeatureWarps * 32, warp_row = warp / kFeatureWarps * 32;

  const int together = kRowTilesTogether * feature_tiles, index = static_cast<int>(blockIdx.x);
  const int first_tile = index / together * kRowTilesTogether;
  const int tiles = min(kRowTilesTogether, row_tiles - first_tile);
  const int first_row = (first_tile + index % together % tiles) * kRows;
  const int first_feature = index % together / tiles * S::kFeatures;

  const int steps = (k + kStepK - 1) / kStepK;
  // The step behind `step` in the order of linear_few.cu; `steps` or more: none.
  const auto next_of = [steps](int step) {
    if (step + kTurns < steps) return step + kTurns;
    const int turn = step % kTurns + 1;
    return turn < min(kTurns, steps) ? turn : steps;
  };
  const uint32_t ring_address = static_cast<uint32_t>(__cvta_generic_to_shared(ring));
  const auto copy = [&](int stage, int step) {
    if (step < steps) {
#pragma unroll
      for (int i = 0; i < S::kStageChunks / S::kThreads; ++i) {
        const int at = i * S::kThreads + static_cast<int>(threadIdx.x);
        const int line = at / kChunks, chunk = at % kChunks, column = step * kStepK + chunk * 8;
        const bool is_weight = line < S::kFeatures;
        const int row = is_weight ? first_feature + line : first_row + line - S::kFeatures;
        // Beyond the last one: that again, whose results are not stored.
        const bf16* from =
            is_weight ? weight + min(row, n - 1) * static_cast<int64_t>(k) : in + min(row, m - 1) * in_stride;
        const bool inside = column < k;
        CopyAsync16(ring_address + (stage * S::kStageChunks + ChunkOf(line, chunk)) * 16,
                    from + (inside ? column : 0), inside ? 16 : 0);
      }
    }
    CommitCopies();  // always, so that the groups can be counted
  };

  int ahead = 0;  // the next step to copy
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    copy(s, ahead);
    if (ahead < steps) ahead = next_of(ahead);
  }
  float sum[2][2][4][4] = {};  // [half of a step][16 features][8 rows]
#pragma unroll
  for (int i = 0; i < S::kTotals; ++i) totals[i * S::kThreads] = 0;

  int stage = 0;
  for (int step = 0; step < steps;) {
    WaitCopies<kStages - 2>();
    __syncthreads();  // the step has arrived, and nobody reads the one before any more
    copy((stage + kStages - 1) % kStages, ahead);
    if (ahead < steps) ahead = next_of(ahead);
    const uint4* const features = ring + stage * S::kStageChunks;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      uint4 x[4];
#pragma unroll
      for (int r = 0; r < 4; ++r) x[r] = features[ChunkOf(S::kFeatures + warp_row + 8 * r + g, 4 * h + c)];
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        const uint4 low = features[ChunkOf(warp_feature + 16 * t + g, 4 * h + c)];
        const uint4 high = features[ChunkOf(warp_feature + 16 * t + 8 + g, 4 * h + c)];
        const uint32_t a0[4] = {low.x, high.x, low.y, high.y}, a1[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          Mma16816(sum[h][t][r], a0, x[r].x, x[r].y);
          Mma16816(sum[h][t][r], a1, x[r].z, x[r].w);
        }
      }
    }
    const int next = next_of(step);
    if (step + kTurns >= steps) {  // a turn ends
#pragma unroll
      for (int t = 0; t < 2; ++t) {
#pragma unroll
        for (int r = 0; r < 4; ++r) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            totals[(16 * t + 4 * r + e) * S::kThreads] += sum[0][t][r][e] + sum[1][t][r][e];
            sum[0][t][r][e] = sum[1][t][r][e] = 0;
          }
        }
      }
    }
    step = next;
    stage = (stage + 1) % kStages;
  }

#pragma unroll
  for (int t = 0; t < 2; ++t) {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = first_row + warp_row + 8 * r + 2 * c + e % 2;
        const int feature = first_feature + warp_feature + 16 * t + g + e / 2 * 8;
        if (row < m && feature < n) finish.Store(row, feature, totals[(16 * t + 4 * r + e) * S::kThreads]);
      }
    }
  }
}

template <int kFeatureWarps>
void Launch(const LinearArgs& a, cudaStream_t stream) {
  using S = Shape<kFeatureWarps>;
  constexpr auto kernel = Invariant<kFeatureWarps>;
  PrepareSharedMemory<kernel>(S::kSharedBytes);
  const int64_t row_tiles = (a.m + kRows - 1) / kRows,
                feature_tiles = (a.n + S::kFeatures - 1) / S::kFeatures;
  FD_CHECK(row_tiles * feature_tiles <= INT32_MAX / kRowTilesTogether, a.m, " rows of ", a.n);
  LaunchOverlapped(kernel, dim3(static_cast<unsigned>(row_tiles * feature_tiles)), S::kThreads,
                   S::kSharedBytes, stream, LinearFinishOf(a), static_cast<const bf16*>(a.in), a.in_stride,
                   static_cast<const bf16*>(a.weight), static_cast<int>(a.m), static_cast<int>(a.n),
                   static_cast<int>(a.k), static_cast<int>(row_tiles), static_cast<int>(feature_tiles));
}

}  // namespace

bool LinearInvariant(const LinearArgs& a, void* stream) {
  const bool takes = a.in_type == DType::kBFloat16 && a.weight_type == DType::kBFloat16 && a.k % 8 == 0 &&
                     a.k <= INT32_MAX - kStepK && a.n <= INT32_MAX - 128 && a.m <= INT32_MAX - kRows &&
                     Aligned16<bf16>(a.in, a.in_stride) && Aligned16<bf16>(a.weight, 0);
  if (!takes) return false;
  if (a.m == 0 || a.n == 0) return true;
  if (LinearFew(a, stream)) return true;
  // Enough blocks for every multiprocessor come before large tiles.
  if ((a.m + kRows - 1) / kRows * ((a.n + 127) / 128) < 192) {
    Launch<2>(a, AsStream(stream));
  } else {
    Launch<4>(a, AsStream(stream));
  }
  return true;
}

}  // namespace fd::cuda
