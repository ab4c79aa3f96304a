// Models whose head is left out, for embeddings: everything else is the same, whatever form the checkpoint
// has.
#include <gtest/gtest.h>

#include <cmath>

#include "model/families/logits_for_test.h"
#include "model/model.h"
#include "model/weights/packed_config.h"
#include "model/weights/quantization_config.h"
#include "model/weights/safetensors.h"
#include "model/weights/write_for_test.h"

namespace fd {
namespace {

const std::string kModels = "tests/golden/models/";
const char* const kFamilies[] = {"ernie4_5", "ernie4_5_moe", "ernie4_5_vl_moe"};

LoadOptions Headless(const Quantization& kind = {}) {
  LoadOptions options;
  options.head = false;
  options.dtype = DType::kFloat32;
  options.quantization = kind;
  return options;
}

std::vector<float> HiddenOf(Host& host, const std::string& folder, const LoadOptions& options) {
  auto model = LoadModel(host.ctx, folder, options);
  EXPECT_TRUE(model.ok()) << model.status().message();
  if (!model.ok()) return {};
  EXPECT_FALSE((*model)->config().has_head);
  return LogitsOf(host, **model);
}

// The head as stored times the last hidden state: what the model with a head answers.
TEST(Headless, TheHeadTimesItsHiddenStateIsTheLogits) {
  Host host;
  for (const std::string family : kFamilies) {
    SCOPED_TRACE(family);
    LoadOptions options = Headless();
    options.head = true;
    auto whole = LoadModel(host.ctx, kModels + family, options);
    ASSERT_TRUE(whole.ok());
    const std::vector<float> logits = LogitsOf(host, **whole);
    const std::vector<float> hidden = HiddenOf(host, kModels + family, Headless());
    ASSERT_EQ(std::ssize(hidden), (*whole)->config().hidden_size);
    auto file = SafetensorsFile::Open(kModels + family + "/model.safetensors");
    ASSERT_TRUE(file.ok());
    const TensorInfo* head = (*file)->Find("lm_head.weight");
    if (head == nullptr) head = (*file)->Find("model.embed_tokens.weight");
    const auto* rows = reinterpret_cast<const BFloat16*>((*file)->Data(*head));
    for (size_t v = 0; v < logits.size(); ++v) {
      double sum = 0;
      for (size_t k = 0; k < hidden.size(); ++k)
        sum += static_cast<double>(ToFloat(rows[v * hidden.size() + k])) * static_cast<double>(hidden[k]);
      ASSERT_NEAR(logits[v], sum, 1e-3) << "token " << v;
    }
  }
}

TEST(Headless, ItsBytesAreNotCountedAndNotRead) {
  Host host;
  for (const std::string family : kFamilies) {
    for (bool random : {false, true}) {
      LoadOptions with, without = Headless();
      with.dtype = DType::kFloat32;
      with.random_weights = without.random_weights = random;
      auto whole = OpenModel(host.ctx, kModels + family, with);
      auto rest = OpenModel(host.ctx, kModels + family, without);
      ASSERT_TRUE(whole.ok() && rest.ok()) << rest.status().message();
      const ModelConfig& config = whole->config();
      EXPECT_EQ(whole->weight_bytes() - rest->weight_bytes(),
                ops::LinearWeightBytes(host.ctx, DType::kBFloat16, config.vocab_size, config.hidden_size))
          << family;
      EXPECT_EQ(rest->Load(host.ctx)->weight_bytes(), rest->weight_bytes());
    }
  }
}

TEST(Headless, EveryFormOfACheckpoint) {
  Host host;
  for (const std::string family : kFamilies) {
    for (const char* text : {"none", "wint8", "wint4", R"({"quantization": "wint8", "lm_head": "wint4"})",
                             R"({"quantization": "none", "lm_head": "wint8"})"}) {
      SCOPED_TRACE(StrCat(family, " ", text));
      const auto kind = ParseQuantization(text);
      ASSERT_TRUE(kind.ok()) << kind.status().message();
      const std::vector<float> expected = HiddenOf(host, kModels + family, Headless(*kind));
      for (float v : expected) ASSERT_TRUE(std::isfinite(v));
      FolderForTest folder;
      PackOptions pack;
      pack.quantization = *kind;
      const Status packed = PackModel(host.ctx, kModels + family, folder.File("packed"), pack);
      ASSERT_TRUE(packed.ok()) << packed.message();
      EXPECT_EQ(HiddenOf(host, folder.File("packed"), Headless()), expected) << "packed";
    }
  }
}

}  // namespace
}  // namespace fd
