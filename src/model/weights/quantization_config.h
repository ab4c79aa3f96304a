// Quantization as text: the value of --quantization and the quantization_config of a checkpoint's
// config.json, under FastDeploy's names.
#pragma once

#include <string>

#include "base/json.h"
#include "base/status.h"
#include "model/weights/quantization.h"

namespace fd {

// A kind by itself (none, wint8, wint4) or a JSON object:
//   quantization            none, wint8, wint4, weight_only (with algo) or mix_quant
//   algo                    weight_only_int8 or weight_only_int4
//   group_size              inputs under one scale, of the weights with the fewest bits that are named
//   dense_quant_type        mix_quant: wint8, wint4 or null (as stored), of attention, MLPs, shared experts
//   moe_quant_type          mix_quant: the same of routed experts
//   image_moe_quant_type    mix_quant: of vision experts; absent or null: moe_quant_type
//   kv_cache_quant_type     null: EngineOptions::kv_dtype says it
//   lm_head                 wint8, wint4 (in groups of 32 inputs, whatever group_size) or null, of the head
//   layers                  {pattern: wint8, wint4 or null}: the first pattern that matches wins
//   modules_to_not_convert  [pattern]: as stored
// Patterns match a layer's name (model.layers.0.mlp.down_proj; q_proj, k_proj and v_proj together are also
// qkv_proj, gate_proj and up_proj are up_gate_proj); * stands for any characters, ? for one. Errors name
// the field, its value, what is allowed and an example. names_head, if given: whether the key lm_head is
// there.
StatusOr<Quantization> ParseQuantization(const std::string& text, bool* names_head = nullptr);
// none, wint8 or wint4, the head's kind alone.
StatusOr<ops::QuantScheme> ParseHeadKind(const std::string& text);

// The same from a parsed config.json, where FastDeploy also writes whether weights are quantised already
// (is_quantized, is_moe_quantized: the tensors themselves say it) and settings of other kinds. wint4 here
// means every layer, as in FastDeploy, while on a command line it leaves a MoE model's dense layers in 8
// bits.
StatusOr<Quantization> ReadQuantizationConfig(const Json& quantization_config);

// An object that ParseQuantization reads as the same.
JsonObject QuantizationJson(const Quantization& quantization);

// As flags take it: "wint4", {"quantization":"wint4","group_size":128}, "wint8 --quantize-lm-head wint4",
// "none".
std::string QuantizationName(const Quantization& quantization);

}  // namespace fd
