// What every parity test on the GPU needs: a context on device 0, copies between it and the host.
#pragma once

#include "compute/kernels/cuda/device.h"
#include "compute/ops/rows.h"
#include "tests/parity/parity.h"

// First line of every test on the GPU.
#define FD_SKIP_WITHOUT_GPU() \
  if (cuda::DeviceCount() == 0) GTEST_SKIP() << "no CUDA device on this machine"

namespace fd::parity {

inline constexpr Device kGpu{DeviceType::kCuda, 0};

// A context with its own stream and workspace on device 0.
struct CudaContext {
  explicit CudaContext(int64_t workspace_bytes = int64_t{64} << 20)
      : threads(2), workspace(kGpu, workspace_bytes), stream(cuda::CreateStream(0)) {
    ctx.device = kGpu;
    ctx.threads = &threads;
    ctx.stream = stream;
    ctx.workspace = &workspace;
  }
  ~CudaContext() {
    cuda::Synchronize(stream);
    cuda::DestroyStream(stream);
  }
  CudaContext(const CudaContext&) = delete;
  CudaContext& operator=(const CudaContext&) = delete;

  ThreadPool threads;  // for packing weights
  Workspace workspace;
  void* stream;
  ops::Context ctx;
};

// Fills every byte with 0xff: NaN in both activation types, -1 in integers.
inline void Poison(CudaContext& gpu, const TensorView& t) {
  const int64_t row_bytes = TensorView::RowElements(t.shape) * DTypeBytes(t.dtype);
  for (int64_t r = 0; r < t.dim(0); ++r) {
    cuda::FillBytesAsync(t.Rows(r, 1).data, 0xff, row_bytes, gpu.stream);
  }
}
// An output that shows what was never written.
inline Tensor PoisonedOnDevice(CudaContext& gpu, DType dtype, Shape shape) {
  Tensor t(dtype, kGpu, shape);
  cuda::FillBytesAsync(t.view().data, 0xff, t.size_bytes(), gpu.stream);
  return t;
}

// Contiguous copies, complete on return.
inline Tensor ToDevice(CudaContext& gpu, const TensorView& host) {
  Tensor t(host.dtype, kGpu, host.shape);
  ops::Copy(gpu.ctx, t, host);
  cuda::Synchronize(gpu.stream);
  return t;
}
inline Tensor ToHost(CudaContext& gpu, const TensorView& device) {
  Tensor t(device.dtype, Device{}, device.shape);
  ops::Copy(gpu.ctx, t, device);
  cuda::Synchronize(gpu.stream);
  return t;
}

}  // namespace fd::parity
