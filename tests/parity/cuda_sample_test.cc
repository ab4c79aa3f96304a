// Sampling on the GPU: the golden distributions, the reference on a real vocabulary, and the CPU's draws.
#include <algorithm>

#include "compute/kernels/reference/sample.h"
#include "compute/ops/sample.h"
#include "tests/parity/cuda_parity.h"
#include "tests/parity/sampling.h"

namespace fd {
namespace {

using namespace parity;

// Device copies of host parameters.
struct DeviceParams {
  DeviceParams(CudaContext& gpu, const ParamTensors& p)
      : temperature(ToDevice(gpu, p.temperature)),
        top_k(ToDevice(gpu, p.top_k)),
        top_p(ToDevice(gpu, p.top_p)),
        min_p(ToDevice(gpu, p.min_p)),
        seed(ToDevice(gpu, p.seed)),
        position(ToDevice(gpu, p.position)) {}
  operator ops::SampleParams() const { return {temperature, top_k, top_p, min_p, seed, position}; }
  Tensor temperature, top_k, top_p, min_p, seed, position;
};

std::vector<float> Probs(CudaContext& gpu, const std::vector<float>& logits, const Params& p, int64_t valid) {
  const int64_t vocab = static_cast<int64_t>(logits.size());
  const Tensor in(DType::kFloat32, Device{}, {1, vocab});
  std::copy(logits.begin(), logits.end(), in.view().As<float>());
  const Tensor out = PoisonedOnDevice(gpu, DType::kFloat32, {1, vocab});
  ops::SampleProbs(gpu.ctx, out, ToDevice(gpu, in), DeviceParams(gpu, ParamTensors(1, p)), valid);
  EXPECT_EQ(gpu.workspace.Mark(), 0);
  return Values(ToHost(gpu, out));
}

struct Drawn {
  Tensor ids, logprobs;
};
Drawn Draw(CudaContext& gpu, const TensorView& logits, const ops::SampleParams& params, int64_t valid) {
  const int64_t rows = logits.dim(0);
  const Tensor ids = PoisonedOnDevice(gpu, DType::kInt32, {rows});
  const Tensor logprobs = PoisonedOnDevice(gpu, DType::kFloat32, {rows});
  ops::Sample(gpu.ctx, ids, logprobs, logits, params, valid);
  EXPECT_EQ(gpu.workspace.Mark(), 0);
  return {ToHost(gpu, ids), ToHost(gpu, logprobs)};
}

TEST(CudaSample, GoldenDistributions) {
  FD_SKIP_WITHOUT_GPU();
  const Golden golden;
  CudaContext gpu;
  int checked = 0;
  for (const Json& c : golden.cases.Find("cases")->as_array()) {
    const GoldenCase golden_case(c);
    if (golden_case.edits) continue;  // their logits are those of the CPU, bit by bit: cuda_penalties_test.cc
    const Params& p = golden_case.params;
    ++checked;
    const std::string id = std::to_string(c.Find("id")->as_int());
    SCOPED_TRACE("case " + id);
    const std::vector<float> logits = golden.Read<float>(c.Find("logits")->as_string() + ".logits");
    const std::vector<int32_t> ids = golden.Read<int32_t>(id + ".ids");
    const std::vector<double> probs = golden.Read<double>(id + ".probs");
    const float largest = *std::max_element(logits.begin(), logits.end());
    const std::vector<float> found = Probs(gpu, logits, p, static_cast<int64_t>(logits.size()));
    size_t kept = 0;
    for (size_t i = 0; i < ids.size(); ++i) {
      const size_t token = static_cast<size_t>(ids[i]);
      kept += probs[i] > 1e-36;
      // As in sample_test.cc: the decimal temperature against its float32 neighbour.
      const double z =
          p.temperature > 0 ? (largest - logits[token]) / static_cast<double>(p.temperature) : 0.0;
      EXPECT_NEAR(static_cast<double>(found[token]), probs[i], (1e-6 + z * 6e-8) * probs[i] + 1e-37);
    }
    EXPECT_EQ(
        static_cast<size_t>(std::count_if(found.begin(), found.end(), [](float x) { return x > 1e-36f; })),
        kept);
  }
  EXPECT_GE(checked, 90);
}

TEST(CudaSample, AgainstReferenceOnARealVocabulary) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(3);
  for (int64_t vocab : {1, 2, 17, 1000, 103424}) {
    for (float spread : {0.0f, 1.0f, 4.0f}) {
      std::vector<float> logits(static_cast<size_t>(vocab + 5), 1e6f);  // beyond valid_vocab are large ones
      std::normal_distribution<float> normal(-3.0f, 1.0f);
      for (int64_t i = 0; i < vocab; ++i) logits[static_cast<size_t>(i)] = spread * normal(rng);
      const std::vector<float> valid(logits.begin(), logits.begin() + vocab);
      for (const Params& p : {Params{}, Params{0.7f}, Params{0}, Params{1, 1}, Params{0.9f, 50},
                              Params{1, 0, 0.9f}, Params{1.3f, 200, 0.8f, 0.01f}, Params{1, 0, 1, 0.2f}}) {
        SCOPED_TRACE(testing::Message() << vocab << " spread " << spread << " T " << p.temperature << " k "
                                        << p.top_k << " p " << p.top_p << " min " << p.min_p);
        const std::vector<double> expected =
            reference::SampleProbs(valid, static_cast<double>(p.temperature), p.top_k,
                                   static_cast<double>(p.top_p), static_cast<double>(p.min_p));
        const std::vector<float> found = Probs(gpu, logits, p, vocab);
        for (size_t i = 0; i < found.size(); ++i) {
          const double want = i < expected.size() ? expected[i] : 0.0;
          ASSERT_EQ(found[i] > 0, static_cast<float>(want) > 0) << "token " << i << ": " << want;
          ASSERT_NEAR(static_cast<double>(found[i]), want, 2e-6 * want + 1e-30) << "token " << i;
        }
      }
    }
  }
}

// The same token as the CPU for the same (seed, position), rows with different parameters in one launch.
TEST(CudaSample, DrawsWhatTheCpuDraws) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  Cpu cpu;
  std::mt19937 rng(5);
  const Params kinds[] = {Params{},
                          Params{0},
                          Params{0.8f, 0, 0.95f},
                          Params{1.3f, 40},
                          Params{1, 1},
                          Params{0.6f, 20, 0.8f},
                          Params{1.5f, 0, 1, 0.05f}};
  for (int64_t vocab : {37, 5003, 103424}) {
    const int64_t rows = 4 * 7;
    const Tensor logits = Random(rng, DType::kFloat32, {rows, vocab}, 2.0f);
    ParamTensors params(rows, Params{});
    for (int64_t r = 0; r < rows; ++r) {
      const Params& p = kinds[r % 7];
      params.temperature.view().As<float>()[r] = p.temperature;
      params.top_k.view().As<int32_t>()[r] = p.top_k;
      params.top_p.view().As<float>()[r] = p.top_p;
      params.min_p.view().As<float>()[r] = p.min_p;
      params.seed.view().As<int64_t>()[r] = r % 2 == 0 ? -1 - r : r;
      params.position.view().As<int64_t>()[r] = (int64_t{1} << 33) * (r % 3) + r;
    }
    Tensor ids(DType::kInt32, Device{}, {rows}), logprobs(DType::kFloat32, Device{}, {rows});
    ops::Sample(cpu.ctx, ids, logprobs, logits, params, vocab);
    const Tensor device_logits = ToDevice(gpu, logits);
    const DeviceParams device_params(gpu, params);
    const Drawn drawn = Draw(gpu, device_logits, device_params, vocab);
    for (int64_t r = 0; r < rows; ++r) {
      EXPECT_EQ(drawn.ids.view().As<int32_t>()[r], ids.view().As<int32_t>()[r]) << "row " << r;
      EXPECT_NEAR(drawn.logprobs.view().As<float>()[r], logprobs.view().As<float>()[r], 1e-5f) << "row " << r;
    }
    const Drawn again = Draw(gpu, device_logits, device_params, vocab);
    ExpectSameBits(again.ids, drawn.ids);
    ExpectSameBits(again.logprobs, drawn.logprobs);
  }
}

