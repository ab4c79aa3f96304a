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

// A read-only mapping of a whole file, unmapped on destruction. Any thread may read. A file that is truncated
// meanwhile, or whose disk fails, makes a read of data() a SIGBUS; see ExplainMappedFileErrors.
class MappedFile {
 public:
  static StatusOr<std::shared_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  const std::string& path() const { return path_; }
  const uint8_t* data() const { return data_; }
  int64_t size_bytes() const { return size_bytes_; }
  // Not ok: the file has been written to since it was opened, so what was read may be half of each. A file
  // that was replaced by another of its name is still mapped, and as it was.
  Status CheckUnchanged() const;
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
  struct Version {
    uint64_t device = 0, inode = 0;
    int64_t size_bytes = 0, changed_s = 0, changed_ns = 0;
  };
  MappedFile(std::string path, const uint8_t* data, const Version& version);
  std::string path_;
  const uint8_t* data_;
  int64_t size_bytes_;
  const Version version_;
};

// From now on a SIGBUS in a mapped file ends the process with exit_code after a line on standard error that
// names the file and the byte. Other ones do what they did. Once, from main.
void ExplainMappedFileErrors(int exit_code);

}  // namespace fd
