#include "flag_set.h"

#include <gtest/gtest.h>

#include "base/json.h"
#include "base/strings.h"
#include "fastdeploy_flags.h"
#include "model/weights/quantization_config.h"
#include "model_flags.h"

namespace fd {
namespace {

TEST(FlagSet, ReadsValuesAndWords) {
  std::string text = "a";
  int64_t number = 1;
  double real = 0.5;
  bool on = false;
  std::vector<std::string> list;
  std::optional<int64_t> maybe;
  FlagSet flags("x", "y");
  flags.Text("text", &text, "help", "TEXT");
  flags.Integer("max-number", &number, {-1, 100, 7}, "help");
  flags.Real("real", &real, {0, 1, 0.5}, "help");
  flags.Switch("on", &on, "help");
  flags.List("image", &list, "help", "FILE");
  flags.Integer("maybe", &maybe, {0, 9, 1}, "help", "none");
  auto parsed = flags.Parse({"first", "--text=b", "--max_number", "-1", "--real", "1", "--on", "--image", "p",
                             "second", "--image", "q", "--max-number", "8", "--", "--third"});
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  EXPECT_TRUE(*parsed);
  EXPECT_EQ(text, "b");
  EXPECT_EQ(number, 8);
  EXPECT_EQ(real, 1);
  EXPECT_TRUE(on);
  EXPECT_FALSE(maybe.has_value());
  EXPECT_EQ(list, (std::vector<std::string>{"p", "q"}));
  EXPECT_EQ(flags.words(), (std::vector<std::string>{"first", "second", "--third"}));
}

TEST(FlagSet, ValueMayLookLikeAFlag) {
  std::string text;
  int64_t number = 0;
  FlagSet flags("x", "y");
  flags.Text("text", &text, "help", "TEXT");
  flags.Integer("number", &number, {-5, 5, 1}, "help");
  ASSERT_TRUE(flags.Parse({"--text", "--number", "--number", "-3"}).ok());
  EXPECT_EQ(text, "--number");
  EXPECT_EQ(number, -3);
}

std::string ErrorOf(const std::vector<std::string>& args) {
  ModelFlags values;
  std::vector<std::string> notes;
  FlagSet flags("x", "y");
  AddModelFlags(flags, &values, true);
  AddFastDeployFlags(flags, &notes);
  auto parsed = flags.Parse(args);
  return parsed.ok() ? "" : parsed.status().message();
}

TEST(FlagSet, ErrorsNameValueLimitFlagAndExample) {
  EXPECT_EQ(ErrorOf({"--max-num-seqs", "0"}),
            "--max-num-seqs 0: must be a whole number from 1 to 4096, for example --max-num-seqs 16");
  EXPECT_EQ(ErrorOf({"--max-num-seqs", "99999999999999999999"}),
            "--max-num-seqs 99999999999999999999: must be a whole number from 1 to 4096, for example "
            "--max-num-seqs 16");
  EXPECT_EQ(ErrorOf({"--max-num-seqs", "3x"}),
            "--max-num-seqs 3x: must be a whole number from 1 to 4096, for example --max-num-seqs 16");
  EXPECT_EQ(ErrorOf({"--gpu-memory-utilization", "nan"}),
            "--gpu-memory-utilization nan: must be a number above 0 and at most 1, for example "
            "--gpu-memory-utilization 0.85");
  EXPECT_EQ(ErrorOf({"--dtype", "fp16"}),
            "--dtype fp16: must be one of bfloat16, float32, for example --dtype bfloat16");
  EXPECT_EQ(ErrorOf({"--threads"}), "--threads needs a value; see --help");
  EXPECT_EQ(ErrorOf({"--dtype"}), "--dtype needs a value, one of bfloat16|float32; see --help");
  EXPECT_EQ(ErrorOf({"--max-model-lenn", "5"}),
            "unknown flag --max-model-lenn; did you mean --max-model-len?");
  EXPECT_EQ(ErrorOf({"--zzzzzzzzzzzzzzz"}), "unknown flag --zzzzzzzzzzzzzzz; see --help");
}

TEST(FlagSet, KnownFlagsAreAcceptedNotedOrRefused) {
  EXPECT_EQ(
      ErrorOf({"--tensor-parallel-size", "1", "--engine-worker-queue-port", "8182", "--block_size", "64"}),
      "");
  EXPECT_NE(ErrorOf({"--tensor-parallel-size", "2"}).find("still to come"), std::string::npos);
  EXPECT_EQ(ErrorOf({"--speculative-config", "{}"}),
            "--speculative-config {}: speculative decoding is still to come");
  EXPECT_EQ(ErrorOf({"--enable-expert-parallel"}),
            "--enable-expert-parallel: expert parallelism is still to come");

  std::vector<std::string> notes;
  FlagSet flags("x", "y");
  AddFastDeployFlags(flags, &notes);
  ASSERT_TRUE(flags.Parse({"--engine-worker-queue-port", "8182", "--enable-mm"}).ok());
  EXPECT_EQ(notes.size(), 2u);
}

TEST(ModelFlags, Quantization) {
  ModelFlags values;
  FlagSet flags("x", "y");
  AddModelFlags(flags, &values, true);
  ASSERT_TRUE(flags.Parse({"--quantization", R"({"quantization": "wint4", "group_size": 128})"}).ok());
  EXPECT_EQ(values.quantization.bits, 4);
  EXPECT_EQ(values.quantization.group_size, 128);
  EXPECT_EQ(values.quantization.lm_head, ops::QuantScheme{});
  ASSERT_TRUE(flags.Parse({"--quantize-lm-head", "wint8"}).ok());
  EXPECT_EQ(values.quantization.lm_head, (ops::QuantScheme{8, 0}));
  ASSERT_TRUE(flags.Parse({"--quantization", "wint8"}).ok());
  EXPECT_EQ(values.quantization.lm_head, (ops::QuantScheme{8, 0})) << "whatever the order of the flags";
  EXPECT_EQ(ParseQuantization("wint8").value().bits, 8);
  EXPECT_EQ(ParseQuantization("none").value().bits, 0);
  for (const char* wrong :
       {"wint2", "", "{", R"({"quantization": 4})", R"({"group_size": 32})",
        R"({"quantization": "wint4", "group_size": 48})", R"({"quantization": "wint4", "group_size": "32"})",
        R"({"quantization": "wint4", "dense_quant_type": "wint8"})"}) {
    const auto parsed = ParseQuantization(wrong);
    ASSERT_FALSE(parsed.ok()) << wrong;
    EXPECT_NE(parsed.status().message().find("for example wint8"), std::string::npos) << wrong;
  }
}

Quantization QuantizationOf(const std::vector<std::string>& args) {
  ModelFlags values;
  FlagSet flags("x", "y");
  AddModelFlags(flags, &values, true);
  EXPECT_TRUE(flags.Parse(args).ok());
  return values.quantization;
}

TEST(ModelFlags, QuantizedHead) {
  const Quantization eight = {8, 0, {8, 0}}, four = {8, 0, {4, 32}}, none = {8, 0};
  const std::string json = R"({"quantization": "wint8", "lm_head": )";
  EXPECT_EQ(QuantizationOf({"--quantization", "wint8", "--quantize-lm-head", "wint8"}), eight);
  EXPECT_EQ(QuantizationOf({"--quantize-lm-head=wint4", "--quantization", "wint8"}), four);
  EXPECT_EQ(QuantizationOf({"--quantize-lm-head", "none", "--quantization", "wint8"}), none);
  EXPECT_EQ(QuantizationOf({"--quantize-lm-head", "wint4"}), (Quantization{0, 0, {4, 32}}));
  EXPECT_EQ(QuantizationOf({"--quantization", json + "\"wint8\"}"}), eight);
  EXPECT_EQ(QuantizationOf({"--quantization", json + "\"wint4\"}"}), four);
  EXPECT_EQ(QuantizationOf({"--quantization", json + "null}"}), none);
  EXPECT_EQ(QuantizationOf({"--quantization", json + "\"wint4\"}", "--quantize-lm-head", "wint4"}), four);
  EXPECT_EQ(QuantizationOf(
                {"--quantization", R"({"quantization": "wint8", "group_size": 128, "lm_head": "wint4"})"}),
            (Quantization{8, 128, {4, 32}}))
      << "the head's groups are its own";
  EXPECT_EQ(QuantizationName(none), "wint8");
  EXPECT_EQ(QuantizationName(four), "wint8 --quantize-lm-head wint4");
  EXPECT_EQ(QuantizationName({4, 64, {8, 0}}),
            R"({"quantization":"wint4","group_size":64} --quantize-lm-head wint8)");
  EXPECT_EQ(ParseQuantization(WriteJson(QuantizationJson({4, 64, {4, 32}}))).value(),
            (Quantization{4, 64, {4, 32}}));

  EXPECT_EQ(ErrorOf({"--quantize-lm-head"}),
            "--quantize-lm-head needs a value, one of none|wint8|wint4; see --help");
  for (const char* wrong : {"", "true", "int8", "--threads"}) {
    EXPECT_EQ(ErrorOf({"--quantize-lm-head", wrong}),
              StrCat("--quantize-lm-head ", *wrong == 0 ? "''" : wrong,
                     ": must be one of none, wint8, wint4, for example --quantize-lm-head wint8"));
  }
  for (const auto& [key, flag] : std::vector<std::pair<std::string, std::string>>{
           {"\"wint4\"", "wint8"}, {"\"wint4\"", "none"}, {"null", "wint8"}}) {
    const std::string words[] = {"--quantization", json + key + "}", "--quantize-lm-head", flag};
    const std::string text = key == "null" ? key : "wint4";
    for (const auto& args : {std::vector<std::string>{words[0], words[1], words[2], words[3]},
                             std::vector<std::string>{words[2], words[3], words[0], words[1]}}) {
      const std::string e = ErrorOf(args);
      EXPECT_NE(e.find(StrCat("lm_head ", text, " in --quantization and --quantize-lm-head ", flag,
                              " contradict each other; give one of them")),
                std::string::npos)
          << e;
    }
  }
}

TEST(ModelFlags, QuantizationUnderFastDeploysNames) {
  auto q = ParseQuantization(
      R"({"quantization": "mix_quant", "dense_quant_type": "wint8", "moe_quant_type": "wint4",
          "image_moe_quant_type": null, "kv_cache_quant_type": null, "group_size": 64,
          "layers": {"model.layers.0.*": null, "*.down_proj": "wint4"}, "modules_to_not_convert": ["a.b"]})");
  ASSERT_TRUE(q.ok()) << q.status().message();
  EXPECT_TRUE(q->mixed);
  EXPECT_EQ(q->dense, (ops::QuantScheme{8, 0}));
  EXPECT_EQ(q->experts, (ops::QuantScheme{4, 64}));
  EXPECT_EQ(q->vision_experts, q->experts);
  ASSERT_EQ(q->layers.size(), 4u);
  EXPECT_EQ(q->layers[0].scheme.bits, 0);
  EXPECT_EQ(q->layers[1].scheme, (ops::QuantScheme{4, 64}));
  EXPECT_EQ(q->layers[3].pattern, "a.b.*");
  q = ParseQuantization(R"({"quantization": "mix_quant", "dense_quant_type": null, "moe_quant_type": "wint4",
                            "image_moe_quant_type": "wint8"})");
  ASSERT_TRUE(q.ok()) << q.status().message();
  EXPECT_EQ(q->dense.bits, 0);
  EXPECT_EQ(q->vision_experts.bits, 8);
  EXPECT_EQ(ParseQuantization(R"({"quantization": "weight_only", "algo": "weight_only_int4"})")->bits, 4);
  const struct {
    const char* text;
    const char* words[3];
  } wrong[] = {
      {"block_wise_fp8", {"block_wise_fp8 is still to come", "supported now", "wint8"}},
      {"w8a16", {"must be one of", "not 'w8a16'", "wint4"}},
      {R"({"quantization": "mix_quant", "moe_quant_type": "w4afp8"})",
       {"moe_quant_type w4afp8 is still to come", "supported now: wint8, wint4 and null", "for example"}},
      {R"({"quantization": "mix_quant", "dense_quant_type": 8})",
       {"dense_quant_type", "not an integer", "for example"}},
      {R"({"quantization": "mix_quant"})", {"mix_quant needs dense_quant_type", "", ""}},
      {R"({"quantization": "wint8", "moe_quant_type": "wint4"})",
       {"moe_quant_type goes with", "mix_quant", ""}},
      {R"({"quantization": "wint8", "kv_cache_quant_type": "int8"})",
       {"kv_cache_quant_type int8 does not say", "--kv-cache-dtype fp8 or int8", ""}},
      {R"({"quantization": "wint8", "lm_head": true})",
       {"lm_head must be wint8, wint4 or null, not a boolean", "for example", ""}},
      {R"({"quantization": "wint8", "lm_head": "wint2"})", {"lm_head wint2 is still to come", "", ""}},
      {R"({"quantization": "wint8", "layers": {"*.o_proj": "wint2"}})",
       {"layers.*.o_proj wint2 is still to come", "", ""}},
      {R"({"quantization": "wint8", "layers": ["*.o_proj"]})",
       {"layers must be an object", "for example", ""}},
      {R"({"quantization": "wint8", "modules_to_not_convert": "x"})", {"must be a list of patterns", "", ""}},
      {R"({"quantization": "wint8", "is_quantized": true})", {"is_quantized", "config.json", ""}},
      {R"({"quantization": "weight_only"})", {"weight_only needs algo", "", ""}},
      {R"({"quantization": "wint8", "dense_type": "wint8"})",
       {"the key dense_type", "dense_quant_type", "modules_to_not_convert"}},
  };
  for (const auto& w : wrong) {
    const auto parsed = ParseQuantization(w.text);
    ASSERT_FALSE(parsed.ok()) << w.text;
    for (const char* word : w.words)
      EXPECT_NE(parsed.status().message().find(word), std::string::npos) << parsed.status().message();
  }
}