TEST(CudaSample, GreedyTiesAndBrokenRows) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  const int64_t vocab = 75;
  enum { kTie, kNan, kAllMinusInf, kInfinity, kOneFinite, kNanBeyond, kLastColumn, kRows };
  Tensor logits(DType::kFloat32, Device{}, {kRows, vocab});
  auto row = [&](int r) { return logits.view().As<float>() + r * vocab; };
  for (int r = 0; r < kRows; ++r) std::fill(row(r), row(r) + vocab, r == kTie ? 2.0f : -INFINITY);
  row(kTie)[40] = row(kTie)[11] = row(kTie)[69] = 3.0f;
  row(kNan)[5] = 1;
  row(kNan)[68] = NAN;
  std::fill(row(kInfinity), row(kInfinity) + 60, -1.0f);
  row(kInfinity)[33] = INFINITY;
  row(kOneFinite)[50] = -1e30f;
  row(kNanBeyond)[7] = 0;
  row(kNanBeyond)[72] = NAN;
  row(kLastColumn)[69] = 0;
  row(kLastColumn)[70] = 100;
  const int32_t expected[kRows] = {11, -1, -1, 33, 50, 7, 69};
  for (const Params& p : {Params{0}, Params{1}, Params{1, 0, 0.9f}}) {
    const Drawn drawn = Draw(gpu, ToDevice(gpu, logits), DeviceParams(gpu, ParamTensors(kRows, p)), 70);
    for (int r = p.temperature > 0 ? 1 : 0; r < kRows; ++r) {
      EXPECT_EQ(drawn.ids.view().As<int32_t>()[r], expected[r]) << "row " << r << " T " << p.temperature;
      if (expected[r] >= 0 && r != kTie) {
        EXPECT_NEAR(drawn.logprobs.view().As<float>()[r], 0.0f, 1e-6f) << r;
      }
    }
  }
}

