#include "model/families/registry.h"

#include <string_view>

#include "base/files.h"
#include "base/log.h"
#include "base/strings.h"
#include "compute/ops/stream.h"
#include "model/weights/checkpoint.h"
#include "model/weights/packed_writer.h"
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
  if (quantization.lm_head.bits != 0 && ctx.device.type != DeviceType::kCpu) {
    return Unimplemented(
        StrCat("--quantize-lm-head wint", quantization.lm_head.bits,
               " is for the CPU: a GPU keeps the head as stored; leave it out, or compute on the CPU with "
               "--device cpu"),
        "--quantize-lm-head");
  }
  std::vector<ops::QuantScheme> schemes = {{quantization.bits, quantization.group_size},
                                           quantization.dense,
                                           quantization.experts,
                                           quantization.vision_experts,
                                           quantization.lm_head};
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
  return OkStatus();
}

const Family& FamilyOf(const ModelConfig& config) {
  for (const Family& f : kFamilies) {
    if (f.name == config.family) return f;
  }
  FD_CHECK(false, config.family, " is in KnownFamilies but not in kFamilies");
  return kFamilies[0];
}

}  // namespace

struct OpenedModel::Impl {
  ModelConfig config;
  LoadOptions options;
  const Family* family = nullptr;
  std::unique_ptr<Checkpoint> checkpoint;  // null: random weights
  int64_t weight_bytes = 0;                // on the device
  int64_t total_bytes = 0;                 // in the files
  std::string fingerprint;
  WeightLoader::PackedForm form = WeightLoader::PackedForm::kNone;
};

