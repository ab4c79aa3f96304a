// ERNIE-4.5 text models: dense (ernie4_5) and mixture of experts (ernie4_5_moe).
#include "model/families/ernie45_text.h"
#include "model/families/registry.h"

namespace fd {
namespace {

class Ernie45Model : public Model {
 public:
  Ernie45Model(const ModelConfig& config, WeightLoader& loader, DType dtype)
      : config_(config),
        dtype_(dtype),
        text_(LoadErnie45Text(loader, config)),
        weight_bytes_(loader.device_bytes()) {}

  const ModelConfig& config() const override { return config_; }
  DType dtype() const override { return dtype_; }
  int64_t weight_bytes() const override { return weight_bytes_; }

  void Forward(const ops::Context& ctx, const TensorView& logits, const ForwardBatch& batch,
               KvStorage& kv) override {
    ForwardErnie45Text(ctx, logits, batch, kv, text_, config_, dtype_, probe);
  }
  void Encode(const ops::Context&, const TensorView&, const EncodeBatch&) override {
    FD_CHECK(false, config_.family, " has no vision tower");
  }

 private:
  ModelConfig config_;
  DType dtype_;
  Ernie45Text text_;
  int64_t weight_bytes_;
};

}  // namespace

std::unique_ptr<Model> BuildErnie45(const ModelConfig& config, WeightLoader& loader, DType dtype) {
  return std::make_unique<Ernie45Model>(config, loader, dtype);
}

}  // namespace fd