// Ids of the reference and of Sample, values of the CPU; the same bits again, and for a row alone.
TEST(CudaTopLogprobs, AgainstReferenceAndSample) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  Cpu cpu;
  std::mt19937 rng(6);
  for (int64_t vocab : {1, 2, 19, 33, 1000, 8193, 103424}) {
    for (float spread : {0.0f, 0.05f, 3.0f}) {
      for (int64_t max_k : {1, 5, 32}) {
        SCOPED_TRACE(testing::Message() << vocab << " spread " << spread << " columns " << max_k);
        const int64_t rows = 7;
        const Tensor logits = Random(rng, DType::kFloat32, {rows, vocab + 3}, spread);
        // Steps, so that many are equal; the columns beyond valid_vocab are the largest.
        for (int64_t i = 0; i < logits.view().NumElements(); ++i) {
          float& x = logits.view().As<float>()[i];
          x = i % (vocab + 3) >= vocab ? 1e6f : std::round(x * 64) / 64;
        }
        const Tensor k = Ids({0, 1, 5, 20, 32, 99, -3});
        const Tensor device_logits = ToDevice(gpu, logits), device_k = ToDevice(gpu, k);
        Tensor expected(DType::kInt32, Device{}, {rows, max_k}),
            values(DType::kFloat32, Device{}, {rows, max_k});
        ops::TopLogprobs(cpu.ctx, expected, values, logits, k, vocab);
        const auto top = [&](const TensorView& in, const TensorView& wanted) {
          const int64_t n = in.dim(0);
          const Tensor ids = PoisonedOnDevice(gpu, DType::kInt32, {n, max_k + 2}),
                       out = PoisonedOnDevice(gpu, DType::kFloat32, {n, max_k + 1});
          ops::TopLogprobs(gpu.ctx, ids.view().Columns(1, max_k), out.view().Columns(1, max_k), in, wanted,
                           vocab);
          EXPECT_EQ(gpu.workspace.Mark(), 0);
          return Drawn{ToHost(gpu, ids.view().Columns(1, max_k)), ToHost(gpu, out.view().Columns(1, max_k))};
        };
        const Drawn found = top(device_logits, device_k), again = top(device_logits, device_k);
        ExpectSameBits(found.ids, expected);
        ExpectClose(found.logprobs, values, 1e-5, 0);
        ExpectSameBits(again.ids, found.ids);
        ExpectSameBits(again.logprobs, found.logprobs);
        const Drawn alone = top(device_logits.view().Rows(4, 1), device_k.view().Rows(4, 1));
        ExpectSameBits(alone.ids, found.ids.view().Rows(4, 1));
        ExpectSameBits(alone.logprobs, found.logprobs.view().Rows(4, 1));
        const Drawn greedy =
            Draw(gpu, device_logits, DeviceParams(gpu, ParamTensors(rows, Params{0})), vocab);
        for (int64_t r = 1; r < 6; ++r) {
          EXPECT_EQ(found.ids.view().As<int32_t>()[r * max_k], greedy.ids.view().As<int32_t>()[r]);
          EXPECT_EQ(found.logprobs.view().As<float>()[r * max_k], greedy.logprobs.view().As<float>()[r]);
        }
      }
    }
  }
}

