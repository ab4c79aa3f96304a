// Penalties on the GPU: the CPU's bits, on made-up histories and on the golden cases; steps replayed from a
// graph.
#include "compute/ops/sample.h"
#include "tests/parity/cuda_parity.h"
#include "tests/parity/sampling.h"

namespace fd {
namespace {

using namespace parity;

struct DevicePenalties {
  DevicePenalties(CudaContext& gpu, const PenaltyTensors& p)
      : slots(ToDevice(gpu, p.slots)),
        repetition(ToDevice(gpu, p.repetition)),
        presence(ToDevice(gpu, p.presence)),
        frequency(ToDevice(gpu, p.frequency)),
        bias_offsets(ToDevice(gpu, p.bias_offsets)),
        bias_ids(ToDevice(gpu, p.bias_ids)),
        bias_values(ToDevice(gpu, p.bias_values)) {}
  operator ops::PenaltyParams() const {
    return {slots, repetition, presence, frequency, bias_offsets, bias_ids, bias_values};
  }
  Tensor slots, repetition, presence, frequency, bias_offsets, bias_ids, bias_values;
};

// Both devices; the table is `pad` columns wider than the vocabulary: with 4 its rows begin beside 16-byte
// borders, with 3 rows of 4 n + 1 tokens begin on them and end in one token alone.
void ExpectSame(CudaContext& gpu, Cpu& cpu, const std::vector<History>& histories, const TensorView& raw,
                int64_t vocab, int64_t pad) {
  const auto rows = static_cast<int64_t>(histories.size());
  const PenaltyTensors params(histories);
  Tensor logits(DType::kFloat32, Device{}, raw.shape), table(DType::kInt32, Device{}, {rows, vocab + pad});
  const Tensor device_logits = ToDevice(gpu, raw),
               device_table = PoisonedOnDevice(gpu, DType::kInt32, {rows, vocab + pad});
  ops::Copy(cpu.ctx, logits, raw);
  const int64_t first = pad == 4 ? 1 : 0;
  const TensorView seen = table.view().Columns(first, vocab),
                   device_seen = device_table.view().Columns(first, vocab);
  for (int64_t r = 0; r < rows; ++r) {
    const History& h = histories[static_cast<size_t>(r)];
    ops::ResetSeen(cpu.ctx, seen, r, Ids(h.prompt), Ids(h.output));
    ops::ResetSeen(gpu.ctx, device_seen, r, ToDevice(gpu, Ids(h.prompt)), ToDevice(gpu, Ids(h.output)));
  }
  ops::ApplyPenalties(cpu.ctx, logits, seen, params);
  ops::ApplyPenalties(gpu.ctx, device_logits, device_seen, DevicePenalties(gpu, params));
  ExpectSameBits(ToHost(gpu, device_seen), seen);
  ExpectSameBits(ToHost(gpu, device_logits), logits);
  EXPECT_EQ(gpu.workspace.Mark(), 0);
  if (pad == 0) return;
  const Tensor whole = ToHost(gpu, device_table);  // nothing beside the columns
  const int64_t outside = first > 0 ? 0 : vocab;
  for (int64_t r = 0; r < rows; ++r) EXPECT_EQ(whole.view().As<int32_t>()[r * (vocab + pad) + outside], -1);
}

TEST(CudaPenalties, SameBitsAsTheCpu) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  Cpu cpu;
  std::mt19937 rng(1);
  for (int64_t vocab : {1, 3, 64, 1001, 4096, 4097, 103424}) {
    for (int64_t pad : {0, 4, 3}) {
      SCOPED_TRACE(testing::Message() << vocab << " tokens, pad " << pad);
      const std::vector<History> histories = SomeHistories(rng, vocab);
      const Tensor raw =
          Random(rng, DType::kFloat32, {static_cast<int64_t>(histories.size()), vocab + 5}, 4.0f);
      ExpectSame(gpu, cpu, histories, raw, vocab, pad);
    }
  }
}

TEST(CudaPenalties, GoldenCases) {
  FD_SKIP_WITHOUT_GPU();
  const Golden golden;
  CudaContext gpu;
  Cpu cpu;
  int checked = 0;
  for (const Json& c : golden.cases.Find("cases")->as_array()) {
    const GoldenCase golden_case(c);
    if (!golden_case.edits) continue;
    ++checked;
    SCOPED_TRACE("case " + std::to_string(c.Find("id")->as_int()));
    std::vector<float> logits = golden.Read<float>(c.Find("logits")->as_string() + ".logits");
    const auto vocab = static_cast<int64_t>(logits.size());
    ExpectSame(gpu, cpu, {golden_case.history},
               TensorView(logits.data(), DType::kFloat32, Device{}, {1, vocab}), vocab, 0);
  }
  EXPECT_GE(checked, 100);
}

TEST(CudaPenalties, ExtremeLogits) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  const ExtremeLogits extreme;
  const Tensor seen = PoisonedOnDevice(gpu, DType::kInt32, {1, ExtremeLogits::kTokens}),
               logits = ToDevice(gpu, extreme.logits);
  ops::ResetSeen(gpu.ctx, seen, 0, TensorView(), ToDevice(gpu, extreme.all_ids));
  ops::ApplyPenalties(gpu.ctx, logits, seen, DevicePenalties(gpu, extreme.params));
  extreme.Expect(ToHost(gpu, logits));
}

