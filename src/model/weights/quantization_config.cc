#include "model/weights/quantization_config.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "base/strings.h"
#include "model/config/config_reader.h"

namespace fd {
namespace {

constexpr std::string_view kExample =
    R"(for example wint8, {"quantization": "wint4", "group_size": 128} or {"quantization": "mix_quant", "dense_quant_type": "wint8", "moe_quant_type": "wint4"})";
constexpr std::string_view kKeys[] = {"quantization",          "algo",           "group_size",
                                      "dense_quant_type",      "moe_quant_type", "image_moe_quant_type",
                                      "kv_cache_quant_type",   "lm_head",        "layers",
                                      "modules_to_not_convert"};
constexpr std::string_view kParts[] = {"dense_quant_type", "moe_quant_type", "image_moe_quant_type"};
// Only in config.json: switches of FastDeploy, and a number, that change nothing for the kinds that are read.
constexpr std::string_view kCheckpointSwitches[] = {
    "is_quantized", "is_moe_quantized",  "is_channel_wise",   "has_zero_point",
    "is_permuted",  "moe_dynamic_quant", "is_checkpoint_bf16"};
constexpr std::string_view kCheckpointNumber = "hadamard_block_size";
// FastDeploy's other kinds.
constexpr std::string_view kLaterKinds[] = {"wint2",    "w4w2",  "block_wise_fp8", "tensor_wise_fp8",
                                            "w4afp8",   "w4a8",  "w8a8",           "kvcache",
                                            "wfp8afp8", "nvfp4", "mxfp4"};

template <typename List>
bool IsIn(const List& list, std::string_view word) {
  return std::find(std::begin(list), std::end(list), word) != std::end(list);
}
template <typename List>
std::string Joined(const List& list) {
  std::vector<std::string> words;
  for (std::string_view word : list) words.emplace_back(word);
  return Join(words, ", ");
}

Status NoKind(const std::string& field, const std::string& kind, std::string_view allowed) {
  const std::string shown = kind.substr(0, 60);
  if (IsIn(kLaterKinds, kind)) {
    return Unimplemented(
        StrCat(field, " ", shown, " is still to come; supported now: ", allowed, "; ", kExample));
  }
  return InvalidArgument(StrCat(field, " must be one of ", allowed, ", not '", shown, "'; ", kExample));
}

// wint8, wint4 or null.
StatusOr<int> Bits(const std::string& field, const Json& kind) {
  if (kind.is_null()) return 0;
  if (!kind.is_string())
    return InvalidArgument(
        StrCat(field, " must be wint8, wint4 or null, not ", kind.TypeName(), "; ", kExample));
  if (kind.as_string() == "wint8") return 8;
  if (kind.as_string() == "wint4") return 4;
  return NoKind(field, kind.as_string(), "wint8, wint4 and null (as stored)");
}

Status CheckKeys(const JsonObject& object, bool checkpoint) {
  for (const auto& [key, value] : object) {
    if (IsIn(kKeys, key)) continue;
    const std::string shown = key.substr(0, 60);
    if (checkpoint && IsIn(kCheckpointSwitches, key)) {
      if (value.is_bool() || value.is_null()) continue;
      return InvalidArgument(StrCat(shown, " must be true or false, not ", value.TypeName()));
    }
    if (checkpoint && key == kCheckpointNumber) continue;
    if (IsIn(kCheckpointSwitches, key)) {
      return InvalidArgument(
          StrCat("the key ", shown, " describes a checkpoint and belongs into its config.json; ", kExample));
    }
    return InvalidArgument(
        StrCat("the key ", shown, " is still to come or unknown; allowed: ", Joined(kKeys), "; ", kExample));
  }
  return OkStatus();
}

// `layers` and `modules_to_not_convert` as choices.
Status ReadLayers(const Json& json, Quantization* out) {
  if (const Json* layers = json.Find("layers"); layers != nullptr && !layers->is_null()) {
    if (!layers->is_object()) {
      return InvalidArgument(StrCat("layers must be an object of patterns and kinds, not ",
                                    layers->TypeName(),
                                    R"(, for example {"model.layers.0.*": "wint8", "*.down_proj": null})"));
    }
    for (const auto& [pattern, kind] : layers->as_object()) {
      FD_ASSIGN_OR_RETURN(const int bits, Bits(StrCat("layers.", pattern.substr(0, 60)), kind));
      out->layers.push_back({pattern, {bits, 0}});
    }
  }
  if (const Json* names = json.Find("modules_to_not_convert"); names != nullptr && !names->is_null()) {
    bool good = names->is_array();
    for (size_t i = 0; good && i < names->as_array().size(); ++i) good = names->as_array()[i].is_string();
    if (!good) {
      return InvalidArgument(
          R"(modules_to_not_convert must be a list of patterns, for example ["*.shared_experts.*"])");
    }
    for (const Json& name : names->as_array()) {  // FastDeploy: the module itself or what lies in it
      out->layers.push_back({name.as_string(), {}, false});
      out->layers.push_back({name.as_string() + ".*", {}, false});
    }
  }
  return OkStatus();
}

// group_size goes to the kinds with the fewest bits.
void SetGroups(Quantization* q, int64_t group_size) {
  std::vector<ops::QuantScheme*> schemes = {&q->dense, &q->experts, &q->vision_experts};
  for (LayerChoice& choice : q->layers) schemes.push_back(&choice.scheme);
  int fewest = q->bits == 0 ? 8 : q->bits;
  for (const ops::QuantScheme* s : schemes) {
    if (s->bits != 0) fewest = std::min(fewest, s->bits);
  }
  if (q->bits == fewest) q->group_size = group_size;
  for (ops::QuantScheme* s : schemes) {
    if (s->bits == fewest) s->group_size = group_size;
  }
}

StatusOr<Quantization> Read(const Json& json, bool checkpoint) {
  if (!json.is_object()) return InvalidArgument(StrCat("holds ", json.TypeName(), "; expected an object"));
  FD_RETURN_IF_ERROR(CheckKeys(json.as_object(), checkpoint));
  const auto find = [&](std::string_view key) -> const Json* {
    const Json* value = json.Find(key);
    return value == nullptr || value->is_null() ? nullptr : value;
  };
  const Json* named = find("quantization");
  if (named == nullptr || !named->is_string())
    return InvalidArgument(StrCat("the key quantization must name a kind, ", kExample));
  std::string kind = named->as_string();
  if (kind == "weight_only") {
    const Json* algo = find("algo");
    const std::string text = algo != nullptr && algo->is_string() ? algo->as_string() : "";
    if (text != "weight_only_int8" && text != "weight_only_int4") {
      return InvalidArgument(
          StrCat("weight_only needs algo weight_only_int8 or weight_only_int4, ", kExample));
    }
    kind = text == "weight_only_int8" ? "wint8" : "wint4";
  }
  Quantization out;
  if (kind == "mix_quant") {
    out.mixed = true;
    bool any = false;
    ops::QuantScheme* const to[] = {&out.dense, &out.experts, &out.vision_experts};
    for (size_t i = 0; i < 3; ++i) {
      any = any || json.Find(kParts[i]) != nullptr;
      if (find(kParts[i]) == nullptr) {
        if (i == 2) out.vision_experts = out.experts;
        continue;
      }
      FD_ASSIGN_OR_RETURN(to[i]->bits, Bits(std::string(kParts[i]), *find(kParts[i])));
    }
    if (!any)
      return InvalidArgument(StrCat("mix_quant needs dense_quant_type or moe_quant_type, ", kExample));
  } else {
    for (std::string_view part : kParts) {
      if (find(part) == nullptr) continue;
      return InvalidArgument(StrCat(part, " goes with \"quantization\": \"mix_quant\", not with ",
                                    kind.substr(0, 60), "; ", kExample));
    }
    if (kind != "none" && kind != "wint8" && kind != "wint4") {
      return NoKind("the kind", kind, "none, wint8, wint4, mix_quant and weight_only");
    }
    out.bits = kind == "none" ? 0 : kind == "wint8" ? 8 : 4;
  }
  if (const Json* cache = find("kv_cache_quant_type"); cache != nullptr) {
    return Unimplemented(StrCat(
        "kv_cache_quant_type ", cache->is_string() ? cache->as_string().substr(0, 60) : cache->TypeName(),
        " does not say here what keys and values are kept in: --kv-cache-dtype fp8 or int8 does, with scales "
        "of its own; supported: null; ",
        kExample));
  }
  FD_RETURN_IF_ERROR(ReadLayers(json, &out));
  if (const Json* head = find("lm_head"); head != nullptr) {
    FD_ASSIGN_OR_RETURN(const int bits, Bits("lm_head", *head));
    out.lm_head = HeadScheme(bits);
  }
  if (const Json* size = find("group_size"); size != nullptr) {
    if (!size->is_int() || size->as_int() < 32 || size->as_int() > 65536 || size->as_int() % 32 != 0) {
      return InvalidArgument(StrCat("group_size must be a multiple of 32 from 32 to 65536, ", kExample));
    }
    SetGroups(&out, size->as_int());
  }
  return out;
}

Json KindJson(int bits) { return bits == 0 ? Json() : Json(StrCat("wint", bits)); }

}  // namespace

JsonObject QuantizationJson(const Quantization& q) {
  JsonObject out;
  if (q.mixed) {
    out.Set("quantization", "mix_quant");
    const ops::QuantScheme* const parts[] = {&q.dense, &q.experts, &q.vision_experts};
    for (size_t i = 0; i < 3; ++i) out.Set(std::string(kParts[i]), KindJson(parts[i]->bits));
  } else {
    out.Set("quantization", q.bits == 0 ? Json("none") : KindJson(q.bits));
  }
  JsonObject layers;
  JsonArray kept;
  int64_t group_size =
      std::max({q.group_size, q.dense.group_size, q.experts.group_size, q.vision_experts.group_size});
  for (const LayerChoice& choice : q.layers) {
    group_size = std::max(group_size, choice.scheme.group_size);
    if (choice.must_match) {
      layers.Set(choice.pattern, KindJson(choice.scheme.bits));
    } else if (!choice.pattern.ends_with(".*")) {  // the module itself, followed by what lies in it
      kept.push_back(choice.pattern);
    }
  }
  if (!layers.empty()) out.Set("layers", std::move(layers));
  if (!kept.empty()) out.Set("modules_to_not_convert", std::move(kept));
  if (group_size != 0) out.Set("group_size", group_size);
  if (q.lm_head.bits != 0) {
    FD_CHECK(q.lm_head == HeadScheme(q.lm_head.bits), "a head that no key names");
    out.Set("lm_head", KindJson(q.lm_head.bits));
  }
  return out;
}

std::string QuantizationName(const Quantization& q) {
  JsonObject json = QuantizationJson(q);
  json.Erase("lm_head");
  const std::string name = json.size() == 1 ? json.begin()->second.as_string() : WriteJson(json);
  return q.lm_head.bits == 0 ? name : StrCat(name, " --quantize-lm-head wint", q.lm_head.bits);
}

StatusOr<ops::QuantScheme> ParseHeadKind(const std::string& text) {
  if (text == "none") return HeadScheme(0);
  if (text == "wint8") return HeadScheme(8);
  if (text == "wint4") return HeadScheme(4);
  return InvalidArgument("must be one of none, wint8, wint4, for example --quantize-lm-head wint8");
}

StatusOr<Quantization> ParseQuantization(const std::string& text, bool* names_head) {
  if (names_head != nullptr) *names_head = false;
  if (text.starts_with("{")) {
    StatusOr<Json> json = ParseJson(text);
    if (!json.ok())
      return InvalidArgument(StrCat("is no JSON object (", json.status().message(), "), ", kExample));
    if (names_head != nullptr) *names_head = json->Find("lm_head") != nullptr;
    return Read(*json, false);
  }
  Quantization out;
  if (text == "none") return out;
  if (text != "wint8" && text != "wint4") {
    return NoKind("the kind", text, "none, wint8, wint4 and JSON of these, mix_quant and weight_only");
  }
  out.bits = text == "wint8" ? 8 : 4;
  return out;
}

StatusOr<Quantization> ReadQuantizationConfig(const Json& quantization_config) {
  StatusOr<Quantization> out = Read(quantization_config, true);
  if (!out.ok()) return out.status().WithContext("quantization_config");
  if (out->bits == 4) {  // only a command line's wint4 leaves a MoE model's other layers in 8 bits
    out->mixed = true;
    out->dense = out->experts = out->vision_experts = {out->bits, out->group_size};
  }
  return out;
}

}  // namespace fd
