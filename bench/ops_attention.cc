#include "ops_attention.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/strings.h"
#include "compute/ops/attention.h"

namespace fd {
namespace {

// As many layers' pages as a model walks through before it comes back to the first: more than a cache holds.
constexpr int64_t kCycledBytes = 128 << 20;

Tensor Random(Shape shape) {
  static std::mt19937 rng(1);
  Tensor t(DType::kBFloat16, Device{}, shape);
  for (int64_t i = 0; i < shape.NumElements(); ++i) {
    t.view().As<BFloat16>()[i] = ToBFloat16(static_cast<float>(static_cast<int32_t>(rng())) * 5e-10f);
  }
  return t;
}

// fn(round): the least time of a round.
template <typename Fn>
double Seconds(const Fn& fn) {
  double least = 1e30, total = 0;
  for (int i = 0; i < 400 && (i < 4 || total < 0.5); ++i) {
    const auto begin = std::chrono::steady_clock::now();
    fn(i);
    const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (i > 0) least = std::min(least, s);
    total += s;
  }
  return least;
}

void Print(const std::string& name, double seconds, double bytes, double flop,
           const cpu::Roofline& roofline) {
  const double byte_floor = bytes / roofline.read_bytes_per_s, flop_floor = flop / roofline.bf16_flop_per_s;
  std::printf("%-44s %9.1f  %8.2f  %8.2f  %6.1f  %7.1f  %3.0f %% of %s\n", name.c_str(), seconds * 1e6,
              bytes / 1e6, flop / 1e9, bytes / seconds / 1e9, flop / seconds / 1e9,
              100 * std::max(byte_floor, flop_floor) / seconds,
              byte_floor > flop_floor ? "bandwidth" : "bf16 peak");
  std::fflush(stdout);
}

// Pages whose bits mean something: of bytes, random ones and scales of 0.01.
Tensor RandomPages(DType type, int64_t pages, int64_t kv_heads, int64_t head_dim) {
  if (!ops::PagesHoldBytes(type)) return Random({pages, kv_heads, 64, head_dim});
  Tensor t(type, Device{}, ops::PagesShape(type, pages, kv_heads, head_dim));
  std::mt19937 rng(2);
  const int64_t head_bytes = t.view().dim(2);
  const BFloat16 scale = ToBFloat16(0.01f);
  for (int64_t h = 0; h < pages * kv_heads; ++h) {
    uint8_t* head = t.view().As<uint8_t>() + h * head_bytes;
    for (int64_t i = 0; i < 64 * head_dim; ++i) head[i] = static_cast<uint8_t>(rng() & 0xbf);
    for (int64_t i = 64 * head_dim; i < head_bytes; i += 2) std::memcpy(head + i, &scale, 2);
  }
  return t;
}

// `seqs` sequences of `context` tokens, the last `queries` of each new.
void Paged(const ops::Context& ctx, const cpu::Roofline& roofline, int64_t heads, int64_t kv_heads,
           int64_t head_dim, int64_t seqs, int64_t queries, int64_t context, DType type = DType::kBFloat16) {
  const int64_t pages = (context + 63) / 64, tokens = seqs * queries;
  const Tensor k = RandomPages(type, seqs * pages, kv_heads, head_dim),
               v = RandomPages(type, seqs * pages, kv_heads, head_dim), q = Random({tokens, heads, head_dim});
  const int64_t layer_bytes = 2 * k.size_bytes();
  const int64_t layers = queries > 1 ? 1 : std::max<int64_t>(1, kCycledBytes / layer_bytes);
  std::vector<Tensor> pools;  // k and v of every layer; any bits will do
  for (int64_t l = 0; l < layers; ++l) {
    for (const Tensor* from : {&k, &v}) {
      pools.emplace_back(type, Device{}, from->view().shape);
      std::memcpy(pools.back().view().data, from->view().data, static_cast<size_t>(from->size_bytes()));
    }
  }
  Tensor out(DType::kBFloat16, Device{}, {tokens, heads, head_dim}),
      offsets(DType::kInt32, Device{}, {seqs + 1}), contexts(DType::kInt32, Device{}, {seqs}),
      table_offsets(DType::kInt32, Device{}, {seqs + 1}), table(DType::kInt32, Device{}, {seqs * pages});
  std::vector<int32_t> order(static_cast<size_t>(seqs * pages));
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::shuffle(order.begin(), order.end(), std::mt19937(1));
  std::copy(order.begin(), order.end(), table.view().As<int32_t>());
  for (int64_t s = 0; s < seqs; ++s) {
    offsets.view().As<int32_t>()[s + 1] = static_cast<int32_t>((s + 1) * queries);
    contexts.view().As<int32_t>()[s] = static_cast<int32_t>(context);
    table_offsets.view().As<int32_t>()[s + 1] = static_cast<int32_t>((s + 1) * pages);
  }
  ops::AttentionBatch batch;
  batch.query_offsets = offsets;
  batch.context_tokens = contexts;
  batch.table_offsets = table_offsets;
  batch.block_tables = table;
  batch.max_query_tokens = queries;
  batch.max_context_tokens = context;
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  const double seconds = Seconds([&](int round) {
    const size_t layer = static_cast<size_t>(round % layers);
    ops::PagedAttention(ctx, out, q, pools[2 * layer], pools[2 * layer + 1], batch, scale);
  });
  const double visible = static_cast<double>(queries) *
                         (static_cast<double>(context - queries) + static_cast<double>(queries + 1) / 2);
  Print(StrCat(seqs, " x ", queries, " new of ", context, ", ", heads, "/", kv_heads, " heads of ", head_dim,
               ops::PagesHoldBytes(type) ? StrCat(" ", DTypeName(type)) : std::string()),
        seconds, static_cast<double>(seqs * context * layer_bytes) / static_cast<double>(seqs * pages * 64),
        visible * static_cast<double>(seqs * heads * head_dim * 4), roofline);
}

void Segment(const ops::Context& ctx, const cpu::Roofline& roofline, int64_t rows, int64_t heads,
             int64_t head_dim) {
  const int64_t width = heads * head_dim;
  const Tensor fused = Random({rows, 3 * width});
  Tensor out(DType::kBFloat16, Device{}, {rows, heads, head_dim}), offsets(DType::kInt32, Device{}, {2});
  offsets.view().As<int32_t>()[1] = static_cast<int32_t>(rows);
  auto part = [&](int64_t i) {
    return fused.view().Columns(i * width, width).Reshape({rows, heads, head_dim});
  };
  const double seconds =
      Seconds([&](int) { ops::SegmentAttention(ctx, out, part(0), part(1), part(2), offsets, rows, 0.11f); });
  const double pairs = static_cast<double>(rows) * static_cast<double>(rows);
  Print(StrCat("segment of ", rows, ", ", heads, " heads of ", head_dim), seconds,
        static_cast<double>(rows * width * 4), pairs * static_cast<double>(width * 4), roofline);
}

// The step's new keys and values into their pages, and the rotation of queries and keys.
void Write(const ops::Context& ctx, const cpu::Roofline& roofline, int64_t heads, int64_t kv_heads,
           int64_t head_dim, int64_t tokens, int64_t distance, DType type = DType::kBFloat16) {
  const Tensor fused = Random({tokens, (heads + 2 * kv_heads) * head_dim}),
               cos_sin(DType::kFloat32, Device{}, {tokens, 2, head_dim / 2});
  std::fill_n(cos_sin.view().As<float>(), tokens * head_dim, 0.7f);
  const int64_t pages = (tokens * distance + 63) / 64 + 1;
  const Shape shape = ops::PagesShape(type, pages, kv_heads, head_dim);
  Tensor k(type, Device{}, shape), v(type, Device{}, shape), slots(DType::kInt32, Device{}, {tokens});
  for (int64_t t = 0; t < tokens; ++t) slots.view().As<int32_t>()[t] = static_cast<int32_t>(t * distance);
  auto part = [&](int64_t begin, int64_t count) {
    return fused.view().Columns(begin * head_dim, count * head_dim).Reshape({tokens, count, head_dim});
  };
  const double seconds = Seconds([&](int) {
    ops::RopeAndWriteKv(ctx, part(0, heads), k, v, part(heads, kv_heads), part(heads + kv_heads, kv_heads),
                        cos_sin, slots, ops::RopeStyle::kInterleaved);
  });
  Print(StrCat("rope and write of ", tokens, distance > 1 ? " apart" : " in a row",
               ops::PagesHoldBytes(type) ? StrCat(" to ", DTypeName(type)) : std::string()),
        seconds, static_cast<double>(tokens * (2 * (heads + 2 * kv_heads) * head_dim * 2 + head_dim * 4)), 0,
        roofline);
}

}  // namespace

void BenchAttention(const ops::Context& ctx, const cpu::Roofline& roofline, int64_t heads, int64_t kv_heads,
                    int64_t head_dim) {
  std::printf("%-44s %9s  %8s  %8s  %6s  %7s  share\n", "attention", "us", "MB", "GFLOP", "GB/s", "GFLOP/s");
  for (int64_t context : {512, 2048}) Paged(ctx, roofline, heads, kv_heads, head_dim, 1, context, context);
  Paged(ctx, roofline, heads, kv_heads, head_dim, 1, 384, 384 + 1664);
  for (int64_t context : {512, 2048, 32768}) Paged(ctx, roofline, heads, kv_heads, head_dim, 1, 1, context);
  for (int64_t queries : {1, 16, 64, 256})
    Paged(ctx, roofline, heads, kv_heads, head_dim, 1, queries, 120000);
  for (DType type : {DType::kBFloat16, DType::kFloat8E4M3, DType::kInt8}) {
    for (int64_t context : {2048, 8192}) Paged(ctx, roofline, heads, kv_heads, head_dim, 1, 1, context, type);
    Paged(ctx, roofline, heads, kv_heads, head_dim, 1, 384, 384 + 1664, type);
  }
  for (int64_t seqs : {16, 32}) Paged(ctx, roofline, heads, kv_heads, head_dim, seqs, 1, 2048);
  for (int64_t tokens : {1, 32}) Write(ctx, roofline, heads, kv_heads, head_dim, tokens, 65);
  for (DType type : {DType::kBFloat16, DType::kFloat8E4M3, DType::kInt8}) {
    Write(ctx, roofline, heads, kv_heads, head_dim, 2048, 1, type);
  }
  for (int64_t rows : {1024, 4096}) Segment(ctx, roofline, rows, 16, 80);
}

}  // namespace fd
