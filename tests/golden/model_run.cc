#include "tests/golden/model_run.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "compute/ops/rows.h"
#include "compute/ops/stream.h"

namespace fd::golden {
namespace {

constexpr int64_t kPages = 61;  // prime, so that a stride visits every page

// Host vectors on their way to the device; keeps what it uploaded.
class Uploads {
 public:
  explicit Uploads(const Machine& machine) : machine_(machine) {}
  TensorView Ints(std::vector<int32_t>& v) {
    const TensorView host(v.data(), DType::kInt32, Device{}, {static_cast<int64_t>(v.size())});
    kept_.push_back(machine_.Upload(host));
    return kept_.back();
  }

 private:
  const Machine& machine_;
  std::vector<Tensor> kept_;
};

}  // namespace

GoldenFile::GoldenFile(const std::string& path) {
  auto file = SafetensorsFile::Open(path);
  FD_CHECK(file.ok(), file.status().message());
  file_ = *file;
}

template <typename T>
std::vector<T> GoldenFile::Read(const std::string& name, const char* dtype) const {
  const TensorInfo* info = file_->Find(name);
  FD_CHECK(info != nullptr && info->dtype == dtype, name);
  std::vector<T> out(static_cast<size_t>(info->NumElements()));
  if (!out.empty()) std::memcpy(out.data(), file_->Data(*info), static_cast<size_t>(info->size_bytes));
  return out;
}
std::vector<float> GoldenFile::Floats(const std::string& name) const { return Read<float>(name, "F32"); }
std::vector<int32_t> GoldenFile::Ints(const std::string& name) const { return Read<int32_t>(name, "I32"); }
std::vector<uint8_t> GoldenFile::Bytes(const std::string& name) const { return Read<uint8_t>(name, "U8"); }

Machine::Machine(const std::string& model_dir, DType dtype, int threads, const Quantization& quantization,
                 std::optional<DType> pages, int64_t max_model_len)
    : threads_(threads), workspace_(DeviceUnderTest(), 1 << 20) {
  ctx_.device = DeviceUnderTest();
  ctx_.stream = StreamUnderTest();
  ctx_.threads = &threads_;
  ctx_.workspace = &workspace_;
  LoadOptions options;
  options.dtype = dtype;
  options.quantization = quantization;
  auto opened = OpenModel(ctx_, model_dir, options);
  FD_CHECK(opened.ok(), opened.status().message());
  model_ = opened->Load(ctx_, max_model_len);
  kv_ = MakeKvStorage(model_->config(), pages.value_or(dtype), ctx_, kPages);
}

Tensor Machine::Upload(const TensorView& host) const {
  Tensor t(host.dtype, ctx_.device, host.shape);
  ops::Copy(ctx_, t, host);
  return t;
}

int32_t Machine::NewPage() {
  // Pages are reused once all were handed out: tests run one sequence after another.
  return static_cast<int32_t>((pages_used_++ * 17 + 5) % kPages);
}

void Sequence::Append(int32_t id) {
  const int64_t n = static_cast<int64_t>(prompt_.ids.size());
  if (!prompt_.positions.empty()) {
    std::vector<int32_t> positions;
    for (int64_t axis = 0; axis < 3; ++axis) {
      auto begin = prompt_.positions.begin() + axis * n;
      positions.insert(positions.end(), begin, begin + n);
      positions.push_back(static_cast<int32_t>(n + prompt_.delta));
    }
    prompt_.positions = positions;
  }
  prompt_.ids.push_back(id);
  if (!prompt_.vision_expert.empty()) prompt_.vision_expert.push_back(0);
  if (!prompt_.is_media.empty()) prompt_.is_media.push_back(0);
}

std::vector<std::vector<float>> Sequence::Step(Machine& machine, const std::vector<Chunk>& chunks) {
  const DType act = machine.model().dtype();
  const int64_t hidden = machine.model().config().hidden_size, vocab = machine.model().config().vocab_size;
  std::vector<int32_t> ids, axes[3], slots, query_offsets = {0}, context, wanted_rows, media_rows, text_rows,
                                            vision_rows;
  std::vector<std::pair<const Tensor*, int64_t>> media_sources;
  int64_t max_pages = 1, max_query = 0, max_context = 0;
  for (const Chunk& c : chunks) {
    Sequence& s = *c.sequence;
    const Prompt& p = s.prompt_;
    const int64_t n = static_cast<int64_t>(p.ids.size());
    const int64_t base = static_cast<int64_t>(ids.size());
    int64_t media_index = 0;
    for (int64_t i = 0; i < s.done_; ++i)
      media_index += !p.is_media.empty() && p.is_media[static_cast<size_t>(i)];
    for (int64_t i = s.done_; i < s.done_ + c.count; ++i) {
      const int32_t row = static_cast<int32_t>(ids.size());
      const size_t u = static_cast<size_t>(i);
      ids.push_back(p.ids[u]);
      for (int64_t a = 0; a < 3; ++a) {
        axes[a].push_back(p.positions.empty() ? static_cast<int32_t>(i)
                                              : p.positions[static_cast<size_t>(a * n + i)]);
      }
      if (i / ops::kPageTokens >= static_cast<int64_t>(s.pages_.size()))
        s.pages_.push_back(machine.NewPage());
      slots.push_back(s.pages_[u / ops::kPageTokens] * static_cast<int32_t>(ops::kPageTokens) +
                      static_cast<int32_t>(i % ops::kPageTokens));
      if (!p.is_media.empty() && p.is_media[u]) {
        media_rows.push_back(row);
        media_sources.emplace_back(&p.media, media_index++);
      }
      (!p.vision_expert.empty() && p.vision_expert[u] ? vision_rows : text_rows).push_back(row);
    }
    for (int64_t w : c.wanted) wanted_rows.push_back(static_cast<int32_t>(base + w - s.done_));
    s.done_ += c.count;
    query_offsets.push_back(static_cast<int32_t>(ids.size()));
    context.push_back(static_cast<int32_t>(s.done_));
    max_pages = std::max<int64_t>(max_pages, static_cast<int64_t>(s.pages_.size()));
    max_query = std::max(max_query, c.count);
    max_context = std::max(max_context, s.done_);
  }
  const int64_t tokens = static_cast<int64_t>(ids.size()), outputs = static_cast<int64_t>(wanted_rows.size());
  std::vector<int32_t> positions, tables;
  for (auto& axis : axes) positions.insert(positions.end(), axis.begin(), axis.end());
  for (const Chunk& c : chunks) {
    tables.insert(tables.end(), c.sequence->pages_.begin(), c.sequence->pages_.end());
    tables.resize((static_cast<size_t>(&c - chunks.data()) + 1) * static_cast<size_t>(max_pages), 0);
  }
  const Device device = machine.ctx().device;
  Tensor media(act, device, {std::max<int64_t>(1, static_cast<int64_t>(media_rows.size())), hidden});
  for (size_t i = 0; i < media_sources.size(); ++i) {
    ops::Copy(machine.ctx(), media.view().Rows(static_cast<int64_t>(i), 1),
              media_sources[i].first->view().Rows(media_sources[i].second, 1));
  }

  Uploads uploads(machine);
  ForwardBatch batch;
  batch.num_tokens = tokens;
  batch.token_ids = uploads.Ints(ids);
  batch.positions = uploads.Ints(positions).Reshape({3, tokens});
  batch.attention.query_offsets = uploads.Ints(query_offsets);
  batch.attention.context_tokens = uploads.Ints(context);
  std::vector<int32_t> table_offsets;
  for (size_t i = 0; i <= chunks.size(); ++i) {
    table_offsets.push_back(static_cast<int32_t>(i * static_cast<size_t>(max_pages)));
  }
  batch.attention.table_offsets = uploads.Ints(table_offsets);
  batch.attention.block_tables = uploads.Ints(tables);
  batch.attention.slots = uploads.Ints(slots);
  batch.attention.max_query_tokens = max_query;
  batch.attention.max_context_tokens = max_context;
  if (outputs > 0) batch.logits_rows = uploads.Ints(wanted_rows);
  if (!media_rows.empty()) {
    batch.media_rows = uploads.Ints(media_rows);
    batch.media_embeddings = media;
  }
  if (!vision_rows.empty()) {
    batch.text_rows = uploads.Ints(text_rows);
    batch.vision_rows = uploads.Ints(vision_rows);
  }
  Tensor logits(DType::kFloat32, device, {std::max<int64_t>(1, outputs), vocab});
  machine.model().Forward(machine.ctx(), logits.view().Rows(0, outputs), batch, machine.kv());
  std::vector<std::vector<float>> out;
  for (int64_t r = 0; r < outputs; ++r) out.push_back(ToFloats(logits.view().Rows(r, 1)));
  return out;
}

std::vector<std::vector<float>> Sequence::Prefill(int64_t chunk, const std::vector<int64_t>& wanted) {
  std::vector<std::vector<float>> out;
  const int64_t n = static_cast<int64_t>(prompt_.ids.size());
  while (done_ < n) {
    const int64_t count = chunk > 0 ? std::min(chunk, n - done_) : n - done_;
    Chunk c{this, count, {}};
    for (int64_t w : wanted) {
      if (w >= done_ && w < done_ + count) c.wanted.push_back(w);
    }
    for (auto& row : Step(machine_, {c})) out.push_back(std::move(row));
  }
  return out;
}

std::vector<float> Sequence::Decode(int32_t id) {
  Append(id);
  return Step(machine_, {{this, 1, {done_}}})[0];
}

int32_t Argmax(const std::vector<float>& logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

std::vector<float> LogSoftmax(const std::vector<float>& logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float l : logits) sum += std::exp(l - largest);
  std::vector<float> out;
  for (float l : logits) out.push_back(static_cast<float>(l - largest - std::log(sum)));
  return out;
}

float MaxAbsDifference(const std::vector<float>& a, const std::vector<float>& b) {
  FD_CHECK_EQ(a.size(), b.size());
  float largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const float d = std::fabs(a[i] - b[i]);
    if (!(d <= largest)) largest = d;  // a NaN stays
  }
  return largest;
}

