#include "model/config/model_config.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "base/files.h"
#include "base/strings.h"
#include "model/config/config_reader.h"

namespace fd {
namespace {

constexpr IntRange kWidth = {1, 1 << 20};
constexpr IntRange kVocab = {1, 1 << 24};
constexpr IntRange kLayers = {1, 1024};
constexpr IntRange kHeads = {1, 1024};
constexpr IntRange kHeadDim = {2, 512};
constexpr IntRange kPositions = {1, 1 << 24};
constexpr IntRange kExperts = {1, 1024};

// Names as published checkpoints write them, older spellings included.
struct FamilyName {
  std::string_view name;
  std::string_view family;
};
constexpr FamilyName kModelTypes[] = {
    {"ernie4_5", "ernie4_5"},
    {"ernie4_5_moe", "ernie4_5_moe"},
    {"ernie4_5_vl_moe", "ernie4_5_vl_moe"},
    {"ernie4_5_moe_vl", "ernie4_5_vl_moe"},
};
constexpr FamilyName kArchitectures[] = {
    {"Ernie4_5ForCausalLM", "ernie4_5"},
    {"Ernie4_5_ForCausalLM", "ernie4_5"},
    {"Ernie4_5_MoeForCausalLM", "ernie4_5_moe"},
    {"Ernie4_5_VLMoeForConditionalGeneration", "ernie4_5_vl_moe"},
    {"Ernie4_5_VL_MoeForConditionalGeneration", "ernie4_5_vl_moe"},
    {"Ernie4_5_VLMoEForConditionalGeneration", "ernie4_5_vl_moe"},
};

std::string ReadFamily(ConfigReader& root) {
  std::string model_type = root.String("model_type", "");
  for (const FamilyName& f : kModelTypes) {
    if (f.name == model_type) return std::string(f.family);
  }
  std::string named;
  if (const Json* list = root.Find("architectures"); list != nullptr && list->is_array()) {
    for (const Json& entry : list->as_array()) {
      if (!entry.is_string()) continue;
      for (const FamilyName& f : kArchitectures) {
        if (f.name == entry.as_string()) return std::string(f.family);
      }
      if (named.empty()) named = entry.as_string().substr(0, 80);
    }
  }
  root.FailStatus(
      InvalidArgument(StrCat("model_type \"", std::string_view(model_type).substr(0, 80), "\"",
                             named.empty() ? "" : StrCat(" (architecture ", named, ")"),
                             " is not a family this program knows; known: ", Join(KnownFamilies(), ", "))));
  return "";
}

// Which layers are mixtures of experts: a list, or start, end and interval.
void ReadLayerTypes(ConfigReader& text, ModelConfig& c) {
  c.layer_is_sparse.assign(static_cast<size_t>(c.num_layers), false);
  if (const Json* list = text.Find("mlp_layer_types"); list != nullptr) {
    bool good = list->is_array() && list->as_array().size() == c.layer_is_sparse.size();
    for (size_t i = 0; good && i < c.layer_is_sparse.size(); ++i) {
      const Json& entry = list->as_array()[i];
      good = entry.is_string() && (entry.as_string() == "dense" || entry.as_string() == "sparse");
      if (good) c.layer_is_sparse[i] = entry.as_string() == "sparse";
    }
    if (!good) {
      text.Fail("mlp_layer_types",
                StrCat("a list of num_hidden_layers = ", c.num_layers, " times \"dense\" or \"sparse\""));
    }
    return;
  }
  const IntRange index = {-1, 1 << 20};
  std::vector<int64_t> start = text.Ints("moe_layer_start_index", index, 1, 2);
  std::vector<int64_t> end = text.Ints("moe_layer_end_index", index, 1, 2);
  const int64_t interval = text.Int("moe_layer_interval", {1, 1024}, 1);
  if (start.empty()) start = {1};
  if (end.empty()) end = {-1};
  const int64_t first = std::max<int64_t>(0, *std::min_element(start.begin(), start.end()));
  int64_t last = *std::max_element(end.begin(), end.end());
  // -1 stands for the last layer; published files also name layers beyond it.
  if (std::find(end.begin(), end.end(), -1) != end.end() || last >= c.num_layers) last = c.num_layers - 1;
  for (int64_t l = first; l <= last; ++l) {
    if ((l + 1) % interval == 0) c.layer_is_sparse[static_cast<size_t>(l)] = true;
  }
}

void ReadMoe(ConfigReader& text, ModelConfig& c) {
  const bool vision = c.family == "ernie4_5_vl_moe";
  MoeConfig moe;
  std::vector<int64_t> experts = text.Ints("moe_num_experts", kExperts, 1, vision ? 2 : 1);
  if (experts.empty()) {
    text.FailMissing("moe_num_experts", "an integer from 1 to 1024");
    return;
  }
  if (experts.size() == 2 && experts[0] != experts[1]) {
    text.Fail("moe_num_experts", "as many vision experts as text experts");
  }
  moe.num_experts = experts[0];
  moe.top_k = text.Int("moe_k", {1, std::min<int64_t>(moe.num_experts, 64)});
  std::vector<int64_t> width = text.Ints("moe_intermediate_size", kWidth, 1, vision ? 2 : 1);
  if (width.empty()) {
    text.FailMissing(
        "moe_intermediate_size",
        vision ? "a list of two integers: width of a text and of a vision expert" : "an integer");
    return;
  }
  moe.intermediate_size = width[0];
  if (vision) moe.vision_intermediate_size = width.back();
  moe.num_shared_experts = text.Int("moe_num_shared_experts", {0, 64}, 0);
  if (moe.num_shared_experts * moe.intermediate_size > kWidth.high) {
    text.Fail("moe_num_shared_experts", StrCat("at most ", kWidth.high, " / moe_intermediate_size"));
  }
  moe.norm_min = static_cast<float>(text.Number("moe_norm_min", 0.0, 1.0, 1e-12));
  std::string gate = text.String("moe_gate_act", "softmax");
  if (gate != "softmax") {
    text.FailStatus(Unimplemented(
        StrCat(text.Name("moe_gate_act"), " \"", gate, "\" is not supported; only \"softmax\"")));
  }
  c.moe = moe;
  ReadLayerTypes(text, c);
}

void ReadVision(ConfigReader& root, ModelConfig& c) {
  ConfigReader v = root.Child("vision_config");
  if (!root.Has("vision_config")) {
    root.FailMissing("vision_config", "an object that describes the vision tower");
    return;
  }
  VisionConfig out;
  out.depth = v.Int("depth", kLayers);
  const char* width_key = v.Has("hidden_size") ? "hidden_size" : "embed_dim";
  out.hidden_size = v.Int(width_key, kWidth);
  if (v.Has("embed_dim") && v.Int("embed_dim", kWidth) != out.hidden_size) {
    v.Fail("embed_dim", StrCat("the value of hidden_size, ", out.hidden_size));
  }
  if (root.Has("pixel_hidden_size") && root.Int("pixel_hidden_size", kWidth) != out.hidden_size) {
    root.Fail("pixel_hidden_size", StrCat("the vision tower's hidden_size, ", out.hidden_size));
  }
  out.num_heads = v.Int("num_heads", kHeads);
  if (v.Has("intermediate_size")) {
    out.intermediate_size = v.Int("intermediate_size", kWidth);
  } else {
    double ratio = v.Number("mlp_ratio", 1.0 / 64, 64.0);
    double wide = std::nearbyint(ratio * static_cast<double>(out.hidden_size));
    if (wide < 1 || wide > static_cast<double>(kWidth.high)) {
      v.Fail("mlp_ratio", StrCat("an MLP width from 1 to ", kWidth.high, " (mlp_ratio times hidden_size)"));
    } else {
      out.intermediate_size = static_cast<int64_t>(wide);
    }
  }
  for (const char* key : {"in_channels", "in_chans"}) v.Int(key, {3, 3}, 3);
  out.patch_size = v.Int("patch_size", {1, 64}, 14);
  // The resampler groups 2x2 patches and pairs of frames; no published model does otherwise.
  for (const char* key : {"spatial_merge_size", "temporal_merge_size"}) v.Int(key, {2, 2}, 2);
  for (const char* key : {"spatial_conv_size", "temporal_conv_size"}) root.Int(key, {2, 2}, 2);
  if (!root.Bool("use_temporal_conv", true)) root.Fail("use_temporal_conv", "true");
  std::string act = v.String("hidden_act", "quick_gelu");
  if (act != "quick_gelu") v.Fail("hidden_act", "\"quick_gelu\"");
  out.layer_norm_eps = static_cast<float>(v.Number("rms_norm_eps", 1e-12, 0.1, 1e-6));
  ConfigReader parameters = v.Child("rope_parameters");
  ConfigReader& theta = parameters.Has("rope_theta") ? parameters : v;
  out.rope_theta = static_cast<float>(theta.Number("rope_theta", 1.0, 1e12, 10000.0));
  if (v.ok() && (out.hidden_size % out.num_heads != 0 || out.hidden_size / out.num_heads % 4 != 0 ||
                 out.hidden_size / out.num_heads > kHeadDim.high)) {
    v.Fail("num_heads", StrCat("a divisor of hidden_size = ", out.hidden_size,
                               " that leaves heads of 4, 8, ... up to ", kHeadDim.high, " values"));
  }
  c.vision = out;
}

void AddEndTokens(ConfigReader& reader, ModelConfig& c) {
  for (int64_t id : reader.Ints("eos_token_id", {0, c.vocab_size - 1}, 0, 64)) {
    int32_t token = static_cast<int32_t>(id);
    if (std::find(c.eos_token_ids.begin(), c.eos_token_ids.end(), token) == c.eos_token_ids.end()) {
      c.eos_token_ids.push_back(token);
    }
  }
}

void ReadTokens(ConfigReader& root, ConfigReader& text, ModelConfig& c) {
  const IntRange token = {-1, c.vocab_size - 1};
  ConfigReader& bos = root.Has("bos_token_id") ? root : text;
  ConfigReader& pad = root.Has("pad_token_id") ? root : text;
  c.bos_token_id = static_cast<int32_t>(bos.Int("bos_token_id", token, -1));
  c.pad_token_id = static_cast<int32_t>(pad.Int("pad_token_id", token, -1));
  AddEndTokens(root, c);
  if (!root.Has("eos_token_id")) AddEndTokens(text, c);
}

constexpr const char* kGenerationConfig = "generation_config.json";

Status ReadGenerationConfig(const Json& json, ModelConfig& c) {
  Status status;
  if (!json.is_object()) return InvalidArgument(StrCat("holds ", json.TypeName(), "; expected an object"));
  ConfigReader r(&json, "", &status);
  AddEndTokens(r, c);
  const IntRange token = {-1, c.vocab_size - 1};
  c.bos_token_id = static_cast<int32_t>(r.Int("bos_token_id", token, c.bos_token_id));
  c.pad_token_id = static_cast<int32_t>(r.Int("pad_token_id", token, c.pad_token_id));
  if (r.Has("temperature")) c.default_temperature = static_cast<float>(r.Number("temperature", 0.0, 100.0));
  if (r.Has("top_p")) c.default_top_p = static_cast<float>(r.Number("top_p", 0.0, 1.0));
  if (r.Has("top_k")) c.default_top_k = static_cast<int32_t>(r.Int("top_k", {0, 1 << 24}));
  const auto read = [&](const char* key, double low, double high, std::optional<float>* out) {
    if (r.Has(key)) *out = static_cast<float>(r.Number(key, low, high));
  };
  read("min_p", 0.0, 1.0, &c.default_min_p);
  read("repetition_penalty", 1e-3, 100.0, &c.default_repetition_penalty);
  read("presence_penalty", -2.0, 2.0, &c.default_presence_penalty);
  read("frequency_penalty", -2.0, 2.0, &c.default_frequency_penalty);
  return status;
}

Status ReadPixelStatistics(const Json& json, VisionConfig& v) {
  Status status;
  ConfigReader r(&json, "", &status);
  struct {
    const char* key;
    std::array<float, 3>* out;
    double low;
  } const lists[] = {{"image_mean", &v.image_mean, -10.0}, {"image_std", &v.image_std, 1e-3}};
  for (const auto& entry : lists) {
    const Json* list = r.Find(entry.key);
    if (list == nullptr) continue;
    bool good = list->is_array() && list->as_array().size() == 3;
    for (size_t i = 0; good && i < 3; ++i) {
      const Json& n = list->as_array()[i];
      good = n.is_number() && n.as_double() >= entry.low && n.as_double() <= 10.0;
      if (good) (*entry.out)[i] = static_cast<float>(n.as_double());
    }
    if (!good) r.Fail(entry.key, StrCat("three numbers from ", entry.low, " to 10"));
  }
  return status;
}

}  // namespace

std::vector<std::string> KnownFamilies() { return {"ernie4_5", "ernie4_5_moe", "ernie4_5_vl_moe"}; }

StatusOr<ModelConfig> ParseModelConfig(const Json& config, const RopeOverrides& rope) {
  if (!config.is_object())
    return InvalidArgument(StrCat("holds ", config.TypeName(), "; expected an object"));
  Status status;
  ConfigReader root(&config, "", &status);
  ModelConfig c;
  c.family = ReadFamily(root);
  if (!status.ok()) return status;
  const bool nested = root.Has("text_config");
  ConfigReader text = nested ? root.Child("text_config") : ConfigReader(&config, "", &status);

  c.vocab_size = text.Int("vocab_size", kVocab);
  c.hidden_size = text.Int("hidden_size", kWidth);
  c.intermediate_size = text.Int("intermediate_size", kWidth);
  c.num_layers = text.Int("num_hidden_layers", kLayers);
  c.num_heads = text.Int("num_attention_heads", kHeads);
  c.num_kv_heads = text.Int("num_key_value_heads", kHeads, c.num_heads);
  if (!status.ok()) return status;
  if (c.num_heads % c.num_kv_heads != 0) {
    text.Fail("num_key_value_heads", StrCat("a divisor of num_attention_heads = ", c.num_heads));
  }
  if (text.Has("head_dim")) {
    c.head_dim = text.Int("head_dim", kHeadDim);
    if (c.head_dim % 2 != 0) text.Fail("head_dim", "an even number");
  } else {
    c.head_dim = c.hidden_size / c.num_heads;
    if (c.hidden_size % c.num_heads != 0 || c.head_dim % 2 != 0 || c.head_dim > kHeadDim.high) {
      text.FailMissing("head_dim", StrCat("an even number up to ", kHeadDim.high,
                                          "; hidden_size / num_attention_heads = ", c.hidden_size, " / ",
                                          c.num_heads, " gives none"));
    }
  }
  c.max_position_embeddings = text.Int("max_position_embeddings", kPositions, 131072);
  c.rms_norm_eps = static_cast<float>(text.Number("rms_norm_eps", 1e-12, 0.1, 1e-5));
  if (std::string act = text.String("hidden_act", "silu"); act != "silu") text.Fail("hidden_act", "\"silu\"");
  c.use_bias = text.Bool("use_bias", false);
  if (c.use_bias) text.Fail("use_bias", "false (no published model of the family has biases)");
  ConfigReader& tie = root.Has("tie_word_embeddings") ? root : text;
  c.tie_word_embeddings = tie.Bool("tie_word_embeddings", true);
  if (const Json* q = root.Find("quantization_config"); q != nullptr) c.quantization_config = *q;
  c.matryoshka_dimensions = root.Ints("matryoshka_dimensions", {1, c.hidden_size}, 0, 4096);
  c.is_matryoshka = root.Bool("is_matryoshka", false) || !c.matryoshka_dimensions.empty();
  c.num_nextn_predict_layers = text.Int("num_nextn_predict_layers", {0, 16}, 0);
  if (!status.ok()) return status;
  ReadRope(text, rope, c);
  c.layer_is_sparse.assign(static_cast<size_t>(c.num_layers), false);
  if (c.family != "ernie4_5") ReadMoe(text, c);
  if (c.family == "ernie4_5_vl_moe") ReadVision(root, c);
  ReadTokens(root, text, c);
  if (!status.ok()) return status;
  return c;
}

Status LoadGenerationConfig(const std::string& folder, ModelConfig& config) {
  const std::string path = JoinPath(folder, kGenerationConfig);
  FD_ASSIGN_OR_RETURN(const Json json, ReadJsonFile(path));
  return ReadGenerationConfig(json, config).WithContext(path);
}

StatusOr<ModelConfig> LoadModelConfig(const std::string& model_dir, const std::string& config_name,
                                      const RopeOverrides& rope) {
  if (!IsDirectory(model_dir)) {
    return NotFound(StrCat("no such directory: ", model_dir, " (a folder with config.json is expected)"));
  }
  const std::string path = JoinPath(model_dir, config_name);
  if (!FileExists(path)) {
    return NotFound(StrCat(path, " does not exist; ", model_dir, " is not a checkpoint folder"));
  }
  FD_ASSIGN_OR_RETURN(Json json, ReadJsonFile(path));
  StatusOr<ModelConfig> config = ParseModelConfig(json, rope);
  if (!config.ok()) {
    // What a flag says wrong is not the file's fault.
    return config.status().param().empty() ? config.status().WithContext(path) : config.status();
  }

  if (FileExists(JoinPath(model_dir, kGenerationConfig)))
    FD_RETURN_IF_ERROR(LoadGenerationConfig(model_dir, *config));
  const std::string preprocessor = JoinPath(model_dir, "preprocessor_config.json");
  if (config->vision && FileExists(preprocessor)) {
    FD_ASSIGN_OR_RETURN(Json p, ReadJsonFile(preprocessor));
    if (Status s = ReadPixelStatistics(p, *config->vision); !s.ok()) return s.WithContext(preprocessor);
  }
  return config;
}

}  // namespace fd
