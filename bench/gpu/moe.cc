// The experts of one ERNIE-4.5-21B-A3B layer (hidden 2560, 64 experts of 1536, top 6) and sampling over its
// vocabulary on the first CUDA device: TFLOP/s, and the share of the read bandwidth that a copy reaches.
// Routing is random and different in every repetition, so that few tokens find no weights in the cache.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iterator>
#include <random>
#include <set>
#include <vector>

#include "compute/kernels/cuda/device.h"
#include "compute/kernels/cuda/grouped_gemm.h"
#include "compute/kernels/cuda/moe.h"
#include "compute/ops/moe.h"
#include "compute/ops/rows.h"
#include "compute/ops/sample.h"

namespace fd {
namespace {

constexpr int64_t kHidden = 2560, kExperts = 64, kWidth = 1536, kTopK = 6, kVocab = 103424;
constexpr int kRoutings = 8;
const Device kGpu{DeviceType::kCuda, 0};

struct Bench {
  Bench() : workspace(kGpu, int64_t{2} << 30) {
    ctx.device = kGpu;
    ctx.threads = &threads;
    ctx.stream = cuda::CreateStream(0);
    ctx.workspace = &workspace;
  }
  // Median milliseconds of fn(repetition); each timed span is `inner` calls.
  template <typename Fn>
  double Time(int inner, const Fn& fn) {
    void *begin = cuda::CreateEvent(), *end = cuda::CreateEvent();
    int call = 0;
    for (int i = 0; i < 5; ++i) fn(call++);
    std::vector<double> times;
    for (int i = 0; i < 15; ++i) {
      cuda::RecordEvent(begin, ctx.stream);
      for (int j = 0; j < inner; ++j) fn(call++);
      cuda::RecordEvent(end, ctx.stream);
      cuda::WaitEvent(end);
      times.push_back(static_cast<double>(cuda::MillisecondsBetween(begin, end)) / inner);
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }
  Tensor Upload(const Tensor& host) {
    Tensor t(host.view().dtype, kGpu, host.view().shape);
    cuda::CopyAsync(t.view().data, host.view().data, host.size_bytes(), ctx.stream);
    cuda::Synchronize(ctx.stream);
    return t;
  }
  ThreadPool threads{4};
  Workspace workspace;
  ops::Context ctx;
};

// Uniform in +-sqrt(3) times scale.
Tensor RandomBFloat16(Shape shape, float scale, uint64_t seed) {
  Tensor t(DType::kBFloat16, Device{}, shape);
  uint64_t state = seed * 2 + 1;
  for (int64_t i = 0; i < shape.NumElements(); ++i) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    const float u = static_cast<float>(state >> 40) * 0x1p-24f;
    t.view().As<BFloat16>()[i] = ToBFloat16((2 * u - 1) * 1.732f * scale);
  }
  return t;
}

void Experts(Bench& bench, double bandwidth) {
  ops::ExpertWeights experts;
  // A few different matrices stand for the 64: values do not matter beyond being random, addresses do.
  const Tensor gate_up = RandomBFloat16({2 * kWidth, kHidden}, 0.02f, 1);
  const Tensor down = RandomBFloat16({kHidden, kWidth}, 0.02f, 2);
  for (int64_t e = 0; e < kExperts; ++e) {
    experts.gate_up.push_back({ops::WeightKind::kBFloat16, 2 * kWidth, kHidden, bench.Upload(gate_up)});
    experts.down.push_back({ops::WeightKind::kBFloat16, kHidden, kWidth, bench.Upload(down)});
  }
  ops::FinishExperts(bench.ctx, &experts);
  const bool fast = cuda::GroupedGemmSm90Usable(DType::kBFloat16, DType::kBFloat16, kWidth, kHidden);
  std::printf("\nkernels: %s\n", fast ? "sm_90a" : "portable");
  std::printf("%7s %9s | %22s | %22s | %22s\n", "tokens", "experts", "gate_up+SwiGLU", "down", "whole op");
  for (int64_t tokens : {8192, 4096, 1024, 256, 64, 16, 8, 1}) {
    if (!fast && tokens > 1024) continue;
    std::mt19937 rng(static_cast<unsigned>(tokens));
    std::vector<Tensor> ids, offsets;
    double chosen = 0;
    const int64_t pairs = tokens * kTopK;
    for (int r = 0; r < kRoutings; ++r) {
      const Tensor host(DType::kInt32, Device{}, {tokens, kTopK});
      const Tensor starts(DType::kInt32, Device{}, {kExperts + 1});
      for (int64_t t = 0; t < tokens; ++t) {
        std::set<int32_t> row;
        while (row.size() < kTopK) row.insert(static_cast<int32_t>(rng() % kExperts));
        std::copy(row.begin(), row.end(), host.view().As<int32_t>() + t * kTopK);
        for (int32_t e : row) ++starts.view().As<int32_t>()[e + 1];
      }
      for (int64_t e = 0; e < kExperts; ++e) {
        chosen += starts.view().As<int32_t>()[e + 1] > 0 ? 1.0 / kRoutings : 0.0;
        starts.view().As<int32_t>()[e + 1] += starts.view().As<int32_t>()[e];
      }
      ids.push_back(bench.Upload(host));
      offsets.push_back(bench.Upload(starts));
    }
    const Tensor weights_host(DType::kFloat32, Device{}, {tokens, kTopK});
    std::fill_n(weights_host.view().As<float>(), pairs, 1.0f / kTopK);
    const Tensor weights = bench.Upload(weights_host);
    const Tensor in = bench.Upload(RandomBFloat16({tokens, kHidden}, 1.0f, 3));
    const Tensor out(DType::kBFloat16, kGpu, {tokens, kHidden});
    const Tensor rows = bench.Upload(RandomBFloat16({pairs, kHidden}, 1.0f, 4));
    const Tensor activated = bench.Upload(RandomBFloat16({pairs, kWidth}, 1.0f, 5));
    const Tensor result(DType::kBFloat16, kGpu, {pairs, kHidden});
    const char* table = experts.table.view().As<char>();
    cuda::GroupedGemm g = {pairs, kExperts, 2 * kWidth, kHidden, DType::kBFloat16, DType::kBFloat16};
    const int inner = tokens >= 1024 ? 2 : 16;
    double up = 0, down_ms = 0;
    if (fast) {
      up = bench.Time(inner, [&](int i) {
        g.n = 2 * kWidth, g.k = kHidden, g.out = activated.view().data, g.in = rows.view().data;
        g.offsets = offsets[static_cast<size_t>(i % kRoutings)].view().As<int32_t>(), g.maps = table;
        cuda::GroupedGateUpSm90(g, bench.ctx.stream);
      });
      down_ms = bench.Time(inner, [&](int i) {
        g.n = kHidden, g.k = kWidth, g.out = result.view().data, g.in = activated.view().data;
        g.offsets = offsets[static_cast<size_t>(i % kRoutings)].view().As<int32_t>();
        g.maps = table + kExperts * cuda::kTensorMapBytes;
        cuda::GroupedGemmSm90(g, bench.ctx.stream);
      });
    }
    const double whole = bench.Time(inner, [&](int i) {
      ops::MoeExperts(bench.ctx, out, in, experts, ids[static_cast<size_t>(i % kRoutings)], weights);
    });
    std::printf("%7ld %9.1f |", static_cast<long>(tokens), chosen);
    const auto print = [&](double ms, double features, double k) {
      const double flops = 2.0 * static_cast<double>(pairs) * features * k;
      const double bytes = chosen * features * k * 2;
      std::printf(" %8.1f us %5.0f TF %3.0f%% |", ms * 1e3, flops / ms * 1e-9,
                  100 * bytes / ms * 1e-9 / bandwidth);
    };
    print(up, 2 * kWidth, kHidden);
    print(down_ms, kHidden, kWidth);
    print(whole, 3 * kWidth, kHidden);
    std::printf("\n");
  }
}

// The whole op with weights of 8 and 4 bits.
void QuantizedExperts(Bench& bench, double bandwidth) {
  std::printf("\nwhole op with quantised experts\n%7s |", "tokens");
  const ops::QuantScheme schemes[] = {{8, 0}, {4, 0}, {4, 128}};
  std::vector<ops::ExpertWeights> experts(std::size(schemes));
  for (size_t s = 0; s < std::size(schemes); ++s) {
    for (int64_t e = 0; e < kExperts; ++e) {
      const uint64_t key = static_cast<uint64_t>(e);
      experts[s].gate_up.push_back(
          ops::RandomLinear(bench.ctx, DType::kBFloat16, {{2 * kWidth, key}}, kHidden, 0.02f, schemes[s]));
      experts[s].down.push_back(
          ops::RandomLinear(bench.ctx, DType::kBFloat16, {{kHidden, key + 100}}, kWidth, 0.02f, schemes[s]));
    }
    ops::FinishExperts(bench.ctx, &experts[s]);
    cuda::Synchronize(bench.ctx.stream);
    std::printf("   int%d, group %3ld           |", schemes[s].bits,
                static_cast<long>(schemes[s].group_size));
  }
  std::printf("\n");
  for (int64_t tokens : {8192, 1024, 256, 64, 16, 8, 1}) {
    std::mt19937 rng(static_cast<unsigned>(tokens));
    std::vector<Tensor> ids;
    double chosen = 0;
    for (int r = 0; r < kRoutings; ++r) {
      const Tensor host(DType::kInt32, Device{}, {tokens, kTopK});
      std::set<int32_t> used;
      for (int64_t t = 0; t < tokens; ++t) {
        std::set<int32_t> row;
        while (row.size() < kTopK) row.insert(static_cast<int32_t>(rng() % kExperts));
        std::copy(row.begin(), row.end(), host.view().As<int32_t>() + t * kTopK);
        used.insert(row.begin(), row.end());
      }
      chosen += static_cast<double>(used.size()) / kRoutings;
      ids.push_back(bench.Upload(host));
    }
    const Tensor weights_host(DType::kFloat32, Device{}, {tokens, kTopK});
    std::fill_n(weights_host.view().As<float>(), tokens * kTopK, 1.0f / kTopK);
    const Tensor weights = bench.Upload(weights_host);
    const Tensor in = bench.Upload(RandomBFloat16({tokens, kHidden}, 1.0f, 3));
    const Tensor out(DType::kBFloat16, kGpu, {tokens, kHidden});
    std::printf("%7ld |", static_cast<long>(tokens));
    for (size_t s = 0; s < std::size(schemes); ++s) {
      const double ms = bench.Time(tokens >= 1024 ? 2 : 16, [&](int i) {
        ops::MoeExperts(bench.ctx, out, in, experts[s], ids[static_cast<size_t>(i % kRoutings)], weights);
      });
      const double elements = 3.0 * kWidth * kHidden;
      const double flops = 2.0 * static_cast<double>(tokens * kTopK) * elements;
      const double bytes = chosen * elements * schemes[s].bits / 8;
      std::printf(" %8.1f us %4.0f TF %3.0f%% |", ms * 1e3, flops / ms * 1e-9,
                  100 * bytes / ms * 1e-9 / bandwidth);
    }
    std::printf("\n");
  }
}

void Sampling(Bench& bench) {
  struct {
    const char* name;
    float temperature;
    int32_t top_k;
    float top_p;
  } kinds[] = {
      {"greedy", 0, 0, 1}, {"T 1", 1, 0, 1}, {"top_p 0.9", 1, 0, 0.9f}, {"top_k 50 top_p 0.9", 1, 50, 0.9f}};
  std::printf("\nsampling, vocabulary %ld\n", static_cast<long>(kVocab));
  for (int64_t rows : {1, 64, 256}) {
    const Tensor host(DType::kFloat32, Device{}, {rows, kVocab});
    std::mt19937 rng(7);
    std::normal_distribution<float> normal(-3.0f, 2.5f);
    for (int64_t i = 0; i < rows * kVocab; ++i) host.view().As<float>()[i] = normal(rng);
    const Tensor logits = bench.Upload(host);
    for (const auto& kind : kinds) {
      const Tensor f(DType::kFloat32, Device{}, {rows}), k(DType::kInt32, Device{}, {rows}),
          p(DType::kFloat32, Device{}, {rows});
      std::fill_n(f.view().As<float>(), rows, kind.temperature);
      std::fill_n(k.view().As<int32_t>(), rows, kind.top_k);
      std::fill_n(p.view().As<float>(), rows, kind.top_p);
      const Tensor temperature = bench.Upload(f), top_k = bench.Upload(k), top_p = bench.Upload(p);
      const Tensor min_p(DType::kFloat32, kGpu, {rows}), seed(DType::kInt64, kGpu, {rows}),
          position(DType::kInt64, kGpu, {rows}), ids(DType::kInt32, kGpu, {rows}),
          logprobs(DType::kFloat32, kGpu, {rows});
      const double ms = bench.Time(8, [&](int) {
        ops::Sample(bench.ctx, ids, logprobs, logits, {temperature, top_k, top_p, min_p, seed, position},
                    kVocab);
      });
      std::printf("%4ld rows %-20s %8.1f us\n", static_cast<long>(rows), kind.name, ms * 1e3);
    }
  }
}

int Main() {
  if (cuda::DeviceCount() == 0) {
    std::printf("bench_gpu_moe: no CUDA device\n");
    return 1;
  }
  cuda::SetDevice(0);
  Bench bench;
  const cuda::DeviceInfo info = cuda::GetDeviceInfo(0);
  const int64_t bytes = int64_t{2} << 30;
  const Tensor a(DType::kUInt8, kGpu, {bytes}), b(DType::kUInt8, kGpu, {bytes});
  const double copy_ms =
      bench.Time(1, [&](int) { cuda::CopyAsync(b.view().data, a.view().data, bytes, bench.ctx.stream); });
  const double bandwidth = 2 * static_cast<double>(bytes) / copy_ms * 1e-9;  // TB/s
  std::printf("%s, copy %.2f TB/s (read + write)\n", info.name, bandwidth);
  Experts(bench, bandwidth);
  QuantizedExperts(bench, bandwidth);
  Sampling(bench);
  return 0;
}

}  // namespace
}  // namespace fd

int main() { return fd::Main(); }
