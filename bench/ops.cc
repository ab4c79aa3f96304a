// Linear layers and attention at the shapes of a model: time, bytes, operations and the share of the roofline
// measured in the same run.
//   build/release/bench/bench_ops [--threads N] [--only linear|attention] [--rows 1,16] [--bits 16,8,4]
//       [hidden intermediate heads kv_heads head_dim vocab]
// Default: ERNIE-4.5-0.3B. A shape whose bytes take longer than its operations is judged by bandwidth, else
// by the dot-product peak. name/8, /4, /4g128: weights of 8 and 4 bits, the last in groups of 128.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "compute/kernels/cpu/isa.h"
#include "compute/kernels/cpu/roofline.h"
#include "compute/ops/linear.h"
#include "ops_attention.h"

namespace {

using namespace fd;

struct Machine {
  ops::Context ctx;
  cpu::Roofline roofline;
  std::vector<int64_t> rows = {1, 4, 16, 32, 64, 512, 2048};
};

// "1,16,64"
std::vector<int64_t> Numbers(const char* text) {
  std::vector<int64_t> numbers;
  for (char* end = nullptr; *text != 0; text = *end == ',' ? end + 1 : end) {
    numbers.push_back(std::strtoll(text, &end, 10));
    if (end == text) return {};
  }
  return numbers;
}

void Fill(const TensorView& t) {
  std::mt19937 rng(1);
  for (int64_t i = 0; i < t.NumElements(); ++i) {
    const float v = static_cast<float>(static_cast<int32_t>(rng())) * 1e-10f;
    if (t.dtype == DType::kFloat32) {
      t.As<float>()[i] = v;
    } else {
      t.As<BFloat16>()[i] = ToBFloat16(v);
    }
  }
}

// Weights are cycled through enough copies that none is in a cache, as in a model whose layers follow each
// other.
void BenchLinear(const Machine& machine, const std::string& shape, int64_t n, int64_t k,
                 const ops::QuantScheme& scheme) {
  const ops::Context& ctx = machine.ctx;
  Tensor source(DType::kBFloat16, Device{}, {n, k});
  Fill(source);
  const int64_t weight_bytes = ops::LinearWeightBytes(ctx, DType::kBFloat16, n, k, scheme);
  const std::string name = scheme.bits == 0
                               ? shape
                               : shape + (scheme.bits == 8 ? "/8" : "/4") +
                                     (scheme.group_size > 0 ? "g" + std::to_string(scheme.group_size) : "");
  const int64_t copies = std::max<int64_t>(1, (int64_t{256} << 20) / weight_bytes);
  std::vector<ops::LinearWeight> weights;
  for (int64_t i = 0; i < copies; ++i)
    weights.push_back(scheme.bits == 0 ? ops::PackLinear(ctx, {source})
                                       : ops::QuantizeLinear(ctx, {source}, false, scheme));
  for (int64_t m : machine.rows) {
    if (m > 64 && n > 50000) continue;  // logits are wanted for the last row of a prompt only
    Tensor in(DType::kBFloat16, Device{}, {m, k}), out(DType::kBFloat16, Device{}, {m, n});
    Fill(in);
    const double flop = 2.0 * m * n * k;
    const double bytes = static_cast<double>(weight_bytes) + 2.0 * (m * k + m * n);
    const int rounds = static_cast<int>(std::max(3.0, 3e10 / std::max(flop, bytes * 10)));
    double best = 1e30;
    for (int repeat = 0; repeat < 5; ++repeat) {
      const auto start = std::chrono::steady_clock::now();
      for (int i = 0; i < rounds; ++i) ops::Linear(ctx, out, in, weights[i % copies]);
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      best = std::min(best, took.count() / rounds);
    }
    const double byte_floor = bytes / machine.roofline.read_bytes_per_s;
    const double flop_floor =
        flop / (scheme.bits == 0 ? machine.roofline.bf16_flop_per_s : machine.roofline.int8_op_per_s);
    std::printf("%-13s %5ld %7ld %6ld  %9.1f  %8.2f  %8.2f  %6.1f  %7.1f  %3.0f %% of %s\n", name.c_str(),
                static_cast<long>(m), static_cast<long>(n), static_cast<long>(k), best * 1e6, bytes / 1e6,
                flop / 1e9, bytes / best / 1e9, flop / best / 1e9,
                100 * std::max(byte_floor, flop_floor) / best,
                byte_floor > flop_floor ? "bandwidth"
                : scheme.bits == 0      ? "bf16 peak"
                                        : "int8 peak");
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  int num_threads = 0;
  std::string only;
  std::vector<int64_t> sizes, rows, bits = {16, 8, 4};
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
      num_threads = std::atoi(argv[++i]);
    } else if (std::strcmp(argv[i], "--rows") == 0 && i + 1 < argc) {
      rows = Numbers(argv[++i]);
    } else if (std::strcmp(argv[i], "--bits") == 0 && i + 1 < argc) {
      bits = Numbers(argv[++i]);
    } else if (std::strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
      only = argv[++i];
    } else {
      sizes.push_back(std::atoll(argv[i]));
    }
  }
  if (sizes.empty()) sizes = {1024, 3072, 16, 2, 128, 103424};
  if (sizes.size() != 6 || *std::min_element(sizes.begin(), sizes.end()) < 1 ||
      (!only.empty() && only != "linear" && only != "attention")) {
    std::fprintf(stderr,
                 "usage: bench_ops [--threads N] [--only linear|attention] [--rows 1,16] [--bits 16,8,4] "
                 "[hidden intermediate heads kv_heads head_dim vocab]\n");
    return 2;
  }
  // As `fastdeploy bench` places them.
  ThreadPool threads(PlaceThreads(ReadCpuTopology(), num_threads, Pinning::kWhereUseful));
  Workspace workspace(Device{}, 64 << 20);
  Machine machine;
  if (!rows.empty()) machine.rows = rows;
  machine.ctx.threads = &threads;
  machine.ctx.workspace = &workspace;
  machine.roofline = cpu::MeasureRoofline(threads);
  std::printf(
      "%s, %d threads: read %.1f GB/s, bf16 dot %.0f GFLOP/s, fp32 FMA %.0f GFLOP/s, int8 dot %.0f GOP/s\n",
      cpu::IsaName(cpu::CurrentIsa()), threads.num_threads(), machine.roofline.read_bytes_per_s / 1e9,
      machine.roofline.bf16_flop_per_s / 1e9, machine.roofline.fp32_flop_per_s / 1e9,
      machine.roofline.int8_op_per_s / 1e9);
  if (only != "linear") BenchAttention(machine.ctx, machine.roofline, sizes[2], sizes[3], sizes[4]);
  if (only == "attention") return 0;
  std::printf("%-13s %5s %7s %6s  %9s  %8s  %8s  %6s  %7s  share\n", "linear", "m", "n", "k", "us", "MB",
              "GFLOP", "GB/s", "GFLOP/s");
  const int64_t hidden = sizes[0], heads = sizes[2] * sizes[4];
  for (const ops::QuantScheme& scheme : {ops::QuantScheme{}, {8, 0}, {4, 0}, {4, 128}}) {
    if (std::find(bits.begin(), bits.end(), scheme.bits == 0 ? 16 : scheme.bits) == bits.end()) continue;
    BenchLinear(machine, "qkv", heads + 2 * sizes[3] * sizes[4], hidden, scheme);
    BenchLinear(machine, "o", hidden, heads, scheme);
    BenchLinear(machine, "gate_up", 2 * sizes[1], hidden, scheme);
    BenchLinear(machine, "down", hidden, sizes[1], scheme);
    if (scheme.bits != 4) BenchLinear(machine, "lm_head", sizes[5], hidden, scheme);
  }
  return 0;
}
