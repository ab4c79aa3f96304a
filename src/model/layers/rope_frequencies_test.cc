// Frequencies of every kind of scaling against transformers (tests/golden/make_rope.py).
#include "model/layers/rope_frequencies.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "base/files.h"
#include "base/strings.h"

namespace fd {
namespace {

// A few roundings of float32 apart: the power function is another one.
constexpr double kRelative = 5e-7;

TEST(RopeFrequencies, AsTransformersOfEveryKind) {
  auto file = ReadJsonFile("tests/golden/rope/frequencies.json");
  ASSERT_TRUE(file.ok()) << file.status().message();
  std::set<RopeKind> kinds;
  for (const Json& entry : file->as_object().Find("cases")->as_array()) {
    const JsonObject& c = entry.as_object();
    SCOPED_TRACE(c.Find("name")->as_string());
    auto config = ParseModelConfig(*c.Find("config"));
    ASSERT_TRUE(config.ok()) << config.status().message();
    kinds.insert(config->rope_scaling.kind);
    const int64_t length = c.Find("max_model_len")->as_int();
    EXPECT_LE(length, MaxContextTokens(*config));
    config->rope_tokens = length;
    const RopeFrequencies found = TextRopeFrequencies(*config);
    const double factor = c.Find("attention_factor")->as_double();
    EXPECT_NEAR(static_cast<double>(found.attention_factor), factor, kRelative * factor);
    const JsonArray& expected = c.Find("inv_freq")->as_array();
    ASSERT_EQ(found.inv_freq.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      const double value = expected[i].as_double();
      EXPECT_NEAR(static_cast<double>(found.inv_freq[i]), value, kRelative * value) << "frequency " << i;
    }
  }
  EXPECT_EQ(kinds.size(), 6u);
}

ModelConfig Parsed(const char* rope, const RopeOverrides& overrides = {}) {
  auto json = ParseJson(StrCat(R"({"model_type": "ernie4_5", "vocab_size": 32, "hidden_size": 128,
    "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 64,
    "max_position_embeddings": 1000, "rope_theta": 10000.0)",
                               rope, "}"));
  EXPECT_TRUE(json.ok()) << json.status().message();
  auto config = ParseModelConfig(*json, overrides);
  EXPECT_TRUE(config.ok()) << config.status().message();
  return config.ok() ? *config : ModelConfig{};
}

// The length served is one for all sequences: without it, what config.json promises.
TEST(RopeFrequencies, DynamicFollowsTheLengthServed) {
  const ModelConfig plain = Parsed("");
  ModelConfig dynamic = Parsed(R"(, "rope_scaling": {"type": "dynamic", "factor": 4})");
  EXPECT_EQ(MaxContextTokens(dynamic), 4000);
  const RopeFrequencies whole = TextRopeFrequencies(dynamic);
  dynamic.rope_tokens = 4000;
  EXPECT_EQ(TextRopeFrequencies(dynamic).inv_freq, whole.inv_freq);
  dynamic.rope_tokens = 2000;
  const RopeFrequencies half = TextRopeFrequencies(dynamic);
  EXPECT_LT(whole.inv_freq[31], half.inv_freq[31]);
  for (int64_t short_tokens : {1, 500, 1000}) {
    dynamic.rope_tokens = short_tokens;
    EXPECT_EQ(TextRopeFrequencies(dynamic).inv_freq, TextRopeFrequencies(plain).inv_freq);
  }
}

TEST(RopeFrequencies, NothingIsNanAtTheEnds) {
  for (
      const char* rope :
      {R"(, "rope_scaling": {"type": "dynamic", "factor": 1e6})",
       R"(, "rope_scaling": {"type": "yarn", "factor": 1e6, "original_max_position_embeddings": 2})",
       R"(, "rope_scaling": {"type": "yarn", "factor": 1, "original_max_position_embeddings": 16777216,
           "beta_fast": 1e6, "beta_slow": 1e-3, "truncate": false})",
       R"(, "rope_scaling": {"type": "yarn", "factor": 3, "beta_fast": 2, "beta_slow": 2, "truncate": false})",
       R"(, "rope_scaling": {"type": "llama3", "factor": 1e6, "low_freq_factor": 1e-6,
           "high_freq_factor": 1e6})"}) {
    SCOPED_TRACE(rope);
    const RopeFrequencies found = TextRopeFrequencies(Parsed(rope));
    ASSERT_EQ(found.inv_freq.size(), 32u);
    for (float f : found.inv_freq) EXPECT_TRUE(std::isfinite(f) && f >= 0.0f && f <= 1.0f) << f;
    EXPECT_TRUE(std::isfinite(found.attention_factor) && found.attention_factor > 0.0f);
  }
}