OpenedModel::OpenedModel(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
const ModelConfig& OpenedModel::config() const { return impl_->config; }
const Quantization& OpenedModel::quantization() const { return impl_->options.quantization; }
int64_t OpenedModel::weight_bytes() const { return impl_->weight_bytes; }
const std::string& OpenedModel::Fingerprint() const { return impl_->fingerprint; }

StatusOr<OpenedModel> OpenModel(const ops::Context& ctx, const std::string& model_dir,
                                const LoadOptions& options) {
  if (options.dtype != DType::kBFloat16 && options.dtype != DType::kFloat32) {
    return InvalidArgument(
        StrCat("dtype ", DTypeName(options.dtype), " is not supported; allowed: bfloat16, float32"));
  }
  auto opened = std::make_shared<OpenedModel::Impl>();
  opened->options = options;
  FD_ASSIGN_OR_RETURN(opened->config, LoadModelConfig(model_dir, "config.json", options.rope));
  FD_ASSIGN_OR_RETURN(const StoredQuantization stored, ReadStoredQuantization(model_dir));
  if (stored.packed) {
    if (options.quantization != Quantization{} && options.quantization != *stored.packed) {
      return InvalidArgument(
          StrCat("--quantization ", QuantizationName(options.quantization), ": ", model_dir, " is packed as ",
                 PackedName(*stored.packed), " and stays so; give the same or nothing"),
          "--quantization");
    }
    opened->options.quantization = *stored.packed;
    opened->form = stored.all_panels ? WeightLoader::PackedForm::kAll : WeightLoader::PackedForm::kQuantized;
  } else if (opened->config.quantization_config) {
    StatusOr<Quantization> own = ReadQuantizationConfig(*opened->config.quantization_config);
    if (!own.ok()) return own.status().WithContext(JoinPath(model_dir, "config.json"));
    if (IsQuantized(options.quantization)) {
      LogWarning("--quantization is left aside: quantization_config in ", JoinPath(model_dir, "config.json"),
                 " comes first");
    }
    if (own->lm_head.bits == 0) {
      own->lm_head = options.quantization.lm_head;
    } else if (options.quantization.lm_head.bits != 0 && options.quantization.lm_head != own->lm_head) {
      LogWarning("--quantize-lm-head is left aside: lm_head of quantization_config in ",
                 JoinPath(model_dir, "config.json"), " comes first");
    }
    opened->options.quantization = *own;
  }
  if (Status status = CheckQuantization(ctx, opened->options.quantization); !status.ok()) {
    return stored.packed ? status.WithContext(
                               StrCat(model_dir, " is packed as ", PackedName(opened->options.quantization)))
                         : status;
  }
  opened->config.has_head = options.head;
  opened->family = &FamilyOf(opened->config);
  if (!options.random_weights) {
    FD_ASSIGN_OR_RETURN(opened->checkpoint, Checkpoint::Open(model_dir));
  }
  WeightLoader loader(ctx, opened->checkpoint.get(), options.dtype,
                      SchemesFor(opened->options.quantization, opened->config), opened->form);
  loader.Begin(WeightLoader::Pass::kCheck);
  opened->family->build(opened->config, loader, options.dtype);
  if (Status status = loader.Finish(IsIgnored); !status.ok()) return status.WithContext(model_dir);
  opened->weight_bytes = loader.device_bytes();
  opened->total_bytes = loader.total_bytes();
  FD_ASSIGN_OR_RETURN(opened->fingerprint, FingerprintOf(model_dir, opened->checkpoint.get()));
  return OpenedModel(std::move(opened));
}

std::unique_ptr<Model> OpenedModel::Load(const ops::Context& ctx, int64_t max_model_len) const {
  ModelConfig config = impl_->config;
  config.rope_tokens = max_model_len;
  WeightLoader loader(ctx, impl_->checkpoint.get(), impl_->options.dtype,
                      SchemesFor(impl_->options.quantization, impl_->config), impl_->form);
  loader.progress = impl_->options.progress;
  loader.Begin(WeightLoader::Pass::kLoad, impl_->total_bytes);
  std::unique_ptr<Model> model = impl_->family->build(config, loader, impl_->options.dtype);
  FD_CHECK_EQ(model->weight_bytes(), impl_->weight_bytes, "more or less than was planned");
  ops::Synchronize(ctx);
  return model;
}

Status OpenedModel::CheckUnchanged() const {
  return impl_->checkpoint == nullptr ? OkStatus() : impl_->checkpoint->CheckUnchanged();
}

StatusOr<std::unique_ptr<Model>> LoadModel(const ops::Context& ctx, const std::string& model_dir,
                                           const LoadOptions& options) {
  FD_ASSIGN_OR_RETURN(OpenedModel opened, OpenModel(ctx, model_dir, options));
  std::unique_ptr<Model> model = opened.Load(ctx);
  FD_RETURN_IF_ERROR(opened.CheckUnchanged());
  return model;
}

Status PackModel(const ops::Context& ctx, const std::string& model_dir, const std::string& out_dir,
                 const PackOptions& options) {
  FD_RETURN_IF_ERROR(CheckQuantization(ctx, options.quantization));
  FD_ASSIGN_OR_RETURN(const ModelConfig config, LoadModelConfig(model_dir));
  FD_ASSIGN_OR_RETURN(const StoredQuantization stored, ReadStoredQuantization(model_dir));
  if (!stored.method.empty()) {
    return InvalidArgument(
        StrCat(model_dir, " is packed or quantised already (",
               stored.packed ? "packed as " + PackedName(*stored.packed) : "quant_method " + stored.method,
               " in its config.json); give the bfloat16 checkpoint it was made from"));
  }
  FD_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint, Checkpoint::Open(model_dir));
  const DType act = DType::kBFloat16;  // nothing that is written depends on it
  WeightLoader loader(ctx, checkpoint.get(), act, SchemesFor(options.quantization, config));
  loader.Begin(WeightLoader::Pass::kCheck);
  FamilyOf(config).build(config, loader, act);
  if (Status status = loader.Finish(IsIgnored); !status.ok()) return status.WithContext(model_dir);
  return WritePacked(loader, *checkpoint, model_dir, out_dir, options);
}

}  // namespace fd