TEST(CudaTopLogprobs, ExtremeAndBrokenRows) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  const TopRows rows;
  const Tensor ids = PoisonedOnDevice(gpu, DType::kInt32, {TopRows::kRows, 4}),
               values = PoisonedOnDevice(gpu, DType::kFloat32, {TopRows::kRows, 4});
  ops::TopLogprobs(gpu.ctx, ids, values, ToDevice(gpu, rows.logits), ToDevice(gpu, rows.k), TopRows::kValid);
  rows.Expect(ToHost(gpu, ids), ToHost(gpu, values));
}

TEST(CudaTokenRanks, AgainstReference) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(8);
  for (int64_t vocab : {1, 2, 19, 33, 1000, 8193, 103424}) {
    for (float spread : {0.0f, 0.05f, 3.0f}) {
      const RankRows rows(rng, vocab, spread);
      const Tensor logits = ToDevice(gpu, rows.logits), tokens = ToDevice(gpu, Ids(rows.tokens));
      const Tensor ranks = PoisonedOnDevice(gpu, DType::kInt32, {RankRows::kRows});
      ops::TokenRanks(gpu.ctx, ranks, logits, tokens, vocab);
      rows.Expect(ToHost(gpu, ranks));
      const Tensor alone = PoisonedOnDevice(gpu, DType::kInt32, {1});
      ops::TokenRanks(gpu.ctx, alone, logits.view().Rows(9, 1), tokens.view().Rows(9, 1), vocab);
      ExpectSameBits(ToHost(gpu, alone), ToHost(gpu, ranks.view().Rows(9, 1)));
    }
  }
}

// As the executor uses them: slices of a larger output, columns of a wider table, and the same bits in each.
TEST(CudaTokenRanks, ScoresOfSlicesAreThoseOfTheWhole) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  Cpu cpu;
  std::mt19937 rng(9);
  const int64_t rows = 23, vocab = 103424;
  const Tensor logits = Random(rng, DType::kFloat32, {rows, vocab}, 3.0f);
  std::vector<int32_t> picked;
  for (int64_t r = 0; r < rows; ++r) picked.push_back(static_cast<int32_t>(rng() % vocab));
  Tensor expected(DType::kFloat32, Device{}, {rows});
  ops::TokenLogprobs(cpu.ctx, expected, logits, Ids(picked), vocab);
  const Tensor on_device = ToDevice(gpu, logits), tokens = ToDevice(gpu, Ids(picked));
  const auto score = [&](int64_t slice) {
    const Tensor words = PoisonedOnDevice(gpu, DType::kInt32, {2 * rows});
    for (int64_t begin = 0; begin < rows; begin += slice) {
      const int64_t count = std::min(slice, rows - begin);
      TensorView logprobs = words.view().Rows(begin, count);
      logprobs.dtype = DType::kFloat32;
      ops::TokenLogprobs(gpu.ctx, logprobs, on_device.view().Rows(begin, count),
                         tokens.view().Rows(begin, count), vocab);
      ops::TokenRanks(gpu.ctx, words.view().Rows(rows + begin, count), on_device.view().Rows(begin, count),
                      tokens.view().Rows(begin, count), vocab);
    }
    EXPECT_EQ(gpu.workspace.Mark(), 0);
    return ToHost(gpu, words);
  };
  const Tensor whole = score(rows), slices = score(5);
  ExpectSameBits(slices, whole);
  TensorView found = whole.view().Rows(0, rows);
  found.dtype = DType::kFloat32;
  ExpectClose(found, expected, 1e-5, 0);
}

}  // namespace
}  // namespace fd
