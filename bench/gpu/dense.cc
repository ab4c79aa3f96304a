// The ops of a transformer layer beside attention and experts, in the shapes of ERNIE-4.5-21B-A3B, as graph
// replays: build/cuda-core/bench/bench_gpu_dense [decode|quant]
// decode: only up to 16 rows, our kernel beside cuBLASLt, and the dense half of a layer as one sequence.
// quant: only products with weights of 8 and 4 bits beside bfloat16 ones.
// Weights rotate so that no call finds its own in the L2 cache. Floors: bytes over the copy bandwidth
// measured first (reads plus writes), operations over the rate of an 8192 x 8192 x 8192 product.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/strings.h"
#include "compute/kernels/cuda/device.h"
#include "compute/kernels/cuda/launch.h"
#include "compute/kernels/cuda/linear.h"
#include "compute/ops/attention.h"
#include "compute/ops/elementwise.h"
#include "compute/ops/linear.h"
#include "compute/ops/linear_cuda.h"
#include "compute/ops/moe.h"
#include "compute/ops/norm.h"
#include "compute/ops/rope.h"
#include "compute/ops/rows.h"
#include "compute/ops/stream.h"

namespace fd {
namespace {

constexpr Device kGpu{DeviceType::kCuda, 0};

struct Bench {
  Bench() : threads(8), workspace(kGpu, 64 << 20), stream(cuda::CreateStream(0)) {
    ctx.device = kGpu;
    ctx.threads = &threads;
    ctx.stream = stream;
    ctx.workspace = &workspace;
  }
  // Random bfloat16 of the size, tiled from 1 Mi values.
  Tensor Random(DType dtype, Shape shape, float scale = 1.0f) {
    constexpr int64_t kTile = 1 << 20;
    const int64_t n = shape.NumElements();
    Tensor host(dtype, Device{}, {std::min(n, kTile)});
    std::normal_distribution<float> normal(0.0f, scale);
    for (int64_t i = 0; i < host.view().dim(0); ++i) {
      if (dtype == DType::kFloat32) {
        host.view().As<float>()[i] = normal(rng);
      } else {
        host.view().As<BFloat16>()[i] = ToBFloat16(normal(rng));
      }
    }
    Tensor out(dtype, kGpu, shape);
    const TensorView flat = out.view().Reshape({n});
    for (int64_t i = 0; i < n; i += kTile) {
      const int64_t count = std::min(kTile, n - i);
      ops::Copy(ctx, flat.Rows(i, count), host.view().Rows(0, count));
    }
    ops::Synchronize(ctx);
    return out;
  }
  // Median milliseconds of one of `calls` calls in a captured graph; fn(i) makes call i.
  double Milliseconds(int calls, const std::function<void(int)>& fn) {
    for (int i = 0; i < calls; ++i) fn(i);  // algorithms are chosen, modules loaded
    ops::Synchronize(ctx);
    cuda::BeginCapture(stream);
    for (int i = 0; i < calls; ++i) fn(i);
    void* graph = cuda::EndCapture(stream);
    std::vector<double> times;
    void *begin = cuda::CreateEvent(), *end = cuda::CreateEvent();
    for (int repeat = 0; repeat < 12; ++repeat) {
      cuda::RecordEvent(begin, stream);
      cuda::LaunchGraph(graph, stream);
      cuda::RecordEvent(end, stream);
      cuda::WaitEvent(end);
      if (repeat >= 2) times.push_back(static_cast<double>(cuda::MillisecondsBetween(begin, end)) / calls);
    }
    cuda::DestroyEvent(begin);
    cuda::DestroyEvent(end);
    cuda::DestroyGraph(graph);
    std::nth_element(times.begin(), times.begin() + 5, times.end());
    return times[5];
  }
  // Outside a graph, where it is faster than within one (3.0 against 2.4 TB/s on an H100).
  double CopyMilliseconds(const TensorView& to, const TensorView& from) {
    std::vector<double> times;
    void *begin = cuda::CreateEvent(), *end = cuda::CreateEvent();
    for (int repeat = 0; repeat < 7; ++repeat) {
      cuda::RecordEvent(begin, stream);
      ops::Copy(ctx, to, from);
      cuda::RecordEvent(end, stream);
      cuda::WaitEvent(end);
      if (repeat >= 2) times.push_back(static_cast<double>(cuda::MillisecondsBetween(begin, end)));
    }
    cuda::DestroyEvent(begin);
    cuda::DestroyEvent(end);
    std::sort(times.begin(), times.end());
    return times[2];
  }
  void Print(const char* name, int64_t rows, double ms, double bytes, double flops) const {
    const double memory_ms = bytes / bandwidth * 1e3, math_ms = flops / rate * 1e3;
    const double floor = std::max(memory_ms, math_ms);
    std::printf("%-24s %6ld rows %9.2f us, floor %9.2f us (%s) = %3.0f %%\n", name, static_cast<long>(rows),
                ms * 1e3, floor * 1e3, memory_ms > math_ms ? "bytes" : "math ", 100 * floor / ms);
  }

