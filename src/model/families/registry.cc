#include "model/families/registry.h"

#include <string_view>

#include "base/strings.h"
#include "model/weights/checkpoint.h"

namespace fd {
namespace {

struct Family {
  std::string_view name;  // ModelConfig::family
  std::unique_ptr<Model> (*build)(const ops::Context&, const ModelConfig&, WeightLoader&, DType);
};
constexpr Family kFamilies[] = {
    {"ernie4_5", BuildErnie45},
    {"ernie4_5_moe", BuildErnie45},
    {"ernie4_5_vl_moe", BuildErnie45Vl},
};

// Tensors of published checkpoints that nothing here uses: heads for speculative decoding, and tables that
// older libraries saved.
bool IsIgnored(std::string_view name) {
  return name.find("mtp") != std::string_view::npos || name.ends_with(".rotary_emb.inv_freq");
}

}  // namespace

StatusOr<std::unique_ptr<Model>> LoadModel(const ops::Context& ctx, const std::string& model_dir,
                                           const LoadOptions& options) {
  if (options.dtype != DType::kBFloat16 && options.dtype != DType::kFloat32) {
    return InvalidArgument(
        StrCat("dtype ", DTypeName(options.dtype), " is not supported; allowed: bfloat16, float32"));
  }
  FD_ASSIGN_OR_RETURN(ModelConfig config, LoadModelConfig(model_dir));
  const Family* family = nullptr;
  for (const Family& f : kFamilies) {
    if (f.name == config.family) family = &f;
  }
  FD_CHECK(family != nullptr, config.family, " is in KnownFamilies but not in kFamilies");

  std::unique_ptr<Checkpoint> checkpoint;
  if (!options.random_weights) {
    FD_ASSIGN_OR_RETURN(checkpoint, Checkpoint::Open(model_dir));
  }
  WeightLoader loader(ctx, checkpoint.get(), options.dtype);
  loader.progress = options.progress;
  loader.Begin(WeightLoader::Pass::kCheck);
  family->build(ctx, config, loader, options.dtype);
  if (Status status = loader.Finish(IsIgnored); !status.ok()) return status.WithContext(model_dir);
  loader.Begin(WeightLoader::Pass::kLoad);
  return family->build(ctx, config, loader, options.dtype);
}

}  // namespace fd
