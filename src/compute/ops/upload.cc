#include "compute/ops/upload.h"

#include <algorithm>
#include <cstring>

#include "compute/kernels/cuda/device.h"

namespace fd::ops {
namespace {

constexpr int64_t kPieceBytes = int64_t{8} << 20;
constexpr int kPieces = 4;
constexpr int64_t kGrainBytes = int64_t{256} << 10;  // of one thread at a time

}  // namespace

Uploader::Uploader(const Context& ctx) : ctx_(ctx) {
  for (int i = 0; i < kPieces; ++i) {
    ring_.push_back({Tensor::Staging(ctx.device, DType::kUInt8, {kPieceBytes}), Event(ctx)});
  }
}

int64_t Uploader::HostBytes() { return kPieces * kPieceBytes; }

void Uploader::Copy(void* to, const void* from, int64_t bytes) {
  for (int64_t done = 0; done < bytes;) {
    const int64_t count = std::min(kPieceBytes, bytes - done);
    Piece& piece = ring_[next_];
    next_ = (next_ + 1) % ring_.size();
    piece.moved.Wait();
    char* staged = piece.memory.view().As<char>();
    const char* source = static_cast<const char*>(from) + done;
    ctx_.threads->ParallelFor((count + kGrainBytes - 1) / kGrainBytes, 1, [&](int64_t begin, int64_t end) {
      const int64_t first = begin * kGrainBytes, last = std::min(end * kGrainBytes, count);
      std::memcpy(staged + first, source + first, static_cast<size_t>(last - first));
    });
    cuda::CopyAsync(static_cast<char*>(to) + done, staged, count, ctx_.stream);
    piece.moved.Record(ctx_);
    done += count;
  }
}

void CopyStaged(const Context& ctx, const TensorView& to, const Tensor& staged) {
  const int64_t bytes = to.NumElements() * DTypeBytes(to.dtype);
  FD_CHECK(to.IsContiguous() && to.device == ctx.device && bytes <= staged.size_bytes());
  if (ctx.device.type == DeviceType::kCpu) {
    std::memcpy(to.data, staged.view().data, static_cast<size_t>(bytes));
  } else {
    cuda::CopyAsync(to.data, staged.view().data, bytes, ctx.stream);
  }
}

void CopyToDevice(const Context& ctx, void* to, const void* from, int64_t bytes) {
  if (ctx.uploader != nullptr) return ctx.uploader->Copy(to, from, bytes);
  cuda::CopyAsync(to, from, bytes, ctx.stream);
}

}  // namespace fd::ops
