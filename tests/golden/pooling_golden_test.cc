// Embeddings of the golden prompts through the real Engine against transformers: the last hidden states that
// were stored, and all stored logits, which are the head's product with them. The engine loads no head.
#include <gtest/gtest.h>

#include <cmath>
#include <condition_variable>
#include <mutex>

#include "engine/engine.h"
#include "tests/golden/device_under_test.h"
#include "tests/golden/engine_cases.h"

namespace fd {
namespace {

using golden::GoldenCase;
using golden::kCases;
using golden::kModels;
using golden::TextCases;
using golden::VlCases;
using Vectors = std::vector<std::vector<float>>;

EngineOptions Options(PoolingType type, int64_t budget, int64_t seqs) {
  EngineOptions o;
  o.pooling = type;
  o.max_num_batched_tokens = budget;
  o.max_num_seqs = seqs;
  o.num_kv_pages = 100;
  o.max_media_tokens = 256;
  o.encoder_cache_tokens = 4096;
  o.overlap = golden::OnCuda();
  return o;
}

// The vectors of these requests, submitted at once.
Vectors Embed(const std::string& family, const std::vector<GenerateRequest>& requests,
              const EngineOptions& options, DType dtype = DType::kFloat32) {
  golden::TestContext context_under_test;
  ops::Context& ctx = context_under_test.ctx;
  LoadOptions load;
  load.dtype = dtype;
  load.head = false;
  auto model = LoadModel(ctx, kModels + family, load);
  FD_CHECK(model.ok(), model.status().message());
  Engine engine(std::move(*model), ctx, options);
  std::mutex mutex;
  std::condition_variable changed;
  Vectors vectors(requests.size());
  size_t finished = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    GenerateRequest r = requests[i];
    r.id = i + 1;
    r.sink = [&, i](TokenEvent&& event) {
      std::lock_guard lock(mutex);
      EXPECT_EQ(event.finish_reason, FinishReason::kStop) << event.error.message();
      vectors[i] = std::move(event.embedding);
      ++finished;
      changed.notify_all();
    };
    const Status status = engine.Submit(std::move(r));
    EXPECT_TRUE(status.ok()) << status.message();
  }
  engine.Start();
  std::unique_lock lock(mutex);
  EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(300), [&] { return finished == requests.size(); }));
  EXPECT_EQ(engine.Stats().used_pages, 0);
  return vectors;
}

std::vector<GenerateRequest> RequestsOf(const std::vector<GoldenCase>& cases) {
  std::vector<GenerateRequest> requests;
  for (const GoldenCase& c : cases) requests.push_back(c.request);
  return requests;
}

void ExpectNear(const std::vector<float>& a, const std::vector<float>& b, float tolerance) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], tolerance) << "component " << i;
}

// logits[v] = head[v] . hidden in double precision, with the head as its file stores it.
std::vector<float> HeadOf(const std::string& family, const std::vector<float>& hidden) {
  auto file = SafetensorsFile::Open(StrCat(kModels, family, "/model.safetensors"));
  FD_CHECK(file.ok(), file.status().message());
  const bool own = (*file)->Find("lm_head.weight") != nullptr;
  const auto head = golden::Read<uint16_t>(**file, own ? "lm_head.weight" : "model.embed_tokens.weight");
  std::vector<float> logits;
  for (size_t v = 0; v < head.size() / hidden.size(); ++v) {
    double sum = 0;
    for (size_t k = 0; k < hidden.size(); ++k) {
      sum += static_cast<double>(ToFloat(BFloat16{head[v * hidden.size() + k]})) *
             static_cast<double>(hidden[k]);
    }
    logits.push_back(static_cast<float>(sum));
  }
  return logits;
}

