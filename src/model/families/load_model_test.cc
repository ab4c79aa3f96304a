// What LoadModel says about a checkpoint that does not fit its configuration, and which liberties it allows.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "model/families/logits_for_test.h"
#include "model/model.h"
#include "model/weights/quantization_config.h"
#include "model/weights/safetensors.h"
#include "model/weights/write_for_test.h"

namespace fd {
namespace {

const std::string kModels = "tests/golden/models/";

std::vector<TensorForTest> ReadTensors(const std::string& family) {
  auto file = SafetensorsFile::Open(kModels + family + "/model.safetensors");
  FD_CHECK(file.ok(), file.status().message());
  std::vector<TensorForTest> out;
  for (const TensorInfo& t : (*file)->header().tensors) {
    const char* data = reinterpret_cast<const char*>((*file)->Data(t));
    out.push_back({t.name, t.dtype, t.shape, std::string(data, static_cast<size_t>(t.size_bytes))});
  }
  return out;
}

TensorForTest& Named(std::vector<TensorForTest>& tensors, const std::string& name) {
  for (TensorForTest& t : tensors) {
    if (t.name == name) return t;
  }
  FD_CHECK(false, name);
  return tensors[0];
}

// Loads `family` with its tensors changed by `edit`; `bytes`, if given, changes the file's bytes afterwards.
StatusOr<std::unique_ptr<Model>> LoadEdited(Host& host, const std::string& family,
                                            const std::function<void(std::vector<TensorForTest>&)>& edit,
                                            const std::function<void(std::string&)>& edit_bytes = nullptr) {
  FolderForTest folder;
  folder.CopyFrom(kModels + family);
  std::vector<TensorForTest> tensors = ReadTensors(family);
  edit(tensors);
  std::string bytes = SafetensorsForTest(tensors);
  if (edit_bytes) edit_bytes(bytes);
  WriteFileForTest(folder.File("model.safetensors"), bytes);
  return LoadModel(host.ctx, folder.path(), {});
}

std::string ErrorOf(const std::string& family, const std::function<void(std::vector<TensorForTest>&)>& edit,
                    const std::function<void(std::string&)>& edit_bytes = nullptr) {
  Host host;
  auto model = LoadEdited(host, family, edit, edit_bytes);
  return model.ok() ? "no error" : model.status().message();
}

bool Contains(const std::string& text, std::string_view piece) {
  return text.find(piece) != std::string::npos;
}

void Erase(std::vector<TensorForTest>& tensors, const std::string& name) {
  std::erase_if(tensors, [&](const TensorForTest& t) { return t.name == name; });
}

TEST(LoadModel, MissingMisshapenWronglyTypedAndExtraTensors) {
  auto missing = [](const std::string& name) {
    return [name](std::vector<TensorForTest>& t) { Erase(t, name); };
  };
  EXPECT_EQ(ErrorOf("ernie4_5", [](auto&) {}), "no error");
  std::string e = ErrorOf("ernie4_5", missing("model.layers.1.self_attn.k_proj.weight"));
  EXPECT_TRUE(
      Contains(e, "1 problem with the weights: tensor model.layers.1.self_attn.k_proj.weight is missing"))
      << e;
  EXPECT_TRUE(Contains(e, "[128, 96]")) << e;
  EXPECT_TRUE(Contains(ErrorOf("ernie4_5", missing("model.embed_tokens.weight")),
                       "model.embed_tokens.weight is missing"));
  EXPECT_TRUE(Contains(ErrorOf("ernie4_5_moe", missing("lm_head.weight")), "lm_head.weight is missing"));
  EXPECT_TRUE(
      Contains(ErrorOf("ernie4_5_moe", missing("model.layers.1.mlp.moe_statics.e_score_correction_bias")),
               "[1, 8] or [8]"));
  EXPECT_TRUE(Contains(ErrorOf("ernie4_5_vl_moe", missing("vision_model.blocks.1.attn.qkv.bias")),
                       "attn.qkv.bias is missing"));
  EXPECT_TRUE(Contains(ErrorOf("ernie4_5_vl_moe", missing("model.layers.2.mlp.gate.weight_1")),
                       "gate.weight_1 is missing"));

  e = ErrorOf("ernie4_5_moe",
              [](auto& t) { Named(t, "model.layers.1.mlp.experts.3.down_proj.weight").shape = {40, 192}; });
  EXPECT_TRUE(Contains(
      e,
      "model.layers.1.mlp.experts.3.down_proj.weight: expected BF16 or F32 [192, 40], found BF16 [40, 192]"))
      << e;
  e = ErrorOf("ernie4_5", [](auto& t) { Named(t, "model.norm.weight").dtype = "F16"; });
  EXPECT_TRUE(Contains(e, "model.norm.weight: expected BF16 or F32 [96], found F16 [96]")) << e;
  e = ErrorOf("ernie4_5", [](auto& t) { t.push_back({"model.layers.3.extra", "BF16", {2}, "abcd"}); });
  EXPECT_TRUE(Contains(e, "model.layers.3.extra BF16 [2] belongs to nothing in this model")) << e;
  e = ErrorOf("ernie4_5", [](auto& t) {
    TensorForTest& k = Named(t, "model.layers.0.self_attn.k_proj.weight");
    k.dtype = "F32";
    k.bytes += k.bytes;
  });
  EXPECT_TRUE(
      Contains(e, "k_proj.weight: found F32, expected BF16 as model.layers.0.self_attn.q_proj.weight has"))
      << e;
  e = ErrorOf("ernie4_5_moe", [](auto& t) {
    TensorForTest& d = Named(t, "model.layers.2.mlp.experts.5.down_proj.weight");
    d.dtype = "F32";
    d.bytes += d.bytes;
  });
  EXPECT_TRUE(Contains(e, "experts.5.down_proj.weight: found F32, expected BF16")) << e;
}

TEST(LoadModel, SeveralProblemsAreListedTogether) {
  std::string e = ErrorOf("ernie4_5", [](auto& tensors) {
    std::erase_if(tensors, [](const TensorForTest& t) { return Contains(t.name, "self_attn"); });
  });
  EXPECT_TRUE(Contains(e, "12 problems with the weights")) << e;
  EXPECT_TRUE(Contains(e, "layers.0.self_attn.q_proj.weight is missing")) << e;
  EXPECT_TRUE(Contains(e, "; and 4 more")) << e;
  // A checkpoint of another model altogether.
  Host host;
  FolderForTest folder;
  folder.CopyFrom(kModels + "ernie4_5");
  std::filesystem::copy_file(kModels + "llama/model.safetensors", folder.File("model.safetensors"),
                             std::filesystem::copy_options::overwrite_existing);
  auto model = LoadModel(host.ctx, folder.path(), {});
  ASSERT_FALSE(model.ok());
  EXPECT_TRUE(Contains(model.status().message(), "problem")) << model.status().message();
}

TEST(LoadModel, BrokenFiles) {
  auto nothing = [](auto&) {};
  std::string e = ErrorOf("ernie4_5", nothing, [](std::string& b) { b.resize(b.size() / 2); });
  EXPECT_TRUE(Contains(e, "model.safetensors: truncated: the file has ")) << e;
  e = ErrorOf("ernie4_5", nothing, [](std::string& b) { b.clear(); });
  EXPECT_TRUE(Contains(e, "truncated: 0 bytes")) << e;
  Host host;
  EXPECT_TRUE(Contains(LoadModel(host.ctx, "no/such/folder", {}).status().message(), "no such directory"));
  LoadOptions options;
  options.dtype = DType::kInt8;
  EXPECT_TRUE(
      Contains(LoadModel(host.ctx, kModels + "ernie4_5", options).status().message(), "bfloat16, float32"));
}

TEST(LoadModel, KnownLiberties) {
  Host host;
  auto plain = LoadModel(host.ctx, kModels + "ernie4_5_vl_moe", {});
  ASSERT_TRUE(plain.ok()) << plain.status().message();
  const std::vector<float> expected = LogitsOf(host, **plain);
  // Heads for speculative decoding are skipped, the tower may carry transformers' prefix, and the header may
  // end at an odd byte.
  auto edited = LoadEdited(
      host, "ernie4_5_vl_moe",
      [](auto& tensors) {
        for (TensorForTest& t : tensors) {
          if (t.name.starts_with("vision_model.")) t.name = "model." + t.name;
        }
        tensors.push_back({"model.mtp_block.0.mlp.up_proj.weight", "BF16", {1}, "ab"});
      },
      [](std::string& b) {
        b[0] = static_cast<char>(b[0] + 1);
        b.insert(8 + static_cast<size_t>(static_cast<uint8_t>(b[0])) +
                     256 * static_cast<size_t>(static_cast<uint8_t>(b[1])) - 1,
                 " ");
      });
  ASSERT_TRUE(edited.ok()) << edited.status().message();
  EXPECT_EQ(LogitsOf(host, **edited), expected);
  // A head of its own wins over the tied embedding.
  auto untied = LoadEdited(host, "ernie4_5_vl_moe", [](auto& tensors) {
    TensorForTest head = Named(tensors, "model.embed_tokens.weight");
    head.name = "lm_head.weight";
    std::fill(head.bytes.begin(), head.bytes.end(), '\0');
    tensors.push_back(head);
  });
  ASSERT_TRUE(untied.ok()) << untied.status().message();
  EXPECT_EQ(LogitsOf(host, **untied), std::vector<float>(expected.size(), 0.0f));
}

TEST(LoadModel, ShardsProgressAndBytes) {
  Host host;
  LoadOptions options;
  int64_t last = 0, total = 0;
  options.progress = [&](int64_t done, int64_t all) {
    EXPECT_GE(done, last);
    last = done;
    total = all;
  };
  auto demo = LoadModel(host.ctx, "models/ernie-4.5-vl-tiny", options);
  ASSERT_TRUE(demo.ok()) << demo.status().message();
  EXPECT_EQ(last, total);
  EXPECT_GT(total, 25'000'000);
  EXPECT_GT((*demo)->weight_bytes(), 25'000'000);
}

double SquaredDistance(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    sum += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
  }
  return sum;
}

// Planned and loaded bytes are the same (LoadModel checks that), the numbers follow from the shapes, and the
// logits stay near those of the stored weights.
TEST(LoadModel, Quantization) {
  Host host;
  const Quantization schemes[] = {{8, 0}, {4, 0}, {4, 32}, {8, 64}};
  for (const char* family : {"ernie4_5", "ernie4_5_moe", "ernie4_5_vl_moe"}) {
    auto stored = LoadModel(host.ctx, kModels + family, {});
    ASSERT_TRUE(stored.ok()) << stored.status().message();
    const std::vector<float> expected = LogitsOf(host, **stored);
    double size = 0;
    for (float v : expected) size += static_cast<double>(v) * v;
    for (bool random : {false, true}) {
      int64_t last = (*stored)->weight_bytes();
      for (const Quantization& scheme : schemes) {
        LoadOptions options;
        options.random_weights = random;
        options.quantization = scheme;
        auto model = LoadModel(host.ctx, kModels + family, options);
        ASSERT_TRUE(model.ok()) << model.status().message();
        const int64_t bytes = (*model)->weight_bytes();
        if (scheme.group_size == 0) {
          EXPECT_LT(bytes, last) << family;
          last = bytes;
        }
        std::vector<float> found = LogitsOf(host, **model);
        if (random) continue;
        const double error = SquaredDistance(found, expected);
        EXPECT_GT(error, 0.0) << "nothing was quantised";
        // With float32 activations nothing but the weights is rounded: the reference of the bfloat16 run.
        options.dtype = DType::kFloat32;
        auto exact = LoadModel(host.ctx, kModels + family, options);
        ASSERT_TRUE(exact.ok()) << exact.status().message();
        const double rounding = SquaredDistance(found, LogitsOf(host, **exact));
        EXPECT_LT(std::sqrt(rounding / size), 0.04) << family << " " << scheme.bits;
        EXPECT_LT(std::sqrt(error / size), scheme.bits == 8 ? 0.06 : 0.5) << family << " " << scheme.bits;
      }
    }
  }
}

// The head alone, tied to the table or of its own: the same bytes, and the table stays as stored.
TEST(LoadModel, QuantizedHead) {
  Host host;
  const ops::QuantScheme eight = HeadScheme(8), four = HeadScheme(4);
  EXPECT_EQ(four.group_size, 32);
  for (const char* family : {"ernie4_5", "ernie4_5_moe", "ernie4_5_vl_moe"}) {
    for (bool random : {false, true}) {
      LoadOptions options;
      options.random_weights = random;
      auto stored = LoadModel(host.ctx, kModels + family, options);
      ASSERT_TRUE(stored.ok()) << stored.status().message();
      const std::vector<float> expected = LogitsOf(host, **stored);
      double size = 0;
      for (float v : expected) size += static_cast<double>(v) * v;
      for (const ops::QuantScheme& scheme : {eight, four}) {
        options.quantization.lm_head = scheme;
        auto model = LoadModel(host.ctx, kModels + family, options);
        ASSERT_TRUE(model.ok()) << model.status().message();
        const ModelConfig& config = (*model)->config();
        const int64_t features = (config.vocab_size + 15) / 16 * 16;  // whole panels
        const int64_t groups = scheme.bits == 4 ? (config.hidden_size + 31) / 32 : 1;
        EXPECT_EQ((*model)->weight_bytes(),
                  (*stored)->weight_bytes() - Arena::PaddedBytes(features * config.hidden_size * 2) +
                      Arena::PaddedBytes(features * config.hidden_size * scheme.bits / 8) +
                      Arena::PaddedBytes(features * groups * 2))
            << family << " " << scheme.bits;
        const double error = SquaredDistance(LogitsOf(host, **model), expected);
        EXPECT_GT(error, 0.0) << "nothing was quantised";
        EXPECT_LT(std::sqrt(error / size), scheme.bits == 8 ? 0.02 : 0.11) << family << " " << scheme.bits;
      }
    }
  }
  FolderForTest folder;  // the tied model with a head of its own
  folder.CopyFrom(kModels + "ernie4_5");
  std::vector<TensorForTest> tensors = ReadTensors("ernie4_5");
  TensorForTest head = Named(tensors, "model.embed_tokens.weight");
  head.name = "lm_head.weight";
  tensors.push_back(head);
  WriteFileForTest(folder.File("model.safetensors"), SafetensorsForTest(tensors));
  for (const ops::QuantScheme& scheme : {eight, four}) {
    LoadOptions options;
    options.quantization = {8, 0, scheme};
    auto tied = LoadModel(host.ctx, kModels + "ernie4_5", options);
    auto own = LoadModel(host.ctx, folder.path(), options);
    ASSERT_TRUE(tied.ok() && own.ok());
    EXPECT_EQ(LogitsOf(host, **tied), LogitsOf(host, **own));
  }
}

int64_t BytesWith(Host& host, const std::string& dir, const std::string& quantization) {
  LoadOptions options;
  const auto parsed = ParseQuantization(quantization);
  FD_CHECK(parsed.ok(), parsed.status().message());
  options.quantization = *parsed;
  const auto opened = OpenModel(host.ctx, dir, options);
  FD_CHECK(opened.ok(), opened.status().message());
  return opened->weight_bytes();
}

TEST(LoadModel, QuantizationOfPartsAndLayers) {
  Host host;
  const std::string dir = kModels + "ernie4_5_vl_moe";
  const auto bytes = [&](const std::string& quantization) { return BytesWith(host, dir, quantization); };
  const std::string mix = R"({"quantization": "mix_quant", "dense_quant_type": "wint8", )";
  const int64_t none = bytes("none"), eight = bytes("wint8"), four = bytes("wint4");
  EXPECT_EQ(bytes(mix + R"("moe_quant_type": "wint4", "image_moe_quant_type": null})"), four);
  EXPECT_EQ(bytes(mix + R"("moe_quant_type": "wint8"})"), eight);
  const int64_t dense = bytes(mix + R"("moe_quant_type": null})");  // the vision experts go with the others
  EXPECT_LT(dense, none);
  EXPECT_GT(dense, eight);
  const int64_t vision_eight = bytes(mix + R"("moe_quant_type": "wint4", "image_moe_quant_type": "wint8"})");
  EXPECT_GT(vision_eight, four);
  EXPECT_LT(vision_eight, eight);
  const std::string layers = R"({"quantization": "wint8", "layers": )";
  EXPECT_EQ(bytes(layers + R"({"*": null}})"), none);
  EXPECT_EQ(bytes(R"({"quantization": "wint8", "modules_to_not_convert": ["model.layers.?", "lm_head"]})"),
            none);
  EXPECT_EQ(bytes(layers + R"({"*.experts.*": null}})"), dense);
  EXPECT_EQ(bytes(layers + R"({"*.mlp.experts.?.*": "wint4", "*.mlp.experts.??.*": "wint4"}})"), four)
      << "there are 12 experts";
  const int64_t one = bytes(layers + R"({"model.layers.0.self_attn.qkv_proj": null}})");
  EXPECT_EQ(one, bytes(layers + R"({"*.0.*.q_proj": null, "*.0.*.k_proj": null, "*.0.*.v_proj": null}})"));
  EXPECT_EQ(one, bytes(layers + R"({"*.0.*.o_proj": "wint8", "model.layers.0.self_attn.?_proj": null}})"));
  EXPECT_GT(one, eight);

  const auto error = [&](const std::string& quantization) {
    LoadOptions options;
    options.quantization = ParseQuantization(quantization).value();
    const auto opened = OpenModel(host.ctx, dir, options);
    return opened.ok() ? "no error" : opened.status().message();
  };
  std::string e = error(layers + R"({"*.k_proj": null}})");
  EXPECT_TRUE(Contains(e,
                       "choose different kinds for model.layers.0.self_attn.q_proj and "
                       "model.layers.0.self_attn.k_proj, which become one matrix; name it "
                       "model.layers.0.self_attn.qkv_proj"))
      << e;
  e = error(layers + R"({"*.experts.3.*": null}})");
  EXPECT_TRUE(Contains(e,
                       "different kinds for model.layers.1.mlp.experts.0.gate_proj and "
                       "model.layers.1.mlp.experts.3.gate_proj; the experts of a layer have one kind"))
      << e;
  e = error(layers + R"({"layers.0.*": null}})");
  EXPECT_TRUE(Contains(e, "the pattern layers.0.* matches no layer")) << e;
}

TEST(LoadModel, QuantizationConfigOfTheCheckpoint) {
  Host host;
  FolderForTest folder;
  folder.CopyFrom(kModels + "ernie4_5_moe");
  const auto with = [&](const std::string& quantization_config) {
    std::ifstream file(kModels + "ernie4_5_moe/config.json");
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    WriteFileForTest(folder.File("config.json"), StrCat("{\"quantization_config\": ", quantization_config,
                                                        ",", text.substr(text.find('{') + 1)));
  };
  const int64_t eight = BytesWith(host, kModels + "ernie4_5_moe", "wint8");
  with(
      R"({"quantization": "wint8", "is_quantized": false, "is_permuted": true, "hadamard_block_size": 128})");
  for (const char* flag : {"none", "wint8", "wint4"}) EXPECT_EQ(BytesWith(host, folder.path(), flag), eight);
  // The head is the command line's where the file says nothing of it.
  const std::string head8 = R"({"quantization": "wint8", "lm_head": "wint8"})",
                    head4 = R"({"quantization": "wint8", "lm_head": "wint4"})";
  const auto with_head = [&](const std::string& text) {
    return BytesWith(host, kModels + "ernie4_5_moe", text);
  };
  EXPECT_EQ(BytesWith(host, folder.path(), head4), with_head(head4));
  EXPECT_LT(with_head(head4), with_head(head8));
  EXPECT_LT(with_head(head8), eight);
  with(head8);
  for (const std::string& flag : {std::string("none"), head4}) {
    EXPECT_EQ(BytesWith(host, folder.path(), flag), with_head(head8));
  }
  for (const auto& [config, words] : std::vector<std::pair<std::string, std::string>>{
           {R"({"quant_method": "fp8"})", "config.json: quantization_config: the key quant_method"},
           {R"({"kv_cache_quant_type": "int8"})", "the key quantization must name a kind"},
           {R"({"quantization": "w4a8", "is_quantized": true})", "w4a8 is still to come"},
           {R"({"quantization": "wint8", "is_quantized": 1})", "is_quantized must be true or false"},
           {R"("wint8")", "expected an object"}}) {
    with(config);
    const auto opened = OpenModel(host.ctx, folder.path(), {});
    ASSERT_FALSE(opened.ok()) << config;
    EXPECT_TRUE(Contains(opened.status().message(), words)) << opened.status().message();
  }
}

TEST(LoadModel, QuantizationThatCannotBe) {
  Host host;
  LoadOptions options;
  options.quantization = {4, 48};
  auto model = LoadModel(host.ctx, kModels + "ernie4_5", options);
  ASSERT_FALSE(model.ok());
  EXPECT_TRUE(Contains(model.status().message(), "groups of 48: must be a multiple of 32"));
  options.quantization = {3, 0};
  model = LoadModel(host.ctx, kModels + "ernie4_5", options);
  ASSERT_FALSE(model.ok());
  EXPECT_TRUE(Contains(model.status().message(), "3 bits"));
  for (const ops::QuantScheme& scheme : {ops::QuantScheme{4, 48}, ops::QuantScheme{3, 0}}) {
    options.quantization = {0, 0, scheme};
    EXPECT_FALSE(OpenModel(host.ctx, kModels + "ernie4_5", options).ok()) << scheme.bits << " of a head";
  }
  options.quantization = {0, 0, {4, 32}};
  ops::Context cuda = host.ctx;
  cuda.device.type = DeviceType::kCuda;
  EXPECT_TRUE(Contains(OpenModel(cuda, kModels + "ernie4_5", options).status().message(),
                       "--quantize-lm-head wint4 is for the CPU"));
}

TEST(LoadModel, FingerprintsTellModelsApart) {
  Host host;
  FolderForTest folder;
  folder.CopyFrom(kModels + "ernie4_5");
  std::vector<TensorForTest> tensors = ReadTensors("ernie4_5");
  const auto fingerprint = [&](const LoadOptions& options) {
    WriteFileForTest(folder.File("model.safetensors"), SafetensorsForTest(tensors));
    auto opened = OpenModel(host.ctx, folder.path(), options);
    FD_CHECK(opened.ok(), opened.status().message());
    return opened->Fingerprint();
  };
  const auto original = OpenModel(host.ctx, kModels + "ernie4_5", {});
  ASSERT_TRUE(original.ok());
  EXPECT_EQ(original->Fingerprint().size(), 16u);
  EXPECT_EQ(fingerprint({}), original->Fingerprint());
  std::reverse(tensors.begin(), tensors.end());  // how the file is laid out does not matter
  EXPECT_EQ(fingerprint({}), original->Fingerprint());
  EXPECT_NE(fingerprint({.random_weights = true}), original->Fingerprint());
  for (TensorForTest& t : tensors) t.bytes[t.bytes.size() / 2] ^= 1;  // as training would
  EXPECT_NE(fingerprint({}), original->Fingerprint());
}

TEST(LoadModel, RandomWeights) {
  Host host;
  LoadOptions options;
  options.random_weights = true;
  for (const char* family : {"ernie4_5", "ernie4_5_moe", "ernie4_5_vl_moe"}) {
    FolderForTest folder;  // config alone
    std::filesystem::copy_file(kModels + family + "/config.json", folder.File("config.json"));
    auto one = LoadModel(host.ctx, folder.path(), options), two = LoadModel(host.ctx, folder.path(), options);
    ASSERT_TRUE(one.ok()) << one.status().message();
    std::vector<float> logits = LogitsOf(host, **one);
    EXPECT_EQ(logits, LogitsOf(host, **two)) << "the same for a name every time";
    for (float l : logits) ASSERT_TRUE(std::isfinite(l));
    EXPECT_NE(logits[0], logits[1]);
    auto stored = LoadModel(host.ctx, kModels + family, {});
    ASSERT_TRUE(stored.ok()) << stored.status().message();
    const ModelConfig& config = (*one)->config();
    const int64_t table = Arena::PaddedBytes(config.vocab_size * config.hidden_size * 2);
    EXPECT_EQ((*one)->weight_bytes(), (*stored)->weight_bytes() + table)
        << "the same types: routers are float32; a stored table stays in its file";
  }
}

}  // namespace
}  // namespace fd
