#include "compute/kernels/cuda/device.h"

#include <algorithm>
#include <cstring>

#include "compute/kernels/cuda/cuda_check.cuh"
#include "compute/kernels/cuda/installation.h"

namespace fd::cuda {
namespace {

cudaStream_t Stream(void* s) { return static_cast<cudaStream_t>(s); }
cudaEvent_t Event(void* e) { return static_cast<cudaEvent_t>(e); }

// Goes back to the thread's device at the closing brace.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    FD_CUDA_CHECK(cudaGetDevice(&before_));
    changed_ = device != before_;
    if (changed_) FD_CUDA_CHECK(cudaSetDevice(device));
  }
  ~DeviceGuard() {
    if (changed_) cudaSetDevice(before_);
  }

 private:
  int before_ = 0;
  bool changed_ = false;
};

__global__ void Trap() { __trap(); }

}  // namespace

void ThrowDeviceError(const char* file, int line, const char* call, const char* name, const char* text) {
  const char* slash = std::strrchr(file, '/');
  throw DeviceError(StrCat(name, ": ", text, " (", slash ? slash + 1 : file, ":", line, ", ", call, ")"));
}

void InjectFault(void* stream) {
  Trap<<<1, 1, 0, Stream(stream)>>>();
  FD_CUDA_CHECK(cudaGetLastError());
}

bool IsBuilt() { return true; }

int DeviceCount() {
  static const int count = [] {
    int n = 0;
    if (cudaGetDeviceCount(&n) != cudaSuccess) {
      cudaGetLastError();  // "no device" and "driver too old" are answers, not errors
      return 0;
    }
    return n;
  }();
  return count;
}

DeviceInfo GetDeviceInfo(int index) {
  DeviceInfo info;
  const char* const error = TryGetDeviceInfo(index, &info);
  FD_CHECK(error == nullptr, "CUDA device ", index, ": ", error);
  return info;
}

void SetDevice(int index) { FD_CUDA_CHECK(cudaSetDevice(index)); }

void* TryAllocate(int device, int64_t bytes) {
  DeviceGuard guard(device);
  void* memory = nullptr;
  const cudaError_t error = cudaMalloc(&memory, static_cast<size_t>(std::max<int64_t>(bytes, 1)));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  FD_CUDA_CHECK(error);
  return memory;
}

void* AllocateZeroed(int device, int64_t bytes) {
  FD_CHECK_GE(bytes, 0);
  void* memory = TryAllocate(device, bytes);
  FD_CHECK(memory != nullptr, "out of memory on CUDA device ", device, ": ", bytes, " bytes");
  Zero(device, memory, bytes);
  return memory;
}

void Zero(int device, void* memory, int64_t bytes) {
  DeviceGuard guard(device);
  FD_CUDA_CHECK(cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes), nullptr));
  FD_CUDA_CHECK(cudaStreamSynchronize(nullptr));
}

void Free(int, void* memory) { cudaFree(memory); }

void* AllocatePinned(int64_t bytes) {
  void* memory = nullptr;
  const size_t size = static_cast<size_t>(std::max<int64_t>(bytes, 1));
  FD_CUDA_CHECK(cudaHostAlloc(&memory, size, cudaHostAllocPortable));
  std::memset(memory, 0, size);
  return memory;
}

void FreePinned(void* memory) { cudaFreeHost(memory); }

void* CreateStream(int device) {
  DeviceGuard guard(device);
  cudaStream_t stream;
  FD_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

void DestroyStream(void* stream) { cudaStreamDestroy(Stream(stream)); }

void Synchronize(void* stream) { FD_CUDA_CHECK(cudaStreamSynchronize(Stream(stream))); }

void CopyAsync(void* to, const void* from, int64_t bytes, void* stream) {
  if (bytes == 0) return;
  FD_CUDA_CHECK(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, Stream(stream)));
}

void CopyRowsAsync(void* to, int64_t to_pitch, const void* from, int64_t from_pitch, int64_t row_bytes,
                   int64_t rows, void* stream) {
  if (row_bytes == 0 || rows == 0) return;
  FD_CUDA_CHECK(cudaMemcpy2DAsync(to, static_cast<size_t>(to_pitch), from, static_cast<size_t>(from_pitch),
                                  static_cast<size_t>(row_bytes), static_cast<size_t>(rows),
                                  cudaMemcpyDefault, Stream(stream)));
}

void FillBytesAsync(void* memory, uint8_t value, int64_t bytes, void* stream) {
  if (bytes == 0) return;
  FD_CUDA_CHECK(cudaMemsetAsync(memory, value, static_cast<size_t>(bytes), Stream(stream)));
}

void* CreateEvent() {
  cudaEvent_t event;
  FD_CUDA_CHECK(cudaEventCreate(&event));
  return event;
}
void DestroyEvent(void* event) { cudaEventDestroy(Event(event)); }
void RecordEvent(void* event, void* stream) { FD_CUDA_CHECK(cudaEventRecord(Event(event), Stream(stream))); }
void WaitEvent(void* event) { FD_CUDA_CHECK(cudaEventSynchronize(Event(event))); }
void StreamWaitEvent(void* stream, void* event) {
  FD_CUDA_CHECK(cudaStreamWaitEvent(Stream(stream), Event(event), 0));
}
float MillisecondsBetween(void* begin, void* end) {
  float ms = 0;
  FD_CUDA_CHECK(cudaEventElapsedTime(&ms, Event(begin), Event(end)));
  return ms;
}

void BeginCapture(void* stream) {
  FD_CUDA_CHECK(cudaStreamBeginCapture(Stream(stream), cudaStreamCaptureModeThreadLocal));
}

void* EndCapture(void* stream) {
  cudaGraph_t graph;
  FD_CUDA_CHECK(cudaStreamEndCapture(Stream(stream), &graph));
  cudaGraphExec_t ready;
  FD_CUDA_CHECK(cudaGraphInstantiate(&ready, graph, 0));
  FD_CUDA_CHECK(cudaGraphDestroy(graph));
  return ready;
}

void LaunchGraph(void* graph, void* stream) {
  FD_CUDA_CHECK(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), Stream(stream)));
}

void DestroyGraph(void* graph) { cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)); }

}  // namespace fd::cuda
