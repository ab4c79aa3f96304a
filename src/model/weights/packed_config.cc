#include "model/weights/packed_config.h"

#include "base/files.h"
#include "base/strings.h"

namespace fd {
namespace {

constexpr const char* kMethod = "fastdeploy_cpp";
constexpr int64_t kSomePanels = 1, kAllPanels = 2;  // format_version

StatusOr<Quantization> ParsePacked(const Json& config) {
  const Json* version = config.Find("format_version");
  if (version == nullptr || !version->is_int() ||
      (version->as_int() != kSomePanels && version->as_int() != kAllPanels)) {
    return InvalidArgument(StrCat("format_version is ",
                                  version == nullptr ? "missing" : WriteJson(*version).substr(0, 60),
                                  "; this program reads ", kSomePanels, " and ", kAllPanels));
  }
  JsonObject kinds;
  for (const auto& [key, value] : config.as_object()) {
    if (key != "quant_method" && key != "format_version") kinds.Set(key, value);
  }
  if (const Json* head = config.Find("lm_head"); head != nullptr && head->is_bool()) {
    return InvalidArgument(
        "lm_head must be wint8, wint4 or null, not a boolean, as earlier builds wrote it; make the folder "
        "anew with `fastdeploy quantize`");
  }
  FD_ASSIGN_OR_RETURN(const Quantization out, ParseQuantization(WriteJson(std::move(kinds))));
  if (out == Quantization{} && version->as_int() == kSomePanels)
    return InvalidArgument("nothing is quantised");
  return out;
}

}  // namespace

std::string PackedName(const Quantization& quantization) {
  return quantization == Quantization{} ? "none (weights as stored)" : QuantizationName(quantization);
}

JsonObject PackedConfig(const Quantization& quantization) {
  JsonObject out = {{"quant_method", kMethod},
                    {"format_version", PacksAll(quantization) ? kAllPanels : kSomePanels}};
  for (auto& [key, value] : QuantizationJson(quantization)) out.Set(key, value);
  return out;
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
  out.all_panels = config->Find("format_version")->as_int() == kAllPanels;
  return out;
}

}  // namespace fd
