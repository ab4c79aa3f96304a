// Weights (64 features x k) are wgmma's A, token rows its B: D[feature, row]. One producer thread fills a
// ring of shared-memory stages with the copy engine, consumer warpgroups multiply. A block walks over
// (expert, feature tile, row tile) tasks and prefetches across them, so that memory never idles between two
// tasks.
#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_bf16.h>

#include "compute/kernels/cuda/cuda_check.cuh"
#include "compute/kernels/cuda/grouped_gemm.h"
#include "compute/kernels/cuda/launch.cuh"
#include "compute/kernels/cuda/wgmma_sm90.cuh"

namespace fd::cuda {
namespace {

constexpr int kStepK = 64;  // of k per stage: 128 bytes, one swizzle row
constexpr int kBlockRows = 64;
constexpr int kBlockBytes = kBlockRows * kStepK * 2;
constexpr int kMaxExperts = 1024;
constexpr int kSharedBytes = 227 << 10;

__device__ uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
__device__ void BarrierInit(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}
__device__ void BarrierExpect(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
__device__ void BarrierArrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ void BarrierWait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra over;\n"
      "bra again;\n"
      "over:\n}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
__device__ void LoadRows(uint32_t to, const CUtensorMap* map, uint32_t barrier, int k, int row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
      "%4}], [%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(k), "r"(row)
      : "memory");
}
// 32 gate and 32 up rows, interleaved in groups of 8.
__device__ void LoadGateUp(uint32_t to, const CUtensorMap* map, uint32_t barrier, int k, int group) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, "
      "%4, "
      "%5}], [%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(k), "r"(0), "r"(group)
      : "memory");
}

// kRows token rows x kGroups warpgroups of kBlocks x 64 weight rows.
template <int kRows, int kBlocks, int kGroups, bool kGateUp>
struct Layout {
  static constexpr int kWeightBlocks = kBlocks * kGroups;
  static constexpr int kFeatures = kWeightBlocks * (kGateUp ? 32 : 64);  // results per token row
  static constexpr int kStageBytes = kWeightBlocks * kBlockBytes + kRows * kStepK * 2;
  // One 64-row block's results, [kRows][features + 8]: the padding spreads the banks.
  static constexpr int kOutWidth = (kGateUp ? 32 : 64) + 8;
  static constexpr int kOutBytes = kRows * kOutWidth * 2;
  static constexpr int kFixedBytes = 1024 /* alignment */ + 512 /* barriers */ + kGroups * kOutBytes;
  static constexpr int kFit = (kSharedBytes - (kMaxExperts + 1) * 4 - kFixedBytes) / kStageBytes;
  static constexpr int kStages = kFit < 24 ? kFit : 24;
  static constexpr int kDynamicBytes = kFixedBytes + kStages * kStageBytes;
  static constexpr int kThreads = 128 * (kGroups + 1);
  static_assert(kStages >= 3 && kOutBytes % 16 == 0 && kStageBytes % 1024 == 0);
};

struct Task {
  int expert, first_row, end_row, feature_tile;
};

// Tasks are numbered expert by expert, row tiles innermost, so that blocks running together share weights.
template <int kRows>
__device__ Task FindTask(int task, int feature_tiles, const int* first_tile, const int32_t* offsets,
                         int experts) {
  int low = 0,
      high = experts - 1;  // the last expert whose first task is not behind this one and that has tiles
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (first_tile[middle] * feature_tiles <= task) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  const int tiles = first_tile[low + 1] - first_tile[low];
  const int local = task - first_tile[low] * feature_tiles;
  Task t;
  t.expert = low;
  t.feature_tile = local / tiles;
  t.first_row = offsets[low] + local % tiles * kRows;
  t.end_row = offsets[low + 1];
  return t;
}