double Rms(const std::vector<float>& a, const std::vector<float>& b) {
  FD_CHECK_EQ(a.size(), b.size());
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * static_cast<double>(a[i] - b[i]);
  return std::sqrt(sum / static_cast<double>(a.size()));
}

double StandardDeviation(const std::vector<float>& a) {
  double mean = 0, sum = 0;
  for (float x : a) mean += x / static_cast<double>(a.size());
  for (float x : a) sum += (x - mean) * (x - mean);
  return std::sqrt(sum / static_cast<double>(a.size()));
}

std::vector<float> ToFloats(const TensorView& t) {
  if (t.device.type == DeviceType::kCuda) {
    Tensor host(t.dtype, Device{}, t.shape);
    ops::Context ctx;
    ctx.device = t.device;
    ctx.stream = StreamUnderTest();
    ops::Copy(ctx, host, t);
    ops::Synchronize(ctx);
    return ToFloats(host);
  }
  std::vector<float> out;
  const int64_t row = TensorView::RowElements(t.shape);
  for (int64_t r = 0; r < t.dim(0); ++r) {
    for (int64_t i = 0; i < row; ++i) {
      const int64_t at = r * t.row_stride + i;
      out.push_back(t.dtype == DType::kFloat32 ? t.As<float>()[at] : ToFloat(t.As<BFloat16>()[at]));
    }
  }
  return out;
}

