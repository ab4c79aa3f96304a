#include "model/weights/packed_writer.h"

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/files.h"
#include "base/json.h"
#include "base/new_files.h"
#include "base/strings.h"
#include "model/weights/packed_config.h"

namespace fd {
namespace {

constexpr int64_t kDataAlignment = 4096;  // of the first tensor: whole pages can be given back
constexpr int64_t kTensorAlignment = 64;
constexpr int64_t kPieceBytes = 8 << 20;

struct Entry {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  int64_t size_bytes = 0;
  const SafetensorsFile* file = nullptr;  // of a tensor that stays as stored
  const TensorInfo* info = nullptr;
  int64_t offset = 0;  // from the first tensor's first byte
};

// The largest power of two, up to 64, that divides a tensor's size. Tensors must follow each other without
// gaps; in the order of this, the largest first, each begins at a multiple of its own.
int64_t Alignment(int64_t size_bytes) {
  return size_bytes == 0 ? kTensorAlignment : std::min(kTensorAlignment, size_bytes & -size_bytes);
}

std::vector<int64_t> Dims(const Shape& shape) { return {shape.dims, shape.dims + shape.rank}; }

// First panels, and of a quantised weight scales behind them, of each of `linears` in turn; then the rest.
std::vector<Entry> EntriesOf(const Checkpoint& checkpoint,
                             const std::vector<WeightLoader::LinearToPack>& linears) {
  std::vector<Entry> entries;
  std::unordered_set<std::string_view> replaced;
  for (const auto& weight : linears) {
    const std::string& name = weight.parts[0].name;
    if (weight.scheme.bits != 0) {
      const Shape panels = ops::QuantPanelsShape(weight.n, weight.k, weight.scheme);
      const Shape scales = ops::QuantScalesShape(weight.n, weight.k, weight.scheme);
      entries.push_back({PanelsName(name), "U8", Dims(panels), panels.NumElements()});
      entries.push_back({ScalesName(name), "BF16", Dims(scales), scales.NumElements() * 2});
    } else {
      const Shape panels = ops::PanelsShape(weight.stored, weight.n, weight.k);
      entries.push_back({PanelsName(name), weight.stored == DType::kFloat32 ? "F32" : "BF16", Dims(panels),
                         panels.NumElements() * DTypeBytes(weight.stored)});
    }
    if (weight.tied) continue;
    for (const auto& part : weight.parts) replaced.insert(part.name);
  }
  for (const auto& file : checkpoint.files()) {
    for (const TensorInfo& info : file->header().tensors) {
      if (replaced.count(info.name) > 0) continue;
      entries.push_back({info.name, info.dtype, info.shape, info.size_bytes, file.get(), &info});
    }
  }
  return entries;
}

// Sets the offsets; returns the file's bytes before the first tensor.
std::string LayOut(std::vector<Entry>& entries, int64_t* data_bytes) {
  std::vector<Entry*> order;
  for (Entry& entry : entries) order.push_back(&entry);
  std::stable_sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) {
    return Alignment(a->size_bytes) > Alignment(b->size_bytes);
  });
  std::string header = "{";
  *data_bytes = 0;
  for (Entry* entry : order) {
    entry->offset = *data_bytes;
    *data_bytes += entry->size_bytes;
    if (header.size() > 1) header += ",";
    AppendJsonString(header, entry->name);
    header += StrCat(":{\"dtype\":\"", entry->dtype, "\",\"shape\":", ShapeToString(entry->shape),
                     ",\"data_offsets\":", ShapeToString({entry->offset, *data_bytes}), "}");
  }
  header += "}";
  const size_t used = header.size() + 8;
  header.append((kDataAlignment - used % kDataAlignment) % kDataAlignment, ' ');
  std::string begin;
  for (int i = 0; i < 8; ++i) begin.push_back(static_cast<char>(header.size() >> (8 * i) & 0xff));
  return begin + header;
}

// One file under construction, with its progress.
class Output {
 public:
  Output(const PackOptions& options, int64_t total_bytes) : options_(options), total_bytes_(total_bytes) {}
  Status Create(const std::string& path) { return file_.Create(path, total_bytes_); }
  Status Write(int64_t offset, const void* data, int64_t bytes) {
    const char* from = static_cast<const char*>(data);
    // Pieces end at multiples of their size in the file: the page cache then keeps them in large folios.
    for (int64_t at = 0, count = 0; at < bytes; at += count) {
      if (options_.stopped && options_.stopped()) return Unavailable("interrupted; nothing was written");
      count = std::min(kPieceBytes - (offset + at) % kPieceBytes, bytes - at);
      FD_RETURN_IF_ERROR(file_.WriteAt(offset + at, from + at, count));
      done_bytes_ += count;
      if (options_.progress) options_.progress(done_bytes_, total_bytes_);
    }
    return OkStatus();
  }
  Status Close() { return file_.Close(); }

