// Lists of moves for tests of MoveRows, on any device, beside what plain memory makes of them.
#pragma once

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "compute/ops/move_rows.h"
#include "compute/ops/rows.h"
#include "compute/ops/stream.h"
#include "tests/parity/parity.h"

namespace fd::parity {

inline ops::RowMove::Place OnDevice(int64_t row) { return {row, false}; }
inline ops::RowMove::Place OnHost(int64_t row) { return {row, true}; }

// Pairs of random bytes, one for each of row_bytes, kRows on the device and kHostRows on the host, each
// `offset` bytes behind an aligned address.
class MovedPairs {
 public:
  static constexpr int64_t kRows = 9, kHostRows = 6;

  MovedPairs(const ops::Context& ctx, const std::vector<int64_t>& row_bytes, int64_t offset = 0)
      : ctx_(ctx), offset_(offset) {
    std::mt19937 rng(static_cast<unsigned>(row_bytes.size()));
    for (int64_t bytes : row_bytes) {
      expected_device_.push_back(Bytes(rng, kRows * bytes));
      expected_host_.push_back(Bytes(rng, kHostRows * bytes));
      device_.emplace_back(DType::kUInt8, ctx.device, Shape{offset + kRows * bytes + kGuardBytes});
      host_.push_back(Tensor::Staging(ctx.device, DType::kUInt8, {offset + kHostRows * bytes + kGuardBytes}));
      ops::Copy(ctx_, device_.back().view().Rows(offset, kRows * bytes), View(expected_device_.back()));
      std::copy_n(expected_host_.back().begin(), kHostRows * bytes,
                  host_.back().view().As<uint8_t>() + offset);
      pairs_.push_back({TensorView(device_.back().view().As<uint8_t>() + offset, DType::kUInt8, ctx.device,
                                   {kRows, bytes}),
                        TensorView(host_.back().view().As<uint8_t>() + offset, DType::kUInt8, Device{},
                                   {kHostRows, bytes})});
    }
    ops::Synchronize(ctx_);
  }

  // Does not wait.
  void Move(const std::vector<ops::RowMove>& moves) {
    ops::MoveRows(ctx_, pairs_, moves);
    for (size_t p = 0; p < pairs_.size(); ++p) {
      const auto bytes = static_cast<size_t>(pairs_[p].device.dim(1));
      const auto at = [&](const ops::RowMove::Place& place) {
        return (place.on_host ? expected_host_ : expected_device_)[p].data() +
               static_cast<size_t>(place.row) * bytes;
      };
      for (const ops::RowMove& move : moves) std::memcpy(at(move.to), at(move.from), bytes);
    }
  }

  // Waits; what lies around the rows is zero as it was.
  void Check() {
    ops::Synchronize(ctx_);
    for (size_t p = 0; p < pairs_.size(); ++p) {
      Tensor got(DType::kUInt8, Device{}, device_[p].view().shape);
      ops::Copy(ctx_, got, device_[p]);
      ops::Synchronize(ctx_);
      Expect(got, expected_device_[p], "device, pair " + std::to_string(p));
      Expect(host_[p], expected_host_[p], "host, pair " + std::to_string(p));
    }
  }

  void WithoutHost() {
    for (ops::RowPair& pair : pairs_) pair.host = {};
  }

 private:
  static constexpr int64_t kGuardBytes = 64;

  static std::vector<uint8_t> Bytes(std::mt19937& rng, int64_t count) {
    std::vector<uint8_t> bytes(static_cast<size_t>(count));
    for (uint8_t& b : bytes) b = static_cast<uint8_t>(rng());
    return bytes;
  }
  static TensorView View(std::vector<uint8_t>& bytes) {
    return {bytes.data(), DType::kUInt8, Device{}, {static_cast<int64_t>(bytes.size())}};
  }
  void Expect(const TensorView& got, const std::vector<uint8_t>& expected, const std::string& where) const {
    const int64_t end = offset_ + static_cast<int64_t>(expected.size());
    for (int64_t i = 0; i < got.NumElements(); ++i) {
      const int want = i < offset_ || i >= end ? 0 : expected[static_cast<size_t>(i - offset_)];
      ASSERT_EQ(got.As<uint8_t>()[i], want) << where << ", byte " << i - offset_;
    }
  }

