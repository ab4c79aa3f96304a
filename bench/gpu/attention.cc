// Attention on the GPU by shape: median time with a cold L2, share of the copy bandwidth measured in the same
// run (decode reads each key and value once) or TFLOP/s of the visible products (prefill, pictures).
//
//   build/cuda-core/bench/bench_gpu_attention
#include <algorithm>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "compute/kernels/cuda/device.h"
#include "compute/ops/attention.h"
#include "compute/ops/rows.h"

namespace fd {
namespace {

constexpr Device kGpu{DeviceType::kCuda, 0};

struct Gpu {
  Gpu()
      : workspace(kGpu, int64_t{256} << 20),
        stream(cuda::CreateStream(0)),
        flush(DType::kUInt8, kGpu, {256 << 20}) {
    ctx.device = kGpu;
    ctx.stream = stream;
    ctx.workspace = &workspace;
  }
  Workspace workspace;
  void* stream;
  Tensor flush;
  ops::Context ctx;
};

double MedianMs(Gpu& gpu, const std::function<void()>& fn) {
  void *begin = cuda::CreateEvent(), *end = cuda::CreateEvent();
  for (int i = 0; i < 3; ++i) fn();
  std::vector<float> times;
  for (int i = 0; i < 21; ++i) {
    cuda::FillBytesAsync(gpu.flush.view().data, static_cast<uint8_t>(i), gpu.flush.size_bytes(), gpu.stream);
    cuda::RecordEvent(begin, gpu.stream);
    fn();
    cuda::RecordEvent(end, gpu.stream);
    cuda::WaitEvent(end);
    times.push_back(cuda::MillisecondsBetween(begin, end));
  }
  cuda::DestroyEvent(begin);
  cuda::DestroyEvent(end);
  std::sort(times.begin(), times.end());
  return static_cast<double>(times[times.size() / 2]);
}

// A normal sample of 1M values, repeated over the tensor.
Tensor Random(Gpu& gpu, Shape shape) {
  static const std::vector<BFloat16> sample = [] {
    std::mt19937 rng(1);
    std::normal_distribution<float> normal;
    std::vector<BFloat16> v(1000003);
    for (BFloat16& x : v) x = ToBFloat16(normal(rng));
    return v;
  }();
  Tensor t(DType::kBFloat16, kGpu, shape);
  const int64_t total = shape.NumElements(), step = static_cast<int64_t>(sample.size());
  for (int64_t i = 0; i < total; i += step) {
    cuda::CopyAsync(t.view().As<BFloat16>() + i, sample.data(), std::min(step, total - i) * 2, gpu.stream);
  }
  cuda::Synchronize(gpu.stream);
  return t;
}

Tensor Ints(Gpu& gpu, const std::vector<int32_t>& values, Shape shape) {
  Tensor t(DType::kInt32, kGpu, shape);
  cuda::CopyAsync(t.view().data, values.data(), static_cast<int64_t>(values.size()) * 4, gpu.stream);
  cuda::Synchronize(gpu.stream);
  return t;
}

// Of bytes: all bytes and all scales alike.
Tensor Pages(Gpu& gpu, DType type, int64_t pages, int64_t kv_heads, int64_t head_dim) {
  if (!ops::PagesHoldBytes(type)) return Random(gpu, {pages, kv_heads, 64, head_dim});
  Tensor t(type, kGpu, ops::PagesShape(type, pages, kv_heads, head_dim));
  cuda::FillBytesAsync(t.view().data, 0x3c, t.size_bytes(), gpu.stream);
  return t;
}

struct Part {
  int64_t before, queries;
};

void Paged(Gpu& gpu, const char* name, int64_t heads, int64_t kv_heads, int64_t head_dim,
           const std::vector<Part>& parts, double bandwidth, DType type = DType::kBFloat16) {
  std::vector<int32_t> offsets = {0}, contexts, table;
  int64_t max_pages = 0, pages = 0, tokens = 0;
  double visible = 0, keys = 0;
  ops::AttentionBatch batch;
  for (const Part& p : parts) {
    const int64_t context = p.before + p.queries;
    max_pages = std::max(max_pages, (context + 63) / 64);
    pages += (context + 63) / 64;
    tokens += p.queries;
    offsets.push_back(static_cast<int32_t>(tokens));
    contexts.push_back(static_cast<int32_t>(context));
    keys += static_cast<double>(context);
    visible += static_cast<double>(p.queries) *
               (static_cast<double>(p.before) + static_cast<double>(p.queries + 1) / 2);
    batch.max_query_tokens = std::max(batch.max_query_tokens, p.queries);
    batch.max_context_tokens = std::max(batch.max_context_tokens, context);
  }
  std::vector<int32_t> order(static_cast<size_t>(pages));
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::shuffle(order.begin(), order.end(), std::mt19937(3));
  size_t next = 0;
  const auto seqs = static_cast<int64_t>(parts.size());
  table.assign(static_cast<size_t>(seqs * max_pages), -1);
  std::vector<int32_t> table_offsets = {0};
  for (int64_t s = 0; s < seqs; ++s) {
    table_offsets.push_back(static_cast<int32_t>((s + 1) * max_pages));
    for (int64_t p = 0; p < (contexts[static_cast<size_t>(s)] + 63) / 64; ++p) {
      table[static_cast<size_t>(s * max_pages + p)] = order[next++];
    }
  }
  const Tensor k = Pages(gpu, type, pages, kv_heads, head_dim),
               v = Pages(gpu, type, pages, kv_heads, head_dim), q = Random(gpu, {tokens, heads, head_dim}),
               o = Ints(gpu, offsets, {seqs + 1}), c = Ints(gpu, contexts, {seqs}),
               t = Ints(gpu, table, {seqs * max_pages}), to = Ints(gpu, table_offsets, {seqs + 1});
  Tensor out(DType::kBFloat16, kGpu, {tokens, heads, head_dim});
  batch.query_offsets = o;
  batch.context_tokens = c;
  batch.table_offsets = to;
  batch.block_tables = t;
  const double ms = MedianMs(gpu, [&] { ops::PagedAttention(gpu.ctx, out, q, k, v, batch, 0.088f); });
  const double bytes = keys * static_cast<double>(2 * k.size_bytes()) / static_cast<double>(64 * pages);
  const double flops = 4 * visible * static_cast<double>(heads * head_dim);
  std::printf("%-58s %9.4f ms %6.2f TB/s (%3.0f %%) %7.1f TFLOP/s\n", name, ms, bytes / ms * 1e-9,
              100 * bytes / ms * 1e-9 / bandwidth, flops / ms * 1e-9);
}

void Pictures(Gpu& gpu, int64_t pictures, int64_t patches, int64_t heads, int64_t head_dim) {
  const int64_t rows = pictures * patches, width = heads * head_dim;
  const Tensor fused = Random(gpu, {rows, 3 * width});
  std::vector<int32_t> offsets;
  for (int64_t i = 0; i <= pictures; ++i) offsets.push_back(static_cast<int32_t>(i * patches));
  const Tensor o = Ints(gpu, offsets, {pictures + 1});
  Tensor out(DType::kBFloat16, kGpu, {rows, heads, head_dim});
  auto part = [&](int64_t i) {
    return fused.view().Columns(i * width, width).Reshape({rows, heads, head_dim});
  };
  const double ms = MedianMs(
      gpu, [&] { ops::SegmentAttention(gpu.ctx, out, part(0), part(1), part(2), o, patches, 0.11f); });
  const double flops =
      4 * static_cast<double>(rows) * static_cast<double>(patches) * static_cast<double>(width);
  std::printf("%ld pictures of %ld patches, %ld heads of %ld %33.4f ms %27.1f TFLOP/s\n",
              static_cast<long>(pictures), static_cast<long>(patches), static_cast<long>(heads),
              static_cast<long>(head_dim), ms, flops / ms * 1e-9);
}

}  // namespace
}  // namespace fd

