// A folder that appears whole or not at all, and the files written into it. Errors name the path and the
// operating system's reason. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/status.h"

namespace fd {

// A new file, written at chosen places.
class NewFile {
 public:
  NewFile() = default;
  ~NewFile();
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  // Takes the space at once where the file system can, so that a full disk is told before any work.
  Status Create(const std::string& path, int64_t size_bytes);
  Status WriteAt(int64_t offset, const void* data, int64_t bytes);
  // Everything is on the disk when this returns OK.
  Status Close();

 private:
  std::string path_;
  int fd_ = -1;
};

// Made under a temporary name beside `path`, removed on destruction unless committed. A process that is
// killed leaves that name behind, never `path`.
class NewFolder {
 public:
  NewFolder() = default;
  ~NewFolder();
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;
  // Errors: `path` exists and is no empty folder; its parent does not exist or may not be written.
  Status Create(const std::string& path);
  const std::string& temporary_path() const { return temporary_; }
  // Renames it to `path`, on the disk too.
  Status Commit();

 private:
  std::string path_;
  std::string temporary_;
};

}  // namespace fd