void CheckFamily(const std::string& family, const std::vector<GoldenCase>& cases,
                 const std::vector<std::string>& with_hidden) {
  SCOPED_TRACE(family);
  auto golden_file = SafetensorsFile::Open(StrCat(kCases, family, ".safetensors"));
  ASSERT_TRUE(golden_file.ok());
  Vectors first;
  for (int64_t budget : {4096, 64, 7}) {
    SCOPED_TRACE(StrCat(budget, " tokens a step"));
    const Vectors vectors = Embed(family, RequestsOf(cases), Options(PoolingType::kLast, budget, 16));
    for (size_t i = 0; i < cases.size(); ++i) {
      SCOPED_TRACE(cases[i].name);
      for (const std::string& name : with_hidden) {
        if (name != cases[i].name) continue;
        ExpectNear(vectors[i], golden::Read<float>(**golden_file, name + ".hidden.final_norm"), 1e-4f);
      }
      const std::vector<float> logits = HeadOf(family, vectors[i]);
      std::vector<float> expected = golden::Read<float>(**golden_file, cases[i].name + ".logits");
      ASSERT_EQ(expected.size() % logits.size(), 0u);
      expected.erase(expected.begin(), expected.end() - std::ssize(logits));  // the last position
      ExpectNear(logits, expected, 1e-3f);
    }
    if (first.empty()) first = vectors;
    if (!golden::OnCuda()) {
      EXPECT_EQ(vectors, first) << "other bits than in larger steps";
    }
  }
  const Vectors alone = Embed(family, RequestsOf(cases), Options(PoolingType::kLast, 100, 1));
  for (size_t i = 0; i < cases.size(); ++i) {
    if (golden::OnCuda()) {
      ExpectNear(alone[i], first[i], 1e-4f);
    } else {
      EXPECT_EQ(alone[i], first[i]) << cases[i].name << ": other bits alone";
    }
  }
}

TEST(PoolingGolden, Dense) { CheckFamily("ernie4_5", TextCases("ernie4_5"), {"p65"}); }
TEST(PoolingGolden, Moe) { CheckFamily("ernie4_5_moe", TextCases("ernie4_5_moe"), {"p65"}); }
TEST(PoolingGolden, VisionLanguage) { CheckFamily("ernie4_5_vl_moe", VlCases(), {"one_image", "two_turns"}); }

// The vector of each beginning of a prompt is its last token's hidden state: their mean, and the first of
// them.
TEST(PoolingGolden, MeanAndFirst) {
  for (const std::string family : {"ernie4_5", "ernie4_5_moe"}) {
    SCOPED_TRACE(family);
    const std::vector<GoldenCase> cases = TextCases(family);
    for (size_t i : {size_t{0}, size_t{1}, size_t{3}}) {  // p1, p7, p65
      const GenerateRequest& whole = cases[i].request;
      std::vector<GenerateRequest> beginnings;
      for (size_t n = 1; n <= whole.token_ids.size(); ++n) {
        GenerateRequest& r = beginnings.emplace_back(whole);
        r.token_ids.resize(n);
      }
      const Vectors states = Embed(family, beginnings, Options(PoolingType::kLast, 4096, 64));
      std::vector<float> mean(states[0].size());
      for (size_t k = 0; k < mean.size(); ++k) {
        double sum = 0;
        for (const auto& state : states) sum += static_cast<double>(state[k]);
        mean[k] = static_cast<float>(sum / static_cast<double>(states.size()));
      }
      ExpectNear(Embed(family, {whole}, Options(PoolingType::kCls, 4096, 1))[0], states[0],
                 golden::OnCuda() ? 1e-4f : 0.0f);
      Vectors first;
      for (int64_t budget : {4096, 64, 7}) {
        const Vectors pooled = Embed(family, RequestsOf(cases), Options(PoolingType::kMean, budget, 16));
        ExpectNear(pooled[i], mean, 1e-4f);
        if (first.empty()) first = pooled;
        if (!golden::OnCuda()) {
          EXPECT_EQ(pooled, first) << "other bits than in larger steps";
        }
      }
    }
  }
}

// In bfloat16 the vector points where float32's does.
TEST(PoolingGolden, BFloat16) {
  const std::vector<GoldenCase> cases = TextCases("ernie4_5");
  for (PoolingType type : {PoolingType::kLast, PoolingType::kMean}) {
    const Vectors exact = Embed("ernie4_5", RequestsOf(cases), Options(type, 64, 16));
    const Vectors rounded = Embed("ernie4_5", RequestsOf(cases), Options(type, 64, 16), DType::kBFloat16);
    for (size_t i = 0; i < cases.size(); ++i) {
      double dot = 0, a = 0, b = 0;
      for (size_t k = 0; k < exact[i].size(); ++k) {
        const auto x = static_cast<double>(exact[i][k]), y = static_cast<double>(rounded[i][k]);
        dot += x * y;
        a += x * x;
        b += y * y;
      }
      EXPECT_GT(dot / std::sqrt(a * b), 0.995) << cases[i].name;
    }
  }
}

}  // namespace
}  // namespace fd