// Penalties, the greedy token, its count: captured once, replayed for every token, without the host.
TEST(CudaPenalties, StepsReplayedFromAGraph) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  Cpu cpu;
  std::mt19937 rng(3);
  const int64_t rows = 5, vocab = 5003, slots = 9;
  const int steps = 40;
  const Tensor raw = Random(rng, DType::kFloat32, {rows, vocab}, 1.0f), device_raw = ToDevice(gpu, raw);
  std::vector<History> histories(static_cast<size_t>(rows));
  for (History& h : histories) h = {{1, 2, 3}, {}, 1.2f, 0.4f, 0.3f, {{7, 2.0f}}};
  histories[2] = {};
  PenaltyTensors params(histories);
  const std::vector<int32_t> slot_of = {4, 8, -1, 0, 5};
  std::copy(slot_of.begin(), slot_of.end(), params.slots.view().As<int32_t>());
  const ParamTensors sampling(rows, Params{0});
  const DevicePenalties device_params(gpu, params);
  const Tensor temperature = ToDevice(gpu, sampling.temperature), top_k = ToDevice(gpu, sampling.top_k),
               top_p = ToDevice(gpu, sampling.top_p), min_p = ToDevice(gpu, sampling.min_p),
               seed = ToDevice(gpu, sampling.seed), position = ToDevice(gpu, sampling.position);
  const ops::SampleParams device_sampling = {temperature, top_k, top_p, min_p, seed, position};

  Tensor seen(DType::kInt32, Device{}, {slots, vocab}), logits(DType::kFloat32, Device{}, {rows, vocab}),
      ids(DType::kInt32, Device{}, {rows}), logprobs(DType::kFloat32, Device{}, {rows});
  const Tensor device_seen(DType::kInt32, kGpu, {slots, vocab}),
      device_logits(DType::kFloat32, kGpu, {rows, vocab}), device_ids(DType::kInt32, kGpu, {rows}),
      device_logprobs(DType::kFloat32, kGpu, {rows});
  const auto step = [&](const ops::Context& ctx, const TensorView& from, const TensorView& row,
                        const TensorView& table, const TensorView& id, const TensorView& logprob,
                        const ops::PenaltyParams& penalties, const ops::SampleParams& sample,
                        const TensorView& token_rows) {
    ops::Copy(ctx, row, from);
    ops::ApplyPenalties(ctx, row, table, penalties);
    ops::Sample(ctx, id, logprob, row, sample, vocab);
    ops::CountTokens(ctx, table, penalties.slots, id, token_rows);
  };
  const Tensor each_row = Ids({0, 1, 2, 3, 4}), device_each_row = ToDevice(gpu, each_row);
  const auto device_step = [&] {
    step(gpu.ctx, device_raw, device_logits, device_seen, device_ids, device_logprobs, device_params,
         device_sampling, device_each_row);
  };
  device_step();  // loads the kernels
  const Tensor prompt = Ids(histories[0].prompt), device_prompt = ToDevice(gpu, prompt);
  for (int64_t s = 0; s < slots; ++s) {
    ops::ResetSeen(cpu.ctx, seen, s, prompt, TensorView());
    ops::ResetSeen(gpu.ctx, device_seen, s, device_prompt, TensorView());
  }
  cuda::BeginCapture(gpu.stream);
  device_step();
  void* graph = cuda::EndCapture(gpu.stream);
  int changed = 0;
  for (int i = 0; i < steps; ++i) {
    SCOPED_TRACE(testing::Message() << "step " << i);
    cuda::LaunchGraph(graph, gpu.stream);
    const Tensor before(DType::kInt32, Device{}, {rows});
    ops::Copy(cpu.ctx, before, ids);
    step(cpu.ctx, raw, logits, seen, ids, logprobs, params, sampling, each_row);
    ExpectSameBits(ToHost(gpu, device_ids), ids);
    ExpectSameBits(ToHost(gpu, device_seen), seen);
    changed += i > 0 && std::memcmp(before.view().data, ids.view().data, static_cast<size_t>(4 * rows)) != 0;
  }
  EXPECT_GT(changed, steps / 2);  // penalties drive the rows on to other tokens
  cuda::DestroyGraph(graph);
}

