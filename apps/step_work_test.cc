#include "step_work.h"

#include <gtest/gtest.h>

namespace fd {
namespace {

constexpr double kKvTokenBytes = 57344;  // 28 layers, keys and values of 4 heads of 128, bfloat16

ModelConfig Load(const char* name) {
  auto config = LoadModelConfig(std::string("bench/configs/") + name);
  EXPECT_TRUE(config.ok()) << config.status().message();
  return config.ok() ? *config : ModelConfig{};
}

// Parameters in millions: attention 440.4, the dense layer 94.4, shared experts 637.0, routers 4.4, head
// 264.8, an expert 11.796 in each of 27 layers.
TEST(WorkOfStep, OneTokenOfThe21B) {
  const ModelConfig config = Load("ernie-4.5-21b-a3b");
  const double active = 440.4e6 + 94.4e6 + 637.0e6 + 27 * 6 * 11.7965e6 + 264.8e6;
  const StepWork work = WorkOfStep(config, kKvTokenBytes, 1, 1, 2047);
  EXPECT_NEAR(work.bytes, 2 * active + 4 * 4.42e6 + 2048 * kKvTokenBytes, 2e6);
  EXPECT_NEAR(work.flop, 2 * (active + 4.42e6) + 4.0 * 2047 * 2560 * 28, 2e6);
}

TEST(WorkOfStep, ManyTokensHitDistinctExperts) {
  const ModelConfig config = Load("ernie-4.5-21b-a3b");
  const double experts = 27 * 11.7965e6;  // one expert of every layer
  const double rest = 2 * (440.4e6 + 94.4e6 + 637.0e6 + 264.8e6) + 4 * 4.42e6;
  const auto hit = [&](int64_t sequences) {
    const double kv = static_cast<double>(sequences) * kKvTokenBytes;
    return (WorkOfStep(config, kKvTokenBytes, sequences, 1, 0).bytes - rest - kv) / (2 * experts);
  };
  EXPECT_NEAR(hit(1), 6.0, 0.01);
  EXPECT_NEAR(hit(2), 11.4375, 0.01);  // 6 + 6 * 58 / 64
  EXPECT_NEAR(hit(16), 50.76, 0.05);
  EXPECT_NEAR(hit(64), 63.89, 0.05);
}

TEST(WorkOfStep, PrefillSkipsWhatNobodyReads) {
  const ModelConfig config = Load("ernie-4.5-0.3b");
  const double layer_attention = 1024 * (2048 + 2 * 256) + 2048.0 * 1024, mlp = 3 * 1024 * 3072.0;
  const double n = 512, head = 1024 * 103424.0;
  double flop = 2 * n * 17 * (layer_attention + mlp);                   // whole layers
  flop += 2 * n * 1024 * (2048 + 2 * 256) + 2 * (2048.0 * 1024 + mlp);  // the last
  flop += 2 * head + 18 * 4 * n * (n - 1) / 2 * 2048;
  const StepWork work = WorkOfStep(config, 18432, 1, 512, 0);
  EXPECT_NEAR(work.flop, flop, 1e6);
  EXPECT_NEAR(work.bytes, 2 * (18 * (layer_attention + mlp) + head) + 512 * 18432, 1e4);
}

TEST(WorkOfStep, QuantisedWeightsAreSmallerAndInt8) {
  const ModelConfig dense = Load("ernie-4.5-0.3b"), moe = Load("ernie-4.5-21b-a3b");
  const double layers = 18 * (1024 * (2048 + 2 * 256) + 2048.0 * 1024 + 3 * 1024 * 3072.0),
               head = 1024 * 103424.0;
  const double features = 18 * (2560 + 1024 + 2 * 3072.0 + 1024);
  StepWork work = WorkOfStep(dense, 18432, 1, 1, 0, {4, 0});
  EXPECT_NEAR(work.bytes, layers / 2 + 2 * features + 2 * head + 18432, 1e3);
  EXPECT_NEAR(work.int8_flop, 2 * layers, 1e3);
  EXPECT_NEAR(work.flop, 2 * head, 1e3);
  work = WorkOfStep(dense, 18432, 1, 1, 0, {4, 32});
  EXPECT_NEAR(work.bytes, layers / 2 + layers / 16 + 2 * head + 18432, 1e3);
  work = WorkOfStep(dense, 18432, 1, 1, 0, {8, 0, {8, 0}});
  EXPECT_NEAR(work.bytes, layers + 2 * features + head + 2 * 103424 + 18432, 1e3);
  EXPECT_NEAR(work.int8_flop, 2 * (layers + head), 1e3);
  work = WorkOfStep(dense, 18432, 1, 1, 0, {0, 0, {4, 32}});
  EXPECT_NEAR(work.bytes, 2 * layers + head / 2 + head / 16 + 18432, 1e3);
  EXPECT_EQ(work.int8_flop, 2 * head);
  // wint4 on a MoE model: experts 4 bits, the rest 8.
  const double rest = 440.4e6 + 94.4e6 + 637.0e6, experts = 27 * 6 * 11.7965e6;
  work = WorkOfStep(moe, kKvTokenBytes, 1, 1, 0, {4, 0});
  EXPECT_NEAR(work.bytes, rest + experts / 2 + 2 * 264.8e6 + 4 * 4.42e6 + kKvTokenBytes, 4e6);
}

}  // namespace
}  // namespace fd
