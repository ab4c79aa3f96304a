#include "model/weights/weight_loader.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/hash.h"
#include "base/strings.h"
#include "compute/ops/rows.h"

namespace fd {
namespace {

constexpr size_t kListedProblems = 8;
constexpr int64_t kCopyBytes = 8 << 20;  // tables are copied piecewise: no second copy in memory
constexpr int64_t kMaxRandomBytes = int64_t{1} << 43;  // 8 TiB: beyond any host this runs on
constexpr int64_t kRandomBlock = 1024;

uint64_t NameKey(std::string_view name) {
  return SipHash128(0x66642e7765696768, 0x72616e646f6d2121, name).low;
}

uint64_t Mix(uint64_t x) {  // splitmix64's finaliser
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
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

bool IsLoadable(std::string_view dtype) { return dtype == "BF16" || dtype == "F32"; }

}  // namespace

void FillRandom(ThreadPool* threads, uint16_t* out, int64_t n, uint64_t key, int64_t first_index,
                float scale) {
  const int64_t blocks = (n + kRandomBlock - 1) / kRandomBlock;
  threads->ParallelFor(blocks, 64, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * kRandomBlock;
      const int64_t count = std::min(kRandomBlock, n - first);
      const uint64_t seed = Mix(key ^ Mix(static_cast<uint64_t>(first_index + first)));
      for (int64_t i = 0; i < count; ++i) {
        // 32 bits of a multiplicative hash are plenty for weights that nobody reads.
        uint32_t bits = static_cast<uint32_t>(seed) + static_cast<uint32_t>(i) * 0x9e3779b9u;
        bits = (bits ^ (bits >> 16)) * 0x85ebca6bu;
        bits = (bits ^ (bits >> 13)) * 0xc2b2ae35u;
        const float u = static_cast<float>(static_cast<int32_t>(bits)) * 0x1p-31f;
        out[first + i] = ToBFloat16(u * scale).bits;
      }
    }
  });
}

WeightLoader::WeightLoader(const ops::Context& ctx, const Checkpoint* checkpoint, DType act)
    : ctx_(ctx), checkpoint_(checkpoint), act_(act) {}