  ops::Context ctx_;
  int64_t offset_;
  std::vector<Tensor> device_, host_;
  std::vector<std::vector<uint8_t>> expected_device_, expected_host_;
  std::vector<ops::RowPair> pairs_;
};

inline std::vector<ops::RowMove> RandomMoves(std::mt19937& rng, int64_t count) {
  std::vector<ops::RowMove> moves;
  while (std::ssize(moves) < count) {
    const auto place = [&](bool on_host) {
      return ops::RowMove::Place{
          static_cast<int64_t>(rng() % (on_host ? MovedPairs::kHostRows : MovedPairs::kRows)), on_host};
    };
    const auto kind = rng() % 3;
    const ops::RowMove move = {place(kind == 1), place(kind == 2)};
    if (move.from.on_host == move.to.on_host && move.from.row == move.to.row) continue;
    moves.push_back(move);
  }
  return moves;
}

// Each move reads what those before it wrote.
inline void CheckChains(const ops::Context& ctx) {
  const std::vector<std::vector<ops::RowMove>> chains = {
      {{OnDevice(0), OnHost(5)}, {OnHost(5), OnDevice(3)}},  // out, then in elsewhere
      {{OnDevice(0), OnHost(1)},
       {OnDevice(4), OnDevice(0)},
       {OnHost(1), OnDevice(4)}},  // two swap by the host
      {{OnDevice(0), OnDevice(8)}, {OnDevice(1), OnDevice(0)}, {OnDevice(8), OnDevice(1)}},  // and by a third
      {{OnDevice(2), OnDevice(3)}, {OnDevice(3), OnDevice(4)}},                        // a row moved twice
      {{OnDevice(2), OnHost(0)}, {OnDevice(5), OnHost(0)}, {OnHost(0), OnDevice(6)}},  // overwritten
      // A full cache: each that comes in takes the place of one that goes out, whose host row is the next's.
      {{OnDevice(0), OnHost(0)},
       {OnHost(1), OnDevice(0)},
       {OnDevice(1), OnHost(1)},
       {OnHost(2), OnDevice(1)},
       {OnDevice(2), OnHost(2)},
       {OnHost(0), OnDevice(2)}},
  };
  MovedPairs pairs(ctx, {64, 64, 4096});
  for (size_t i = 0; i < chains.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "chain " << i);
    pairs.Move(chains[i]);
    pairs.Check();
  }
  pairs.Move({});
  pairs.Check();
}

// Columns of 16, 4 and 1 bytes; fewer than one block has and more.
inline void CheckRowSizes(const ops::Context& ctx) {
  std::mt19937 rng(1);
  for (int64_t bytes : {1, 2, 3, 4, 7, 16, 20, 24, 36, 1000, 4095, 4096, 4112, 32768}) {
    for (int64_t offset : {0, 1, 4, 8, 16}) {
      SCOPED_TRACE(testing::Message() << bytes << " bytes at " << offset);
      MovedPairs pairs(ctx, {bytes, bytes}, offset);
      pairs.Move(RandomMoves(rng, 30));
      pairs.Check();
    }
  }
}

// More moves, more pairs and more sizes than one launch takes; around the borders of a list too.
inline void CheckLongLists(const ops::Context& ctx) {
  std::mt19937 rng(2);
  for (int64_t count : {1, 379, 380, 381, 760, 2000}) {
    SCOPED_TRACE(testing::Message() << count << " moves");
    MovedPairs pairs(ctx, {64, 64, 17, 4096, 4096, 64});
    pairs.Move(RandomMoves(rng, count));
    pairs.Check();
  }
  for (size_t count : {63, 64, 65, 150}) {
    SCOPED_TRACE(testing::Message() << count << " pairs");
    MovedPairs pairs(ctx, std::vector<int64_t>(count, 48));
    pairs.Move(RandomMoves(rng, 400));
    pairs.Check();
  }
}

// Lists of steps that follow each other without waiting, each gone when its step runs.
inline void CheckStepsInFlight(const ops::Context& ctx) {
  std::mt19937 rng(3);
  MovedPairs pairs(ctx, std::vector<int64_t>(20, 64 << 10));
  for (int step = 0; step < 40; ++step) pairs.Move(RandomMoves(rng, 20));
  pairs.Check();
}

inline void CheckWithoutHostRows(const ops::Context& ctx) {
  MovedPairs pairs(ctx, {64, 64, 24});
  pairs.WithoutHost();
  pairs.Move({{OnDevice(0), OnDevice(3)}, {OnDevice(3), OnDevice(8)}});
  pairs.Check();
}

}  // namespace fd::parity
