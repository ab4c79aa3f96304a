#include "model/weights/packed_config.h"

#include "base/files.h"
#include "base/strings.h"

namespace fd {
namespace {

constexpr const char* kMethod = "fastdeploy_cpp";
constexpr int64_t kFormatVersion = 1;
constexpr int64_t kMaxGroupSize = 65536;

std::string KindName(const Quantization& quantization) {
  return quantization.bits == 0 ? "none" : StrCat("wint", quantization.bits);
}

StatusOr<Quantization> ParsePacked(const Json& config) {
  const Json* version = config.Find("format_version");
  if (version == nullptr || !version->is_int() || version->as_int() != kFormatVersion) {
    return InvalidArgument(StrCat("format_version is ",
                                  version == nullptr ? "missing" : WriteJson(*version).substr(0, 60),
                                  "; this program reads ", kFormatVersion));
  }
  Quantization out;
  if (const Json* head = config.Find("lm_head"); head != nullptr) {
    if (!head->is_bool()) return InvalidArgument("lm_head is no boolean");
    out.lm_head = head->as_bool();
  }
  const Json* kind = config.Find("quantization");
  const std::string name = kind != nullptr && kind->is_string() ? kind->as_string() : "";
  out.bits = name == "wint8" ? 8 : name == "wint4" ? 4 : 0;
  if (out.bits == 0 && !(name == "none" && out.lm_head)) {
    return InvalidArgument(StrCat("quantization is ",
                                  kind == nullptr ? "missing" : WriteJson(*kind).substr(0, 60),
                                  "; allowed: wint8, wint4"));
  }
  const Json* group = config.Find("group_size");
  if (group != nullptr) {
    if (!group->is_int() || group->as_int() < 0 || group->as_int() > kMaxGroupSize ||
        group->as_int() % 32 != 0) {
      return InvalidArgument(StrCat("group_size is ", WriteJson(*group).substr(0, 60),
                                    "; allowed: 0 or a multiple of 32 up to ", kMaxGroupSize));
    }
    out.group_size = group->as_int();
  }
  return out;
}

}  // namespace

std::string QuantizationName(const Quantization& quantization) {
  std::string name = KindName(quantization);
  if (quantization.group_size != 0) {
    name = WriteJson(JsonObject{{"quantization", name}, {"group_size", quantization.group_size}});
  }
  return quantization.lm_head ? name + " --quantize-lm-head" : name;
}

JsonObject PackedConfig(const Quantization& quantization) {
  return {{"quant_method", kMethod},
          {"format_version", kFormatVersion},
          {"quantization", KindName(quantization)},
          {"group_size", quantization.group_size},
          {"lm_head", quantization.lm_head}};
}

StatusOr<StoredQuantization> ReadStoredQuantization(const std::string& model_dir) {
  const std::string path = JoinPath(model_dir, "config.json");
  FD_ASSIGN_OR_RETURN(const Json json, ReadJsonFile(path));
  StoredQuantization out;
  const Json* config = json.Find(kQuantizationConfig);
  if (config == nullptr || config->is_null()) return out;
  const Json* method = config->Find("quant_method");
  out.method = method != nullptr && method->is_string() ? method->as_string().substr(0, 60) : "unknown";
  if (out.method != kMethod) return out;
  StatusOr<Quantization> packed = ParsePacked(*config);
  if (!packed.ok()) return packed.status().WithContext(StrCat(path, ": ", kQuantizationConfig));
  out.packed = *packed;
  return out;
}

}  // namespace fd
