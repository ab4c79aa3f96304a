#include "model/config/model_config.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/strings.h"

namespace fd {
namespace {

const std::string kModels = "tests/golden/models/";

bool Contains(const std::string& text, std::string_view piece) {
  return text.find(piece) != std::string::npos;
}

ModelConfig Load(const std::string& dir, const std::string& name) {
  auto config = LoadModelConfig(dir, name);
  EXPECT_TRUE(config.ok()) << config.status().message();
  return config.ok() ? *config : ModelConfig{};
}

TEST(ModelConfig, AllStylesGiveTheSameModel) {
  for (const char* family : {"ernie4_5", "ernie4_5_moe", "ernie4_5_vl_moe"}) {
    ModelConfig hub = Load(kModels + family, "config.json");
    EXPECT_EQ(hub.family, family);
    EXPECT_TRUE(hub == Load(kModels + family, "config_transformers5.json")) << family;
    if (hub.vision) {
      EXPECT_TRUE(hub == Load(kModels + family, "config_flat.json")) << family;
    }
  }
}

TEST(ModelConfig, Values) {
  ModelConfig dense = Load(kModels + "ernie4_5", "config.json");
  EXPECT_EQ(dense.vocab_size, 515);
  EXPECT_EQ(dense.head_dim, 64);
  EXPECT_EQ(dense.num_kv_heads, 2);
  EXPECT_TRUE(dense.tie_word_embeddings);
  EXPECT_TRUE(dense.mrope_section.empty());
  EXPECT_FALSE(dense.moe);
  EXPECT_EQ(dense.eos_token_ids, std::vector<int32_t>{2});
  EXPECT_EQ(dense.bos_token_id, 1);

  ModelConfig moe = Load(kModels + "ernie4_5_moe", "config.json");
  EXPECT_FALSE(moe.tie_word_embeddings);
  EXPECT_EQ(moe.head_dim, 64);
  EXPECT_EQ(moe.layer_is_sparse, (std::vector<bool>{false, true, true}));
  EXPECT_EQ(moe.moe->num_experts, 8);
  EXPECT_EQ(moe.moe->top_k, 3);
  EXPECT_EQ(moe.moe->intermediate_size, 40);
  EXPECT_EQ(moe.moe->num_shared_experts, 2);

  ModelConfig vl = Load(kModels + "ernie4_5_vl_moe", "config_flat.json");
  EXPECT_EQ(vl.mrope_section, (std::vector<int64_t>{11, 11, 10}));
  EXPECT_EQ(vl.layer_is_sparse, (std::vector<bool>{false, true, true}));
  EXPECT_EQ(vl.moe->vision_intermediate_size, 24);
  EXPECT_EQ(vl.vision->intermediate_size, 136);
  EXPECT_EQ(vl.vision->depth, 2);

  ModelConfig demo = Load("models/ernie-4.5-vl-tiny", "config.json");
  EXPECT_EQ(demo.family, "ernie4_5_vl_moe");
  EXPECT_EQ(demo.num_nextn_predict_layers, 1);
  EXPECT_FLOAT_EQ(*demo.default_temperature, 0.2f);
  EXPECT_FLOAT_EQ(*demo.default_top_p, 0.8f);
  EXPECT_FALSE(demo.default_top_k);
}

// Replaces the value of `key` (in every object that has it) and parses.
void Replace(Json& json, const std::string& key, const std::optional<Json>& value) {
  if (!json.is_object()) return;
  JsonObject& o = json.as_object();
  for (auto& [k, v] : o) Replace(v, key, value);
  if (o.Find(key) == nullptr) return;
  if (value) {
    o.Set(key, *value);
  } else {
    o.Erase(key);
  }
}
std::string ErrorWith(const std::string& family, const std::string& key, const std::optional<Json>& value,
                      const std::string& file = "config.json") {
  auto json = ReadJsonFile(kModels + family + "/" + file);
  EXPECT_TRUE(json.ok());
  Replace(*json, key, value);
  auto config = ParseModelConfig(*json);
  return config.ok() ? "no error" : config.status().message();
}

TEST(ModelConfig, RefusesHostileSizes) {
  const std::vector<Json> hostile = {Json(-1),
                                     Json(0),
                                     Json(int64_t{1} << 40),
                                     Json(int64_t{9223372036854775807}),
                                     Json(1e300),
                                     Json(1.5),
                                     Json("8"),
                                     Json(true),
                                     Json(JsonArray{}),
                                     Json(JsonObject{})};
  for (const char* key :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "max_position_embeddings", "head_dim"}) {
    for (const Json& value : hostile) {
      std::string error = ErrorWith("ernie4_5", key, value);
      EXPECT_TRUE(Contains(error, std::string(key) + " is " + WriteJson(value)) && Contains(error, "allowed"))
          << error;
    }
  }
  for (const char* key : {"moe_num_experts", "moe_k", "moe_intermediate_size", "moe_layer_interval"}) {
    for (const Json& value : hostile) {
      EXPECT_TRUE(Contains(ErrorWith("ernie4_5_moe", key, value), std::string(key) + " is "))
          << key << WriteJson(value);
    }
  }
  for (const char* key : {"depth", "num_heads", "patch_size", "mlp_ratio", "spatial_conv_size",
                          "freq_allocation", "pixel_hidden_size"}) {
    for (const Json& value : hostile) {
      if (std::string_view(key) == "mlp_ratio" && value.is_double() && value.as_double() == 1.5) continue;
      EXPECT_NE(ErrorWith("ernie4_5_vl_moe", key, value, "config_flat.json"), "no error")
          << key << WriteJson(value);
    }
  }
  for (const char* key :
       {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"}) {
    EXPECT_TRUE(Contains(ErrorWith("ernie4_5", key, std::nullopt), std::string(key) + " is missing"));
  }
  EXPECT_TRUE(
      Contains(ErrorWith("ernie4_5_moe", "moe_num_experts", std::nullopt), "moe_num_experts is missing"));
  EXPECT_TRUE(
      Contains(ErrorWith("ernie4_5_vl_moe", "depth", std::nullopt), "vision_config.depth is missing"));
}

TEST(ModelConfig, PublishedDimensionsForBenchmarks) {
  const std::string configs = "bench/configs/";
  std::vector<bool> first_dense(28, true);
  first_dense[0] = false;
  ModelConfig text = Load(configs + "ernie-4.5-21b-a3b", "config.json");
  ModelConfig vl = Load(configs + "ernie-4.5-vl-28b-a3b", "config.json");
  EXPECT_EQ(text.family, "ernie4_5_moe");
  EXPECT_EQ(vl.family, "ernie4_5_vl_moe");
  for (const ModelConfig* c : {&text, &vl}) {
    EXPECT_EQ(c->hidden_size, 2560);
    EXPECT_EQ(c->intermediate_size, 12288);
    EXPECT_EQ(c->num_layers, 28);
    EXPECT_EQ(c->num_heads, 20);
    EXPECT_EQ(c->num_kv_heads, 4);
    EXPECT_EQ(c->head_dim, 128);
    EXPECT_EQ(c->vocab_size, 103424);
    EXPECT_EQ(c->max_position_embeddings, 131072);
    EXPECT_FLOAT_EQ(c->rope_theta, 500000.0f);
    EXPECT_TRUE(c->tie_word_embeddings);
    EXPECT_EQ(c->layer_is_sparse, first_dense);
    ASSERT_TRUE(c->moe.has_value());
    EXPECT_EQ(c->moe->num_experts, 64);
    EXPECT_EQ(c->moe->top_k, 6);
    EXPECT_EQ(c->moe->intermediate_size, 1536);
    EXPECT_EQ(c->moe->num_shared_experts, 2);
  }
  EXPECT_EQ(text.moe->vision_intermediate_size, 0);
  EXPECT_FALSE(text.vision);
  EXPECT_EQ(vl.moe->vision_intermediate_size, 512);
  EXPECT_EQ(vl.mrope_section, (std::vector<int64_t>{22, 22, 20}));
  ASSERT_TRUE(vl.vision.has_value());
  EXPECT_EQ(vl.vision->depth, 32);
  EXPECT_EQ(vl.vision->hidden_size, 1280);
  EXPECT_EQ(vl.vision->num_heads, 16);
  EXPECT_EQ(vl.vision->intermediate_size, 5120);
  EXPECT_EQ(vl.vision->patch_size, 14);
}

TEST(ModelConfig, RefusesWhatDoesNotFitTogether) {
  EXPECT_TRUE(Contains(ErrorWith("ernie4_5", "num_key_value_heads", Json(3)),
                       "a divisor of num_attention_heads = 4"));
  EXPECT_TRUE(Contains(ErrorWith("ernie4_5", "head_dim", Json(63)), "an even number"));
  EXPECT_TRUE(Contains(ErrorWith("ernie4_5_moe", "num_attention_heads", Json(5)), "head_dim is missing"));
  EXPECT_TRUE(Contains(ErrorWith("ernie4_5", "hidden_act", Json("gelu")), "silu"));
  EXPECT_TRUE(Contains(ErrorWith("ernie4_5", "use_bias", Json(true)), "use_bias"));
  EXPECT_TRUE(Contains(ErrorWith("ernie4_5", "rms_norm_eps", Json(0)), "rms_norm_eps is 0"));
  EXPECT_TRUE(Contains(ErrorWith("ernie4_5", "eos_token_id", Json(515)), "eos_token_id is 515"));
  EXPECT_TRUE(Contains(ErrorWith("ernie4_5_moe", "moe_k", Json(9)), "from 1 to 8"));
  EXPECT_TRUE(Contains(ErrorWith("ernie4_5_vl_moe", "mrope_section", Json(JsonArray{11, 11, 11})),
                       "sum of head_dim / 2 = 32"));
  EXPECT_TRUE(
      Contains(ErrorWith("ernie4_5_vl_moe", "mlp_layer_types", Json(JsonArray{"dense"})), "mlp_layer_types"));
  EXPECT_TRUE(Contains(ErrorWith("ernie4_5_vl_moe", "freq_allocation", Json(8), "config_flat.json"),
                       "freq_allocation"));
  EXPECT_TRUE(
      Contains(ErrorWith("ernie4_5_vl_moe", "moe_num_experts", Json(JsonArray{6, 5}), "config_flat.json"),
               "moe_num_experts"));
  EXPECT_TRUE(Contains(ErrorWith("ernie4_5_vl_moe", "vision_config", Json(3)), "vision_config is 3"));
  EXPECT_TRUE(Contains(ErrorWith("ernie4_5_vl_moe", "text_config", Json("x")), "text_config"));
  EXPECT_TRUE(Contains(ErrorWith("ernie4_5_vl_moe", "rope_type", Json("ntk")), "allowed: default, linear"));
}

TEST(ModelConfig, UnknownFamilyListsTheKnownOnes) {
  auto qwen = LoadModelConfig(kModels + "qwen3");
  ASSERT_FALSE(qwen.ok());
  EXPECT_TRUE(Contains(qwen.status().message(), "ernie4_5, ernie4_5_moe, ernie4_5_vl_moe"))
      << qwen.status().message();
  EXPECT_TRUE(Contains(qwen.status().message(), "qwen3"));
  EXPECT_TRUE(Contains(qwen.status().message(), "config.json"));
  EXPECT_FALSE(LoadModelConfig("no/such/folder").ok());
  EXPECT_FALSE(LoadModelConfig("tests/golden").ok());
  EXPECT_FALSE(ParseModelConfig(Json(1)).ok());
}

TEST(ModelConfig, LayerRangeBeyondTheLastLayerIsClamped) {
  auto json = ReadJsonFile(kModels + "ernie4_5_moe/config.json");
  json->as_object().Set("moe_layer_end_index", Json(29));
  json->as_object().Set("moe_layer_interval", Json(2));
  auto config = ParseModelConfig(*json);
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(config->layer_is_sparse, (std::vector<bool>{false, true, false}));
}

}  // namespace
}  // namespace fd
