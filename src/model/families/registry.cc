#include "model/families/registry.h"

#include <string_view>

#include "base/files.h"
#include "base/log.h"
#include "base/strings.h"
#include "compute/ops/stream.h"
#include "model/weights/checkpoint.h"
#include "model/weights/quantization_config.h"

namespace fd {
namespace {

struct Family {
  std::string_view name;  // ModelConfig::family
  std::unique_ptr<Model> (*build)(const ModelConfig&, WeightLoader&, DType);
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

Status CheckQuantization(const ops::Context& ctx, const Quantization& quantization) {
  if (quantization.lm_head && ctx.device.type != DeviceType::kCpu) {
    return Unimplemented(
        "--quantize-lm-head is for the CPU: a GPU keeps the head as stored; leave it out, or compute on the "
        "CPU with --device cpu",
        "--quantize-lm-head");
  }
  if (!IsQuantized(quantization)) return OkStatus();
  std::vector<ops::QuantScheme> schemes = {{quantization.bits, quantization.group_size},
                                           quantization.dense,
                                           quantization.experts,
                                           quantization.vision_experts};
  for (const LayerChoice& choice : quantization.layers) schemes.push_back(choice.scheme);
  for (const ops::QuantScheme& scheme : schemes) {
    if (scheme.bits != 0 && scheme.bits != 8 && scheme.bits != 4) {
      return InvalidArgument(StrCat("quantised weights of ", scheme.bits, " bits; allowed: 8 and 4"));
    }
    if (scheme.group_size < 0 || scheme.group_size % 32 != 0) {
      return InvalidArgument(StrCat("quantisation groups of ", scheme.group_size,
                                    ": must be a multiple of 32, or 0 for one scale an output feature"));
    }
  }
  if (ctx.device.type != DeviceType::kCpu) {
    return Unimplemented(
        "--quantization is still to come on CUDA devices; leave it out, or compute on the CPU with --device "
        "cpu",
        "--quantization");
  }
  return OkStatus();
}

}  // namespace

struct OpenedModel::Impl {
  ModelConfig config;
  LoadOptions options;
  const Family* family = nullptr;
  std::unique_ptr<Checkpoint> checkpoint;  // null: random weights
  int64_t weight_bytes = 0;                // on the device
  int64_t total_bytes = 0;                 // in the files
};

OpenedModel::OpenedModel(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
const ModelConfig& OpenedModel::config() const { return impl_->config; }
int64_t OpenedModel::weight_bytes() const { return impl_->weight_bytes; }
const Quantization& OpenedModel::quantization() const { return impl_->options.quantization; }

StatusOr<OpenedModel> OpenModel(const ops::Context& ctx, const std::string& model_dir,
                                const LoadOptions& options) {
  if (options.dtype != DType::kBFloat16 && options.dtype != DType::kFloat32) {
    return InvalidArgument(
        StrCat("dtype ", DTypeName(options.dtype), " is not supported; allowed: bfloat16, float32"));
  }
  auto opened = std::make_shared<OpenedModel::Impl>();
  opened->options = options;
  FD_ASSIGN_OR_RETURN(opened->config, LoadModelConfig(model_dir));
  Quantization& quantization = opened->options.quantization;
  if (opened->config.quantization_config) {
    StatusOr<Quantization> stored = ReadQuantizationConfig(*opened->config.quantization_config);
    if (!stored.ok()) return stored.status().WithContext(JoinPath(model_dir, "config.json"));
    if (IsQuantized(quantization)) {
      LogWarning("--quantization is left aside: quantization_config in ", JoinPath(model_dir, "config.json"),
                 " comes first");
    }
    stored->lm_head = quantization.lm_head;
    quantization = *stored;
  }
  FD_RETURN_IF_ERROR(CheckQuantization(ctx, quantization));
  for (const Family& f : kFamilies) {
    if (f.name == opened->config.family) opened->family = &f;
  }
  FD_CHECK(opened->family != nullptr, opened->config.family, " is in KnownFamilies but not in kFamilies");
  if (!options.random_weights) {
    FD_ASSIGN_OR_RETURN(opened->checkpoint, Checkpoint::Open(model_dir));
  }
  WeightLoader loader(ctx, opened->checkpoint.get(), options.dtype, SchemesFor(quantization, opened->config));
  loader.Begin(WeightLoader::Pass::kCheck);
  opened->family->build(opened->config, loader, options.dtype);
  if (Status status = loader.Finish(IsIgnored); !status.ok()) return status.WithContext(model_dir);
  opened->weight_bytes = loader.device_bytes();
  opened->total_bytes = loader.total_bytes();
  return OpenedModel(std::move(opened));
}

std::unique_ptr<Model> OpenedModel::Load(const ops::Context& ctx) const {
  WeightLoader loader(ctx, impl_->checkpoint.get(), impl_->options.dtype,
                      SchemesFor(impl_->options.quantization, impl_->config));
  loader.progress = impl_->options.progress;
  loader.Begin(WeightLoader::Pass::kLoad, impl_->total_bytes);
  std::unique_ptr<Model> model = impl_->family->build(impl_->config, loader, impl_->options.dtype);
  FD_CHECK_EQ(model->weight_bytes(), impl_->weight_bytes, "more or less than was planned");
  ops::Synchronize(ctx);
  return model;
}

StatusOr<std::unique_ptr<Model>> LoadModel(const ops::Context& ctx, const std::string& model_dir,
                                           const LoadOptions& options) {
  FD_ASSIGN_OR_RETURN(OpenedModel opened, OpenModel(ctx, model_dir, options));
  return opened.Load(ctx);
}

}  // namespace fd
