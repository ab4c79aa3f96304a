// Tensors: TensorView (borrows memory on a device) and Tensor (owns it). Shapes stand in comments after a
// tensor's name.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>

#include "base/check.h"
#include "compute/tensor/dtype.h"

namespace fd {

inline constexpr int kMaxRank = 4;

struct Shape {
  int rank = 0;
  int64_t dims[kMaxRank] = {};

  Shape() = default;
  Shape(std::initializer_list<int64_t> list) {
    FD_CHECK_LE(list.size(), static_cast<size_t>(kMaxRank));
    for (int64_t d : list) dims[rank++] = d;
  }
  int64_t operator[](int i) const { return dims[i]; }
  int64_t NumElements() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= dims[i];
    return n;
  }
  bool operator==(const Shape& o) const {
    if (rank != o.rank) return false;
    for (int i = 0; i < rank; ++i)
      if (dims[i] != o.dims[i]) return false;
    return true;
  }
  std::string ToString() const;  // "[3, 128]"
};

// Row-major; only the first dimension may be strided (row_stride, in elements), so that a slice of the
// columns of a fused result is a view. Copyable, borrows `data`.
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::kFloat32;
  Device device;
  Shape shape;
  int64_t row_stride = 0;  // elements from one index of dims[0] to the next

  TensorView() = default;
  TensorView(void* data, DType dtype, Device device, Shape shape)
      : data(data), dtype(dtype), device(device), shape(shape), row_stride(RowElements(shape)) {}

  static int64_t RowElements(const Shape& s) {
    int64_t n = 1;
    for (int i = 1; i < s.rank; ++i) n *= s.dims[i];
    return n;
  }
  int64_t dim(int i) const { return shape.dims[i]; }
  int rank() const { return shape.rank; }
  int64_t NumElements() const { return shape.NumElements(); }
  bool IsContiguous() const { return row_stride == RowElements(shape) || dim(0) <= 1; }
  // Also true for a view of nothing, as a default argument is (its shape has rank 0 and counts one element).
  bool empty() const { return data == nullptr || NumElements() == 0; }

  template <typename T>
  T* As() const {
    return static_cast<T*>(data);
  }
  // Rows [begin, begin + count) of the first dimension.
  TensorView Rows(int64_t begin, int64_t count) const;
  // Columns [begin, begin + count) of a [rows, columns] view; keeps row_stride.
  TensorView Columns(int64_t begin, int64_t count) const;
  // The same memory with another shape. With row_stride of a slice only dims after the first may be
  // regrouped: [T, heads * d] -> [T, heads, d].
  TensorView Reshape(Shape new_shape) const;
};

// Owns zero-initialised memory on a device, 64-byte aligned. Movable. CPU memory of 2 MiB and more asks for
// huge pages.
class Tensor {
 public:
  Tensor() = default;
  Tensor(DType dtype, Device device, Shape shape);
  // Host memory from which and to which copies of `device` run beside its kernels: page-locked for CUDA.
  static Tensor Staging(Device device, DType dtype, Shape shape);
  // Over memory of `owner`, which stays alive with it: a mapped file, say. What nobody may write stays so.
  static Tensor Over(std::shared_ptr<const void> owner, const TensorView& view);
  const TensorView& view() const { return view_; }
  operator const TensorView&() const { return view_; }  // NOLINT: a Tensor stands wherever a view does
  int64_t size_bytes() const { return storage_ ? view_.NumElements() * DTypeBytes(view_.dtype) : 0; }

 private:
  friend class Arena;
  Tensor(std::shared_ptr<void> storage, const TensorView& view) : storage_(std::move(storage)), view_(view) {}
  std::shared_ptr<void> storage_;
  TensorView view_;
};

// One block of a device's memory, allocated before anything is loaded, that tensors are cut from, front to
// back. They keep the block alive; none is given back alone. One thread.
class Arena {
 public:
  static constexpr int64_t kAlignmentBytes = 256;
  // What a tensor of so many bytes takes.
  static constexpr int64_t PaddedBytes(int64_t bytes) {
    return (bytes + kAlignmentBytes - 1) / kAlignmentBytes * kAlignmentBytes;
  }
  // Null when the device does not have so much.
  static std::unique_ptr<Arena> Allocate(Device device, int64_t capacity_bytes);
  // Zeroed; taking more than the capacity is our own mistake.
  Tensor Take(DType dtype, Shape shape);
  int64_t capacity_bytes() const { return capacity_bytes_; }
  int64_t used_bytes() const { return used_bytes_; }

 private:
  Arena(Device device, int64_t capacity_bytes, std::shared_ptr<void> memory)
      : device_(device), capacity_bytes_(capacity_bytes), memory_(std::move(memory)) {}
  Device device_;
  int64_t capacity_bytes_ = 0;
  int64_t used_bytes_ = 0;
  std::shared_ptr<void> memory_;
};

// One block of device memory handed out front to back and taken back all at once: the scratch memory of a
// step. No allocation once the largest step has been seen. Not thread-safe; one per executor.
class Workspace {
 public:
  Workspace(Device device, int64_t capacity_bytes);
  // Cut from an arena: as large as it will ever be, since what was planned is what there is.
  Workspace(Arena& arena, Device device, int64_t capacity_bytes);
  // Over memory that another workspace handed out and takes back later.
  explicit Workspace(const TensorView& memory);
  // Uninitialised, 64-byte aligned. Beyond capacity it takes an extra block, and the next Reset grows the
  // first to fit; a workspace of an arena or of borrowed memory counts that (overflows())
  // and keeps its size.
  TensorView Take(DType dtype, Shape shape);
  int64_t overflows() const { return overflows_; }
  int64_t Mark() const { return used_bytes_; }
  // Gives back everything taken since Mark().
  void Release(int64_t mark);
  void Reset() { Release(0); }
  int64_t capacity_bytes() const { return capacity_bytes_; }
  int64_t peak_bytes() const { return peak_bytes_; }

 private:
  struct Block;
  Device device_;
  int64_t capacity_bytes_ = 0;
  int64_t used_bytes_ = 0;
  int64_t peak_bytes_ = 0;
  int64_t overflows_ = 0;
  bool fixed_size_ = false;
  std::shared_ptr<Block> block_;
  std::shared_ptr<Block> overflow_;
};

}  // namespace fd
