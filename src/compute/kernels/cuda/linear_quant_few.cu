// Up to 16 rows of bfloat16 times one weight: memory-bound, built as linear_few.cu. A block takes two panels
// over all of k, its warps take steps of 64 k in turn; a warp copies its slabs of a step into slots of shared
// memory of its own, so that no barrier of the block stands in the way. A result's order of summation depends
// on k and the groups alone.

#include "compute/kernels/cuda/launch.cuh"
#include "compute/kernels/cuda/linear_quant.cuh"
#include "compute/kernels/cuda/mma.cuh"

namespace fd::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kPanels = 2;
constexpr int kMaxRows = 16;
constexpr int kAhead = 2;  // steps whose rows are in registers
constexpr int kPartialWidth = kPanels * kPanelFeatures + 4;

struct Weight {
  const char* panels;
  const bf16* scales;
  int64_t panel_bytes;
  int num_panels, groups, group_steps;  // group_steps: of 32 k
};

template <int kBits>
inline constexpr int kStages = kBits == 8 ? 4 : 8;
template <int kBits>
inline constexpr int kWarpBytes = kStages<kBits> * kPanels * kSlabBytes<kBits>;

template <int kBits, bool kGrouped, int kRowTiles, bool kGateUp>
__global__ void __launch_bounds__(kThreads, 2)
    Few(LinearFinish finish, const bf16* in, int64_t in_stride, Weight weight, int m, int n, int k) {
  static_assert(kRowTiles * 8 * kPartialWidth * 4 <= kWarpBytes<kBits> && kStages<kBits> % kAhead == 0);
  LetNextBegin();
  extern __shared__ uint4 slots[];  // [warp][stage][panel][slab]
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
  char* own = reinterpret_cast<char*>(slots) + warp * kWarpBytes<kBits>;
  const uint32_t own_address = static_cast<uint32_t>(__cvta_generic_to_shared(own));
  const int steps = (k + kQuantStepK - 1) / kQuantStepK;
  const int count = (steps - warp + kWarps - 1) / kWarps;  // steps warp, warp + kWarps, ...
  int panel[kPanels];
#pragma unroll
  for (int p = 0; p < kPanels; ++p) {
    const int at = static_cast<int>(blockIdx.x);
    // Beyond the last panel: that one again, whose results are not stored.
    panel[p] = kGateUp ? at + p * (weight.num_panels / 2) : min(at * kPanels + p, weight.num_panels - 1);
  }
  const auto copy_weights = [&](int stage, int i) {
    if (i < count) {
      const int64_t first = static_cast<int64_t>(warp + i * kWarps) * kSlabBytes<kBits>;
#pragma unroll
      for (int p = 0; p < kPanels; ++p) {
        const char* from = weight.panels + panel[p] * weight.panel_bytes;
#pragma unroll
        for (int j = 0; j < kSlabChunks<kBits>; j += 32) {
          const int64_t at = first + (j + lane) * 16;
          const bool inside = at < weight.panel_bytes;
          CopyAsync16(own_address + (stage * kPanels + p) * kSlabBytes<kBits> + SlabOffset<kBits>(j + lane),
                      from + (inside ? at : 0), inside ? 16 : 0);
        }
      }
    }
    CommitCopies();  // always, so that the groups can be counted
  };
  uint4 x[kAhead][kRowTiles][2];
  uint32_t scales[kAhead][kPanels][2];
  const auto load_rows = [&](int slot, int i) {
    if (i >= count) return;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int step = 2 * (warp + i * kWarps) + h, at = 32 * step + 8 * c;
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        const int row = 8 * r + g;
        x[slot][r][h] = at < k && row < m ? *reinterpret_cast<const uint4*>(in + row * in_stride + at)
                                          : make_uint4(0, 0, 0, 0);
      }
      if constexpr (kGrouped) {
        const int group = min(step / weight.group_steps, weight.groups - 1);
#pragma unroll
        for (int p = 0; p < kPanels; ++p) {
          scales[slot][p][h] = LoadScales(
              weight.scales + (static_cast<int64_t>(panel[p]) * weight.groups + group) * kPanelFeatures, g);
        }
      }
    }
  };

#pragma unroll
  for (int s = 0; s < kStages<kBits>; ++s) copy_weights(s, s);
  WaitForPrevious();