bool WeightLoader::Has(const std::string& name) const {
  return checkpoint_ != nullptr && checkpoint_->Find(name).info != nullptr;
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

const CheckpointTensor* WeightLoader::Claim(const std::string& name,
                                            const std::vector<std::vector<int64_t>>& shapes) {
  if (checkpoint_ == nullptr) {
    if (pass_ == Pass::kCheck) total_bytes_ += 2 * Elements(shapes[0]);
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

WeightLoader::Source WeightLoader::Open(const std::string& name, const CheckpointTensor& tensor,
                                        const Shape& shape, int64_t fan_in, DType random_type) {
  Source source;
  source.from = tensor;
  const Device host;
  if (tensor.info == nullptr) {
    const int64_t n = shape.NumElements();
    source.storage.resize(static_cast<size_t>(2 * n));
    source.view = TensorView(source.storage.data(), DType::kBFloat16, host, shape);
    const float scale = std::sqrt(3.0f / static_cast<float>(fan_in));  // variance 1 / fan_in
    FillRandom(ctx_.threads, source.view.As<uint16_t>(), n, NameKey(name), 0, scale);
    if (random_type == DType::kFloat32) {
      std::vector<uint8_t> wide(static_cast<size_t>(4 * n));
      for (int64_t i = 0; i < n; ++i)
        reinterpret_cast<float*>(wide.data())[i] = ToFloat(source.view.As<BFloat16>()[i]);
      source.storage = std::move(wide);
      source.view = TensorView(source.storage.data(), DType::kFloat32, host, shape);
    }
    return source;
  }
  const DType dtype = tensor.info->dtype == "F32" ? DType::kFloat32 : DType::kBFloat16;
  const uint8_t* data = tensor.file->Data(*tensor.info);
  if (reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(DTypeBytes(dtype)) != 0) {
    source.storage.assign(data, data + tensor.info->size_bytes);
    data = source.storage.data();
  }
  source.view = TensorView(const_cast<uint8_t*>(data), dtype, host, shape);
  return source;
}

void WeightLoader::Done(int64_t read_bytes, int64_t packed_bytes) {
  packed_bytes_ += packed_bytes;
  done_bytes_ += read_bytes;
  if (progress) progress(std::min(done_bytes_, total_bytes_), total_bytes_);
}

void WeightLoader::RequireSameType(const std::vector<std::string>& names) {
  if (checkpoint_ == nullptr || pass_ != Pass::kCheck) return;
  const TensorInfo* first = nullptr;
  for (const std::string& name : names) {
    const TensorInfo* info = checkpoint_->Find(name).info;
    if (info == nullptr) continue;  // noted as missing
    if (first == nullptr) first = info;
    if (info->dtype != first->dtype) {
      Problem(StrCat("tensor ", name, ": found ", info->dtype, ", expected ", first->dtype, " as ",
                     first->name, " has"));
    }
  }
}

ops::LinearWeight WeightLoader::Linear(const std::vector<Part>& parts, int64_t k, bool transposed) {
  std::vector<Source> sources;
  std::string first_dtype;
  bool complete = true;
  for (const Part& part : parts) {
    const std::vector<int64_t> dims =
        transposed ? std::vector<int64_t>{k, part.rows} : std::vector<int64_t>{part.rows, k};
    const CheckpointTensor* tensor = Claim(part.name, {dims});
    if (tensor == nullptr) {
      complete = false;
      continue;
    }
    if (tensor->info != nullptr) {
      if (first_dtype.empty()) first_dtype = tensor->info->dtype;
      if (tensor->info->dtype != first_dtype) {
        if (pass_ == Pass::kCheck) {
          Problem(StrCat("tensor ", part.name, ": found ", tensor->info->dtype, ", expected ", first_dtype,
                         " as ", parts[0].name, " has: they become one matrix"));
        }
        complete = false;
        continue;
      }
    }
    if (checkpoint_ == nullptr && pass_ == Pass::kCheck)
      total_bytes_ += (DTypeBytes(part.random_type) - 2) * Elements(dims);
    if (pass_ == Pass::kLoad) sources.push_back(Open(part.name, *tensor, ToShape(dims), k, part.random_type));
  }
  if (pass_ == Pass::kCheck || !complete) return {};
  std::vector<TensorView> views;
  for (const Source& s : sources) views.push_back(s.view);
  ops::LinearWeight weight = ops::PackLinear(ctx_, views, transposed);
  for (const Source& s : sources) {
    s.Release();
    Done(s.view.NumElements() * DTypeBytes(s.view.dtype), 0);
  }
  packed_bytes_ += weight.size_bytes();
  return weight;
}

Tensor WeightLoader::Vector(const std::string& name, int64_t n) {
  const CheckpointTensor* tensor = Claim(name, {{n}});
  if (tensor == nullptr || pass_ == Pass::kCheck) return {};
  Source source = Open(name, *tensor, Shape{n}, n);
  if (checkpoint_ == nullptr) {  // norms that keep what passes through, biases that add nothing
    const uint16_t value = name.ends_with(".bias") ? 0 : ToBFloat16(1.0f).bits;
    std::fill_n(source.view.As<uint16_t>(), n, value);
  }
  Tensor out(act_, ctx_.device, Shape{n});
  ops::Copy(ctx_, out.view().Reshape({1, n}), source.view.Reshape({1, n}));
  source.Release();
  Done(source.view.NumElements() * DTypeBytes(source.view.dtype), out.size_bytes());
  return out;
}

Tensor WeightLoader::Table(const std::string& name, int64_t rows, int64_t columns) {
  const CheckpointTensor* tensor = Claim(name, {{rows, columns}});
  if (tensor == nullptr || pass_ == Pass::kCheck) return {};
  if (tensor->info == nullptr) {
    Tensor out(DType::kBFloat16, ctx_.device, Shape{rows, columns});
    const int64_t step = std::max<int64_t>(1, kCopyBytes / (2 * columns));
    std::vector<uint16_t> piece;
    for (int64_t r = 0; r < rows; r += step) {
      const int64_t count = std::min(step, rows - r);
      piece.resize(static_cast<size_t>(count * columns));
      FillRandom(ctx_.threads, piece.data(), count * columns, NameKey(name), r * columns, 0.02f);
      ops::Copy(ctx_, out.view().Rows(r, count),
                TensorView(piece.data(), DType::kBFloat16, Device{}, {count, columns}));
    }
    Done(out.size_bytes(), out.size_bytes());
    return out;
  }
  Source source = Open(name, *tensor, Shape{rows, columns}, columns);
  Tensor out(source.view.dtype, ctx_.device, Shape{rows, columns});
  const int64_t row_bytes = columns * DTypeBytes(source.view.dtype);
  const int64_t step = std::max<int64_t>(1, kCopyBytes / row_bytes);
  for (int64_t r = 0; r < rows; r += step) {
    const int64_t count = std::min(step, rows - r);
    ops::Copy(ctx_, out.view().Rows(r, count), source.view.Rows(r, count));
    TensorInfo piece = *tensor->info;
    piece.offset += r * row_bytes;
    piece.size_bytes = count * row_bytes;
    tensor->file->Release(piece);
  }
  source.Release();
  Done(source.view.NumElements() * DTypeBytes(source.view.dtype), out.size_bytes());
  return out;
}

Tensor WeightLoader::Float32(const std::string& name, int64_t rows, int64_t columns) {
  std::vector<std::vector<int64_t>> shapes = {{rows, columns}};
  if (rows == 1) shapes.push_back({columns});
  const CheckpointTensor* tensor = Claim(name, shapes);
  if (tensor == nullptr || pass_ == Pass::kCheck) return {};
  Tensor out(DType::kFloat32, ctx_.device, Shape{rows, columns});  // zero, as a random model's bias is
  Source source = Open(name, *tensor, Shape{rows, columns}, columns);
  if (checkpoint_ != nullptr) ops::Copy(ctx_, out, source.view);
  source.Release();
  Done(source.view.NumElements() * DTypeBytes(source.view.dtype), out.size_bytes());
  return out;
}

Status WeightLoader::Finish(const std::function<bool(std::string_view name)>& ignored) {
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