template <int kRows, int kBlocks, int kGroups, bool kGateUp>
__global__ void __launch_bounds__(128 * (kGroups + 1), 1)
    Grouped(const __grid_constant__ CUtensorMap rows_map, const CUtensorMap* weight_maps,
            const int32_t* offsets, int experts, int k_steps, int features, __nv_bfloat16* out, float one) {
  using L = Layout<kRows, kBlocks, kGroups, kGateUp>;
  LetNextBegin();
  WaitForPrevious();
  __shared__ int first_tile[kMaxExperts + 1];
  extern __shared__ char dynamic[];
  const uint32_t base = (SharedAddress(dynamic) + 1023) / 1024 * 1024;
  const uint32_t out_base = base + L::kStages * L::kStageBytes;
  const uint32_t full = out_base + kGroups * L::kOutBytes, empty = full + 8 * L::kStages;
  if (threadIdx.x < 32) {
    int before = 0;
    for (int from = 0; from <= experts; from += 32) {
      const int e = from + static_cast<int>(threadIdx.x);
      const int own = e < experts ? (offsets[e + 1] - offsets[e] + kRows - 1) / kRows : 0;
      int sum = own;
      for (int d = 1; d < 32; d *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, sum, d);
        if (threadIdx.x >= d) sum += other;
      }
      if (e <= experts) first_tile[e] = before + sum - own;
      before += __shfl_sync(0xffffffffu, sum, 31);
    }
  } else if (threadIdx.x == 32) {
    for (int s = 0; s < L::kStages; ++s) {
      BarrierInit(full + 8 * s, 1);
      BarrierInit(empty + 8 * s, kGroups);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  const int feature_tiles = (features + L::kFeatures - 1) / L::kFeatures;
  const int tasks = first_tile[experts] * feature_tiles;
  const int group = threadIdx.x / 128;
  int stage = 0;
  uint32_t parity = 0;

  if (group == kGroups) {
    if constexpr (kRows * kBlocks >= 256) asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (threadIdx.x % 128 != 0) return;
    // Rows were written by ordinary stores of a kernel that may have ended after this one began.
    asm volatile("fence.proxy.async.global;" ::: "memory");
    for (int task = blockIdx.x; task < tasks; task += gridDim.x) {
      const Task t = FindTask<kRows>(task, feature_tiles, first_tile, offsets, experts);
      const CUtensorMap* map = weight_maps + t.expert;
      for (int step = 0; step < k_steps; ++step) {
        BarrierWait(empty + 8 * stage, parity ^ 1);
        const uint32_t barrier = full + 8 * stage, to = base + stage * L::kStageBytes;
        BarrierExpect(barrier, L::kStageBytes);
#pragma unroll
        for (int b = 0; b < L::kWeightBlocks; ++b) {
          const int block = t.feature_tile * L::kWeightBlocks + b;
          if constexpr (kGateUp) {
            LoadGateUp(to + b * kBlockBytes, map, barrier, step * kStepK, block * 4);
          } else {
            LoadRows(to + b * kBlockBytes, map, barrier, step * kStepK, block * kBlockRows);
          }
        }
        LoadRows(to + L::kWeightBlocks * kBlockBytes, &rows_map, barrier, step * kStepK, t.first_row);
        if (++stage == L::kStages) {
          stage = 0;
          parity ^= 1;
        }
      }
    }
  } else {
    if constexpr (kRows * kBlocks >= 256) asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    const int thread = threadIdx.x % 128, warp = thread / 32, g = thread % 32 / 4, c = thread % 4;
    __nv_bfloat16* staged = reinterpret_cast<__nv_bfloat16*>(dynamic + (out_base - SharedAddress(dynamic)) +
                                                             group * L::kOutBytes);
    for (int task = blockIdx.x; task < tasks; task += gridDim.x) {
      const Task t = FindTask<kRows>(task, feature_tiles, first_tile, offsets, experts);
      float sum[kBlocks][kRows / 2];
#pragma unroll
      for (int m = 0; m < kBlocks; ++m) {
#pragma unroll
        for (int i = 0; i < kRows / 2; ++i) sum[m][i] = 0.0f;
        WgmmaHold(sum[m]);
      }
      int previous = -1;
      for (int step = 0; step < k_steps; ++step) {
        BarrierWait(full + 8 * stage, parity);
        const uint32_t weights = base + stage * L::kStageBytes + group * kBlocks * kBlockBytes;
        const uint64_t b = WgmmaDescriptor(base + stage * L::kStageBytes + L::kWeightBlocks * kBlockBytes);
        WgmmaFence();
#pragma unroll
        for (int k = 0; k < kStepK / 16; ++k) {
#pragma unroll
          for (int m = 0; m < kBlocks; ++m) {
            Wgmma(sum[m], WgmmaDescriptor(weights + m * kBlockBytes) + 2 * k, b + 2 * k);
          }
        }
        WgmmaCommit();
        WgmmaWait<1>();
        if (previous >= 0 && thread == 0) BarrierArrive(empty + 8 * previous);
        previous = stage;
        if (++stage == L::kStages) {
          stage = 0;
          parity ^= 1;
        }
      }
      WgmmaWait<0>();
#pragma unroll
      for (int m = 0; m < kBlocks; ++m) WgmmaHold(sum[m]);
      if (thread == 0) BarrierArrive(empty + 8 * previous);

      const int rows = min(kRows, t.end_row - t.first_row);
#pragma unroll
      for (int m = 0; m < kBlocks; ++m) {
#pragma unroll
        for (int j = 0; j < kRows / 8; ++j) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            __nv_bfloat16* to = staged + (8 * j + 2 * c + i) * L::kOutWidth;
            if constexpr (kGateUp) {
              const float gate = __bfloat162float(__float2bfloat16(sum[m][4 * j + i]));
              const float up = __bfloat162float(__float2bfloat16(sum[m][4 * j + 2 + i]));
              const float silu = __bfloat162float(__float2bfloat16(__fdividef(gate, 1.0f + __expf(-gate))));
              to[8 * warp + g] = __float2bfloat16(silu * up);
            } else {
              // Without the factor ptxas converts straight from the accumulators and then serialises the
              // products.
              to[16 * warp + g] = __float2bfloat16(sum[m][4 * j + i] * one);
              to[16 * warp + g + 8] = __float2bfloat16(sum[m][4 * j + 2 + i] * one);
            }
          }
        }
        asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory");
        constexpr int kPieces = (kGateUp ? 32 : 64) / 8;
        const int first_feature = (t.feature_tile * L::kWeightBlocks + group * kBlocks + m) * kPieces * 8;
        for (int i = thread; i < rows * kPieces; i += 128) {
          const int row = i / kPieces, feature = first_feature + i % kPieces * 8;
          if (feature < features) {
            *reinterpret_cast<uint4*>(out + static_cast<int64_t>(t.first_row + row) * features + feature) =
                *reinterpret_cast<const uint4*>(staged + row * L::kOutWidth + i % kPieces * 8);
          }
        }
        asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory");
      }
    }
  }
}