#pragma unroll
  for (int s = 0; s < kAhead; ++s) load_rows(s, s);

  float sum[kPanels][kRowTiles][4] = {};
  for (int first = 0; first < count; first += kStages<kBits>) {
#pragma unroll
    for (int s = 0; s < kStages<kBits>; ++s) {
      const int i = first + s;
      if (i >= count) break;
      WaitCopies<kStages<kBits> - 1>();
      __syncwarp();  // the other lanes' copies too
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int p = 0; p < kPanels; ++p) {
          uint32_t low[4], high[4];
          LoadWeights<kBits>(own + (s * kPanels + p) * kSlabBytes<kBits>, h, g, c, low, high);
#pragma unroll
          for (int r = 0; r < kRowTiles; ++r) {
            const uint4& rows = x[s % kAhead][r][h];
            if constexpr (kGrouped) {
              float part[4] = {};
              Mma16816(part, low, rows.x, rows.y);
              Mma16816(part, high, rows.z, rows.w);
              const uint32_t pair = scales[s % kAhead][p][h];
#pragma unroll
              for (int e = 0; e < 4; ++e) {
                sum[p][r][e] = fmaf(part[e], e < 2 ? LowScale(pair) : HighScale(pair), sum[p][r][e]);
              }
            } else {
              Mma16816(sum[p][r], low, rows.x, rows.y);
              Mma16816(sum[p][r], high, rows.z, rows.w);
            }
          }
        }
      }
      __syncwarp();  // all have read the slot
      copy_weights(s, i + kStages<kBits>);
      load_rows(s % kAhead, i + kAhead);
    }
  }

  // The warps' sums, [row][feature] each, lie where their copies did.
  __syncwarp();
  float* partial = reinterpret_cast<float*>(own);
#pragma unroll
  for (int p = 0; p < kPanels; ++p) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = 8 * r + 2 * c + e % 2, feature = kPanelFeatures * p + 2 * g + e / 2;
        partial[row * kPartialWidth + feature] = sum[p][r][e];
      }
    }
  }
  __syncthreads();
  const auto total_of = [&](int row, int feature) {
    const float* part = reinterpret_cast<const float*>(slots) + row * kPartialWidth + feature;
    float total = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) total += part[w * (kWarpBytes<kBits> / 4)];
    if constexpr (!kGrouped) {
      const int64_t of = feature < kPanelFeatures ? panel[0] : panel[1];
      total *= Load(weight.scales[of * kPanelFeatures + feature % kPanelFeatures]);
    }
    return total;
  };
  constexpr int kOutputs = kGateUp ? kPanelFeatures : kPanels * kPanelFeatures;
  const int first_output = static_cast<int>(blockIdx.x) * kOutputs, outputs = kGateUp ? n / 2 : n;
  for (int i = threadIdx.x; i < m * kOutputs; i += kThreads) {
    const int row = i / kOutputs, j = i % kOutputs;
    if (first_output + j >= outputs) continue;
    if constexpr (kGateUp) {
      const bf16 value =
          SiluTimes(Round<bf16>(total_of(row, j)), Round<bf16>(total_of(row, j + kPanelFeatures)));
      static_cast<bf16*>(finish.out)[row * finish.stride + first_output + j] = value;
    } else {
      finish.Store(row, first_output + j, total_of(row, j));
    }
  }
}

template <int kBits, bool kGrouped, int kRowTiles, bool kGateUp>
void Launch(const QuantLinear& q, cudaStream_t stream) {
  constexpr auto kernel = Few<kBits, kGrouped, kRowTiles, kGateUp>;
  constexpr int kSharedBytes = kWarps * kWarpBytes<kBits>;
  PrepareSharedMemory<kernel>(kSharedBytes);
  const LinearArgs& a = q.linear;
  Weight weight;
  weight.panels = static_cast<const char*>(a.weight);
  weight.scales = static_cast<const bf16*>(q.scales);
  weight.panel_bytes = PanelBytes(a.k, kBits);
  weight.num_panels = static_cast<int>((a.n + kPanelFeatures - 1) / kPanelFeatures);
  weight.groups = static_cast<int>(NumGroups(a.k, q.group_size));
  weight.group_steps = static_cast<int>(q.group_size / 32);
  const int blocks = (weight.num_panels + kPanels - 1) / kPanels;
  LaunchOverlapped(kernel, dim3(static_cast<unsigned>(blocks)), kThreads, kSharedBytes, stream,
                   LinearFinishOf(a), static_cast<const bf16*>(a.in), a.in_stride, weight,
                   static_cast<int>(a.m), static_cast<int>(a.n), static_cast<int>(a.k));
}

template <int kBits, bool kGrouped, bool kGateUp>
void ByRows(const QuantLinear& q, cudaStream_t stream) {
  if (q.linear.m <= 8) {
    Launch<kBits, kGrouped, 1, kGateUp>(q, stream);
  } else {
    Launch<kBits, kGrouped, 2, kGateUp>(q, stream);
  }
}

}  // namespace

bool LinearQuantFew(const QuantLinear& q, bool gate_up, void* stream) {
  const LinearArgs& a = q.linear;
  const bool takes = q.offsets == nullptr && a.in_type == DType::kBFloat16 && a.m <= kMaxRows &&
                     a.k % 8 == 0 && a.k <= INT32_MAX - 1024 && a.n <= INT32_MAX - 64 &&
                     Aligned16<bf16>(a.in, a.m == 1 ? 0 : a.in_stride) && Aligned16<bf16>(a.weight, 0);
  if (!takes || (gate_up && !QuantSwiGluUsable(a.in_type, a.n, a.k))) return false;
  if (a.m == 0 || a.n == 0) return true;
  ByWeight(q, [&]<int kBits, bool kGrouped>() {
    gate_up ? ByRows<kBits, kGrouped, true>(q, AsStream(stream))
            : ByRows<kBits, kGrouped, false>(q, AsStream(stream));
  });
  return true;
}

}  // namespace fd::cuda
