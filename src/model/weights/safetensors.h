// One safetensors file: 8 bytes of header length, a JSON header, tensor bytes. The header is hostile input:
// every length, offset and product is checked before use. Any thread may read an open file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/files.h"
#include "base/status.h"

namespace fd {

struct TensorInfo {
  std::string name;
  std::string dtype;           // as stored: "BF16", "F32", ...
  std::vector<int64_t> shape;  // may be empty (a scalar)
  int64_t offset = 0;          // of the first byte, from the start of the file
  int64_t size_bytes = 0;
  int64_t NumElements() const;
};
// "[2, 64]"
std::string ShapeToString(const std::vector<int64_t>& shape);

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;                            // by offset
  std::vector<std::pair<std::string, std::string>> metadata;  // "__metadata__"
  int64_t header_bytes = 0;
};

// `bytes`: the beginning of the file, at least its whole header; file_bytes: size of the whole file. Tensors
// must fill the file without gap or overlap, as the format demands.
StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view bytes, int64_t file_bytes);

class SafetensorsFile {
 public:
  // Errors name the path.
  static StatusOr<std::shared_ptr<SafetensorsFile>> Open(const std::string& path);
  const std::string& path() const { return file_->path(); }
  const SafetensorsHeader& header() const { return header_; }
  // Null when there is none.
  const TensorInfo* Find(std::string_view name) const;
  // Mapped; valid as long as the file is open. Not aligned to the element type in every file.
  const uint8_t* Data(const TensorInfo& tensor) const { return file_->data() + tensor.offset; }
  Status CheckUnchanged() const { return file_->CheckUnchanged(); }
  // What keeps Data valid after the file is closed.
  std::shared_ptr<const void> memory() const { return file_; }
  // The tensor's bytes will not be read again soon.
  void Release(const TensorInfo& tensor) const { file_->Release(tensor.offset, tensor.size_bytes); }
  // Most of the file, or this tensor, is read in this way (MappedFile::Prefer).
  void PreferLargePages() const { file_->Prefer(MappedFile::Pages::kLarge, 0, file_->size_bytes()); }
  void PreferSmallPages(const TensorInfo& tensor) const {
    file_->Prefer(MappedFile::Pages::kSmall, tensor.offset, tensor.size_bytes);
  }
  // Reads the tensor's bytes now, so that no later use of Data waits for the disk.
  void Populate(const TensorInfo& tensor) const { file_->Populate(tensor.offset, tensor.size_bytes); }

 private:
  SafetensorsFile(std::shared_ptr<MappedFile> file, SafetensorsHeader header);
  std::shared_ptr<MappedFile> file_;
  SafetensorsHeader header_;
  std::vector<uint32_t> by_name_;  // positions in header_.tensors
};

}  // namespace fd
