// Products of up to 16 rows: memory-bound, so all that matters is that the weights never stop flowing.
//
// A block takes kTiles x 16 features over all of k; its warps take steps of 64 k in turn. Weights are the
// 16-row operand of mma.sync. Each thread copies its own fragments, 16 bytes at a time, into slots of shared
// memory that only it reads: a register file for bytes in flight, without a barrier. Copies of the first
// kStages steps begin before the kernel that makes the rows has ended. Rows go from memory (L2) to registers
// in the order of the other operand. A result's order of summation depends on k alone.
//
// With kGateUp a tile is 8 gate features and the 8 up features that belong to them, and what is stored is
// silu(gate) * up.

#include "compute/kernels/cuda/copy_async.cuh"
#include "compute/kernels/cuda/launch.cuh"
#include "compute/kernels/cuda/linear_finish.cuh"
#include "compute/kernels/cuda/mma.cuh"

namespace fd::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kStepK = 64;
constexpr int kMaxRows = 16;

// kTiles x 16 features, kRowTiles x 8 rows.
template <int kTiles, int kRowTiles, int kStages, bool kGateUp>
__global__ void __launch_bounds__(kThreads, 2)
    Few(LinearFinish finish, const bf16* in, int64_t in_stride, const bf16* weight, int m, int n, int k) {
  constexpr int kFeatures = 16 * kTiles;
  constexpr int kPieces = 4 * kTiles;           // of 16 bytes a thread and step: [8 features][halves of 32 k]
  constexpr int kPartialWidth = kFeatures + 4;  // spreads the banks
  static_assert(kRowTiles * 8 * kPartialWidth * 4 <= kStages * kPieces * 512);
  LetNextBegin();
  extern __shared__ uint4 slots[];  // [warp][stage][piece][lane]
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
  uint4* own = slots + warp * (kStages * kPieces * 32);
  const uint32_t own_address = static_cast<uint32_t>(__cvta_generic_to_shared(own + lane));
  const int steps = (k + kStepK - 1) / kStepK;
  const int count = (steps - warp + kWarps - 1) / kWarps;  // steps warp, warp + kWarps, ...
  // Of the output: kGateUp halves the features.
  constexpr int kOutputs = kGateUp ? kFeatures / 2 : kFeatures;
  const int outputs = kGateUp ? n / 2 : n, first_output = blockIdx.x * kOutputs;

  const bf16* features[2 * kTiles];
#pragma unroll
  for (int f = 0; f < 2 * kTiles; ++f) {
    // Beyond the last output: its copies, whose results are not stored.
    const int output = min(first_output + 8 * (kGateUp ? f / 2 : f) + g, outputs - 1);
    features[f] = weight + (kGateUp && f % 2 == 1 ? outputs + output : output) * static_cast<int64_t>(k);
  }
  const auto copy_weights = [&](int stage, int i) {
    if (i < count) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int at = (warp + i * kWarps) * kStepK + 32 * h + 8 * c;
        const bool inside = at < k;
#pragma unroll
        for (int f = 0; f < 2 * kTiles; ++f) {
          CopyAsync16(own_address + (stage * kPieces + 2 * f + h) * 512, features[f] + (inside ? at : 0),
                      inside ? 16 : 0);
        }
      }
    }
    CommitCopies();  // always, so that the groups can be counted
  };
  uint4 x[kStages][kRowTiles][2];
  const auto load_rows = [&](int stage, int i) {
    if (i >= count) return;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int at = (warp + i * kWarps) * kStepK + 32 * h + 8 * c;
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        const int row = 8 * r + g;
        x[stage][r][h] = at < k && row < m ? *reinterpret_cast<const uint4*>(in + row * in_stride + at)
                                           : make_uint4(0, 0, 0, 0);
      }
    }
  };

#pragma unroll
  for (int s = 0; s < kStages; ++s) copy_weights(s, s);
  WaitForPrevious();
