// Takes a model's tensors out of a checkpoint, or makes random ones, and packs them for the device. A family
// walks its tensor names twice through the same code: first to check every name, shape and type without
// reading a weight, then to load. So a wrong checkpoint is refused within milliseconds, with its problems
// listed together.
//
// On the CPU what needs no other layout stays where it is: panels of a packed checkpoint and tables are views
// of the mapped file, which lives as long as they do.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "compute/ops/moe.h"
#include "model/weights/checkpoint.h"
#include "model/weights/quantization.h"

namespace fd {

// One thread. Results of a checking pass are empty; with problems found, so may be those of a loading pass.
class WeightLoader {
 public:
  enum class Pass { kCheck, kLoad };

  enum class PackedForm { kNone, kQuantized, kAll };
  // `checkpoint` null: random weights of the shapes asked for, scaled like trained ones; the same for a name
  // every time. act: type of norms and biases. form: of a checkpoint that WritePacked wrote
  // for these schemes, what lies in panels.
  WeightLoader(const ops::Context& ctx, const Checkpoint* checkpoint, DType act,
               const WeightSchemes& schemes = {}, PackedForm form = PackedForm::kNone);
  const ops::Context& context() const { return ctx_; }

  // total_bytes: of the checking pass, for the progress of a loading one.
  void Begin(Pass pass, int64_t total_bytes = 0);
  std::function<void(int64_t done_bytes, int64_t total_bytes)> progress;

  // Whether the checkpoint holds it, in panels or not. False for random weights: what is optional is then
  // absent.
  bool Has(const std::string& name) const;
  // The first of `prefixes` under which `name` exists, else the first.
  std::string Prefix(const std::vector<std::string>& prefixes, const std::string& name) const;

  struct Part {
    std::string name;
    int64_t rows;  // output features
  };
  struct LinearOptions {
    bool transposed = false;               // parts are stored as [k, rows_i]
    DType random_type = DType::kBFloat16;  // of random weights: what published checkpoints store
    LinearRole role = LinearRole::kAsStored;
  };
  // Parts [rows_i, k] of one type, bfloat16 or float32, stacked into one weight, quantised as its role says.
  ops::LinearWeight Linear(const std::vector<Part>& parts, int64_t k, const LinearOptions& options);
  ops::LinearWeight Linear(const std::vector<Part>& parts, int64_t k) { return Linear(parts, k, {}); }
  // Finishes experts whose weights are in place (ops::FinishExperts).
  void Experts(ops::ExpertWeights* experts, int64_t count);
  // [n] in the activation type: norms and biases.
  Tensor Vector(const std::string& name, int64_t n);
  // [rows, columns] in the type it is stored in: embeddings.
  Tensor Table(const std::string& name, int64_t rows, int64_t columns);
  // A head tied to `table`, which Table gave for `name`; a quantised one has rows of its own.
  ops::LinearWeight Tied(const std::string& name, const Tensor& table, int64_t rows, int64_t columns);
  // A linear weight that is not wanted, in whatever form the checkpoint holds it: neither read nor left over.
  void Skip(const std::string& name, LinearRole role);
  // float32 [rows, columns]; with one row also stored as [columns].
  Tensor Float32(const std::string& name, int64_t rows, int64_t columns);

  // [n], not from a checkpoint: what the model computes from its configuration.
  template <typename T>
  Tensor Constant(DType dtype, const std::vector<T>& values) {
    return UploadConstant(dtype, values.data(), static_cast<int64_t>(values.size()));
  }

  // Notes a problem when two of these tensors, claimed before, differ in type.
  void RequireSameType(const std::vector<std::string>& names);
  // The same when they are quantised differently.
  void RequireSameScheme(const std::vector<std::string>& names, LinearRole role);

  // After a checking pass: tensors that nobody asked for are problems too, but for those that `ignored` says
  // are known. OK, or an error that lists the first problems and counts the rest.
  Status Finish(const std::function<bool(std::string_view name)>& ignored);
  // Of the checking pass: bytes that a loading pass reads or makes.
  int64_t total_bytes() const { return total_bytes_; }
  // Of this pass: bytes on the device of what it returned, or in a checking pass, of what a loading pass will
  // return.
  int64_t device_bytes() const { return device_bytes_; }

