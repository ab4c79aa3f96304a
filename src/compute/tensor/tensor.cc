#include "compute/tensor/tensor.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/memory_policy.h"
#include "base/strings.h"
#include "compute/kernels/cuda/device.h"

namespace fd {

const char* DTypeName(DType t) {
  switch (t) {
    case DType::kFloat32:
      return "float32";
    case DType::kBFloat16:
      return "bfloat16";
    case DType::kInt32:
      return "int32";
    case DType::kInt64:
      return "int64";
    case DType::kUInt8:
      return "uint8";
    case DType::kInt8:
      return "int8";
    case DType::kFloat8E4M3:
      return "float8_e4m3";
  }
  return "unknown";
}

std::string Shape::ToString() const {
  std::string out = "[";
  for (int i = 0; i < rank; ++i) out += StrCat(i ? ", " : "", dims[i]);
  return out + "]";
}

TensorView TensorView::Rows(int64_t begin, int64_t count) const {
  FD_CHECK(begin >= 0 && count >= 0 && begin + count <= dim(0), begin, " + ", count, " of ", dim(0), " rows");
  TensorView v = *this;
  v.shape.dims[0] = count;
  v.data = static_cast<char*>(data) + begin * row_stride * DTypeBytes(dtype);
  return v;
}

TensorView TensorView::Columns(int64_t begin, int64_t count) const {
  FD_CHECK_EQ(rank(), 2);
  FD_CHECK(begin >= 0 && count >= 0 && begin + count <= dim(1), begin, " + ", count, " of ", dim(1),
           " columns");
  TensorView v = *this;
  v.shape.dims[1] = count;
  v.data = static_cast<char*>(data) + begin * DTypeBytes(dtype);
  return v;
}

TensorView TensorView::Reshape(Shape new_shape) const {
  FD_CHECK_EQ(new_shape.NumElements(), NumElements());
  TensorView v = *this;
  v.shape = new_shape;
  if (IsContiguous()) {
    v.row_stride = RowElements(new_shape);
  } else {
    FD_CHECK_EQ(new_shape[0], dim(0), "a strided view keeps its rows");
  }
  return v;
}

namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePageBytes = size_t{2} << 20;

// Anonymous memory is zero until it is touched, so big tensors cost nothing before their first use.
std::shared_ptr<void> AllocateHost(int64_t bytes) {
  FD_CHECK_GE(bytes, 0);
  const size_t size = std::max<size_t>(static_cast<size_t>(bytes), 1);
  if (size < kHugePageBytes) {
    const size_t padded = (size + kAlignment - 1) / kAlignment * kAlignment;
    void* p = std::aligned_alloc(kAlignment, padded);
    FD_CHECK(p != nullptr, "out of memory: ", bytes, " bytes");
    std::memset(p, 0, padded);
    return std::shared_ptr<void>(p, std::free);
  }
  void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  FD_CHECK(p != MAP_FAILED, "out of memory: ", bytes, " bytes");
  madvise(p, size, MADV_HUGEPAGE);
  PlacePages(p, size);
  return std::shared_ptr<void>(p, [size](void* q) { munmap(q, size); });
}

// Zeroed.
std::shared_ptr<void> Allocate(Device device, int64_t bytes) {
  if (device.type == DeviceType::kCpu) return AllocateHost(bytes);
  return std::shared_ptr<void>(cuda::AllocateZeroed(device.index, bytes),
                               [device](void* p) { cuda::Free(device.index, p); });
}

int64_t AlignUp(int64_t n) { return (n + static_cast<int64_t>(kAlignment) - 1) / kAlignment * kAlignment; }

}  // namespace

Tensor::Tensor(DType dtype, Device device, Shape shape) {
  storage_ = Allocate(device, shape.NumElements() * DTypeBytes(dtype));
  view_ = TensorView(storage_.get(), dtype, device, shape);
}

