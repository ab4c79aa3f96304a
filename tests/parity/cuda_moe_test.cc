// MoeExperts on the GPU: portable and Hopper kernels against the reference.
#include <algorithm>

#include "compute/kernels/reference/linear.h"
#include "compute/ops/moe.h"
#include "tests/parity/cuda_parity.h"
#include "tests/parity/quant.h"

namespace fd {
namespace {

using namespace parity;

struct Experts {
  std::vector<Tensor> gate_up, down;
  ops::ExpertWeights device;
};
ops::LinearWeight OnDevice(CudaContext& gpu, const Tensor& host) {
  ops::LinearWeight w;
  w.kind = host.view().dtype == DType::kFloat32 ? ops::WeightKind::kFloat32 : ops::WeightKind::kBFloat16;
  w.n = host.view().dim(0);
  w.k = host.view().dim(1);
  w.data = ToDevice(gpu, host);
  return w;
}
Experts MakeExperts(CudaContext& gpu, std::mt19937& rng, DType type, int64_t count, int64_t hidden,
                    int64_t width, const ops::QuantScheme& scheme = {}) {
  Experts e;
  for (int64_t i = 0; i < count; ++i) {
    e.gate_up.push_back(Random(rng, type, {2 * width, hidden}, 1.0f / std::sqrt(static_cast<float>(hidden))));
    e.down.push_back(Random(rng, type, {hidden, width}, 1.0f / std::sqrt(static_cast<float>(width))));
    if (scheme.bits == 0) {
      e.device.gate_up.push_back(OnDevice(gpu, e.gate_up.back()));
      e.device.down.push_back(OnDevice(gpu, e.down.back()));
      continue;
    }
    Cpu cpu;
    for (const auto& [host, device] :
         {std::pair{&e.gate_up.back(), &e.device.gate_up}, {&e.down.back(), &e.device.down}}) {
      device->push_back(ops::QuantizeLinear(gpu.ctx, {*host}, false, scheme));
      *host = Dequantized(ops::QuantizeLinear(cpu.ctx, {*host}, false, scheme));
    }
  }
  ops::FinishExperts(gpu.ctx, &e.device);
  return e;
}

struct Case {
  int64_t tokens, experts, top_k, hidden, width;
  bool skewed = false;  // every token chooses the same experts
};

void Check(CudaContext& gpu, std::mt19937& rng, const Case& c, DType act, DType weight,
           const ops::QuantScheme& scheme = {}) {
  SCOPED_TRACE(testing::Message() << c.tokens << " tokens, " << c.top_k << " of " << c.experts << " experts, "
                                  << c.hidden << " x " << c.width << " " << DTypeName(act) << " "
                                  << DTypeName(weight) << " to " << scheme.bits << " bits, groups of "
                                  << scheme.group_size);
  const Experts e = MakeExperts(gpu, rng, weight, c.experts, c.hidden, c.width, scheme);
  Tensor ids(DType::kInt32, Device{}, {c.tokens, c.top_k});
  Tensor weights(DType::kFloat32, Device{}, {c.tokens, c.top_k});
  Tensor logits = Random(rng, DType::kFloat32, {c.tokens, c.experts}, 2.0f);
  if (c.skewed) {
    for (int64_t i = 0; i < c.tokens * c.experts; ++i)
      logits.view().As<float>()[i] -= 100.0f * (i % c.experts);
  }
  reference::RouteSoftmax(ids, weights, logits, {}, 1e-12f, false);
  // The rows are slices of wider ones.
  const Tensor wide = Random(rng, act, {c.tokens, c.hidden + 8});
  const Tensor in_host(act, Device{}, {c.tokens, c.hidden});
  for (int64_t r = 0; r < c.tokens; ++r) {
    for (int64_t i = 0; i < c.hidden; ++i) {
      Set(in_host, r * c.hidden + i, Get(wide, r * (c.hidden + 8) + i));
    }
  }
  Tensor expected(DType::kFloat32, Device{}, {c.tokens, c.hidden});
  reference::MoeExperts(expected, in_host, e.gate_up, e.down, ids, weights, act);

  const Tensor in = ToDevice(gpu, wide), device_ids = ToDevice(gpu, ids),
               device_weights = ToDevice(gpu, weights);
  const Tensor out = PoisonedOnDevice(gpu, act, {c.tokens, c.hidden});
  ops::MoeExperts(gpu.ctx, out, in.view().Columns(0, c.hidden), e.device, device_ids, device_weights);
  EXPECT_EQ(gpu.workspace.Mark(), 0);
  const Tensor found = ToHost(gpu, out);
  // Roundings to bfloat16 on the way; values are of the order of 0.3.
  ExpectClose(found, expected, act == DType::kFloat32 ? 4e-6 : 1e-2, act == DType::kFloat32 ? 1e-5 : 1.6e-2);
  // Batch invariance: one row alone, and the first half.
  for (const auto& [first, count] : {std::pair<int64_t, int64_t>{c.tokens - 1, 1}, {0, (c.tokens + 1) / 2}}) {
    const Tensor some = PoisonedOnDevice(gpu, act, {count, c.hidden});
    ops::MoeExperts(gpu.ctx, some, in.view().Columns(0, c.hidden).Rows(first, count), e.device,
                    device_ids.view().Rows(first, count), device_weights.view().Rows(first, count));
    ExpectSameBits(ToHost(gpu, some), found.view().Rows(first, count));
  }
}

TEST(CudaMoeExperts, MatchesReference) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(9);
  for (const Case& c : {Case{1, 4, 2, 48, 24}, Case{5, 6, 2, 192, 40}, Case{33, 3, 3, 50, 17},
                        Case{300, 8, 2, 64, 33}, Case{70, 5, 1, 72, 136, true}}) {
    for (DType act : {DType::kFloat32, DType::kBFloat16}) {
      for (DType weight : {DType::kFloat32, DType::kBFloat16}) Check(gpu, rng, c, act, weight);
    }
  }
}

// Every row tile and feature tile of the Hopper kernels, full and not.
TEST(CudaMoeExperts, BFloat16MatchesReference) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(10);
  for (const Case& c : {Case{1, 64, 6, 256, 128}, Case{8, 16, 4, 128, 96}, Case{40, 8, 2, 200, 72},
                        Case{64, 16, 6, 320, 192}, Case{150, 16, 2, 136, 104}, Case{300, 6, 3, 264, 200},
                        Case{257, 4, 2, 192, 264, true}, Case{900, 8, 6, 64, 64}, Case{2500, 5, 2, 64, 64}}) {
    Check(gpu, rng, c, DType::kBFloat16, DType::kBFloat16);
  }
}