PFN_cuTensorMapEncodeTiled_v12000 Encoder() {
  static const auto encoder = [] {
    void* symbol = nullptr;
    cudaDriverEntryPointQueryResult found;
    FD_CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &symbol, 12000,
                                                   cudaEnableDefault, &found));
    FD_CHECK(found == cudaDriverEntryPointSuccess, "the driver has no cuTensorMapEncodeTiled");
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(symbol);
  }();
  return encoder;
}

void Encode(CUtensorMap* map, const void* data, int rank, const cuuint64_t* dims,
            const cuuint64_t* stride_bytes, const cuuint32_t* box) {
  const cuuint32_t steps[5] = {1, 1, 1, 1, 1};
  const CUresult result =
      Encoder()(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, static_cast<cuuint32_t>(rank), const_cast<void*>(data),
                dims, stride_bytes, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  FD_CHECK(result == CUDA_SUCCESS, "cuTensorMapEncodeTiled: error ", static_cast<int>(result));
}

CUtensorMap RowsMap(const void* data, int64_t rows, int64_t k, int box_rows) {
  CUtensorMap map;
  const cuuint64_t dims[2] = {static_cast<cuuint64_t>(k), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(k * 2)};
  const cuuint32_t box[2] = {kStepK, static_cast<cuuint32_t>(box_rows)};
  Encode(&map, data, 2, dims, strides, box);
  return map;
}

int Multiprocessors() {
  static const int count = [] {
    int device = 0, n = 0;
    FD_CUDA_CHECK(cudaGetDevice(&device));
    FD_CUDA_CHECK(cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device));
    return n;
  }();
  return count;
}

