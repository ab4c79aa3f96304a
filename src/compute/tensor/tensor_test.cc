#include "compute/tensor/tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace fd {
namespace {

TEST(BFloat16, RoundsToNearestEven) {
  EXPECT_EQ(ToBFloat16(1.0f).bits, 0x3f80);
  EXPECT_EQ(ToBFloat16(1.00390625f).bits, 0x3f80);  // 1 + 2^-8: a tie goes to the even one
  EXPECT_EQ(ToBFloat16(1.01171875f).bits, 0x3f82);  // 1 + 3 * 2^-8
  EXPECT_EQ(ToBFloat16(3.4e38f).bits, 0x7f80);      // beyond the largest: infinity
  EXPECT_TRUE(std::isnan(ToFloat(ToBFloat16(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(TensorView, SlicesOfAFusedResult) {
  Tensor t(DType::kFloat32, Device{}, {3, 8});
  for (int i = 0; i < 24; ++i) t.view().As<float>()[i] = static_cast<float>(i);
  const TensorView heads = t.view().Columns(4, 4).Reshape({3, 2, 2});
  EXPECT_FALSE(heads.IsContiguous());
  EXPECT_EQ(heads.row_stride, 8);
  EXPECT_EQ(heads.Rows(2, 1).As<float>()[0], 20.0f);
  EXPECT_EQ(t.view().Reshape({24}).row_stride, 1);
}

TEST(Tensor, IsZeroAndAligned) {
  for (int64_t n : {1, 63, 1 << 20}) {
    Tensor t(DType::kFloat32, Device{}, {n});
    EXPECT_EQ(reinterpret_cast<uintptr_t>(t.view().data) % 64, 0u);
    EXPECT_EQ(t.view().As<float>()[n - 1], 0.0f);
  }
}

TEST(Workspace, TakesFrontToBackAndGrowsAfterAnOverflow) {
  Workspace w(Device{}, 256);
  TensorView a = w.Take(DType::kFloat32, {16});
  const int64_t mark = w.Mark();
  TensorView b = w.Take(DType::kFloat32, {1});
  EXPECT_EQ(static_cast<char*>(b.data) - static_cast<char*>(a.data), 64);
  w.Release(mark);
  EXPECT_EQ(w.Take(DType::kFloat32, {1}).data, b.data);
  TensorView big = w.Take(DType::kFloat32, {1000});
  for (int i = 0; i < 1000; ++i) big.As<float>()[i] = 1.0f;
  EXPECT_EQ(w.capacity_bytes(), 256);
  w.Reset();
  EXPECT_GE(w.capacity_bytes(), 4000);
  EXPECT_EQ(w.Mark(), 0);
}

TEST(Arena, TensorsLieBehindEachOtherAndKeepItAlive) {
  auto arena = Arena::Allocate(Device{}, 1024);
  Tensor a = arena->Take(DType::kFloat32, {3});
  Tensor b = arena->Take(DType::kUInt8, {256});
  EXPECT_EQ(b.view().As<char>() - a.view().As<char>(), Arena::kAlignmentBytes);
  EXPECT_EQ(arena->used_bytes(), Arena::PaddedBytes(12) + Arena::PaddedBytes(256));
  EXPECT_EQ(b.view().As<uint8_t>()[255], 0);
  Workspace w(*arena, Device{}, 128);
  EXPECT_EQ(w.Take(DType::kFloat32, {32}).As<char>() - b.view().As<char>(), 256);
  EXPECT_EQ(w.overflows(), 0);
  w.Take(DType::kFloat32, {32});
  w.Reset();
  EXPECT_EQ(w.overflows(), 1);
  EXPECT_EQ(w.capacity_bytes(), 128);
  arena.reset();
  a.view().As<float>()[2] = 1.0f;
  w.Take(DType::kFloat32, {32}).As<float>()[31] = 1.0f;
}

TEST(ArenaDeathTest, MoreThanWasPlannedIsOurMistake) {
  auto arena = Arena::Allocate(Device{}, 256);
  arena->Take(DType::kUInt8, {1});
  EXPECT_DEATH(arena->Take(DType::kUInt8, {1}), "more than was planned");
}

}  // namespace
}  // namespace fd