Tensor Tensor::Staging(Device device, DType dtype, Shape shape) {
  if (device.type == DeviceType::kCpu) return Tensor(dtype, device, shape);
  std::shared_ptr<void> memory(cuda::AllocatePinned(shape.NumElements() * DTypeBytes(dtype)),
                               cuda::FreePinned);
  const TensorView view(memory.get(), dtype, Device{}, shape);
  return Tensor(std::move(memory), view);
}

Tensor Tensor::Over(std::shared_ptr<const void> owner, const TensorView& view) {
  return Tensor(std::const_pointer_cast<void>(std::move(owner)), view);
}

std::unique_ptr<Arena> Arena::Allocate(Device device, int64_t capacity_bytes) {
  std::shared_ptr<void> memory;
  if (device.type == DeviceType::kCpu) {
    memory = AllocateHost(capacity_bytes);
  } else {
    void* p = cuda::TryAllocate(device.index, capacity_bytes);
    if (p == nullptr) return nullptr;
    memory = std::shared_ptr<void>(p, [device](void* q) { cuda::Free(device.index, q); });
    cuda::Zero(device.index, p, capacity_bytes);
  }
  return std::unique_ptr<Arena>(new Arena(device, capacity_bytes, std::move(memory)));
}

Tensor Arena::Take(DType dtype, Shape shape) {
  const int64_t bytes = PaddedBytes(shape.NumElements() * DTypeBytes(dtype));
  FD_CHECK(used_bytes_ + bytes <= capacity_bytes_, "more than was planned: ", used_bytes_, " + ", bytes,
           " of ", capacity_bytes_, " bytes");
  void* at = static_cast<char*>(memory_.get()) + used_bytes_;
  used_bytes_ += bytes;
  return Tensor(memory_, TensorView(at, dtype, device_, shape));
}

// What has been handed out beyond capacity stays until the next Reset, because its users still hold views.
struct Workspace::Block {
  std::shared_ptr<void> memory;
  std::shared_ptr<Block> previous;
};

Workspace::Workspace(Device device, int64_t capacity_bytes)
    : device_(device), capacity_bytes_(AlignUp(capacity_bytes)) {
  block_ = std::make_shared<Block>(Block{Allocate(device_, capacity_bytes_), nullptr});
}

Workspace::Workspace(Arena& arena, Device device, int64_t capacity_bytes)
    : device_(device), capacity_bytes_(AlignUp(capacity_bytes)), fixed_size_(true) {
  const Tensor memory = arena.Take(DType::kUInt8, {capacity_bytes_});
  block_ = std::make_shared<Block>(
      Block{std::shared_ptr<void>(std::make_shared<Tensor>(memory), memory.view().data), nullptr});
}

Workspace::Workspace(const TensorView& memory)
    : device_(memory.device),
      capacity_bytes_(memory.NumElements() * DTypeBytes(memory.dtype)),
      fixed_size_(true) {
  block_ = std::make_shared<Block>(Block{std::shared_ptr<void>(memory.data, [](void*) {}), nullptr});
}

TensorView Workspace::Take(DType dtype, Shape shape) {
  const int64_t bytes = AlignUp(shape.NumElements() * DTypeBytes(dtype));
  const int64_t begin = used_bytes_;
  used_bytes_ += bytes;
  peak_bytes_ = std::max(peak_bytes_, used_bytes_);
  if (used_bytes_ <= capacity_bytes_) {
    return TensorView(static_cast<char*>(block_->memory.get()) + begin, dtype, device_, shape);
  }
  ++overflows_;
  overflow_ = std::make_shared<Block>(Block{Allocate(device_, bytes), overflow_});
  return TensorView(overflow_->memory.get(), dtype, device_, shape);
}

void Workspace::Release(int64_t mark) {
  FD_CHECK(mark >= 0 && mark <= used_bytes_, "released more than was taken");
  used_bytes_ = mark;
  if (mark != 0 || overflow_ == nullptr) return;
  overflow_.reset();
  if (fixed_size_) return;
  capacity_bytes_ = peak_bytes_;
  block_ = std::make_shared<Block>(Block{Allocate(device_, capacity_bytes_), nullptr});
}

}  // namespace fd