  std::mt19937 rng{1};
  ThreadPool threads;
  Workspace workspace;
  void* stream;
  ops::Context ctx;
  double bandwidth = 0;  // bytes a second
  double rate = 1e15;    // operations a second
};

struct Product {
  const char* name;
  int64_t n, k;
  DType weight = DType::kBFloat16, out = DType::kBFloat16;
  ops::QuantScheme scheme = {};
};

using LinearFn =
    std::function<void(const TensorView& out, const TensorView& in, const ops::LinearWeight& weight)>;

LinearFn Dispatched(Bench& b) {
  return [&b](const TensorView& out, const TensorView& in, const ops::LinearWeight& weight) {
    ops::Linear(b.ctx, out, in, weight);
  };
}
// float32 weights (the router) go where they always go.
LinearFn CublasLt(Bench& b) {
  return [&b](const TensorView& out, const TensorView& in, const ops::LinearWeight& weight) {
    if (!cuda::LinearLt(ops::CudaLinearArgs(out, in, weight.data), b.stream))
      ops::Linear(b.ctx, out, in, weight);
  };
}
// Set by hand: packing would read the weight through the host.
ops::LinearWeight WeightOf(Bench& b, const Product& p) {
  if (p.scheme.bits != 0) return ops::RandomLinear(b.ctx, p.weight, {{p.n, 1}}, p.k, 0.02f, p.scheme);
  ops::LinearWeight w;
  w.kind = p.weight == DType::kBFloat16 ? ops::WeightKind::kBFloat16 : ops::WeightKind::kFloat32;
  w.n = p.n;
  w.k = p.k;
  w.data = b.Random(p.weight, {p.n, p.k}, 0.02f);
  if (p.weight == DType::kFloat32) {  // as PackLinear does for routers
    w.split = Tensor(DType::kBFloat16, kGpu, {3 * p.n, p.k});
    cuda::SplitFloat32(w.split.view().data, w.data.view().data, p.n, p.k, b.stream);
  }
  return w;
}
int64_t WeightBytes(const Product& p) {
  if (p.scheme.bits == 0) return p.n * p.k * DTypeBytes(p.weight);
  const int64_t groups = p.scheme.group_size == 0 ? 1 : (p.k + p.scheme.group_size - 1) / p.scheme.group_size;
  return p.n * p.k * p.scheme.bits / 8 + p.n * groups * 2;
}
std::vector<ops::LinearWeight> WeightsOf(Bench& b, const Product& p) {
  const auto copies = std::clamp<int64_t>((int64_t{256} << 20) / WeightBytes(p), 1, 24);
  std::vector<ops::LinearWeight> weights;
  for (int64_t i = 0; i < copies; ++i) weights.push_back(WeightOf(b, p));
  return weights;
}

double LinearMs(Bench& b, const Product& p, int64_t m, const std::vector<ops::LinearWeight>& weights,
                const LinearFn& linear) {
  const Tensor in = b.Random(DType::kBFloat16, {m, p.k});
  const Tensor out(p.out, kGpu, {m, p.n});
  const int copies = static_cast<int>(weights.size());
  return b.Milliseconds(std::max(copies, 4),
                        [&](int i) { linear(out, in, weights[static_cast<size_t>(i % copies)]); });
}

const Product kProducts[] = {{"qkv", 3584, 2560},
                             {"attention out", 2560, 2560},
                             {"shared gate+up", 6144, 2560},
                             {"shared down", 2560, 3072},
                             {"router (fp32 weights)", 64, 2560, DType::kFloat32, DType::kFloat32},
                             {"head", 103424, 2560, DType::kBFloat16, DType::kFloat32}};

void Decode(Bench& b) {
  std::printf("\n%-24s %5s | %22s | %22s | %22s\n", "product", "rows", "ours", "alone (no overlap)",
              "cuBLASLt");
  for (const Product& p : kProducts) {
    const std::vector<ops::LinearWeight> weights = WeightsOf(b, p);
    for (int64_t m : {1, 4, 8, 16}) {
      const double bytes = static_cast<double>(WeightBytes(p) + m * (2 * p.k + p.n * DTypeBytes(p.out)));
      std::printf("%-24s %5ld", p.name, static_cast<long>(m));
      for (int way = 0; way < 3; ++way) {
        cuda::SetLaunchOverlap(way == 0);
        const double ms = LinearMs(b, p, m, weights, way < 2 ? Dispatched(b) : CublasLt(b));
        std::printf(" | %8.2f us, %3.0f %% bytes", ms * 1e3, 100 * bytes / b.bandwidth * 1e3 / ms);
      }
      std::printf("\n");
    }
  }
  cuda::SetLaunchOverlap(true);
}

// What a decoder layer has beside attention and experts, each kernel fed by the one before.
struct Way {
  std::string name;
  bool overlap, fused;  // fused: gate+up and SwiGLU in one kernel
  LinearFn linear;
};
void Layer(Bench& b, const std::vector<Way>& ways) {
  constexpr int kLayers = 8;
  struct Weights {
    ops::LinearWeight qkv, out, router, gate_up, down;
  };
  std::vector<Weights> layers;
  double bytes = 0;
  for (int i = 0; i < kLayers; ++i) {
    layers.push_back({WeightOf(b, kProducts[0]), WeightOf(b, kProducts[1]), WeightOf(b, kProducts[4]),
                      WeightOf(b, kProducts[2]), WeightOf(b, kProducts[3])});
  }
  for (int i = 0; i < 5; ++i) bytes += static_cast<double>(WeightBytes(kProducts[i]));
  const int64_t hidden = 2560, heads = 3584, width = 3072;
  const Tensor norm = b.Random(DType::kBFloat16, {hidden});
  std::printf("\nnorm, qkv, out, norm, router, gate+up, SwiGLU, down, add: %.0f MB, floor %.1f us\n",
              bytes / 1e6, bytes / b.bandwidth * 1e6);
  for (int64_t m : {1, 4, 8, 16}) {
    const Tensor x = b.Random(DType::kBFloat16, {m, hidden}), y = b.Random(DType::kBFloat16, {m, hidden}),
                 h(DType::kBFloat16, kGpu, {m, hidden}), qkv(DType::kBFloat16, kGpu, {m, heads}),
                 gate_up(DType::kBFloat16, kGpu, {m, 2 * width}), act(DType::kBFloat16, kGpu, {m, width}),
                 logits(DType::kFloat32, kGpu, {m, 64});
    std::printf("%3ld rows:", static_cast<long>(m));
    for (const Way& way : ways) {
      const LinearFn& linear = way.linear;
      cuda::SetLaunchOverlap(way.overlap);
      const double ms = b.Milliseconds(2 * kLayers, [&](int i) {
        const Weights& w = layers[static_cast<size_t>(i % kLayers)];
        ops::AddRmsNorm(b.ctx, h, x, y, norm, 1e-5f);
        linear(qkv, h, w.qkv);
        linear(y, qkv.view().Columns(0, hidden), w.out);
        ops::AddRmsNorm(b.ctx, h, x, y, norm, 1e-5f);
        linear(logits, h, w.router);
        if (way.fused) {
          ops::LinearSwiGlu(b.ctx, act, h, w.gate_up);
        } else {
          linear(gate_up, h, w.gate_up);
          ops::SwiGlu(b.ctx, act, gate_up);
        }
        linear(y, act, w.down);
        ops::Add(b.ctx, y, y, h);
      });
      std::printf("  %s %.1f us (%.0f %%)", way.name.c_str(), ms * 1e3, 100 * bytes / b.bandwidth * 1e3 / ms);
    }
    std::printf("\n");
  }
  cuda::SetLaunchOverlap(true);
}

void Quantized(Bench& b) {
  std::printf("\n%-16s %-14s |", "product", "weights");
  for (int m : {1, 8, 16, 64, 256}) std::printf("      %4d rows     |", m);
  std::printf("      8192 rows\n");
  for (Product p : kProducts) {
    if (p.weight == DType::kFloat32 || p.n > 100000) continue;
    for (const ops::QuantScheme& scheme :
         {ops::QuantScheme{}, ops::QuantScheme{8, 0}, ops::QuantScheme{4, 0}, ops::QuantScheme{4, 128}}) {
      p.scheme = scheme;
      const std::vector<ops::LinearWeight> weights = WeightsOf(b, p);
      const std::string name =
          scheme.bits == 0 ? "bf16" : StrCat("int", scheme.bits, " group ", scheme.group_size);
      std::printf("%-16s %-14s |", p.name, name.c_str());
      for (int64_t m : {1, 8, 16, 64, 256, 8192}) {
        const double ms = LinearMs(b, p, m, weights, Dispatched(b));
        const double bytes = static_cast<double>(WeightBytes(p) + m * 2 * (p.k + p.n));
        if (m < 8192) {
          std::printf(" %7.2f us %3.0f %% B |", ms * 1e3, 100 * bytes / b.bandwidth * 1e3 / ms);
        } else {
          std::printf(" %8.1f us, %3.0f TFLOP/s\n", ms * 1e3,
                      2.0 * static_cast<double>(m * p.n * p.k) / ms * 1e-9);
        }
      }
    }
  }
}

int Main(const char* only) {
  if (cuda::DeviceCount() == 0) {
    std::printf("no CUDA device\n");
    return 1;
  }
  Bench b;
  const cuda::DeviceInfo info = cuda::GetDeviceInfo(0);
  {
    const int64_t bytes = int64_t{2} << 30;
    const Tensor from = b.Random(DType::kBFloat16, {bytes / 2}), to(DType::kBFloat16, kGpu, {bytes / 2});
    b.bandwidth = 2.0 * static_cast<double>(bytes) / b.CopyMilliseconds(to, from) * 1e3;
    const Product peak = {"peak", 8192, 8192};
    std::vector<ops::LinearWeight> weight;
    weight.push_back(WeightOf(b, peak));
    const double product = LinearMs(b, peak, 8192, weight, Dispatched(b));
    b.rate = 2.0 * 8192 * 8192 * 8192 / product * 1e3;
    std::printf("%s: copies at %.2f TB/s, 8192^3 bf16 at %.0f TFLOP/s\n", info.name, b.bandwidth / 1e12,
                b.rate / 1e12);
  }
  if (std::strcmp(only, "decode") != 0) Quantized(b);
  if (std::strcmp(only, "quant") == 0) return 0;
  Decode(b);
  Layer(b, {{"ours", true, true, Dispatched(b)},
            {"SwiGLU apart", true, false, Dispatched(b)},
            {"without overlap", false, true, Dispatched(b)},
            {"cuBLASLt, the rest overlapped", true, false, CublasLt(b)},
            {"cuBLASLt", false, false, CublasLt(b)}});
  if (std::strcmp(only, "decode") == 0) return 0;
  for (const Product& p : kProducts) {
    const std::vector<ops::LinearWeight> weights = WeightsOf(b, p);
    for (int64_t m : {64, 256, 8192}) {
      if (p.n > 100000 && m > 256) continue;  // only the last row of a prompt goes there
      const double ms = LinearMs(b, p, m, weights, Dispatched(b));
      b.Print(p.name, m, ms, static_cast<double>(WeightBytes(p) + m * (2 * p.k + p.n * DTypeBytes(p.out))),
              2.0 * static_cast<double>(m * p.n * p.k));
    }
  }
  for (int64_t m : {64, 8192}) {
    const int64_t hidden = 2560, copies = 8;
    std::vector<Tensor> x, y;
    for (int i = 0; i < copies; ++i) {
      x.push_back(b.Random(DType::kBFloat16, {m, hidden}));
      y.push_back(b.Random(DType::kBFloat16, {m, 2 * hidden}));
    }
    const Tensor weight = b.Random(DType::kBFloat16, {hidden});
    const double row = static_cast<double>(m * hidden * 2);
    const auto at = [&](const std::vector<Tensor>& v, int i) {
      return v[static_cast<size_t>(i % copies)].view();
    };
    double ms = b.Milliseconds(16, [&](int i) {
      ops::AddRmsNorm(b.ctx, at(y, i).Columns(0, hidden), at(x, i), at(y, i).Columns(hidden, hidden), weight,
                      1e-5f);
    });
    b.Print("add + RMSNorm", m, ms, 4 * row, 0);
    ms = b.Milliseconds(16, [&](int i) { ops::SwiGlu(b.ctx, at(x, i), at(y, i)); });
    b.Print("SwiGLU", m, ms, 3 * row, 0);
    const Tensor cos_sin = b.Random(DType::kFloat32, {m, 2, 64});
    ms = b.Milliseconds(16, [&](int i) {
      ops::ApplyRope(b.ctx, at(x, i).Reshape({m, 20, 128}), cos_sin, ops::RopeStyle::kInterleaved);
    });
    b.Print("rope, 20 heads", m, ms, 2 * row + static_cast<double>(m * 512), 0);
    // Inside rows of the fused projection: 20 query heads, 4 key and 4 value heads.
    const int64_t pages = m / 64;
    const Tensor k_pages(DType::kBFloat16, kGpu, {pages, 4, 64, 128}),
        v_pages(DType::kBFloat16, kGpu, {pages, 4, 64, 128}), slots(DType::kInt32, kGpu, {m});
    std::vector<int32_t> positions(static_cast<size_t>(m));
    std::iota(positions.begin(), positions.end(), 0);
    ops::Copy(b.ctx, slots, TensorView(positions.data(), DType::kInt32, Device{}, {m}));
    ops::Synchronize(b.ctx);
    ms = b.Milliseconds(16, [&](int i) {
      const TensorView qkv = at(y, i);
      const auto heads = [&](int64_t first, int64_t count) {
        return qkv.Columns(first * 128, count * 128).Reshape({m, count, 128});
      };
      ops::RopeAndWriteKv(b.ctx, heads(0, 20), k_pages, v_pages, heads(20, 4), heads(24, 4), cos_sin, slots,
                          ops::RopeStyle::kInterleaved);
    });
    b.Print("rope + write K, V", m, ms, static_cast<double>(m * (2 * 28 * 256 + 512 + 4)), 0);
    const Tensor vit_cos_sin = b.Random(DType::kFloat32, {m, 2, 40});
    ms = b.Milliseconds(16, [&](int i) {  // q and k of the ViT: 16 heads of 80 each
      ops::ApplyRope(b.ctx, at(x, i).Reshape({m, 32, 80}), vit_cos_sin, ops::RopeStyle::kHalfSplit);
    });
    b.Print("rope, ViT q and k", m, ms, 2 * row + static_cast<double>(m * 320), 0);
    const Tensor logits = b.Random(DType::kFloat32, {m, 64}), ids(DType::kInt32, kGpu, {m, 6}),
                 weights(DType::kFloat32, kGpu, {m, 6});
    ms = b.Milliseconds(16, [&](int) { ops::RouteSoftmax(b.ctx, ids, weights, logits, {}, 1e-12f, true); });
    b.Print("route 6 of 64", m, ms, static_cast<double>(m * (256 + 48)), 0);
  }
  return 0;
}

}  // namespace
}  // namespace fd

int main(int argc, char** argv) { return fd::Main(argc > 1 ? argv[1] : ""); }
