#include "compute/kernels/cuda/roofline.h"

#include <algorithm>
#include <vector>

#include "compute/kernels/cuda/device.h"
#include "compute/kernels/cuda/linear.h"
#include "compute/kernels/cuda/values.cuh"

namespace fd::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kLoads = 8;  // of 16 bytes, in flight in every thread
constexpr int64_t kBlockBytes = int64_t{kThreads} * kLoads * 16;
constexpr int64_t kMostBytes = int64_t{4} << 30;
constexpr int64_t kLeastBytes = int64_t{512} << 20;  // far beyond the L2 cache; holds the product's operands
constexpr int64_t kSide = 8192;
constexpr int64_t kMatrixBytes = kSide * kSide * 2;
static_assert(3 * kMatrixBytes <= kLeastBytes && kLeastBytes % (2 * kBlockBytes) == 0);

// Two bfloat16 values uniform in (-1, 1) a thread. Zeros would draw less power, and so run at higher clocks.
__global__ void FillKernel(__nv_bfloat162* out, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  uint32_t bits = static_cast<uint32_t>(i) * 0x9e3779b9u + 0x7f4a7c15u;
  bits = (bits ^ (bits >> 16)) * 0x85ebca6bu;
  bits = (bits ^ (bits >> 13)) * 0xc2b2ae35u;
  bits ^= bits >> 16;
  const auto uniform = [](uint32_t half) {
    return static_cast<float>(static_cast<int32_t>(half) - 32768) * 0x1p-15f;
  };
  out[i] = __floats2bfloat162_rn(uniform(bits & 0xffff), uniform(bits >> 16));
}

// A block reads kBlockBytes. The sum is written only if it has one value out of 2^32, which the compiler
// cannot rule out.
__global__ void __launch_bounds__(kThreads) ReadKernel(const uint4* data, uint32_t* sink) {
  const uint4* from = data + static_cast<int64_t>(blockIdx.x) * kThreads * kLoads + threadIdx.x;
  uint4 v[kLoads];
#pragma unroll
  for (int i = 0; i < kLoads; ++i) v[i] = __ldcs(from + i * kThreads);
  uint32_t sum = 0;
#pragma unroll
  for (int i = 0; i < kLoads; ++i) sum += v[i].x ^ v[i].y ^ v[i].z ^ v[i].w;
  if (sum == 0x9e3779b9u) *sink = sum;
}

__global__ void __launch_bounds__(kThreads) CopyKernel(uint4* to, const uint4* from) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads * kLoads + threadIdx.x;
  uint4 v[kLoads];
#pragma unroll
  for (int i = 0; i < kLoads; ++i) v[i] = __ldcs(from + first + i * kThreads);
#pragma unroll
  for (int i = 0; i < kLoads; ++i) __stcs(to + first + i * kThreads, v[i]);
}

// Median seconds of one of `calls` calls.
template <typename Fn>
double MedianSeconds(cudaStream_t stream, int calls, const Fn& fn) {
  constexpr int kWarm = 3, kRepeats = 11;
  void *begin = CreateEvent(), *end = CreateEvent();
  std::vector<double> times;
  for (int repeat = 0; repeat < kWarm + kRepeats; ++repeat) {
    RecordEvent(begin, stream);
    for (int i = 0; i < calls; ++i) fn();
    RecordEvent(end, stream);
    WaitEvent(end);
    if (repeat >= kWarm) times.push_back(static_cast<double>(MillisecondsBetween(begin, end)) * 1e-3 / calls);
  }
  DestroyEvent(begin);
  DestroyEvent(end);
  std::nth_element(times.begin(), times.begin() + kRepeats / 2, times.end());
  return times[kRepeats / 2];
}

}  // namespace

bool MeasureRoofline(int device, void* stream_handle, Roofline* roofline) {
  SetDevice(device);
  const cudaStream_t stream = AsStream(stream_handle);
  // The sink of ReadKernel lies behind the buffer.
  int64_t bytes = kMostBytes;
  void* buffer = TryAllocate(device, bytes + 256);
  while (buffer == nullptr && bytes > kLeastBytes) {
    bytes /= 2;
    buffer = TryAllocate(device, bytes + 256);
  }
  if (buffer == nullptr) return false;
  char* const data = static_cast<char*>(buffer);
  const auto blocks = [](int64_t n) { return static_cast<unsigned>(n / kBlockBytes); };

  FillKernel<<<static_cast<unsigned>(bytes / 4 / kThreads), kThreads, 0, stream>>>(
      static_cast<__nv_bfloat162*>(buffer), bytes / 4);
  FD_CUDA_CHECK(cudaGetLastError());
  Roofline r;
  r.bytes = bytes;
  r.read_bytes_per_s = static_cast<double>(bytes) / MedianSeconds(stream, 1, [&] {
                         ReadKernel<<<blocks(bytes), kThreads, 0, stream>>>(
                             static_cast<const uint4*>(buffer), reinterpret_cast<uint32_t*>(data + bytes));
                         FD_CUDA_CHECK(cudaGetLastError());
                       });
  const int64_t half = bytes / 2;
  const double by_kernel = MedianSeconds(stream, 1, [&] {
    CopyKernel<<<blocks(half), kThreads, 0, stream>>>(reinterpret_cast<uint4*>(data + half),
                                                      static_cast<const uint4*>(buffer));
    FD_CUDA_CHECK(cudaGetLastError());
  });
  const double by_driver = MedianSeconds(stream, 1, [&] { CopyAsync(data + half, data, half, stream); });
  r.copy_bytes_per_s = static_cast<double>(bytes) / std::min(by_kernel, by_driver);

  PrepareLinear(stream);
  LinearArgs product;
  product.in = data;
  product.weight = data + kMatrixBytes;
  product.out = data + 2 * kMatrixBytes;
  product.in_type = product.weight_type = product.out_type = DType::kBFloat16;
  product.m = product.n = product.k = product.in_stride = product.out_stride = kSide;
  const double seconds = MedianSeconds(
      stream, 10, [&] { FD_CHECK(LinearLt(product, stream), "cuBLASLt refuses a plain bfloat16 product"); });
  r.bf16_flop_per_s = 2.0 * kSide * kSide * kSide / seconds;
  Free(device, buffer);
  *roofline = r;
  return true;
}

}  // namespace fd::cuda