TEST(CudaPenalties, BansGoByTheLastToken) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  const BanCase bans;
  const Tensor logits = ToDevice(gpu, bans.logits), seen = ToDevice(gpu, bans.seen),
               offsets = ToDevice(gpu, bans.ban_offsets), ids = ToDevice(gpu, bans.ban_ids),
               after = ToDevice(gpu, bans.ban_after), tokens = ToDevice(gpu, bans.tokens),
               rows = ToDevice(gpu, bans.token_rows);
  const DevicePenalties edits(gpu, bans.edits);
  ops::PenaltyParams params = edits;
  params.ban_offsets = offsets;
  params.ban_ids = ids;
  params.ban_after = after;
  params.tokens = tokens;
  params.token_rows = rows;
  ops::ApplyPenalties(gpu.ctx, logits, seen, params);
  bans.Expect(ToHost(gpu, logits));
}

TEST(CudaPenalties, OnlyAllowedTokensAreLeft) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  Cpu cpu;
  std::mt19937 rng(6);
  for (int64_t vocab : {1, 3, 31, 64, 1001, 4096, 4097, 103424}) {
    std::vector<History> histories = SomeHistories(rng, vocab);
    histories.insert(histories.end(), histories.begin(), histories.begin() + 4);
    const auto rows = static_cast<int64_t>(histories.size());
    const AllowedTokens allowed(rng, rows, vocab);
    const PenaltyTensors edits(histories);
    const Tensor raw = Random(rng, DType::kFloat32, {rows, vocab + 5}, 4.0f);
    raw.view().As<float>()[1 * (vocab + 5)] = NAN;
    Tensor logits(DType::kFloat32, Device{}, {rows, vocab + 5}), seen(DType::kInt32, Device{}, {rows, vocab});
    const Tensor device_logits = ToDevice(gpu, raw),
                 device_seen = PoisonedOnDevice(gpu, DType::kInt32, {rows, vocab});
    ops::Copy(cpu.ctx, logits, raw);
    for (int64_t r = 0; r < rows; ++r) {
      const History& h = histories[static_cast<size_t>(r)];
      ops::ResetSeen(cpu.ctx, seen, r, Ids(h.prompt), Ids(h.output));
      ops::ResetSeen(gpu.ctx, device_seen, r, ToDevice(gpu, Ids(h.prompt)), ToDevice(gpu, Ids(h.output)));
    }
    ops::PenaltyParams params = edits;
    params.allow_offsets = allowed.offsets;
    params.allow_ids = allowed.ids;
    ops::ApplyPenalties(cpu.ctx, logits, seen, params);
    const DevicePenalties device_edits(gpu, edits);
    const Tensor offsets = ToDevice(gpu, allowed.offsets), ids = ToDevice(gpu, allowed.ids);
    ops::PenaltyParams device_params = device_edits;
    device_params.allow_offsets = offsets;
    device_params.allow_ids = ids;
    ops::ApplyPenalties(gpu.ctx, device_logits, device_seen, device_params);
    SCOPED_TRACE(testing::Message() << vocab << " tokens");
    const Tensor computed = ToHost(gpu, device_logits);
    // A device computes with a NaN as it likes, and keeps no bits of it.
    for (const Tensor* t : std::initializer_list<const Tensor*>{&computed, &logits}) {
      for (float* x = t->view().As<float>(); x < t->view().As<float>() + rows * (vocab + 5); ++x) {
        if (std::isnan(*x)) *x = NAN;
      }
    }
    ExpectSameBits(computed, logits);
  }
}

