#include "model/weights/weight_loader.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/fault.h"
#include "base/hash.h"
#include "base/strings.h"
#include "compute/ops/random.h"
#include "compute/ops/rows.h"
#include "model/weights/packed_config.h"

namespace fd {
namespace {

constexpr size_t kListedProblems = 8;
constexpr int64_t kPieceBytes = 8 << 20;  // large tensors are read piecewise: no second copy in memory
constexpr int64_t kMappedAlignment = 64;  // of what stays in the mapped file
constexpr int64_t kMaxRandomBytes = int64_t{1} << 43;  // 8 TiB: beyond any host this runs on

uint64_t NameKey(std::string_view name) {
  return SipHash128(0x66642e7765696768, 0x72616e646f6d2121, name).low;
}

Shape ToShape(const std::vector<int64_t>& dims) {
  Shape s;
  for (int64_t d : dims) s.dims[s.rank++] = d;
  return s;
}

int64_t Elements(const std::vector<int64_t>& dims) {
  int64_t n = 1;
  for (int64_t d : dims) n *= d;
  return n;
}

DType StoredType(const TensorInfo& info) { return info.dtype == "F32" ? DType::kFloat32 : DType::kBFloat16; }

const uint8_t* DataOf(const CheckpointTensor& tensor) { return tensor.file->Data(*tensor.info); }

bool IsAligned(const CheckpointTensor& tensor, int64_t alignment) {
  return reinterpret_cast<uintptr_t>(DataOf(tensor)) % static_cast<uintptr_t>(alignment) == 0;
}

bool IsLoadable(std::string_view dtype) { return dtype == "BF16" || dtype == "F32"; }

}  // namespace

WeightLoader::WeightLoader(const ops::Context& ctx, const Checkpoint* checkpoint, DType act,
                           const WeightSchemes& schemes, PackedForm form)
    : ctx_(ctx),
      checkpoint_(checkpoint),
      act_(act),
      schemes_(schemes),
      chosen_(schemes.layers.size()),
      form_(form) {}

void WeightLoader::Begin(Pass pass, int64_t total_bytes) {
  pass_ = pass;
  total_bytes_ = total_bytes;
  device_bytes_ = 0;
  if (pass == Pass::kCheck || checkpoint_ == nullptr || form_ == PackedForm::kNone ||
      ctx_.device.type != DeviceType::kCpu) {
    return;
  }
  for (const auto& file : checkpoint_->files()) file->PreferLargePages();  // panels stay in the mapping
}

bool WeightLoader::Has(const std::string& name) const {
  if (checkpoint_ == nullptr) return false;
  if (checkpoint_->Find(name).info != nullptr) return true;
  return form_ != PackedForm::kNone && checkpoint_->Find(PanelsName(name)).info != nullptr;
}

std::string WeightLoader::Prefix(const std::vector<std::string>& prefixes, const std::string& name) const {
  for (const std::string& prefix : prefixes) {
    if (Has(prefix + name)) return prefix;
  }
  return prefixes[0];
}

void WeightLoader::Problem(std::string text) {
  if (problems_.size() < kListedProblems) problems_.push_back(std::move(text));
  ++num_problems_;
}

void WeightLoader::TooWide(const std::string& name, int64_t k) {
  Problem(StrCat("tensor ", name, " has ", k, " input features; quantised weights have up to ",
                 ops::kMaxQuantizedFeatures));
}

const CheckpointTensor* WeightLoader::Claim(const std::string& name,
                                            const std::vector<std::vector<int64_t>>& shapes,
                                            DType random_type) {
  if (checkpoint_ == nullptr) {
    if (pass_ == Pass::kCheck) total_bytes_ += DTypeBytes(random_type) * Elements(shapes[0]);
    claimed_ = {nullptr, nullptr};
    return &claimed_;
  }
  claimed_ = checkpoint_->Find(name);
  std::string expected;
  for (const auto& shape : shapes) expected += StrCat(expected.empty() ? "" : " or ", ShapeToString(shape));
  if (claimed_.info == nullptr) {
    if (pass_ == Pass::kCheck)
      Problem(StrCat("tensor ", name, " is missing; expected BF16 or F32 ", expected));
    return nullptr;
  }
  const TensorInfo& info = *claimed_.info;
  if (!IsLoadable(info.dtype) || std::find(shapes.begin(), shapes.end(), info.shape) == shapes.end()) {
    if (pass_ == Pass::kCheck) {
      taken_.insert(name);
      Problem(StrCat("tensor ", name, ": expected BF16 or F32 ", expected, ", found ", info.dtype, " ",
                     ShapeToString(info.shape)));
    }
    return nullptr;
  }
  if (pass_ == Pass::kCheck) {
    taken_.insert(name);
    total_bytes_ += info.size_bytes;
  }
  return &claimed_;
}

WeightLoader::Source WeightLoader::Open(const CheckpointTensor& tensor, const Shape& shape) {
  Source source;
  source.from = tensor;
  const DType dtype = StoredType(*tensor.info);
  const uint8_t* data = DataOf(tensor);
  if (!IsAligned(tensor, DTypeBytes(dtype))) {
    source.storage.assign(data, data + tensor.info->size_bytes);
    data = source.storage.data();
  }
  source.view = TensorView(const_cast<uint8_t*>(data), dtype, Device{}, shape);
  return source;
}

void WeightLoader::Source::ReleaseRows(int64_t first, int64_t count) const {
  if (from.info == nullptr) return;
  const int64_t row_bytes = from.info->size_bytes / std::max<int64_t>(1, view.dim(0));
  TensorInfo rows;
  rows.offset = from.info->offset + first * row_bytes;
  rows.size_bytes = count * row_bytes;
  from.file->Release(rows);
}

std::vector<WeightLoader::Piece> WeightLoader::Cut(const std::vector<Source>& sources, bool transposed) {
  std::vector<Piece> pieces;
  for (const Source& source : sources) {
    const int64_t rows = source.view.dim(0);
    const int64_t row_bytes = TensorView::RowElements(source.view.shape) * DTypeBytes(source.view.dtype);
    int64_t step = std::max<int64_t>(1, kPieceBytes / std::max<int64_t>(1, row_bytes * 64)) * 64;
    if (transposed) step = rows;
    for (int64_t r = 0; r < rows; r += step) pieces.push_back({&source, r, std::min(step, rows - r)});
  }
  return pieces;
}

ops::LinearWeight WeightLoader::Pack(const std::vector<Source>& sources, bool transposed,
                                     const ops::QuantScheme& scheme) {
  const std::vector<Piece> pieces = Cut(sources, transposed);
  std::vector<TensorView> views;
  for (const Piece& piece : pieces) views.push_back(piece.view());
  const auto done = [&](size_t i) {
    pieces[i].source->ReleaseRows(pieces[i].first, pieces[i].count);
    Done(views[i].NumElements() * DTypeBytes(views[i].dtype));
  };
  ops::LinearWeight weight = scheme.bits != 0 ? ops::QuantizeLinear(ctx_, views, transposed, scheme, done)
                                              : ops::PackLinear(ctx_, views, transposed, done);
  for (const Source& source : sources) source.Release();
  return weight;
}

ops::LinearWeight WeightLoader::PackOne(const LinearToPack& weight) {
  std::vector<Source> sources;
  for (const Part& part : weight.parts) {
    const Shape shape = weight.transposed ? Shape{weight.k, part.rows} : Shape{part.rows, weight.k};
    sources.push_back(Open(checkpoint_->Find(part.name), shape));
  }
  return Pack(sources, weight.transposed, weight.scheme);
}

CheckpointTensor WeightLoader::ClaimPacked(const std::string& name, DType dtype, const Shape& shape) {
  const CheckpointTensor tensor = checkpoint_->Find(name);
  if (pass_ == Pass::kLoad) return tensor;
  const char* type = dtype == DType::kUInt8 ? "U8" : dtype == DType::kFloat32 ? "F32" : "BF16";
  const std::vector<int64_t> dims(shape.dims, shape.dims + shape.rank);
  if (tensor.info == nullptr) {
    Problem(StrCat("tensor ", name, " is missing; expected ", type, " ", shape.ToString()));
    return tensor;
  }
  taken_.insert(name);
  total_bytes_ += tensor.info->size_bytes;
  if (tensor.info->dtype != type || tensor.info->shape != dims) {
    Problem(StrCat("tensor ", name, ": expected ", type, " ", shape.ToString(), ", found ",
                   tensor.info->dtype, " ", ShapeToString(tensor.info->shape)));
    return {nullptr, nullptr};
  }
  return tensor;
}

Tensor WeightLoader::Mapped(const CheckpointTensor& tensor, DType dtype, const Shape& shape) const {
  const TensorView view(const_cast<uint8_t*>(DataOf(tensor)), dtype, Device{}, shape);
  if (IsAligned(tensor, kMappedAlignment)) return Tensor::Over(tensor.file->memory(), view);
  Tensor copy(dtype, Device{}, shape);
  std::memcpy(copy.view().data, view.data, static_cast<size_t>(copy.size_bytes()));
  return copy;
}

ops::LinearWeight WeightLoader::PackedLinear(const std::string& name, int64_t n, int64_t k,
                                             const ops::QuantScheme& scheme) {
  const Shape panels_shape = ops::QuantPanelsShape(n, k, scheme),
              scales_shape = ops::QuantScalesShape(n, k, scheme);
  const CheckpointTensor panels = ClaimPacked(PanelsName(name), DType::kUInt8, panels_shape);
  const CheckpointTensor scales = ClaimPacked(ScalesName(name), DType::kBFloat16, scales_shape);
  if (panels.info == nullptr || scales.info == nullptr) return {};
  device_bytes_ += ops::LinearWeightBytes(ctx_, DType::kBFloat16, n, k, scheme);
  if (pass_ == Pass::kCheck) return {};
  const bool stays = ctx_.device.type == DeviceType::kCpu;
  if (stays) {
    panels.file->Populate(*panels.info);
    scales.file->Populate(*scales.info);
  }
  const ops::LinearWeight weight =
      ops::LinearOfPanels(ctx_, Mapped(panels, DType::kUInt8, panels_shape),
                          Mapped(scales, DType::kBFloat16, scales_shape), n, k, scheme);
  if (!stays) {
    panels.file->Release(*panels.info);
    scales.file->Release(*scales.info);
  }
  Done(panels.info->size_bytes + scales.info->size_bytes);
  return weight;
}

bool WeightLoader::InPanels(const ops::QuantScheme& scheme) const {
  return checkpoint_ != nullptr &&
         (form_ == PackedForm::kAll || (form_ == PackedForm::kQuantized && scheme.bits != 0));
}

DType WeightLoader::StoredPanelsType(const std::string& name) const {
  const TensorInfo* info = checkpoint_->Find(PanelsName(name)).info;
  return info == nullptr ? DType::kBFloat16 : StoredType(*info);
}

ops::LinearWeight WeightLoader::StoredPanels(const std::string& name, int64_t n, int64_t k) {
  const DType dtype = StoredPanelsType(name);
  const Shape shape = ops::PanelsShape(dtype, n, k);
  const CheckpointTensor panels = ClaimPacked(PanelsName(name), dtype, shape);
  if (panels.info == nullptr) return {};
  device_bytes_ += ops::LinearWeightBytes(ctx_, dtype, n, k);
  if (pass_ == Pass::kCheck) return {};
  const bool stays = ctx_.device.type == DeviceType::kCpu;
  if (stays) panels.file->Populate(*panels.info);
  const ops::LinearWeight weight = ops::LinearOfPanels(ctx_, Mapped(panels, dtype, shape), n, k);
  if (!stays) panels.file->Release(*panels.info);
  Done(panels.info->size_bytes);
  return weight;
}

// In a checking pass only its bytes are counted.
Tensor WeightLoader::New(DType dtype, const Shape& shape) {
  device_bytes_ += Arena::PaddedBytes(shape.NumElements() * DTypeBytes(dtype));
  return pass_ == Pass::kCheck ? Tensor() : ops::NewTensor(ctx_, dtype, shape);
}

Tensor WeightLoader::UploadConstant(DType dtype, const void* values, int64_t n) {
  Tensor out = New(dtype, {n});
  if (pass_ == Pass::kLoad) {
    ops::Copy(ctx_, out, TensorView(const_cast<void*>(values), dtype, Device{}, {n}));
  }
  return out;
}

void WeightLoader::Experts(ops::ExpertWeights* experts, int64_t count) {
  device_bytes_ += ops::ExpertTableBytes(ctx_, count);
  if (pass_ == Pass::kLoad) ops::FinishExperts(ctx_, experts);
}

void WeightLoader::Done(int64_t read_bytes) {
  done_bytes_ += read_bytes;
  if (pass_ == Pass::kLoad) FaultDelay(Fault::kSlowLoad);
  if (progress) progress(std::min(done_bytes_, total_bytes_), total_bytes_);
}

void WeightLoader::RequireSameType(const std::vector<std::string>& names) {
  if (checkpoint_ == nullptr || pass_ != Pass::kCheck) return;
  const TensorInfo* first = nullptr;
  for (const std::string& name : names) {
    const TensorInfo* info = checkpoint_->Find(form_ == PackedForm::kAll ? PanelsName(name) : name).info;
    if (info == nullptr) continue;  // noted as missing
    if (first == nullptr) first = info;
    if (info->dtype != first->dtype) {
      Problem(StrCat("tensor ", name, ": found ", info->dtype, ", expected ", first->dtype, " as ",
                     first->name, " has"));
    }
  }
}

ops::LinearWeight WeightLoader::Linear(const std::vector<Part>& parts, int64_t k,
                                       const LinearOptions& options) {
  const auto [transposed, random_type, role] = options;
  const ops::QuantScheme scheme = SchemeOfParts(parts, role);
  if (scheme.bits != 0 && IsPrequantized(parts)) return Prequantized(parts, k, scheme);
  std::vector<CheckpointTensor> tensors;
  std::vector<Shape> shapes;
  int64_t rows = 0;
  if (scheme.bits != 0 && k > ops::kMaxQuantizedFeatures) {
    if (pass_ == Pass::kCheck) TooWide(parts[0].name, k);
    return {};
  }
  if (InPanels(scheme)) {
    for (const Part& part : parts) rows += part.rows;
    return scheme.bits != 0 ? PackedLinear(parts[0].name, rows, k, scheme)
                            : StoredPanels(parts[0].name, rows, k);
  }
  for (const Part& part : parts) {
    const std::vector<int64_t> dims =
        transposed ? std::vector<int64_t>{k, part.rows} : std::vector<int64_t>{part.rows, k};
    rows += part.rows;
    const CheckpointTensor* tensor = Claim(part.name, {dims}, random_type);
    if (tensor == nullptr) continue;
    if (tensor->info != nullptr && !tensors.empty() && tensor->info->dtype != tensors[0].info->dtype) {
      if (pass_ == Pass::kCheck) {
        Problem(StrCat("tensor ", part.name, ": found ", tensor->info->dtype, ", expected ",
                       tensors[0].info->dtype, " as ", parts[0].name, " has: they become one matrix"));
      }
      continue;
    }
    tensors.push_back(*tensor);
    shapes.push_back(ToShape(dims));
  }
  if (tensors.size() != parts.size()) return {};
  const DType dtype = checkpoint_ == nullptr ? random_type : StoredType(*tensors[0].info);
  device_bytes_ += ops::LinearWeightBytes(ctx_, dtype, rows, k, scheme);
  if (pass_ == Pass::kCheck) {
    linears_.push_back({parts, rows, k, transposed, scheme, dtype, false});
    return {};
  }
  if (checkpoint_ == nullptr) {
    std::vector<ops::RandomRows> random;
    for (const Part& part : parts) random.push_back({part.rows, NameKey(part.name)});
    Done(rows * k * DTypeBytes(dtype));
    const float scale = std::sqrt(3.0f / static_cast<float>(k));  // variance 1 / k
    return ops::RandomLinear(ctx_, dtype, random, k, scale, scheme);
  }
  std::vector<Source> sources;
  for (size_t i = 0; i < tensors.size(); ++i) sources.push_back(Open(tensors[i], shapes[i]));
  return Pack(sources, transposed, scheme);
}

Tensor WeightLoader::Vector(const std::string& name, int64_t n) {
  const CheckpointTensor* tensor = Claim(name, {{n}});
  if (tensor == nullptr) return {};
  Tensor out = New(act_, Shape{n});
  if (pass_ == Pass::kCheck) return out;
  const TensorView row = out.view().Reshape({1, n});
  if (checkpoint_ == nullptr) {  // norms that keep what passes through, biases that add nothing
    const std::vector<float> values(static_cast<size_t>(n), name.ends_with(".bias") ? 0.0f : 1.0f);
    ops::Copy(ctx_, row, TensorView(const_cast<float*>(values.data()), DType::kFloat32, Device{}, {1, n}));
    Done(2 * n);
    return out;
  }
  const Source source = Open(*tensor, Shape{n});
  ops::Copy(ctx_, row, source.view.Reshape({1, n}));
  source.Release();
  Done(source.view.NumElements() * DTypeBytes(source.view.dtype));
  return out;
}

Tensor WeightLoader::Table(const std::string& name, int64_t rows, int64_t columns) {
  const CheckpointTensor* tensor = Claim(name, {{rows, columns}});
  if (tensor == nullptr) return {};
  const DType dtype = checkpoint_ == nullptr ? DType::kBFloat16 : StoredType(*tensor->info);
  if (checkpoint_ != nullptr && ctx_.device.type == DeviceType::kCpu &&
      IsAligned(*tensor, DTypeBytes(dtype))) {
    if (pass_ == Pass::kCheck) return {};
    tensor->file->PreferSmallPages(*tensor->info);  // single rows of it are read
    const TensorView view(const_cast<uint8_t*>(DataOf(*tensor)), dtype, Device{}, {rows, columns});
    Done(tensor->info->size_bytes);
    return Tensor::Over(tensor->file->memory(), view);
  }
  Tensor out = New(dtype, Shape{rows, columns});
  if (pass_ == Pass::kCheck) return out;
  if (checkpoint_ == nullptr) {
    ops::FillRandom(ctx_, out, NameKey(name), 0, 0.02f);
    Done(out.size_bytes());
    return out;
  }
  std::vector<Source> sources;
  sources.push_back(Open(*tensor, Shape{rows, columns}));
  for (const Piece& piece : Cut(sources, false)) {
    ops::Copy(ctx_, out.view().Rows(piece.first, piece.count), piece.view());
    sources[0].ReleaseRows(piece.first, piece.count);
    Done(piece.view().NumElements() * DTypeBytes(dtype));
  }
  sources[0].Release();
  return out;
}

ops::LinearWeight WeightLoader::Tied(const std::string& name, const Tensor& table, int64_t rows,
                                     int64_t columns) {
  // Where it is missing Table has noted that.
  const TensorInfo* info = checkpoint_ == nullptr ? nullptr : checkpoint_->Find(name).info;
  const DType dtype = info != nullptr ? StoredType(*info) : DType::kBFloat16;
  const ops::QuantScheme scheme = schemes_.head;
  if (scheme.bits != 0 && columns > ops::kMaxQuantizedFeatures) {
    if (pass_ == Pass::kCheck) TooWide(name, columns);
    return {};
  }
  if (InPanels(scheme)) {
    if (scheme.bits != 0) return PackedLinear(name, rows, columns, scheme);
    if (ctx_.device.type == DeviceType::kCpu) return StoredPanels(name, rows, columns);
    const DType type = StoredPanelsType(name);  // not read: a GPU shares the table's rows
    const CheckpointTensor panels =
        ClaimPacked(PanelsName(name), type, ops::PanelsShape(type, rows, columns));
    if (pass_ == Pass::kLoad) Done(panels.info->size_bytes);
  }
  device_bytes_ += scheme.bits != 0 ? ops::LinearWeightBytes(ctx_, dtype, rows, columns, scheme)
                                    : ops::LinearOfTableBytes(ctx_, dtype, rows, columns);
  if (pass_ == Pass::kCheck) {
    linears_.push_back({{{name, rows}}, rows, columns, false, scheme, dtype, true});
    return {};
  }
  if (checkpoint_ == nullptr || ctx_.device.type != DeviceType::kCpu) {
    return scheme.bits != 0 ? ops::QuantizeLinear(ctx_, {table.view()}, false, scheme)
                            : ops::LinearOfTable(ctx_, table);
  }
  std::vector<Source> sources;
  sources.push_back(Open(checkpoint_->Find(name), Shape{rows, columns}));
  return Pack(sources, false, scheme);
}

Tensor WeightLoader::Float32(const std::string& name, int64_t rows, int64_t columns) {
  std::vector<std::vector<int64_t>> shapes = {{rows, columns}};
  if (rows == 1) shapes.push_back({columns});
  const CheckpointTensor* tensor = Claim(name, shapes, DType::kFloat32);
  if (tensor == nullptr) return {};
  Tensor out = New(DType::kFloat32, Shape{rows, columns});  // zero, as a random model's bias is
  if (pass_ == Pass::kCheck) return out;
  if (checkpoint_ != nullptr) {
    const Source source = Open(*tensor, Shape{rows, columns});
    ops::Copy(ctx_, out, source.view);
    source.Release();
  }
  Done(out.size_bytes());
  return out;
}

Status WeightLoader::Finish(const std::function<bool(std::string_view name)>& ignored) {
  FD_RETURN_IF_ERROR(CheckChoices());
  if (checkpoint_ == nullptr) {
    if (total_bytes_ > kMaxRandomBytes || total_bytes_ < 0) {
      return InvalidArgument(StrCat("the configuration describes ", total_bytes_,
                                    " bytes of weights; the limit is ", kMaxRandomBytes));
    }
    return OkStatus();
  }
  for (const auto& file : checkpoint_->files()) {
    for (const TensorInfo& t : file->header().tensors) {
      if (ignored(t.name) || taken_.count(t.name) > 0) continue;
      Problem(StrCat("tensor ", std::string_view(t.name).substr(0, 200), " ", t.dtype, " ",
                     ShapeToString(t.shape), " belongs to nothing in this model"));
    }
  }
  if (num_problems_ == 0) return OkStatus();
  std::string text = Join(problems_, "; ");
  const int64_t rest = num_problems_ - static_cast<int64_t>(problems_.size());
  if (rest > 0) text += StrCat("; and ", rest, " more");
  return InvalidArgument(
      StrCat(num_problems_, num_problems_ == 1 ? " problem" : " problems", " with the weights: ", text));
}

}  // namespace fd