Prompt LoadVlPrompt(Machine& machine, const GoldenFile& golden, const Json& test_case, bool patches_only,
                    const std::string& position_key) {
  const std::string name = test_case.Find("name")->as_string() + ".";
  Prompt p;
  p.ids = golden.Ints(name + "input_ids");
  p.positions = golden.Ints(name + position_key);
  p.delta =
      *std::max_element(p.positions.begin(), p.positions.end()) + 1 - static_cast<int64_t>(p.ids.size());
  const std::vector<int32_t> types = golden.Ints(name + "mm_token_type_ids");
  for (int32_t t : types) p.is_media.push_back(t != 0);
  for (int32_t t : patches_only ? types : golden.Ints(name + "moe_mm_token_type_ids"))
    p.vision_expert.push_back(t != 0);

  // Encoded in two calls, all pictures, then all videos; rows go where their placeholders are.
  const int64_t hidden = machine.model().config().hidden_size;
  const int64_t total = std::count(p.is_media.begin(), p.is_media.end(), uint8_t{1});
  if (total == 0) return p;
  const Device device = machine.ctx().device;
  p.media = Tensor(machine.model().dtype(), device, {total, hidden});
  int32_t kind_id = 1;
  for (const char* kind : {"image", "video"}) {
    EncodeBatch batch;
    std::vector<uint8_t> rows;
    const JsonArray& items = test_case.Find(std::string(kind) + "s")->as_array();
    for (size_t k = 0; k < items.size(); ++k) {
      const JsonArray& grid = items[k].Find("grid_thw")->as_array();
      batch.grids.push_back({grid[0].as_int(), grid[1].as_int(), grid[2].as_int()});
      std::vector<uint8_t> r = golden.Bytes(StrCat(name, kind, k, ".rows"));
      rows.insert(rows.end(), r.begin(), r.end());
    }
    if (!items.empty()) {
      const Tensor patch_rows = machine.Upload(
          TensorView(rows.data(), DType::kUInt8, Device{}, {static_cast<int64_t>(rows.size()) / 588, 588}));
      batch.patch_rows = patch_rows;
      Tensor out(machine.model().dtype(), device, {batch.OutputTokens(), hidden});
      machine.model().Encode(machine.ctx(), out, batch);
      int64_t source = 0, target = 0;
      for (int32_t t : types) {
        if (t == kind_id)
          ops::Copy(machine.ctx(), p.media.view().Rows(target, 1), out.view().Rows(source++, 1));
        target += t != 0;
      }
      FD_CHECK_EQ(source, batch.OutputTokens());
    }
    ++kind_id;
  }
  return p;
}

}  // namespace fd::golden
