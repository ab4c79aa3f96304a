#include "pooling_flags.h"

#include <gtest/gtest.h>

namespace fd {
namespace {

StatusOr<std::optional<PoolerConfig>> Resolve(const std::vector<std::string>& args) {
  PoolingFlags values;
  FlagSet flags("test", "test");
  AddPoolingFlags(flags, &values);
  const StatusOr<bool> parsed = flags.Parse(args);
  if (!parsed.ok()) return parsed.status();
  return ResolvePooling(values);
}

TEST(PoolingFlags, WhichRunner) {
  for (const std::vector<std::string>& args : std::vector<std::vector<std::string>>{
           {}, {"--runner", "generate"}, {"--runner", "auto", "--convert", "none"}, {"--task", "generate"}}) {
    const auto resolved = Resolve(args);
    ASSERT_TRUE(resolved.ok()) << resolved.status().message();
    EXPECT_FALSE(resolved->has_value());
  }
  for (const std::vector<std::string>& args :
       std::vector<std::vector<std::string>>{{"--runner", "pooling"},
                                             {"--convert", "embed"},
                                             {"--task", "embed"},
                                             {"--runner", "pooling", "--convert", "embed"},
                                             {"--runner", "pooling", "--task", "generate"}}) {
    const auto resolved = Resolve(args);
    ASSERT_TRUE(resolved.ok()) << resolved.status().message();
    ASSERT_TRUE(resolved->has_value());
    EXPECT_EQ((*resolved)->type, PoolingType::kLast);
    EXPECT_TRUE((*resolved)->normalize);
  }
}

TEST(PoolingFlags, PoolerConfig) {
  const auto mean =
      Resolve({"--runner", "pooling", "--pooler-config", R"({"pooling_type":"mean","normalize":false})"});
  ASSERT_TRUE(mean.ok()) << mean.status().message();
  EXPECT_EQ((*mean)->type, PoolingType::kMean);
  EXPECT_FALSE((*mean)->normalize);
  const auto cls = Resolve({"--task", "embed", "--override-pooler-config",
                            R"({"pooling_type":"CLS","dimensions":64,"enable_chunked_processing":false})"});
  ASSERT_TRUE(cls.ok()) << cls.status().message();
  EXPECT_EQ((*cls)->type, PoolingType::kCls);
  EXPECT_TRUE((*cls)->normalize);
  EXPECT_EQ((*cls)->dimensions, 64);
}

TEST(PoolingFlags, Refusals) {
  const auto message = [](const std::vector<std::string>& args) {
    const auto resolved = Resolve(args);
    return resolved.ok() ? std::string("accepted") : resolved.status().message();
  };
  const auto expect = [&](const std::vector<std::string>& args, const std::string& part) {
    EXPECT_NE(message(args).find(part), std::string::npos) << message(args);
  };
  expect({"--runner", "generate", "--convert", "embed"}, "contradict");
  expect({"--runner", "pooling", "--convert", "none"}, "--convert embed");
  expect({"--runner", "draft"}, "pooling");
  expect({"--convert", "reward"}, "score head");
  expect({"--task", "classify"}, "score head");
  expect({"--task", "sing"}, "generate, auto, embed");
  expect({"--pooler-config", "{}"}, "--runner pooling");
  expect({"--runner", "pooling", "--pooler-config", R"({"pooling_type":"ALL"})"}, "LAST, MEAN or CLS");
  expect({"--runner", "pooling", "--pooler-config", R"({"pooling":"MEAN"})"}, "'pooling'");
  expect({"--runner", "pooling", "--pooler-config", R"({"normalize":1})"}, "true or false");
  expect({"--runner", "pooling", "--pooler-config", R"({"dimensions":0})"}, "at least 1");
  expect({"--runner", "pooling", "--pooler-config", R"({"enable_chunked_processing":true})"},
         "still to come");
  expect({"--runner", "pooling", "--pooler-config", R"({"max_embed_len":9})"}, "truncate_prompt_tokens");
  expect({"--runner", "pooling", "--pooler-config", "MEAN"}, "--pooler-config");
}

}  // namespace
}  // namespace fd
