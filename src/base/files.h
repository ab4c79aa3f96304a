// Files read whole or mapped. Errors name the path and the operating system's reason.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"

namespace fd {

bool FileExists(const std::string& path);
bool IsDirectory(const std::string& path);
// "dir" + "/" + "name".
std::string JoinPath(const std::string& dir, const std::string& name);
StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes = int64_t{1} << 30);

// A read-only mapping of a whole file, unmapped on destruction. Any thread may read.
class MappedFile {
 public:
  static StatusOr<std::shared_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  const std::string& path() const { return path_; }
  const uint8_t* data() const { return data_; }
  int64_t size_bytes() const { return size_bytes_; }
  // Tells the kernel that these bytes will not be read again, so that loading does not fill memory with the
  // file.
  void Release(int64_t offset, int64_t length_bytes) const;
  // Brings these bytes into memory, in one go and as fast as the disk reads.
  void Populate(int64_t offset, int64_t length_bytes) const;
  // How these bytes will be used, for the size of the pages that hold them: kLarge for what is read whole,
  // again and again, kSmall for single places far from each other. A hint; where the file system has large
  // folios (Linux 6.16 on ext4) it decides about huge pages.
  enum class Pages { kLarge, kSmall };
  void Prefer(Pages pages, int64_t offset, int64_t length_bytes) const;

 private:
  MappedFile(std::string path, const uint8_t* data, int64_t size_bytes)
      : path_(std::move(path)), data_(data), size_bytes_(size_bytes) {}
  std::string path_;
  const uint8_t* data_;
  int64_t size_bytes_;
};

}  // namespace fd