TEST(FlagSet, HelpHasEveryFlagOnceWithItsDefault) {
  ModelFlags values;
  FlagSet flags("fastdeploy serve [MODEL] [FLAGS]", "y");
  AddModelFlags(flags, &values, true);
  std::string help = flags.Help();
  EXPECT_NE(help.find("Usage: fastdeploy serve [MODEL] [FLAGS]"), std::string::npos);
  EXPECT_NE(help.find("--max-num-seqs N"), std::string::npos);
  EXPECT_NE(help.find("[2048, of which prompts get"), std::string::npos);
}

TEST(ModelFlags, ModelIsTheFlagOrTheFirstWord) {
  std::vector<std::string> words = {"dir", "prompt"};
  std::string dir;
  ASSERT_TRUE(TakeModel(&dir, &words).ok());
  EXPECT_EQ(dir, "dir");
  EXPECT_EQ(words, (std::vector<std::string>{"prompt"}));
  ASSERT_TRUE(TakeModel(&dir, &words).ok());
  EXPECT_EQ(words.size(), 1u);
  dir.clear();
  words.clear();
  EXPECT_FALSE(TakeModel(&dir, &words).ok());
  EXPECT_FALSE(CheckModelFolder("/no/such/folder").ok());
  EXPECT_FALSE(CheckModelFolder("apps").ok());
  EXPECT_TRUE(CheckModelFolder("models/ernie-4.5-vl-tiny").ok());
}

TEST(FlagSet, EffectiveShowsValuesButNoSecrets) {
  FlagSet flags("x", "y");
  int64_t number = 7;
  std::vector<std::string> keys;
  bool on = false;
  flags.Integer("number", &number, {0, 100, 5}, "help");
  flags.List("key", &keys, "help", "KEY");
  flags.List("other", &keys, "help", "KEY");
  flags.Switch("on", &on, "help");
  flags.Group("");
  flags.OnSwitch("hidden", "", [] {});
  ASSERT_TRUE(flags.Parse({"--key", "secret", "--on"}).ok());
  const JsonObject values = flags.Effective({"key", "other"});
  EXPECT_EQ(WriteJson(values), R"x({"number":"7","key":"(set)","other":"","on":"true"})x");
  EXPECT_EQ(WriteJson(flags.Given()), R"({"key":"secret","on":"true"})");
}

}  // namespace
}  // namespace fd
