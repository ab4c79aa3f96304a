// ERNIE-4.5 dense and MoE in float32 against transformers: logits, 24 greedy tokens, hidden states; chunked
// and batched runs.
#include <gtest/gtest.h>

#include "tests/golden/model_run.h"

namespace fd::golden {
namespace {

constexpr float kTolerance = 1e-3f;

const char* const kFamilies[] = {"ernie4_5", "ernie4_5_moe"};
const char* const kPrompts[] = {"p1", "p7", "p64", "p65", "p200"};

std::vector<int64_t> Wanted(const GoldenFile& golden, const std::string& prompt) {
  std::vector<int32_t> positions = golden.Ints(prompt + ".positions");
  return {positions.begin(), positions.end()};
}

// Compares the stored rows, then 24 greedy steps.
void CheckPrompt(Machine& machine, const GoldenFile& golden, const std::string& name, int64_t chunk) {
  SCOPED_TRACE(StrCat(name, " in chunks of ", chunk));
  Prompt prompt;
  prompt.ids = golden.Ints(name + ".input_ids");
  Sequence sequence(machine, prompt);
  auto rows = sequence.Prefill(chunk, Wanted(golden, name));
  std::vector<float> all;
  for (const auto& row : rows) all.insert(all.end(), row.begin(), row.end());
  EXPECT_LE(MaxAbsDifference(all, golden.Floats(name + ".logits")), kTolerance);

  const std::vector<int32_t> greedy = golden.Ints(name + ".greedy_ids"),
                             top5 = golden.Ints(name + ".top5_ids");
  const std::vector<float> logprobs = golden.Floats(name + ".greedy_logprobs"),
                           top5_logprobs = golden.Floats(name + ".top5_logprobs");
  std::vector<float> logits = rows.back();
  for (size_t step = 0; step < greedy.size(); ++step) {
    ASSERT_EQ(Argmax(logits), greedy[step]) << "step " << step;
    std::vector<float> p = LogSoftmax(logits);
    EXPECT_NEAR(p[static_cast<size_t>(greedy[step])], logprobs[step], kTolerance);
    for (size_t k = 0; k < 5; ++k) {
      EXPECT_NEAR(p[static_cast<size_t>(top5[5 * step + k])], top5_logprobs[5 * step + k], kTolerance);
    }
    std::vector<float> sorted = p;
    std::nth_element(sorted.begin(), sorted.begin() + 4, sorted.end(), std::greater<>());
    EXPECT_NEAR(sorted[4], top5_logprobs[5 * step + 4], kTolerance);
    if (step + 1 < greedy.size()) logits = sequence.Decode(greedy[step]);
  }
}

TEST(TextModel, LogitsAndGreedyTokens) {
  for (const char* family : kFamilies) {
    SCOPED_TRACE(family);
    GoldenFile golden(kCases + family + ".safetensors");
    Machine machine(kModels + family, DType::kFloat32);
    for (const char* prompt : kPrompts) {
      for (int64_t chunk : {0, 64, 7}) CheckPrompt(machine, golden, prompt, chunk);
    }
  }
}

TEST(TextModel, HiddenStates) {
  for (const char* family : kFamilies) {
    SCOPED_TRACE(family);
    GoldenFile golden(kCases + family + ".safetensors");
    Machine machine(kModels + family, DType::kFloat32);
    std::map<std::string, std::vector<float>> seen;
    machine.model().probe = [&](const std::string& name, const TensorView& value) {
      seen[name] = ToFloats(value.Rows(value.dim(0) - 1, 1));
    };
    Prompt prompt;
    prompt.ids = golden.Ints("p65.input_ids");
    Sequence(machine, prompt).Prefill(0, {64});
    for (const char* name : {"embed", "layer0", "layer1", "layer2", "final_norm"}) {
      ASSERT_TRUE(seen.count(name)) << name;
      EXPECT_LE(MaxAbsDifference(seen[name], golden.Floats(std::string("p65.hidden.") + name)), 1e-4f)
          << name;
    }
  }
}

// The same bits whether a sequence runs alone or among others, in one piece or in chunks, with one thread or
// two. On CUDA matrix products of other shapes add in another order: there float32 agrees within its
// rounding.
TEST(TextModel, BatchAndChunkInvariance) {
  for (const char* family : kFamilies) {
    for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      SCOPED_TRACE(StrCat(family, " ", DTypeName(dtype)));
      if (OnCuda() && dtype == DType::kBFloat16) continue;  // judged by bf16_model_test.cc
      const float tolerance = OnCuda() ? 1e-4f : 0.0f;
      GoldenFile golden(kCases + family + ".safetensors");
      Machine alone(kModels + family, dtype, 1), among(kModels + family, dtype, 2);
      Prompt a, b, c;
      a.ids = golden.Ints("p65.input_ids");
      b.ids = golden.Ints("p200.input_ids");
      c.ids = golden.Ints("p7.input_ids");
      Sequence whole(alone, a), whole_b(alone, b);
      const std::vector<float> expected = whole.Prefill(0, {64})[0],
                               expected_b = whole_b.Prefill(0, {199})[0];
      const std::vector<float> expected_next = whole.Decode(42);

      Sequence s(among, a), t(among, b), u(among, c);
      Sequence::Step(among, {{&u, 7, {6}}, {&s, 30, {}}, {&t, 91, {}}});
      u.Append(9);
      auto step = Sequence::Step(among, {{&u, 1, {7}}, {&s, 35, {64}}, {&t, 108, {}}});
      EXPECT_LE(MaxAbsDifference(step[1], expected), tolerance);
      s.Append(42);
      step = Sequence::Step(among, {{&s, 1, {65}}, {&t, 1, {199}}});
      EXPECT_LE(MaxAbsDifference(step[0], expected_next), tolerance);
      EXPECT_LE(MaxAbsDifference(step[1], expected_b), tolerance);
    }
  }
}

// What ForwardScratchBytes says is enough, so a step allocates nothing.
TEST(TextModel, ScratchIsPlanned) {
  for (const char* family : kFamilies) {
    for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      GoldenFile golden(kCases + family + ".safetensors");
      Machine machine(kModels + family, dtype);
      for (const char* name : {"p1", "p7", "p200"}) {
        Prompt prompt;
        prompt.ids = golden.Ints(std::string(name) + ".input_ids");
        const int64_t n = static_cast<int64_t>(prompt.ids.size());
        Sequence(machine, prompt).Prefill(0, {n - 1});
        EXPECT_LE(machine.workspace().peak_bytes(),
                  ForwardScratchBytes(machine.ctx(), machine.model().config(), dtype, n, 1, n))
            << family << " " << name;
        EXPECT_EQ(machine.workspace().Mark(), 0);
      }
    }
  }
}

}  // namespace
}  // namespace fd::golden
