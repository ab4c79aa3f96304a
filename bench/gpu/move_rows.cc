// Key/value pages between a GPU and host memory: time and bytes a second of ops::MoveRows beside one copy of
// the same bytes in the same run, which is what the link gives.
//
//   build/cuda-core/bench/bench_gpu_move_rows [layers kv_heads head_dim pages]
//
// Default: 8192 tokens of ERNIE-4.5-0.3B. "in and out" is what a full cache does: each page that comes in
// takes the place of one that goes out. "host us" is what the calling thread is busy with.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "compute/kernels/cuda/device.h"
#include "compute/ops/move_rows.h"

namespace fd {
namespace {

constexpr Device kGpu{DeviceType::kCuda, 0};
constexpr int kRounds = 11;

struct Times {
  double ms = 0;       // on the stream
  double host_us = 0;  // of the thread that gives the work
};

// Medians.
Times Measure(void* stream, const std::function<void()>& fn) {
  using Clock = std::chrono::steady_clock;
  void *begin = cuda::CreateEvent(), *end = cuda::CreateEvent();
  std::vector<double> ms, host_us;
  for (int i = 0; i <= kRounds; ++i) {  // the first loads the kernel
    cuda::Synchronize(stream);
    cuda::RecordEvent(begin, stream);
    const Clock::time_point start = Clock::now();
    fn();
    const double us = std::chrono::duration<double, std::micro>(Clock::now() - start).count();
    cuda::RecordEvent(end, stream);
    cuda::WaitEvent(end);
    if (i == 0) continue;
    ms.push_back(static_cast<double>(cuda::MillisecondsBetween(begin, end)));
    host_us.push_back(us);
  }
  cuda::DestroyEvent(begin);
  cuda::DestroyEvent(end);
  std::sort(ms.begin(), ms.end());
  std::sort(host_us.begin(), host_us.end());
  return {ms[kRounds / 2], host_us[kRounds / 2]};
}

void Print(const char* name, const Times& times, double bytes, double floor_ms) {
  std::printf("%-26s %8.3f ms %7.1f GB/s %6.1f %% of the floor, host us %8.1f\n", name, times.ms,
              bytes / times.ms * 1e-6, 100 * floor_ms / times.ms, times.host_us);
}

void Run(int64_t layers, int64_t kv_heads, int64_t head_dim, int64_t pages) {
  void* stream = cuda::CreateStream(0);
  ops::Context ctx;
  ctx.device = kGpu;
  ctx.stream = stream;
  // Twice the rows on both sides: what moves in lies elsewhere than what moves out.
  std::vector<Tensor> device, host;
  std::vector<ops::RowPair> pairs;
  const Shape shape = {2 * pages, kv_heads, 64, head_dim};
  for (int64_t i = 0; i < 2 * layers; ++i) {
    device.emplace_back(DType::kBFloat16, kGpu, shape);
    host.push_back(Tensor::Staging(kGpu, DType::kBFloat16, shape));
    pairs.push_back({device.back(), host.back()});
  }
  const int64_t page_bytes = 2 * layers * kv_heads * 64 * head_dim * 2;
  const auto bytes = static_cast<double>(pages * page_bytes);
  std::printf("%s: %ld pages of %.2f MB in %ld pieces, %.0f MB\n", cuda::GetDeviceInfo(0).name,
              static_cast<long>(pages), static_cast<double>(page_bytes) * 1e-6, static_cast<long>(2 * layers),
              bytes * 1e-6);
  std::vector<ops::RowMove> out, in, both, sideways;
  for (int64_t page = 0; page < pages; ++page) {
    out.push_back({{page, false}, {page, true}});
    in.push_back({{page, true}, {page, false}});
    both.push_back({{page, false}, {page, true}});
    both.push_back({{pages + page, true}, {page, false}});
    sideways.push_back({{page, false}, {pages + page, false}});
  }
  Tensor whole(DType::kUInt8, kGpu, {pages * page_bytes});
  const Tensor whole_host = Tensor::Staging(kGpu, DType::kUInt8, {pages * page_bytes});
  const Times copy_out = Measure(stream, [&] {
    cuda::CopyAsync(whole_host.view().data, whole.view().data, whole.size_bytes(), stream);
  });
  const Times copy_in = Measure(stream, [&] {
    cuda::CopyAsync(whole.view().data, whole_host.view().data, whole.size_bytes(), stream);
  });
  const auto move = [&](const std::vector<ops::RowMove>& moves) {
    return Measure(stream, [&] { ops::MoveRows(ctx, pairs, moves); });
  };
  Print("one copy out", copy_out, bytes, copy_out.ms);
  Print("one copy in", copy_in, bytes, copy_in.ms);
  Print("pages out", move(out), bytes, copy_out.ms);
  Print("pages in", move(in), bytes, copy_in.ms);
  Print("in and out", move(both), 2 * bytes, std::max(copy_out.ms, copy_in.ms));
  Print("one page in", move({in.front()}), static_cast<double>(page_bytes),
        copy_in.ms / static_cast<double>(pages));
  const Times on_device = move(sideways);
  std::printf("%-26s %8.3f ms %7.1f GB/s read and written\n", "pages on the device", on_device.ms,
              2 * bytes / on_device.ms * 1e-6);
  cuda::DestroyStream(stream);
}

}  // namespace
}  // namespace fd

int main(int argc, char** argv) {
  using namespace fd;
  std::vector<int64_t> sizes;
  for (int i = 1; i < argc; ++i) sizes.push_back(std::atoll(argv[i]));
  if (sizes.empty()) sizes = {18, 2, 128, 128};
  if (sizes.size() != 4 || *std::min_element(sizes.begin(), sizes.end()) < 1) {
    std::fprintf(stderr, "usage: bench_gpu_move_rows [layers kv_heads head_dim pages]\n");
    return 2;
  }
  if (cuda::DeviceCount() == 0) {
    std::printf("bench_gpu_move_rows: no CUDA device on this machine\n");
    return 1;
  }
  Run(sizes[0], sizes[1], sizes[2], sizes[3]);
  return 0;
}