TEST(RopeFrequencies, FlagsComeBeforeTheFile) {
  RopeOverrides flags;
  flags.theta = 500000.0;
  EXPECT_EQ(Parsed("", flags).rope_theta, 500000.0f);
  flags = {};
  flags.scaling = JsonObject{{"rope_type", "yarn"}, {"factor", 4}, {"original_max_position_embeddings", 500}};
  const ModelConfig yarn = Parsed(R"(, "original_max_position_embeddings": 100,
    "rope_scaling": {"type": "linear", "factor": 2})",
                                  flags);
  EXPECT_EQ(yarn.rope_scaling.kind, RopeKind::kYarn);
  EXPECT_EQ(yarn.rope_scaling.original_max_position_embeddings, 500);
  EXPECT_EQ(MaxContextTokens(yarn), 2000);
  EXPECT_EQ(MaxContextReason(yarn), "rope_scaling yarn, 4 times 500");
  flags.scaling = JsonObject{{"rope_type", "default"}, {"rope_theta", 250.0}};
  const ModelConfig off = Parsed(R"(, "rope_scaling": {"type": "linear", "factor": 2})", flags);
  EXPECT_EQ(off.rope_scaling, RopeScaling{});
  EXPECT_EQ(off.rope_theta, 250.0f);
  EXPECT_EQ(MaxContextTokens(off), 1000);
}

TEST(RopeFrequencies, WrongValuesAreNamed) {
  const auto error = [](const char* rope, const RopeOverrides& overrides = {}) {
    auto json = ReadJsonFile("tests/golden/models/ernie4_5/config.json");
    json->as_object().Set("rope_scaling", *ParseJson(rope));
    auto config = ParseModelConfig(*json, overrides);
    return config.ok() ? Status() : config.status();
  };
  const struct {
    const char* rope;
    const char* message;
  } cases[] = {
      {R"({"rope_type": "ntk"})",
       "rope_scaling.rope_type is \"ntk\"; allowed: default, linear, dynamic, yarn"},
      {R"({"type": 3})", "rope_scaling.type is 3"},
      {R"({"type": "linear"})", "rope_scaling.factor is missing; allowed: a number from 1 to 1e+06"},
      {R"({"type": "linear", "factor": 0.5})", "rope_scaling.factor is 0.5"},
      {R"({"type": "dynamic", "factor": "4"})", "rope_scaling.factor is \"4\""},
      {R"({"type": "yarn", "factor": 4, "beta_fast": 1, "beta_slow": 32})",
       "rope_scaling.beta_fast is 1; allowed: at least beta_slow, 32"},
      {R"({"type": "yarn", "factor": 4, "original_max_position_embeddings": 1})",
       "rope_scaling.original_max_position_embeddings is 1"},
      {R"({"type": "yarn", "factor": 4, "attention_factor": 0})", "rope_scaling.attention_factor is 0"},
      {R"({"type": "yarn", "factor": 4, "truncate": 1})", "rope_scaling.truncate is 1"},
      {R"({"type": "longrope", "short_factor": [1]})",
       "rope_scaling.short_factor is [1]; allowed: a list of head_dim / 2 = 32 numbers"},
      {R"({"type": "su"})", "rope_scaling.short_factor is absent"},
      {R"({"type": "llama3", "factor": 8, "low_freq_factor": 4})",
       "rope_scaling.high_freq_factor is missing"},
      {R"({"type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1})",
       "rope_scaling.high_freq_factor is 1; allowed: more than low_freq_factor, 4"},
      {R"("yarn")", "rope_scaling is \"yarn\"; allowed: an object"},
  };
  for (const auto& c : cases) {
    const Status status = error(c.rope);
    EXPECT_NE(status.message().find(c.message), std::string::npos) << status.message() << " of " << c.rope;
  }
  RopeOverrides flags;
  flags.scaling = JsonObject{{"rope_type", "linear"}, {"factor", 0}};
  const Status status = error("{}", flags);
  EXPECT_EQ(status.message(), "--rope-scaling factor is 0; allowed: a number from 1 to 1e+06");
  EXPECT_EQ(status.param(), "--rope-scaling");
}

}  // namespace
}  // namespace fd
