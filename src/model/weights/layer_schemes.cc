// WeightLoader: which layer is quantised how.
#include <optional>

#include "base/strings.h"
#include "model/weights/weight_loader.h"

namespace fd {

ops::QuantScheme WeightLoader::SchemeOfParts(const std::vector<Part>& parts, LinearRole role) {
  std::optional<ops::QuantScheme> scheme;
  for (const Part& part : parts) {
    const std::string_view name = LayerOfTensor(part.name);
    const LayerScheme found = SchemeOf(schemes_, role, name);
    if (found.choice >= 0) chosen_[static_cast<size_t>(found.choice)] = true;
    if (scheme && *scheme != found.scheme && pass_ == Pass::kCheck) {
      Problem(StrCat("quantization: the patterns in layers choose different kinds for ",
                     LayerOfTensor(parts[0].name), " and ", name, ", which become one matrix; name it ",
                     FusedName(name)));
    }
    scheme = found.scheme;
  }
  return *scheme;
}

void WeightLoader::RequireSameScheme(const std::vector<std::string>& names, LinearRole role) {
  if (pass_ != Pass::kCheck) return;
  const ops::QuantScheme first = SchemeOf(schemes_, role, LayerOfTensor(names[0])).scheme;
  for (const std::string& name : names) {
    if (SchemeOf(schemes_, role, LayerOfTensor(name)).scheme == first) continue;
    Problem(StrCat("quantization: the patterns in layers choose different kinds for ",
                   LayerOfTensor(names[0]), " and ", LayerOfTensor(name),
                   "; the experts of a layer have one kind"));
    return;
  }
}

Status WeightLoader::CheckChoices() const {
  for (size_t i = 0; i < chosen_.size(); ++i) {
    if (chosen_[i] || !schemes_.layers[i].must_match) continue;
    return InvalidArgument(StrCat("quantization: the pattern ", schemes_.layers[i].pattern.substr(0, 80),
                                  " matches no layer that is not matched before; a layer is named as "
                                  "model.layers.0.mlp.down_proj, for example *.down_proj"));
  }
  return OkStatus();
}

}  // namespace fd
