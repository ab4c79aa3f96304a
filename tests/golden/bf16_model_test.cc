// ERNIE-4.5 in bfloat16 as README.md judges it: share of the logits' deviation, and argmax wherever the
// margin is wide, teacher-forced.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "tests/golden/model_run.h"

namespace fd::golden {
namespace {

struct Judgement {
  std::vector<double> rms_shares;  // one a compared row
  int64_t equal = 0, steps = 0;
  float widest_flip = 0;  // largest margin at which argmax differed

  double Median() {
    std::sort(rms_shares.begin(), rms_shares.end());
    return rms_shares[rms_shares.size() / 2];
  }
  double Largest() const { return *std::max_element(rms_shares.begin(), rms_shares.end()); }
};

void AddRow(Judgement& j, const std::vector<float>& got, const std::vector<float>& expected) {
  j.rms_shares.push_back(Rms(got, expected) / StandardDeviation(expected));
}

// Feeds transformers' tokens and compares argmax at each step.
void AddSteps(Judgement& j, Sequence& sequence, std::vector<float> logits, const GoldenFile& golden,
              const std::string& key) {
  const std::vector<int32_t> ids = golden.Ints(key + ".greedy_ids");
  const std::vector<float> top5 = golden.Floats(key + ".top5_logprobs");
  for (size_t step = 0; step < ids.size(); ++step) {
    ++j.steps;
    if (Argmax(logits) == ids[step]) {
      ++j.equal;
    } else {
      j.widest_flip = std::max(j.widest_flip, top5[5 * step] - top5[5 * step + 1]);
    }
    if (step + 1 < ids.size()) logits = sequence.Decode(ids[step]);
  }
}

void Report(const char* family, Judgement& j) {
  std::printf(
      "%s: rms / std median %.4f, largest %.4f; argmax equal %ld of %ld, widest flip at margin %.3f\n",
      family, j.Median(), j.Largest(), static_cast<long>(j.equal), static_cast<long>(j.steps),
      static_cast<double>(j.widest_flip));
}

Judgement JudgeText(const std::string& family) {
  GoldenFile golden(kCases + family + ".safetensors");
  Machine machine(kModels + family, DType::kBFloat16);
  Judgement j;
  for (const char* name : {"p1", "p7", "p64", "p65", "p200"}) {
    const std::string key = name;
    Prompt prompt;
    prompt.ids = golden.Ints(key + ".input_ids");
    std::vector<int32_t> positions = golden.Ints(key + ".positions");
    Sequence sequence(machine, prompt);
    auto rows = sequence.Prefill(0, {positions.begin(), positions.end()});
    const std::vector<float> expected = golden.Floats(key + ".logits");
    const size_t vocab = rows[0].size();
    for (size_t r = 0; r < rows.size(); ++r) {
      auto begin = expected.begin() + static_cast<int64_t>(r * vocab);
      AddRow(j, rows[r], {begin, begin + static_cast<int64_t>(vocab)});
    }
    AddSteps(j, sequence, rows.back(), golden, key);
  }
  Report(family.c_str(), j);
  return j;
}

TEST(BFloat16Model, Dense) {
  Judgement j = JudgeText("ernie4_5");
  EXPECT_LE(j.Largest(), 0.06);
  EXPECT_LE(j.widest_flip, 1.0f);
  EXPECT_GE(j.equal, 114);  // transformers: 118 of 120
}

// One token routed elsewhere moves a row by several standard deviations: the median judges.
TEST(BFloat16Model, Moe) {
  Judgement j = JudgeText("ernie4_5_moe");
  EXPECT_LE(j.Median(), 0.06);
  EXPECT_LE(j.widest_flip, 1.0f);
  EXPECT_GE(j.equal, 106);  // transformers: 112 of 120
}

// bfloat16 rows beside float32 rows of the same quantised weights, prefill and decode: other kernels, on the
// CPU also rows rounded to int8.
TEST(BFloat16Model, Quantized) {
  for (const char* family : {"ernie4_5", "ernie4_5_moe"}) {
    GoldenFile golden(kCases + family + ".safetensors");
    for (const Quantization& scheme : {Quantization{8, 0}, Quantization{4, 0}, Quantization{4, 32}}) {
      Judgement j;
      Machine rounded(kModels + family, DType::kBFloat16, 2, scheme);
      Machine exact(kModels + family, DType::kFloat32, 2, scheme);
      for (const char* name : {"p1", "p7", "p65", "p200"}) {
        const std::string key = name;
        Prompt prompt;
        prompt.ids = golden.Ints(key + ".input_ids");
        const int64_t last = static_cast<int64_t>(prompt.ids.size()) - 1;
        Sequence a(rounded, prompt), b(exact, prompt);
        AddRow(j, a.Prefill(0, {last})[0], b.Prefill(0, {last})[0]);
        for (int32_t id : golden.Ints(key + ".greedy_ids")) AddRow(j, a.Decode(id), b.Decode(id));
      }
      std::printf("%s, %d bits, groups of %ld: rms / std median %.4f, largest %.4f\n", family, scheme.bits,
                  static_cast<long>(scheme.group_size), j.Median(), j.Largest());
      EXPECT_LE(j.Median(), OnCuda() ? 0.035 : 0.1) << family << " " << scheme.bits;
    }
  }
}

TEST(BFloat16Model, VisionLanguage) {
  const std::string family = "ernie4_5_vl_moe";
  GoldenFile golden(kCases + family + ".safetensors");
  auto json = ReadJsonFile(kCases + family + ".json");
  ASSERT_TRUE(json.ok());
  Machine machine(kModels + family, DType::kBFloat16);
  Judgement j;
  for (const Json& c : json->Find("cases")->as_array()) {
    const std::string key = c.Find("name")->as_string();
    Sequence sequence(machine, LoadVlPrompt(machine, golden, c));
    std::vector<float> logits =
        sequence.Prefill(0, {static_cast<int64_t>(sequence.prompt().ids.size()) - 1})[0];
    AddRow(j, logits, golden.Floats(key + ".logits"));
    AddSteps(j, sequence, logits, golden, key);
  }
  Report(family.c_str(), j);
  EXPECT_LE(j.Median(), 0.08);
  EXPECT_GE(j.equal, 238);  // transformers: 247 of 264
}

}  // namespace
}  // namespace fd::golden
