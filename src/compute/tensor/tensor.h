// Tensors: TensorView (borrows memory on a device) and Tensor (owns it). Shapes stand in comments after a
// tensor's name.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>

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
  const TensorView& view() const { return view_; }
  operator const TensorView&() const { return view_; }  // NOLINT: a Tensor stands wherever a view does
  int64_t size_bytes() const { return storage_ ? view_.NumElements() * DTypeBytes(view_.dtype) : 0; }

 private:
  std::shared_ptr<void> storage_;
  TensorView view_;
};

// One block of device memory handed out front to back and taken back all at once: the scratch memory of a
// step. No allocation once the largest step has been seen. Not thread-safe; one per executor.
class Workspace {
 public:
  Workspace(Device device, int64_t capacity_bytes);
  // Uninitialised, 64-byte aligned. Beyond capacity it takes an extra block, and the next Reset grows the
  // first to fit.
  TensorView Take(DType dtype, Shape shape);
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
  std::shared_ptr<Block> block_;
  std::shared_ptr<Block> overflow_;
};

}  // namespace fd
