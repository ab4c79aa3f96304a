#include "base/new_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/strings.h"

namespace fd {
namespace {

Status SystemError(const char* action, const std::string& path, int error) {
  return InvalidArgument(
      StrCat("cannot ", action, " ", path, ": ", static_cast<const char*>(std::strerror(error))));
}

// The folder that holds `path`.
std::string ParentOf(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

Status SyncFolder(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return SystemError("open", path, errno);
  const int result = fsync(fd), error = errno;
  close(fd);
  // Some file systems cannot sync a folder; then there is nothing more to do.
  return result == 0 || error == EINVAL ? OkStatus() : SystemError("write", path, error);
}

}  // namespace

NewFile::~NewFile() {
  if (fd_ >= 0) close(fd_);
}

Status NewFile::Create(const std::string& path, int64_t size_bytes) {
  path_ = path;
  fd_ = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd_ < 0) return SystemError("create", path, errno);
  if (size_bytes > 0 && fallocate(fd_, 0, 0, size_bytes) != 0 && errno != EOPNOTSUPP && errno != EINTR) {
    return SystemError("write", path, errno).WithContext(StrCat(HumanBytes(size_bytes), " needed"));
  }
  return OkStatus();
}

Status NewFile::WriteAt(int64_t offset, const void* data, int64_t bytes) {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = pwrite(fd_, from, static_cast<size_t>(std::min<int64_t>(bytes, 1 << 30)), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return SystemError("write", path_, errno);
    from += n;
    offset += n;
    bytes -= n;
  }
  return OkStatus();
}

Status NewFile::Close() {
  const int fd = std::exchange(fd_, -1);
  const int synced = fsync(fd), error = errno;
  if (close(fd) != 0) return SystemError("write", path_, errno);
  return synced == 0 ? OkStatus() : SystemError("write", path_, error);
}

NewFolder::~NewFolder() {
  std::error_code ignored;
  if (!temporary_.empty()) std::filesystem::remove_all(temporary_, ignored);
}

Status NewFolder::Create(const std::string& path) {
  path_ = path;
  while (path_.size() > 1 && path_.back() == '/') path_.pop_back();
  std::error_code error;
  const auto kind = std::filesystem::symlink_status(path_, error).type();
  if (kind != std::filesystem::file_type::not_found) {
    if (kind != std::filesystem::file_type::directory || !std::filesystem::is_empty(path_, error)) {
      return InvalidArgument(
          StrCat(path_, " exists and is no empty folder; name a new one, nothing is overwritten"));
    }
  }
  if (const std::string parent = ParentOf(path_); !std::filesystem::is_directory(parent, error)) {
    return NotFound(StrCat("no such directory: ", parent, ", in which ", path_, " would be made"));
  }
  std::string name = path_ + ".partial-XXXXXX";
  if (mkdtemp(name.data()) == nullptr) return SystemError("create", name, errno);
  temporary_ = name;
  const mode_t mask = umask(0);
  umask(mask);
  if (chmod(name.c_str(), 0777 & ~mask) != 0) return SystemError("create", name, errno);
  return OkStatus();
}

Status NewFolder::Commit() {
  FD_RETURN_IF_ERROR(SyncFolder(temporary_));
  // Replaces an empty folder, fails on anything that came up meanwhile.
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) return SystemError("create", path_, errno);
  temporary_.clear();
  return SyncFolder(ParentOf(path_));
}

}  // namespace fd