#pragma unroll
  for (int s = 0; s < kStages; ++s) load_rows(s, s);

  float sum[2][kTiles][kRowTiles][4] = {};  // halves apart: shorter chains
  for (int first = 0; first < count; first += kStages) {
#pragma unroll
    for (int s = 0; s < kStages; ++s) {
      const int i = first + s;
      if (i >= count) break;
      WaitCopies<kStages - 1>();
      uint4 w[kPieces];
#pragma unroll
      for (int p = 0; p < kPieces; ++p) w[p] = own[(s * kPieces + p) * 32 + lane];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          const uint4 &low = w[4 * t + h], &high = w[4 * t + 2 + h];  // features g and g + 8
          const uint32_t a0[4] = {low.x, high.x, low.y, high.y}, a1[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
          for (int r = 0; r < kRowTiles; ++r) {
            Mma16816(sum[h][t][r], a0, x[s][r][h].x, x[s][r][h].y);
            Mma16816(sum[h][t][r], a1, x[s][r][h].z, x[s][r][h].w);
          }
        }
      }
      copy_weights(s, i + kStages);
      load_rows(s, i + kStages);
    }
  }

  // The warps' sums, [row][feature] each, lie where their copies did.
  __syncwarp();
  float* partial = reinterpret_cast<float*>(own);
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = 8 * r + 2 * c + e % 2, feature = 16 * t + g + e / 2 * 8;
        partial[row * kPartialWidth + feature] = sum[0][t][r][e] + sum[1][t][r][e];
      }
    }
  }
  __syncthreads();
  const auto total_of = [&](int row, int feature) {
    const float* part = reinterpret_cast<const float*>(slots) + row * kPartialWidth + feature;
    float total = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) total += part[w * (kStages * kPieces * 128)];
    return total;
  };
  for (int i = threadIdx.x; i < m * kOutputs; i += kThreads) {
    const int row = i / kOutputs, j = i % kOutputs;
    if (first_output + j >= outputs) continue;
    if constexpr (kGateUp) {
      const int gate = j / 8 * 16 + j % 8;
      const bf16 value = SiluTimes(Round<bf16>(total_of(row, gate)), Round<bf16>(total_of(row, gate + 8)));
      static_cast<bf16*>(finish.out)[row * finish.stride + first_output + j] = value;
    } else {
      finish.Store(row, first_output + j, total_of(row, j));
    }
  }
}

template <int kTiles, int kRowTiles, int kStages, bool kGateUp>
void Launch(const LinearArgs& a, cudaStream_t stream) {
  constexpr auto kernel = Few<kTiles, kRowTiles, kStages, kGateUp>;
  constexpr int kSharedBytes = kWarps * kStages * kTiles * 2048;
  PrepareSharedMemory<kernel>(kSharedBytes);
  const int64_t outputs = kGateUp ? a.n / 2 : a.n, per_block = (kGateUp ? 8 : 16) * kTiles;
  const unsigned blocks = static_cast<unsigned>((outputs + per_block - 1) / per_block);
  LaunchOverlapped(kernel, dim3(blocks), kThreads, kSharedBytes, stream, LinearFinishOf(a),
                   static_cast<const bf16*>(a.in), a.in_stride, static_cast<const bf16*>(a.weight),
                   static_cast<int>(a.m), static_cast<int>(a.n), static_cast<int>(a.k));
}

template <bool kGateUp>
bool Run(const LinearArgs& a, void* stream) {
  const bool takes = a.in_type == DType::kBFloat16 && a.weight_type == DType::kBFloat16 && a.m <= kMaxRows &&
                     a.k % 8 == 0 && a.k <= INT32_MAX && a.n <= INT32_MAX - 32 &&
                     Aligned16<bf16>(a.in, a.m == 1 ? 0 : a.in_stride) && Aligned16<bf16>(a.weight, 0);
  if (!takes) return false;
  if (a.m == 0 || a.n == 0) return true;
  // Measured on an H100: 16 features and four steps in flight are the fastest up to 8 rows; with more, 32
  // features read the rows half as often.
  if (a.m <= 8) {
    Launch<1, 1, 4, kGateUp>(a, AsStream(stream));
  } else {
    Launch<2, 2, 3, kGateUp>(a, AsStream(stream));
  }
  return true;
}

}  // namespace

bool LinearFew(const LinearArgs& args, void* stream) { return Run<false>(args, stream); }
bool LinearFewSwiGlu(const LinearArgs& args, void* stream) {
  return args.out_type == DType::kBFloat16 && args.bias == nullptr && args.n % 2 == 0 &&
         Run<true>(args, stream);
}

}  // namespace fd::cuda
