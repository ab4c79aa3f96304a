#include "engine/executor/page_mover.h"

#include <algorithm>
#include <chrono>

#include "compute/ops/stream.h"

namespace fd {
namespace {

// Enough that a cache of the processor does not hold them all.
constexpr int64_t kMeasuredPages = 32;
constexpr int kRounds = 3;

}  // namespace

PageMover::PageMover(const ops::Context& ctx, const KvStorage& kv, int64_t num_host_pages)
    : measured_pages_(std::min({kMeasuredPages, kv.num_pages, num_host_pages})) {
  for (const auto* tensors : {&kv.k, &kv.v}) {
    for (const Tensor& tensor : *tensors) {
      ops::RowPair& pair = pairs_.emplace_back();
      pair.device = tensor.view();
      if (num_host_pages == 0) continue;
      Shape shape = tensor.view().shape;
      shape.dims[0] = num_host_pages;
      host_.push_back(Tensor::Staging(ctx.device, tensor.view().dtype, shape));
      pair.host = host_.back().view();
    }
  }
}

void PageMover::Move(const ops::Context& ctx, const std::vector<PageMove>& moves) {
  moves_.clear();
  for (const PageMove& move : moves)
    moves_.push_back({{move.from.page, move.from.on_host}, {move.to.page, move.to.on_host}});
  ops::MoveRows(ctx, pairs_, moves_);
}

PageMoveMs PageMover::Measure(const ops::Context& ctx) {
  PageMoveMs ms;
  if (measured_pages_ == 0) return ms;
  const auto move_all = [&](bool out) {
    std::vector<PageMove> moves;
    for (int32_t page = 0; page < measured_pages_; ++page) moves.push_back({{page, !out}, {page, out}});
    ops::Synchronize(ctx);
    const Clock::time_point begin = Clock::now();
    Move(ctx, moves);
    ops::Synchronize(ctx);
    return std::chrono::duration<double, std::milli>(Clock::now() - begin).count() /
           static_cast<double>(measured_pages_);
  };
  move_all(true);  // memory that nobody has touched yet costs more than moving
  move_all(false);
  ms = {.in = move_all(false), .out = move_all(true)};
  for (int round = 1; round < kRounds; ++round)  // the best: something else may take the machine meanwhile
    ms = {.in = std::min(ms.in, move_all(false)), .out = std::min(ms.out, move_all(true))};
  return ms;
}

int64_t PageMover::host_bytes() const {
  int64_t bytes = 0;
  for (const Tensor& tensor : host_) bytes += tensor.size_bytes();
  return bytes;
}

}  // namespace fd
