// The types an engine hands to a model. A model is mathematics: weights in, logits out; no requests, no
// policy.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "compute/ops/attention.h"
#include "compute/ops/context.h"
#include "model/config/model_config.h"
#include "model/weights/packed_config.h"
#include "model/weights/quantization.h"

namespace fd {

// The bytes of the paged key/value cache; who owns which page is engine/kvcache's business.
// Per layer k and v of ops::PagesShape: in the activation type, kFloat8E4M3 or kInt8, laid out as
// ops/attention.h says.
struct KvStorage {
  std::vector<Tensor> k;
  std::vector<Tensor> v;
  int64_t num_pages = 0;
};
KvStorage MakeKvStorage(const ModelConfig& config, DType pages, const ops::Context& ctx, int64_t num_pages);
// Keys and values of 64 tokens in all layers, scales included.
int64_t KvBytesPerPage(const ModelConfig& config, DType pages);

// One step's inputs, all on the model's device. All tokens of all sequences lie in one ragged batch.
struct ForwardBatch {
  int64_t num_tokens = 0;
  TensorView token_ids;  // int32 [tokens]; a placeholder's id may be anything inside the vocabulary
  TensorView positions;  // int32 [3, tokens]: t, h, w; all equal for text
  ops::AttentionBatch attention;
  TensorView logits_rows;  // int32 [outputs]: rows whose logits (or last hidden states) are wanted
  // Rows whose embedding is replaced by an encoder output; empty without pictures in the step.
  TensorView media_rows;        // int32 [m]
  TensorView media_embeddings;  // [m, hidden] act
  // Rows by expert set: text_rows and vision_rows partition [0, tokens). Both empty = all text.
  TensorView text_rows;    // int32
  TensorView vision_rows;  // int32
  // Rows whose logits somebody looks at and nobody keeps (log-probabilities of a prompt): int32 [s], with the
  // rows of logits_rows at most num_tokens together. Forward hands them to on_scored in order, at most
  // ScoredSliceRows at a time, so that never all of them exist: logits float32 [count, vocab_size] of
  // scored_rows [begin, begin + count), scratch until on_scored returns. What on_scored takes of
  // ctx.workspace it gives back.
  TensorView scored_rows;
  std::function<void(int64_t begin, const TensorView& logits)> on_scored;
  // Called on the thread that calls Forward, when this share of the layers has been given to the device; 0:
  // never.
  double mark_share = 0;
  std::function<void()> on_mark;
};

// Rows of logits that a forward makes at a time for on_scored: about 16 MiB of them.
constexpr int64_t ScoredSliceRows(int64_t vocab_size) {
  return std::clamp<int64_t>((int64_t{1} << 22) / vocab_size, 8, 64);
}

// Pictures or frames to encode, in one call. Pixels are uint8 before normalisation.
struct EncodeBatch {
  struct Grid {
    int64_t t = 1, h = 0, w = 0;  // in patches; t = 1 for a picture, even for a video
  };
  std::vector<Grid> grids;  // one a picture or video
  TensorView
      patch_rows;  // uint8 [sum t*h*w, channels * patch * patch], 2x2-block order, on the model's device
  int64_t OutputTokens() const {
    int64_t n = 0;
    for (const Grid& g : grids) n += (g.t == 1 ? 1 : g.t / 2) * g.h * g.w / 4;
    return n;
  }
};

// Called with named intermediate tensors while a forward runs; for golden tests. Null in service.
using TensorProbe = std::function<void(const std::string& name, const TensorView& value)>;

// Weights are immutable after loading. Forward and Encode may run on one thread at a time per model.
class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelConfig& config() const = 0;
  virtual DType dtype() const = 0;  // activation type
  virtual int64_t weight_bytes() const = 0;