// Quantised: with and without the SwiGLU in the first product, every row tile, and the plain kernel.
TEST(CudaMoeExperts, QuantizedMatchesReference) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(12);
  for (const ops::QuantScheme& scheme :
       {ops::QuantScheme{8, 0}, ops::QuantScheme{4, 0}, ops::QuantScheme{8, 128}, ops::QuantScheme{4, 32}}) {
    for (const Case& c : {Case{1, 64, 6, 256, 128}, Case{8, 16, 4, 128, 96}, Case{40, 8, 2, 200, 72},
                          Case{64, 16, 6, 320, 192}, Case{33, 40, 3, 50, 17}, Case{300, 6, 3, 264, 208},
                          Case{257, 4, 2, 192, 272, true}, Case{2500, 5, 2, 64, 272}}) {
      Check(gpu, rng, c, DType::kBFloat16, DType::kBFloat16, scheme);
      if (c.tokens < 100) Check(gpu, rng, c, DType::kFloat32, DType::kBFloat16, scheme);
    }
  }
}

TEST(CudaMoeExperts, ExtremeValuesStayInTheirRow) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(11);
  const int64_t tokens = 20, hidden = 64, width = 32, top_k = 2;
  const Experts e = MakeExperts(gpu, rng, DType::kBFloat16, 4, hidden, width);
  for (DType act : {DType::kFloat32, DType::kBFloat16}) {
    const Tensor in = Random(rng, act, {tokens, hidden});
    Tensor ids(DType::kInt32, Device{}, {tokens, top_k}), weights(DType::kFloat32, Device{}, {tokens, top_k});
    const Tensor logits = Random(rng, DType::kFloat32, {tokens, 4});
    reference::RouteSoftmax(ids, weights, logits, {}, 1e-12f, false);
    const auto run = [&] {
      const Tensor out = PoisonedOnDevice(gpu, act, {tokens, hidden});
      ops::MoeExperts(gpu.ctx, out, ToDevice(gpu, in), e.device, ToDevice(gpu, ids), ToDevice(gpu, weights));
      return ToHost(gpu, out);
    };
    const Tensor plain = run();
    for (int64_t i = 0; i < hidden; ++i) {
      Set(in, 3 * hidden + i, i % 2 == 0 ? 1e30f : -1e30f);
      Set(in, 7 * hidden + i, NAN);
      Set(in, 11 * hidden + i, INFINITY);
    }
    const Tensor broken = run();
    for (int64_t r = 0; r < tokens; ++r) {
      if (r == 3 || r == 7 || r == 11) {
        EXPECT_FALSE(std::isfinite(Get(broken, r * hidden)) && r == 7);
      } else {
        ExpectSameBits(broken.view().Rows(r, 1), plain.view().Rows(r, 1));
      }
    }
  }
}

}  // namespace
}  // namespace fd