template <int kRows, int kBlocks, int kGroups, bool kGateUp>
void Launch(const GroupedGemm& g, cudaStream_t stream) {
  using L = Layout<kRows, kBlocks, kGroups, kGateUp>;
  const auto kernel = Grouped<kRows, kBlocks, kGroups, kGateUp>;
  static const cudaError_t raised =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, L::kDynamicBytes);
  FD_CUDA_CHECK(raised);
  FD_CHECK(g.experts <= kMaxExperts, g.experts, " experts");
  const int64_t features = kGateUp ? g.n / 2 : g.n;
  const int64_t row_tiles = g.pairs / kRows + (g.pairs < g.experts ? g.pairs : g.experts);
  const int64_t tasks = row_tiles * ((features + L::kFeatures - 1) / L::kFeatures);
  const int64_t blocks = tasks < Multiprocessors() ? tasks : Multiprocessors();
  LaunchOverlapped(kernel, dim3(static_cast<unsigned>(blocks)), L::kThreads, L::kDynamicBytes, stream,
                   RowsMap(g.in, g.pairs, g.k, kRows), static_cast<const CUtensorMap*>(g.maps), g.offsets,
                   static_cast<int>(g.experts), static_cast<int>((g.k + kStepK - 1) / kStepK),
                   static_cast<int>(features), static_cast<__nv_bfloat16*>(g.out), 1.0f);
}

// Row tiles hold what an expert usually gets, so that each weight is read once from memory.
template <bool kGateUp>
void Select(const GroupedGemm& g, cudaStream_t stream) {
  const int64_t mean = (g.pairs + g.experts - 1) / g.experts;
  if (g.pairs <= 8 || mean <= 2) {
    Launch<8, 1, 1, kGateUp>(g, stream);
  } else if (mean <= 8) {
    Launch<16, 1, 1, kGateUp>(g, stream);
  } else if (mean <= 32) {
    Launch<64, 1, 2, kGateUp>(g, stream);
  } else {
    Launch<128, 2, 2, kGateUp>(g, stream);
  }
}

}  // namespace

bool GroupedGemmSm90Usable(DType act, DType weight, int64_t n, int64_t k) {
  static const bool hopper = [] {
    int device = 0, major = 0;
    return cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
           major == 9;
  }();
  return hopper && act == DType::kBFloat16 && weight == DType::kBFloat16 && n % 8 == 0 && k % 8 == 0;
}

void GroupedGemmSm90(const GroupedGemm& g, void* stream) {
  Select<false>(g, static_cast<cudaStream_t>(stream));
}
void GroupedGateUpSm90(const GroupedGemm& g, void* stream) {
  Select<true>(g, static_cast<cudaStream_t>(stream));
}

void GroupedWeightMapSm90(void* map, const void* weight, int64_t n, int64_t k) {
  static_assert(sizeof(CUtensorMap) == kTensorMapBytes);
  const CUtensorMap made = RowsMap(weight, n, k, kBlockRows);
  __builtin_memcpy(map, &made, sizeof(made));
}

// [width / 8][gate, up][8][k], so that one box is 64 weight rows whose groups of 8 alternate between gate and
// up: a thread's two rows of D are then the gate and the up of one feature.
void GroupedGateUpMapSm90(void* map, const void* weight, int64_t n, int64_t k) {
  const cuuint64_t row_bytes = static_cast<cuuint64_t>(k) * 2, width = static_cast<cuuint64_t>(n) / 2;
  const cuuint64_t dims[4] = {static_cast<cuuint64_t>(k), 8, 2, width / 8};
  const cuuint64_t strides[3] = {row_bytes, row_bytes * width, row_bytes * 8};
  const cuuint32_t box[4] = {kStepK, 8, 2, 4};
  CUtensorMap made;
  Encode(&made, weight, 4, dims, strides, box);
  __builtin_memcpy(map, &made, sizeof(made));
}

}  // namespace fd::cuda
