// Attention by shape: time, bytes of keys and values read once, multiply-adds. ERNIE-4.5-0.3B (16 / 2 heads
// of 128), 21B-A3B (20 / 4 heads of 128) and the vision tower (16 heads of 80), bfloat16 activations.
//
//   build/release/bench/attention_shapes [threads]
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "compute/kernels/cpu/isa.h"
#include "compute/ops/attention.h"

namespace fd {
namespace {

// Of this process, all threads: on a busy machine the honest cost, where wall time is the neighbours'.
double CpuSeconds() {
  rusage use;
  getrusage(RUSAGE_SELF, &use);
  auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(use.ru_utime) + seconds(use.ru_stime);
}

struct Cost {
  double wall;  // seconds, the least of a few runs
  double cpu;   // seconds of all threads together, the mean
};

template <typename Fn>
Cost Measure(const Fn& fn) {
  double least = 1e9, total = 0;
  fn();
  const double cpu = CpuSeconds();
  int i = 0;
  for (; i < 200 && (i < 3 || total < 0.6); ++i) {
    const auto begin = std::chrono::steady_clock::now();
    fn();
    const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    least = std::min(least, s);
    total += s;
  }
  return {least, (CpuSeconds() - cpu) / i};
}

Tensor Random(Shape shape) {
  static std::mt19937 rng(1);
  Tensor t(DType::kBFloat16, Device{}, shape);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  for (int64_t i = 0; i < shape.NumElements(); ++i) t.view().As<BFloat16>()[i] = ToBFloat16(uniform(rng));
  return t;
}

void Print(const char* name, const Cost& cost, double bytes, double macs) {
  const double seconds = cost.wall;
  std::printf("%-44s %9.3f ms %9.3f cpu ms %7.1f MB %6.2f GB/s %6.1f GMAC/s\n", name, seconds * 1e3,
              cost.cpu * 1e3, bytes / 1e6, bytes / seconds / 1e9, macs / seconds / 1e9);
}

// `seqs` sequences of `context` tokens, the last `queries` of each new.
void Paged(const ops::Context& ctx, int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t seqs,
           int64_t queries, int64_t context) {
  const int64_t pages = (context + 63) / 64, tokens = seqs * queries;
  const Tensor k = Random({seqs * pages, kv_heads, 64, head_dim}),
               v = Random({seqs * pages, kv_heads, 64, head_dim}), q = Random({tokens, heads, head_dim});
  Tensor out(DType::kBFloat16, Device{}, {tokens, heads, head_dim}),
      offsets(DType::kInt32, Device{}, {seqs + 1}), contexts(DType::kInt32, Device{}, {seqs}),
      table_offsets(DType::kInt32, Device{}, {seqs + 1}), table(DType::kInt32, Device{}, {seqs * pages});
  for (int64_t s = 0; s < seqs; ++s) {
    offsets.view().As<int32_t>()[s + 1] = static_cast<int32_t>((s + 1) * queries);
    contexts.view().As<int32_t>()[s] = static_cast<int32_t>(context);
    table_offsets.view().As<int32_t>()[s + 1] = static_cast<int32_t>((s + 1) * pages);
    for (int64_t p = 0; p < pages; ++p) {
      table.view().As<int32_t>()[s * pages + p] = static_cast<int32_t>(s * pages + p);
    }
  }
  ops::AttentionBatch batch;
  batch.query_offsets = offsets;
  batch.context_tokens = contexts;
  batch.table_offsets = table_offsets;
  batch.block_tables = table;
  batch.max_query_tokens = queries;
  batch.max_context_tokens = context;
  const Cost cost = Measure([&] { ops::PagedAttention(ctx, out, q, k, v, batch, 0.088f); });
  const double visible = static_cast<double>(queries) *
                         (static_cast<double>(context - queries) + static_cast<double>(queries + 1) / 2);
  char name[96];
  std::snprintf(name, sizeof(name), "%ld x %ld new of %ld, %ld/%ld heads of %ld", static_cast<long>(seqs),
                static_cast<long>(queries), static_cast<long>(context), static_cast<long>(heads),
                static_cast<long>(kv_heads), static_cast<long>(head_dim));
  Print(name, cost, static_cast<double>(seqs * context * kv_heads * head_dim * 4),
        visible * static_cast<double>(seqs * heads * head_dim * 2));
}

void Segment(const ops::Context& ctx, int64_t rows, int64_t heads, int64_t head_dim) {
  const int64_t width = heads * head_dim;
  const Tensor fused = Random({rows, 3 * width});
  Tensor out(DType::kBFloat16, Device{}, {rows, heads, head_dim}), offsets(DType::kInt32, Device{}, {2});
  offsets.view().As<int32_t>()[1] = static_cast<int32_t>(rows);
  auto part = [&](int64_t i) {
    return fused.view().Columns(i * width, width).Reshape({rows, heads, head_dim});
  };
  const Cost cost =
      Measure([&] { ops::SegmentAttention(ctx, out, part(0), part(1), part(2), offsets, rows, 0.11f); });
  char name[96];
  std::snprintf(name, sizeof(name), "segment of %ld, %ld heads of %ld", static_cast<long>(rows),
                static_cast<long>(heads), static_cast<long>(head_dim));
  Print(name, cost, static_cast<double>(rows * width * 4),
        static_cast<double>(rows) * static_cast<double>(rows) * static_cast<double>(width) * 2);
}

}  // namespace
}  // namespace fd

int main(int argc, char** argv) {
  using namespace fd;
  ThreadPool threads(argc > 1 ? std::atoi(argv[1]) : 0);
  Workspace workspace(Device{}, 64 << 20);
  ops::Context ctx;
  ctx.threads = &threads;
  ctx.workspace = &workspace;
  std::printf("attention_shapes: %s, %d threads; MB: keys and values once\n", cpu::IsaName(cpu::CurrentIsa()),
              threads.num_threads());
  for (int64_t context : {512, 2048}) Paged(ctx, 16, 2, 128, 1, context, context);
  Paged(ctx, 16, 2, 128, 1, 384, 8192);
  Paged(ctx, 20, 4, 128, 1, 2048, 2048);
  for (int64_t context : {512, 4096, 32768}) Paged(ctx, 16, 2, 128, 1, 1, context);
  Paged(ctx, 16, 2, 128, 16, 1, 2048);
  Paged(ctx, 20, 4, 128, 16, 1, 2048);
  for (int64_t rows : {1024, 4096}) Segment(ctx, rows, 16, 80);
  return 0;
}
