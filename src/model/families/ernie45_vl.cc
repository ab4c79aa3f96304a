// ERNIE-4.5-VL (ernie4_5_vl_moe): the text network with two sets of experts, a vision tower and a resampler.
// A step without vision rows touches text experts only.
#include "model/families/ernie45_text.h"
#include "model/families/registry.h"
#include "model/vision/encoder.h"

namespace fd {
namespace {

// Members load in the order they are declared in.
class Ernie45VlModel : public Model {
 public:
  Ernie45VlModel(const ModelConfig& config, WeightLoader& loader, DType dtype)
      : config_(config),
        dtype_(dtype),
        text_(LoadErnie45Text(loader, config)),
        vision_(LoadVisionEncoder(loader, config)),
        weight_bytes_(loader.device_bytes()) {}

  const ModelConfig& config() const override { return config_; }
  DType dtype() const override { return dtype_; }
  int64_t weight_bytes() const override { return weight_bytes_; }

  void Forward(const ops::Context& ctx, const TensorView& logits, const ForwardBatch& batch,
               KvStorage& kv) override {
    ForwardErnie45Text(ctx, logits, batch, kv, text_, config_, dtype_, probe);
  }
  void Encode(const ops::Context& ctx, const TensorView& embeddings, const EncodeBatch& batch) override {
    EncodeVision(ctx, embeddings, batch, vision_, config_, probe);
  }

 private:
  ModelConfig config_;
  DType dtype_;
  Ernie45Text text_;
  VisionEncoder vision_;
  int64_t weight_bytes_;
};

}  // namespace

std::unique_ptr<Model> BuildErnie45Vl(const ModelConfig& config, WeightLoader& loader, DType dtype) {
  return std::make_unique<Ernie45VlModel>(config, loader, dtype);
}

}  // namespace fd
