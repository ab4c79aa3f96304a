// WeightLoader: layers that the checkpoint holds quantised already.
#include <algorithm>

#include "base/strings.h"
#include "compute/ops/linear_prequantized.h"
#include "model/weights/packed_config.h"
#include "model/weights/weight_loader.h"

namespace fd {
namespace {

std::string StoredName(std::string_view layer, const char* what) { return StrCat(layer, ".", what); }

constexpr const char* kWeight = "quant_weight";
constexpr const char* kScale = "weight_scale";

}  // namespace

bool WeightLoader::IsPrequantized(const std::vector<Part>& parts) const {
  const std::string_view first = LayerOfTensor(parts[0].name);
  return Has(StoredName(first, kWeight)) || Has(StoredName(FusedName(first), kWeight));
}

void WeightLoader::Skip(const std::string& name, LinearRole role) {
  SchemeOfParts({{name, 0}}, role);  // a pattern that names it has met its layer
  if (pass_ != Pass::kCheck) return;
  const std::string_view layer = LayerOfTensor(name);
  for (const std::string& stored :
       {name, PanelsName(name), ScalesName(name), StoredName(layer, kWeight), StoredName(layer, kScale)}) {
    taken_.insert(stored);
  }
}

const TensorInfo* WeightLoader::ClaimAs(const std::string& name, const std::vector<std::string>& dtypes,
                                        const std::vector<int64_t>& shape) {
  claimed_ = checkpoint_->Find(name);
  const TensorInfo* info = claimed_.info;
  const bool good = info != nullptr && info->shape == shape &&
                    std::find(dtypes.begin(), dtypes.end(), info->dtype) != dtypes.end();
  if (pass_ != Pass::kCheck) return good ? info : nullptr;
  if (info != nullptr) taken_.insert(name);
  if (good) {
    total_bytes_ += info->size_bytes;
    return info;
  }
  const std::string expected = StrCat("expected ", Join(dtypes, " or "), " ", ShapeToString(shape));
  Problem(info == nullptr ? StrCat("tensor ", name, " is missing; ", expected)
                          : StrCat("tensor ", name, ": ", expected, ", found ", info->dtype, " ",
                                   ShapeToString(info->shape)));
  return nullptr;
}

ops::LinearWeight WeightLoader::Prequantized(const std::vector<Part>& parts, int64_t k,
                                             const ops::QuantScheme& scheme) {
  const std::string first(LayerOfTensor(parts[0].name));
  std::vector<Part> stored;
  int64_t rows = 0;
  for (const Part& part : parts) {
    stored.push_back({std::string(LayerOfTensor(part.name)), part.rows});
    rows += part.rows;
  }
  if (!Has(StoredName(first, kWeight))) stored = {{FusedName(first), rows}};
  const int64_t bundle = ops::PrequantizedFeatures(scheme.bits);
  bool good = scheme.group_size == 0 && k % ops::kPrequantizedInputs == 0 && k <= ops::kMaxQuantizedFeatures;
  for (const Part& part : stored) good = good && part.rows % bundle == 0;
  if (!good) {
    if (pass_ == Pass::kCheck) {
      taken_.insert(StoredName(stored[0].name, kWeight));
      Problem(StrCat("tensor ", StoredName(stored[0].name, kWeight),
                     ": weights that come quantised are read with one scale an output feature, an output "
                     "size that is a multiple of ",
                     bundle, " and an input size that is one of ", ops::kPrequantizedInputs, "; here ", rows,
                     " and ", k));
    }
    return {};
  }
  std::vector<Source> sources;
  bool complete = true;
  for (const Part& part : stored) {
    const std::vector<int64_t> shape = {part.rows * scheme.bits / 8, k};
    const CheckpointTensor none{nullptr, nullptr};
    const TensorInfo* weight = ClaimAs(StoredName(part.name, kWeight), {"I8", "U8"}, shape);
    const CheckpointTensor weight_tensor = weight == nullptr ? none : claimed_;
    const TensorInfo* scale = ClaimAs(StoredName(part.name, kScale), {"BF16", "F32"}, {part.rows});
    complete = complete && weight != nullptr && scale != nullptr;
    if (!complete || pass_ == Pass::kCheck) continue;
    Source bytes;
    bytes.from = weight_tensor;
    bytes.view = TensorView(const_cast<uint8_t*>(weight_tensor.file->Data(*weight)), DType::kUInt8, Device{},
                            {part.rows * scheme.bits / 8, k});
    sources.push_back(std::move(bytes));
    sources.push_back(Open(claimed_, Shape{part.rows}));
  }
  device_bytes_ += ops::LinearWeightBytes(ctx_, DType::kBFloat16, rows, k, scheme);
  if (!complete || pass_ == Pass::kCheck) return {};
  std::vector<ops::PrequantizedPart> views;
  for (size_t i = 0; i < sources.size(); i += 2) views.push_back({sources[i].view, sources[i + 1].view});
  ops::LinearWeight weight = ops::PackPrequantized(ctx_, views, k, scheme.bits);
  for (const Source& s : sources) {
    s.Release();
    Done(s.view.NumElements() * DTypeBytes(s.view.dtype));
  }
  return weight;
}

}  // namespace fd