 private:
  const PackOptions& options_;
  int64_t total_bytes_;
  int64_t done_bytes_ = 0;
  NewFile file_;
};

Status WriteWeights(WeightLoader& loader, const Checkpoint& checkpoint, const std::string& path,
                    const PackOptions& options) {
  std::vector<WeightLoader::LinearToPack> linears = loader.linears();
  if (!PacksAll(options.quantization)) {
    std::erase_if(linears, [](const auto& weight) { return weight.scheme.bits == 0; });
  }
  std::vector<Entry> entries = EntriesOf(checkpoint, linears);
  int64_t data_bytes = 0;
  const std::string begin = LayOut(entries, &data_bytes);
  const int64_t data_begin = static_cast<int64_t>(begin.size());
  Output out(options, data_begin + data_bytes);
  FD_RETURN_IF_ERROR(out.Create(path));
  FD_RETURN_IF_ERROR(out.Write(0, begin.data(), data_begin));
  size_t next = 0;
  for (const auto& linear : linears) {
    const ops::LinearWeight weight = loader.PackOne(linear);
    const Entry& panels = entries[next++];
    FD_CHECK_EQ(weight.data.size_bytes(), panels.size_bytes);
    FD_RETURN_IF_ERROR(out.Write(data_begin + panels.offset, weight.data.view().data, panels.size_bytes));
    if (linear.scheme.bits == 0) continue;
    const Entry& scales = entries[next++];
    FD_CHECK_EQ(weight.scales.size_bytes(), scales.size_bytes);
    FD_RETURN_IF_ERROR(out.Write(data_begin + scales.offset, weight.scales.view().data, scales.size_bytes));
  }
  for (; next < entries.size(); ++next) {
    const Entry& entry = entries[next];
    for (int64_t at = 0; at < entry.size_bytes; at += kPieceBytes) {
      TensorInfo piece;
      piece.offset = entry.info->offset + at;
      piece.size_bytes = std::min(kPieceBytes, entry.size_bytes - at);
      FD_RETURN_IF_ERROR(
          out.Write(data_begin + entry.offset + at, entry.file->Data(piece), piece.size_bytes));
      entry.file->Release(piece);
    }
  }
  return out.Close();
}

Status WriteWhole(const std::string& path, std::string_view text) {
  NewFile file;
  FD_RETURN_IF_ERROR(file.Create(path, 0));
  FD_RETURN_IF_ERROR(file.WriteAt(0, text.data(), static_cast<int64_t>(text.size())));
  return file.Close();
}

// Weights in any format, which the new folder has no use for.
bool IsWeightFile(std::string_view name) {
  for (const char* end : {".safetensors", ".index.json", ".bin", ".pt", ".pth", ".pdparams", ".gguf", ".onnx",
                          ".h5", ".msgpack"}) {
    if (name.ends_with(end)) return true;
  }
  return false;
}

// Tokenizer, chat template, processors, generation settings: every file that holds no weights.
Status CopyOtherFiles(const std::string& from, const std::string& to) {
  std::error_code error;
  for (std::filesystem::directory_iterator it(from, error), end; it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name == "config.json" || name.starts_with(".") || IsWeightFile(name) ||
        IsDirectory(JoinPath(from, name))) {
      continue;
    }
    FD_ASSIGN_OR_RETURN(const std::string text, ReadFile(JoinPath(from, name)));
    FD_RETURN_IF_ERROR(WriteWhole(JoinPath(to, name), text));
  }
  return error ? InvalidArgument(StrCat("cannot read ", from, ": ", error.message())) : OkStatus();
}

}  // namespace

Status WritePacked(WeightLoader& loader, const Checkpoint& checkpoint, const std::string& model_dir,
                   const std::string& out_dir, const PackOptions& options) {
  FD_ASSIGN_OR_RETURN(Json config, ReadJsonFile(JoinPath(model_dir, "config.json")));
  config.as_object().Set(kQuantizationConfig, PackedConfig(options.quantization));
  NewFolder folder;
  FD_RETURN_IF_ERROR(folder.Create(out_dir));
  const std::string& to = folder.temporary_path();
  FD_RETURN_IF_ERROR(CopyOtherFiles(model_dir, to));
  FD_RETURN_IF_ERROR(WriteWhole(JoinPath(to, "config.json"), WriteJson(config) + "\n"));
  FD_RETURN_IF_ERROR(WriteWeights(loader, checkpoint, JoinPath(to, "model.safetensors"), options));
  return folder.Commit();
}

}  // namespace fd
