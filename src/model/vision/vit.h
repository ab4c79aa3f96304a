// The vision tower (reference 5.1): patches of pictures and frames -> one vector a patch. A frame sees only
// itself.
#pragma once

#include <string>
#include <vector>

#include "compute/ops/linear.h"
#include "model/layers/rope_table.h"
#include "model/model.h"
#include "model/weights/weight_loader.h"

namespace fd {

struct Norm {  // LayerNorm
  Tensor weight;
  Tensor bias;
};
struct BiasedLinear {
  ops::LinearWeight weight;
  Tensor bias;
};
// "NAME.weight" and "NAME.bias".
Norm LoadNorm(WeightLoader& loader, const std::string& name, int64_t n);
BiasedLinear LoadBiasedLinear(WeightLoader& loader, const std::string& name, int64_t out_features,
                              int64_t in_features);

struct VitBlock {
  Norm norm1, norm2;
  BiasedLinear qkv;   // [3 * hidden, hidden]: all heads of q, then k, then v
  BiasedLinear proj;  // [hidden, hidden]
  BiasedLinear fc1;   // [intermediate, hidden]
  BiasedLinear fc2;   // [hidden, intermediate]
};
struct VitWeights {
  ops::LinearWeight patch_embed;  // [hidden, 3 * patch * patch]
  std::vector<VitBlock> blocks;
  Norm final_norm;
};
VitWeights LoadVit(WeightLoader& loader, const VisionConfig& config);

// One picture or frame.
struct VitFrame {
  int64_t h = 0, w = 0;  // in patches
};
// How much is computed at once. On the CPU small pieces keep scratch memory low; a GPU is only filled by
// large ones: 2048 rows of the second MLP product are 80 tiles for 132 multiprocessors.
struct VisionPieces {
  int64_t group_rows = 0;   // patches of a group of frames, unless one frame alone has more
  int64_t mlp_rows = 0;     // patches whose wide MLP middle is held
  int64_t time_tokens = 0;  // tokens of a temporal merge, whose input is eight patches wide
};
VisionPieces VisionPiecesOn(DeviceType device);

// out [rows, hidden] act; patch_rows uint8 [rows, 3 * patch * patch], frames one after another. Scratch grows
// with rows. `host` holds the positions while they are uploaded; reused from call to call.
void Vit(const ops::Context& ctx, const TensorView& out, const TensorView& patch_rows,
         const std::vector<VitFrame>& frames, const VitWeights& weights, const VisionConfig& config,
         const RopeTable& rope, std::vector<int32_t>& host);
int64_t VitScratchBytes(const ops::Context& ctx, const VisionConfig& config, DType act, int64_t rows,
                        int64_t frames, int64_t frame_rows);

}  // namespace fd