int main() {
  using namespace fd;
  if (cuda::DeviceCount() == 0) {
    std::printf("bench_gpu_attention: no CUDA device on this machine\n");
    return 1;
  }
  Gpu gpu;
  double bandwidth = 0;  // TB/s, bytes read and written
  {
    Tensor from = Random(gpu, {int64_t{1} << 29}), to(DType::kBFloat16, kGpu, {int64_t{1} << 29});
    const double ms = MedianMs(
        gpu, [&] { cuda::CopyAsync(to.view().data, from.view().data, from.size_bytes(), gpu.stream); });
    bandwidth = 2.0 * static_cast<double>(from.size_bytes()) / ms * 1e-9;
  }
  std::printf("%s, copy %.2f TB/s\n", cuda::GetDeviceInfo(0).name, bandwidth);
  const std::vector<Part> batch64(64, {8191, 1}), batch16(16, {2047, 1});
  Paged(gpu, "decode 64 x 8K, 20/4 heads of 128", 20, 4, 128, batch64, bandwidth);
  Paged(gpu, "decode 16 x 2K, 20/4 heads of 128", 20, 4, 128, batch16, bandwidth);
  Paged(gpu, "decode 1 x 128K, 20/4 heads of 128", 20, 4, 128, {{131071, 1}}, bandwidth);
  Paged(gpu, "decode 1 x 2K, 20/4 heads of 128", 20, 4, 128, {{2047, 1}}, bandwidth);
  Paged(gpu, "decode 64 x 8K, 64/8 heads of 128", 64, 8, 128, batch64, bandwidth);
  Paged(gpu, "prefill 8K, 20/4 heads of 128", 20, 4, 128, {{0, 8192}}, bandwidth);
  Paged(gpu, "prefill 8K, 64/8 heads of 128", 64, 8, 128, {{0, 8192}}, bandwidth);
  Paged(gpu, "prefill 3000 + 4096 + 1000 of 5000 + 96, 20/4 of 128", 20, 4, 128,
        {{0, 3000}, {0, 4096}, {4000, 1000}, {0, 96}}, bandwidth);
  Paged(gpu, "chunk of 2K after 30K, 20/4 heads of 128", 20, 4, 128, {{30000, 2048}}, bandwidth);
  Paged(gpu, "chunk of 2K after 30K, 16/2 heads of 128", 16, 2, 128, {{30000, 2048}}, bandwidth);
  Paged(gpu, "chunk of 32 after 85K, 16/2 heads of 128", 16, 2, 128, {{85000, 32}}, bandwidth);
  Paged(gpu, "chunk of 192 after 85K, 16/2 heads of 128", 16, 2, 128, {{85000, 192}}, bandwidth);
  Paged(gpu, "chunk of 512 after 85K, 64/8 heads of 128", 64, 8, 128, {{85000, 512}}, bandwidth);
  Paged(gpu, "prefill 8K, 12/2 heads of 64", 12, 2, 64, {{0, 8192}}, bandwidth);
  std::vector<Part> mixed(63, {2047, 1});
  mixed.push_back({4096, 2048});
  Paged(gpu, "63 decodes of 2K + a chunk of 2K after 4K, 20/4 of 128", 20, 4, 128, mixed, bandwidth);
  for (DType type : {DType::kFloat8E4M3, DType::kInt8}) {
    const std::string on = std::string(", 20/4 of 128 on ") + DTypeName(type);
    Paged(gpu, ("decode 64 x 8K" + on).c_str(), 20, 4, 128, batch64, bandwidth, type);
    Paged(gpu, ("decode 16 x 2K" + on).c_str(), 20, 4, 128, batch16, bandwidth, type);
    Paged(gpu, ("decode 1 x 128K" + on).c_str(), 20, 4, 128, {{131071, 1}}, bandwidth, type);
    Paged(gpu, ("prefill 8K" + on).c_str(), 20, 4, 128, {{0, 8192}}, bandwidth, type);
    Paged(gpu, ("chunk of 2K after 30K" + on).c_str(), 20, 4, 128, {{30000, 2048}}, bandwidth, type);
    Paged(gpu, (std::string("chunk of 2K after 30K, 16/2 of 128 on ") + DTypeName(type)).c_str(), 16, 2, 128,
          {{30000, 2048}}, bandwidth, type);
    Paged(gpu, (std::string("prefill 8K, 12/2 of 64 on ") + DTypeName(type)).c_str(), 12, 2, 64, {{0, 8192}},
          bandwidth, type);
  }
  Pictures(gpu, 16, 5476, 16, 80);
  Pictures(gpu, 1, 5476, 16, 80);
  return 0;
}