  // A weight that a loading pass packs.
  struct LinearToPack {
    std::vector<Part> parts;
    int64_t n = 0;
    int64_t k = 0;
    bool transposed = false;
    ops::QuantScheme scheme;
    DType stored = DType::kBFloat16;  // of its parts
    bool tied = false;                // its rows are also those of a table, which stays as stored
  };
  // After a checking pass over a checkpoint that is not packed.
  const std::vector<LinearToPack>& linears() const { return linears_; }
  // One of them, as a loading pass makes it.
  ops::LinearWeight PackOne(const LinearToPack& weight);

 private:
  // A tensor as the file holds it; `data` lies in host memory and is aligned.
  struct Source {
    TensorView view;
    CheckpointTensor from{nullptr, nullptr};
    std::vector<uint8_t> storage;
    // Its pages of the mapped file need not stay in memory.
    void Release() const {
      if (from.info != nullptr) from.file->Release(*from.info);
    }
    void ReleaseRows(int64_t first, int64_t count) const;
  };
  // Rows of one source: what a packing op reads before their pages may go.
  struct Piece {
    const Source* source;
    int64_t first;
    int64_t count;
    TensorView view() const { return source->view.Rows(first, count); }
  };
  // Whole panels of features at a time, about kPieceBytes of them; a transposed source stays whole.
  static std::vector<Piece> Cut(const std::vector<Source>& sources, bool transposed);
  ops::LinearWeight Pack(const std::vector<Source>& sources, bool transposed, const ops::QuantScheme& scheme);
  // Checks that the type is loadable and the shape one of `shapes`, and counts bytes; null and a problem
  // noted when wrong.
  const CheckpointTensor* Claim(const std::string& name, const std::vector<std::vector<int64_t>>& shapes,
                                DType random_type = DType::kBFloat16);
  // The tensor of a packed checkpoint; null and a problem noted when it is missing or has another shape.
  CheckpointTensor ClaimPacked(const std::string& name, DType dtype, const Shape& shape);
  // Whether a weight of this scheme lies in panels in the checkpoint.
  bool InPanels(const ops::QuantScheme& scheme) const;
  ops::LinearWeight PackedLinear(const std::string& name, int64_t n, int64_t k,
                                 const ops::QuantScheme& scheme);
  // Of one that is not quantised; its type is that of its tensor.
  ops::LinearWeight StoredPanels(const std::string& name, int64_t n, int64_t k);
  DType StoredPanelsType(const std::string& name) const;
  // The tensor's place in the mapped file, or a copy where that is not aligned.
  Tensor Mapped(const CheckpointTensor& tensor, DType dtype, const Shape& shape) const;
  Source Open(const CheckpointTensor& tensor, const Shape& shape);
  // What role and patterns say; a problem when they say different things for parts of one matrix.
  ops::QuantScheme SchemeOfParts(const std::vector<Part>& parts, LinearRole role);
  // A layer whose checkpoint holds quant_weight and weight_scale, its own or those of the matrix that its
  // parts become together.
  bool IsPrequantized(const std::vector<Part>& parts) const;
  ops::LinearWeight Prequantized(const std::vector<Part>& parts, int64_t k, const ops::QuantScheme& scheme);
  // As Claim, of one of these types as stored.
  const TensorInfo* ClaimAs(const std::string& name, const std::vector<std::string>& dtypes,
                            const std::vector<int64_t>& shape);
  Tensor New(DType dtype, const Shape& shape);
  Tensor UploadConstant(DType dtype, const void* values, int64_t n);
  // Every pattern has met a layer.
  Status CheckChoices() const;
  void Done(int64_t read_bytes);
  void Problem(std::string text);
  void TooWide(const std::string& name, int64_t k);

  const ops::Context& ctx_;
  const Checkpoint* checkpoint_;
  DType act_;
  WeightSchemes schemes_;
  std::vector<bool> chosen_;  // schemes_.layers: whether a layer matched
  PackedForm form_;
  Pass pass_ = Pass::kCheck;
  CheckpointTensor claimed_{nullptr, nullptr};
  std::unordered_set<std::string> taken_;
  std::vector<LinearToPack> linears_;
  std::vector<std::string> problems_;  // the first few
  int64_t num_problems_ = 0;
  int64_t total_bytes_ = 0;
  int64_t done_bytes_ = 0;
  int64_t device_bytes_ = 0;
};

}  // namespace fd
