// Sequences of rows cut into steps, summed by ops::AddToSums on any device.
#pragma once

#include "compute/ops/pool.h"
#include "compute/ops/rows.h"
#include "tests/parity/parity.h"

namespace fd::parity {

inline Tensor Int32s(const std::vector<int32_t>& values) {
  Tensor t(DType::kInt32, Device{}, {static_cast<int64_t>(values.size())});
  std::memcpy(t.view().data, values.data(), values.size() * sizeof(int32_t));
  return t;
}

// The final sums, float32 [sequences, n] on the host. whole[i] float32 [rows, n]; at most `chunk` rows of
// each sequence go into a step. Slots are given backwards, out of more than there are sequences; every slot
// begins as NaN. upload(host tensor) and download(device tensor) move between the host and ctx's device.
template <typename Upload, typename Download>
Tensor SumInSteps(const ops::Context& ctx, const std::vector<Tensor>& whole, int64_t chunk,
                  const Upload& upload, const Download& download) {
  const int64_t n = whole[0].view().dim(1), count = static_cast<int64_t>(whole.size());
  Tensor poison(DType::kFloat32, Device{}, {count + 2, 2 * n});
  std::memset(poison.view().data, 0xff, static_cast<size_t>(poison.size_bytes()));
  const Tensor sums = upload(poison.view());
  std::vector<int64_t> done(whole.size());
  while (true) {
    std::vector<int32_t> offsets = {0}, slots, fresh;
    std::vector<TensorView> parts;
    for (int64_t i = 0; i < count; ++i) {
      const TensorView rows = whole[static_cast<size_t>(i)].view();
      int64_t& at = done[static_cast<size_t>(i)];
      const int64_t take = std::min(chunk, rows.dim(0) - at);
      if (take == 0) continue;
      parts.push_back(rows.Rows(at, take));
      slots.push_back(static_cast<int32_t>(count + 1 - i));
      fresh.push_back(at == 0);
      offsets.push_back(offsets.back() + static_cast<int32_t>(take));
      at += take;
    }
    if (parts.empty()) break;
    // Among wider rows, as an executor's buffer may have them.
    Tensor step(DType::kFloat32, Device{}, {offsets.back(), n + 3});
    int64_t row = 0;
    for (const TensorView& part : parts) {
      for (int64_t r = 0; r < part.dim(0); ++r, ++row) {
        std::memcpy(step.view().As<float>() + row * (n + 3), part.Rows(r, 1).data,
                    static_cast<size_t>(n * 4));
      }
    }
    const Tensor rows = upload(step.view()), offsets_t = upload(Int32s(offsets).view()),
                 slots_t = upload(Int32s(slots).view()), fresh_t = upload(Int32s(fresh).view());
    ops::AddToSums(ctx, sums, rows.view().Columns(0, n), offsets_t, slots_t, fresh_t);
  }
  const Tensor host = download(sums.view());
  Tensor out(DType::kFloat32, Device{}, {count, n});
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(out.view().As<float>() + i * n, host.view().As<float>() + (count + 1 - i) * 2 * n,
                static_cast<size_t>(n * 4));
  }
  return out;
}

}  // namespace fd::parity
