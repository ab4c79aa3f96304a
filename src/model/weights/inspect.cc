#include "model/weights/inspect.h"

#include <algorithm>
#include <map>
#include <string_view>

#include "model/weights/checkpoint.h"
#include "model/weights/packed_config.h"

namespace fd {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// Runs of digits compare as numbers, everything else byte by byte.
bool NaturalLess(std::string_view a, std::string_view b) {
  size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (IsDigit(a[i]) && IsDigit(b[j])) {
      size_t ie = i, je = j;
      while (ie < a.size() && IsDigit(a[ie])) ++ie;
      while (je < b.size() && IsDigit(b[je])) ++je;
      std::string_view x = a.substr(i, ie - i), y = b.substr(j, je - j);
      while (x.size() > 1 && x[0] == '0') x.remove_prefix(1);
      while (y.size() > 1 && y[0] == '0') y.remove_prefix(1);
      if (x.size() != y.size()) return x.size() < y.size();
      if (x != y) return x < y;
      i = ie;
      j = je;
    } else {
      if (a[i] != b[j]) return static_cast<unsigned char>(a[i]) < static_cast<unsigned char>(b[j]);
      ++i;
      ++j;
    }
  }
  if ((a.size() - i) != (b.size() - j)) return a.size() - i < b.size() - j;
  return a < b;
}

// Panels hold `bits` bits a parameter, whole panels of features; scales are none (packed_config.h).
int64_t Parameters(const TensorInfo& t) {
  const bool panels = t.dtype == "U8" && t.shape.size() == 3 && (t.shape[2] == 64 || t.shape[2] == 128);
  if (panels && t.name.ends_with(PanelsName(""))) return t.size_bytes * 128 / t.shape[2];
  if (t.dtype == "BF16" && t.shape.size() == 3 && t.name.ends_with(ScalesName(""))) return 0;
  return t.NumElements();
}

}  // namespace

StatusOr<CheckpointListing> ListTensors(const std::string& model_dir) {
  if (!IsDirectory(model_dir)) return NotFound("no such directory: " + model_dir);
  FD_ASSIGN_OR_RETURN(std::unique_ptr<Checkpoint> checkpoint, Checkpoint::Open(model_dir));
  CheckpointListing listing;
  std::map<std::string, DTypeTotal> totals;
  for (const auto& file : checkpoint->files()) {
    const std::string name = file->path().substr(file->path().rfind('/') + 1);
    for (const TensorInfo& t : file->header().tensors) {
      listing.tensors.push_back({t.name, t.dtype, t.shape, t.size_bytes, name});
      DTypeTotal& total = totals[t.dtype];
      total.dtype = t.dtype;
      total.tensors += 1;
      total.parameters += Parameters(t);
      total.size_bytes += t.size_bytes;
      listing.parameters += Parameters(t);
      listing.size_bytes += t.size_bytes;
    }
  }
  listing.num_files = static_cast<int64_t>(checkpoint->files().size());
  std::sort(listing.tensors.begin(), listing.tensors.end(),
            [](const ListedTensor& a, const ListedTensor& b) { return NaturalLess(a.name, b.name); });
  for (auto& [dtype, total] : totals) listing.dtypes.push_back(std::move(total));
  std::stable_sort(listing.dtypes.begin(), listing.dtypes.end(),
                   [](const DTypeTotal& a, const DTypeTotal& b) { return a.size_bytes > b.size_bytes; });
  return listing;
}

}  // namespace fd