TEST(CudaPenalties, HistoriesEnteredInPieces) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  const Tensor whole = PoisonedOnDevice(gpu, DType::kInt32, {1, 10}),
               pieces = PoisonedOnDevice(gpu, DType::kInt32, {1, 10});
  ops::ResetSeen(gpu.ctx, whole, 0, ToDevice(gpu, Ids({4, 4, 9, 3})), ToDevice(gpu, Ids({9, 2, 2, 4})));
  ops::ResetSeen(gpu.ctx, pieces, 0, ToDevice(gpu, Ids({4})), TensorView());
  ops::EnterSeen(gpu.ctx, pieces, 0, ToDevice(gpu, Ids({4, 9, -1, 10})), TensorView());
  ops::EnterSeen(gpu.ctx, pieces, 0, ToDevice(gpu, Ids({3})), ToDevice(gpu, Ids({9, 2})));
  ops::EnterSeen(gpu.ctx, pieces, 0, TensorView(), ToDevice(gpu, Ids({2, 4})));
  ExpectSameBits(ToHost(gpu, pieces), ToHost(gpu, whole));
}

TEST(CudaPenalties, TokenLogprobsAreTheBitsOfSample) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(5);
  const int64_t rows = 6, vocab = 103424;
  const Tensor logits = ToDevice(gpu, Random(rng, DType::kFloat32, {rows, vocab}, 3.0f));
  const ParamTensors params(rows, Params{0.9f});
  const Tensor temperature = ToDevice(gpu, params.temperature), top_k = ToDevice(gpu, params.top_k),
               top_p = ToDevice(gpu, params.top_p), min_p = ToDevice(gpu, params.min_p),
               seed = ToDevice(gpu, params.seed), position = ToDevice(gpu, params.position);
  const Tensor ids(DType::kInt32, kGpu, {rows}), expected(DType::kFloat32, kGpu, {rows}),
      logprobs(DType::kFloat32, kGpu, {rows});
  ops::Sample(gpu.ctx, ids, expected, logits, {temperature, top_k, top_p, min_p, seed, position}, vocab);
  ops::TokenLogprobs(gpu.ctx, logprobs, logits, ids, vocab);
  ExpectSameBits(ToHost(gpu, logprobs), ToHost(gpu, expected));
  ops::TokenLogprobs(gpu.ctx, logprobs, logits, ToDevice(gpu, Ids({-1, 0, 5, 103424, 1, 2})), vocab);
  const Tensor host = ToHost(gpu, logprobs);
  for (int64_t r = 0; r < rows; ++r) EXPECT_EQ(std::isnan(host.view().As<float>()[r]), r == 0 || r == 3) << r;
}

}  // namespace
}  // namespace fd
