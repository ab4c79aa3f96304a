// The vision encoder of ERNIE-4.5-VL-28B-A3B with random weights on sixteen pictures of 1024 x 1024 pixels,
// and on one: time, TFLOP/s, share of this run's bf16 product, and its parts timed alone on the same shapes.
//
//   build/cuda-core/bench/bench_gpu_vit [CONFIG_FOLDER]     # from the repository root
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "compute/kernels/cuda/device.h"
#include "compute/kernels/cuda/roofline.h"
#include "compute/ops/attention.h"
#include "compute/ops/elementwise.h"
#include "compute/ops/norm.h"
#include "compute/ops/rows.h"
#include "model/vision/encoder.h"

namespace fd {
namespace {

constexpr Device kGpu{DeviceType::kCuda, 0};
// The preprocessor takes the nearest multiple of 28 (two patches) where the area is within its limits.
constexpr int64_t kSide = (1024 + 14) / 28 * 2;  // patches: 1036 / 14 = 74
constexpr int64_t kPatches = kSide * kSide;
static_assert(kPatches == 5476);

struct Bench {
  explicit Bench(ModelConfig c) : config(std::move(c)), threads(0), stream(cuda::CreateStream(0)) {
    ctx.device = kGpu;
    ctx.threads = &threads;
    ctx.stream = stream;
  }
  double MedianMs(const std::function<void()>& fn) const {
    constexpr int kWarm = 2, kRepeats = 7;
    void *begin = cuda::CreateEvent(), *end = cuda::CreateEvent();
    std::vector<double> times;
    for (int i = 0; i < kWarm + kRepeats; ++i) {
      cuda::RecordEvent(begin, stream);
      fn();
      cuda::RecordEvent(end, stream);
      cuda::WaitEvent(end);
      if (i >= kWarm) times.push_back(static_cast<double>(cuda::MillisecondsBetween(begin, end)));
    }
    cuda::DestroyEvent(begin);
    cuda::DestroyEvent(end);
    std::sort(times.begin(), times.end());
    return times[kRepeats / 2];
  }
  // Normal values, tiled from a sample.
  Tensor Random(Shape shape) const {
    std::mt19937 rng(1);
    std::normal_distribution<float> normal;
    std::vector<BFloat16> sample(1000003);
    for (BFloat16& x : sample) x = ToBFloat16(normal(rng));
    Tensor t(DType::kBFloat16, kGpu, shape);
    const int64_t total = shape.NumElements(), step = static_cast<int64_t>(sample.size());
    for (int64_t i = 0; i < total; i += step) {
      cuda::CopyAsync(t.view().As<BFloat16>() + i, sample.data(), std::min(step, total - i) * 2, stream);
    }
    cuda::Synchronize(stream);
    return t;
  }
  ModelConfig config;
  ThreadPool threads;
  void* stream;
  ops::Context ctx;
};

struct Operations {
  double linears = 0, attention = 0, resampler = 0;
  double Sum() const { return linears + attention + resampler; }
};
// 2 per multiply-add; each patch sees its own picture.
Operations OperationsOf(const ModelConfig& config, int64_t pictures) {
  const VisionConfig& v = *config.vision;
  const double rows = static_cast<double>(pictures * kPatches), h = static_cast<double>(v.hidden_size),
               wide = static_cast<double>(v.intermediate_size), layers = static_cast<double>(v.depth);
  const double pixels = static_cast<double>(v.in_channels * v.patch_size * v.patch_size);
  Operations o;
  o.linears = 2 * rows * (pixels * h + layers * (4 * h * h + 2 * h * wide));
  o.attention = 4 * rows * static_cast<double>(kPatches) * h * layers;
  const double merged = 4 * h;
  o.resampler =
      2 * rows / 4 *
      (2 * merged * merged + 3 * merged * merged + merged * static_cast<double>(config.hidden_size));
  return o;
}

struct Parts {
  double linears_ms = 0, attention_ms = 0, resampler_ms = 0;
};
// All calls of these kinds that an encoding makes, without what lies between them.
Parts TimeParts(Bench& bench, VisionEncoder& encoder, int64_t pictures) {
  const VisionConfig& v = *bench.config.vision;
  const int64_t h = v.hidden_size, heads = v.num_heads, d = h / heads, total = pictures * kPatches;
  const int64_t in_group =
      std::clamp<int64_t>(VisionPiecesOn(DeviceType::kCuda).group_rows / kPatches, int64_t{1}, pictures);
  const int64_t pixels = v.in_channels * v.patch_size * v.patch_size;
  const Tensor normalised = bench.Random({in_group * kPatches, pixels});
  const Tensor x = bench.Random({in_group * kPatches, h}), qkv = bench.Random({in_group * kPatches, 3 * h}),
               wide = bench.Random({in_group * kPatches, v.intermediate_size});
  const Tensor y(DType::kBFloat16, kGpu, {in_group * kPatches, h});
  std::vector<int32_t> borders;
  for (int64_t i = 0; i <= in_group; ++i) borders.push_back(static_cast<int32_t>(i * kPatches));
  const Tensor segments(DType::kInt32, kGpu, {in_group + 1});
  cuda::CopyAsync(segments.view().data, borders.data(), segments.size_bytes(), bench.stream);
  cuda::Synchronize(bench.stream);
  const auto groups = [&](const std::function<void(int64_t frames)>& fn) {
    for (int64_t done = 0; done < pictures; done += in_group) fn(std::min(in_group, pictures - done));
  };
  Parts parts;
  parts.linears_ms = bench.MedianMs([&] {
    groups([&](int64_t frames) {
      const int64_t rows = frames * kPatches;
      ops::Linear(bench.ctx, y.view().Rows(0, rows), normalised.view().Rows(0, rows),
                  encoder.vit.patch_embed);
      for (const VitBlock& b : encoder.vit.blocks) {
        ops::Linear(bench.ctx, qkv.view().Rows(0, rows), x.view().Rows(0, rows), b.qkv.weight, b.qkv.bias);
        ops::Linear(bench.ctx, y.view().Rows(0, rows), x.view().Rows(0, rows), b.proj.weight, b.proj.bias);
        ops::Linear(bench.ctx, wide.view().Rows(0, rows), x.view().Rows(0, rows), b.fc1.weight, b.fc1.bias);
        ops::Linear(bench.ctx, y.view().Rows(0, rows), wide.view().Rows(0, rows), b.fc2.weight, b.fc2.bias);
      }
    });
  });
  const Tensor keys = bench.Random({in_group * kPatches, 3 * h});  // the linears have overwritten qkv
  parts.attention_ms = bench.MedianMs([&] {
    groups([&](int64_t frames) {
      const int64_t rows = frames * kPatches;
      const auto part = [&](int64_t i) {
        return keys.view().Rows(0, rows).Columns(i * h, h).Reshape({rows, heads, d});
      };
      for (int64_t layer = 0; layer < v.depth; ++layer) {
        ops::SegmentAttention(bench.ctx, y.view().Rows(0, rows).Reshape({rows, heads, d}), part(0), part(1),
                              part(2), segments.view().Rows(0, frames + 1), kPatches,
                              1.0f / std::sqrt(static_cast<float>(d)));
      }
    });
  });
  const Tensor patches = bench.Random({total, h}), merged(DType::kBFloat16, kGpu, {total / 4, 4 * h}),
               out(DType::kBFloat16, kGpu, {total / 4, bench.config.hidden_size});
  const std::vector<EncodeBatch::Grid> grids(static_cast<size_t>(pictures), {1, kSide, kSide});
  parts.resampler_ms = bench.MedianMs([&] {
    int64_t first = 0;
    groups([&](int64_t frames) {
      const int64_t rows = frames * kPatches;
      MergeSpace(bench.ctx, merged.view().Rows(first / 4, rows / 4), patches.view().Rows(first, rows),
                 encoder.resampler, v);
      first += rows;
    });
    MergeTime(bench.ctx, out, merged, grids, encoder.resampler, bench.config, encoder.host);
  });
  return parts;
}

void Measure(Bench& bench, VisionEncoder& encoder, int64_t pictures, double peak) {
  const VisionConfig& v = *bench.config.vision;
  EncodeBatch batch;
  batch.grids.assign(static_cast<size_t>(pictures), {1, kSide, kSide});
  const int64_t rows = pictures * kPatches, row_bytes = v.in_channels * v.patch_size * v.patch_size;
  const Tensor pixels(DType::kUInt8, kGpu, {rows, row_bytes});
  {
    std::vector<uint8_t> host(static_cast<size_t>(rows * row_bytes));
    std::mt19937 rng(2);
    for (uint8_t& x : host) x = static_cast<uint8_t>(rng() >> 24);
    cuda::CopyAsync(pixels.view().data, host.data(), pixels.size_bytes(), bench.stream);
    cuda::Synchronize(bench.stream);
  }
  batch.patch_rows = pixels;
  const Tensor out(DType::kBFloat16, kGpu, {batch.OutputTokens(), bench.config.hidden_size});
  const int64_t scratch = EncodeScratchBytes(bench.ctx, bench.config, DType::kBFloat16, rows, kPatches);
  Workspace workspace(kGpu, scratch);
  bench.ctx.workspace = &workspace;
  const double ms =
      bench.MedianMs([&] { EncodeVision(bench.ctx, out, batch, encoder, bench.config, nullptr); });
  const Parts parts = TimeParts(bench, encoder, pictures);
  const Operations work = OperationsOf(bench.config, pictures);
  const auto row = [&](const char* name, double part_ms, double flop) {
    std::printf("  %-24s %9.2f ms", name, part_ms);
    if (flop > 0) {
      std::printf("  %7.2f TFLOP  %6.1f TFLOP/s  %3.0f %% of the product", flop * 1e-12,
                  flop / part_ms * 1e-9, 100 * flop / part_ms * 1e3 / peak);
    }
    std::puts("");
  };
  std::printf("%ld picture%s of %ld patches, scratch %.2f GB (planned %.2f)\n", static_cast<long>(pictures),
              pictures == 1 ? "" : "s", static_cast<long>(kPatches),
              static_cast<double>(workspace.peak_bytes()) * 1e-9, static_cast<double>(scratch) * 1e-9);
  row("whole", ms, work.Sum());
  row("linears", parts.linears_ms, work.linears);
  row("attention", parts.attention_ms, work.attention);
  row("resampler", parts.resampler_ms, work.resampler);
  row("rest (the difference)", ms - parts.linears_ms - parts.attention_ms - parts.resampler_ms, 0);
  bench.ctx.workspace = nullptr;
}

int Main(const std::string& folder) {
  if (cuda::DeviceCount() == 0) {
    std::printf("bench_gpu_vit: no CUDA device on this machine\n");
    return 1;
  }
  StatusOr<ModelConfig> config = LoadModelConfig(folder);
  if (!config.ok() || !config->vision) {
    std::fprintf(stderr, "bench_gpu_vit: %s\n",
                 config.ok() ? (folder + " has no vision tower").c_str() : config.status().message().c_str());
    return 1;
  }
  cuda::SetDevice(0);
  Bench bench(*std::move(config));
  cuda::Roofline roofline;
  if (!cuda::MeasureRoofline(0, bench.stream, &roofline)) {
    std::fprintf(stderr, "bench_gpu_vit: less than 512 MiB of device memory are free\n");
    return 1;
  }
  std::printf("%s: read %.2f TB/s, copy %.2f TB/s, bf16 product 8192^3 %.0f TFLOP/s\n",
              cuda::GetDeviceInfo(0).name, roofline.read_bytes_per_s * 1e-12,
              roofline.copy_bytes_per_s * 1e-12, roofline.bf16_flop_per_s * 1e-12);
  Workspace load_workspace(kGpu, 0);
  bench.ctx.workspace = &load_workspace;
  WeightLoader loader(bench.ctx, nullptr, DType::kBFloat16);  // random weights
  loader.Begin(WeightLoader::Pass::kLoad);
  VisionEncoder encoder = LoadVisionEncoder(loader, bench.config);
  std::printf("vision encoder: %.2f GB of weights\n", static_cast<double>(loader.device_bytes()) * 1e-9);
  for (int64_t pictures : {16, 1}) Measure(bench, encoder, pictures, roofline.bf16_flop_per_s);
  return 0;
}

}  // namespace
}  // namespace fd

int main(int argc, char** argv) {
  return fd::Main(argc > 1 ? argv[1] : "bench/configs/ernie-4.5-vl-28b-a3b");
}
