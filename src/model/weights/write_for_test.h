// Writes safetensors files for tests: what a reader must refuse is made here too.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/strings.h"

namespace fd {

struct TensorForTest {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};

inline std::string SafetensorsWithHeader(std::string_view header, std::string_view data) {
  std::string out;
  uint64_t n = header.size();
  for (int i = 0; i < 8; ++i) out.push_back(static_cast<char>(n >> (8 * i) & 0xff));
  return out + std::string(header) + std::string(data);
}

inline std::string SafetensorsForTest(const std::vector<TensorForTest>& tensors) {
  std::string header = "{", data;
  for (const TensorForTest& t : tensors) {
    if (header.size() > 1) header += ",";
    std::string shape;
    for (int64_t d : t.shape) shape += StrCat(shape.empty() ? "" : ",", d);
    header += StrCat("\"", t.name, "\":{\"dtype\":\"", t.dtype, "\",\"shape\":[", shape,
                     "],\"data_offsets\":[", data.size(), ",", data.size() + t.bytes.size(), "]}");
    data += t.bytes;
  }
  return SafetensorsWithHeader(header + "}", data);
}

inline void WriteFileForTest(const std::string& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// A fresh folder under the system's temporary one, removed at the end.
class FolderForTest {
 public:
  FolderForTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "fastdeploy-test-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~FolderForTest() { std::filesystem::remove_all(path_); }
  FolderForTest(const FolderForTest&) = delete;
  FolderForTest& operator=(const FolderForTest&) = delete;
  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }
  void CopyFrom(const std::string& folder) const {
    std::filesystem::copy(
        folder, path_,
        std::filesystem::copy_options::recursive | std::filesystem::copy_options::overwrite_existing);
  }

 private:
  std::string path_;
};

}  // namespace fd