  // logits float32 [outputs, vocab_size]; without a head (config().has_head) last hidden states, after the
  // final norm, float32 [outputs, hidden_size]. Scratch comes from ctx.workspace, released on return.
  virtual void Forward(const ops::Context& ctx, const TensorView& logits, const ForwardBatch& batch,
                       KvStorage& kv) = 0;
  // embeddings [OutputTokens(), hidden] act. Only for models with config().vision.
  virtual void Encode(const ops::Context& ctx, const TensorView& embeddings, const EncodeBatch& batch) = 0;

  TensorProbe probe;
};

// Upper bounds of what a step takes from ctx.workspace, so that it can be sized before the first step; of ctx
// only device and threads are looked at. act: the activation type. Forward with so many tokens of so many
// sequences, none longer than max_context_tokens, scored rows and what their log-probabilities take
// (ops/sample) included; Encode with so many patch rows in all, frame_rows of them in the largest picture or
// frame.
int64_t ForwardScratchBytes(const ops::Context& ctx, const ModelConfig& config, DType act, int64_t tokens,
                            int64_t sequences, int64_t max_context_tokens);
int64_t EncodeScratchBytes(const ops::Context& ctx, const ModelConfig& config, DType act, int64_t patch_rows,
                           int64_t frame_rows);

struct LoadOptions {
  DType dtype = DType::kBFloat16;  // activation type; weights stay as stored or quantised
  // What the checkpoint has of its own comes first; a packed checkpoint refuses every other than its own.
  Quantization quantization;
  RopeOverrides rope;           // over what config.json says
  bool head = true;             // false: the language-model head is left out, for embeddings
  bool random_weights = false;  // --load-format dummy: shapes from config alone, no weight file is read
  // Called as loading proceeds; bytes of weights done and in all.
  std::function<void(int64_t done_bytes, int64_t total_bytes)> progress;
};
// A checkpoint folder whose config and tensors have been checked, of which no weight has been read. Cheap to
// copy.
class OpenedModel {
 public:
  const ModelConfig& config() const;
  // How its weights are kept: what LoadOptions asked for, or what a packed checkpoint holds.
  const Quantization& quantization() const;
  // What Load takes of ctx's device. Not counted: a table that stays in the mapped file, of which single rows
  // are read.
  int64_t weight_bytes() const;
  // 16 hexadecimal digits of its config.json, the names, types and shapes of its tensors and a sample of
  // their bytes: equal for copies, another one after training. For telling models apart, not for trust.
  const std::string& Fingerprint() const;
  // Builds the model of its family (families/registry.cc), from ctx.arena where there is one. ctx needs
  // threads and a workspace, here and in every call; the model keeps no reference to it. max_model_len: the
  // longest sequence that it will be asked for (ModelConfig::rope_tokens), 0: what config.json promises.
  std::unique_ptr<Model> Load(const ops::Context& ctx, int64_t max_model_len = 0) const;
  // After Load. Not ok: a file of the checkpoint was written to meanwhile, so the weights may be half of
  // each.
  Status CheckUnchanged() const;

 private:
  struct Impl;
  explicit OpenedModel(std::shared_ptr<const Impl> impl);
  friend StatusOr<OpenedModel> OpenModel(const ops::Context& ctx, const std::string& model_dir,
                                         const LoadOptions& options);
  std::shared_ptr<const Impl> impl_;
};
// Only ctx's device matters. A wrong checkpoint is an error that names tensors, expected and found shapes.
StatusOr<OpenedModel> OpenModel(const ops::Context& ctx, const std::string& model_dir,
                                const LoadOptions& options);
// Packs a checkpoint once and for all, quantised or, with the kind none, as stored (weights/packed_writer.h).
// ctx is the CPU's. Errors besides those of OpenModel: the checkpoint is packed or quantised already, out_dir
// is in the way, the disk is full. Then out_dir is as it was.
Status PackModel(const ops::Context& ctx, const std::string& model_dir, const std::string& out_dir,
                 const PackOptions& options);
// Both at once.
StatusOr<std::unique_ptr<Model>> LoadModel(const ops::Context& ctx, const std::string& model_dir,
                                           const LoadOptions& options);

}  // namespace fd
