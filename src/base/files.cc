#include "base/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/descriptor.h"

namespace fd {
namespace {

Status SystemError(const std::string& path, const char* action) {
  int error = errno;
  std::string message =
      StrCat("cannot ", action, " ", path, ": ", static_cast<const char*>(std::strerror(error)));
  return error == ENOENT ? NotFound(std::move(message)) : InvalidArgument(std::move(message));
}

// Opens a regular file; a pipe or device under that name would block or never end.
Status OpenRegular(const std::string& path, Descriptor& file, int64_t& size_bytes) {
  file.Reset(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.ok()) return SystemError(path, "open");
  struct stat info{};
  if (fstat(file.get(), &info) != 0) return SystemError(path, "inspect");
  if (!S_ISREG(info.st_mode)) return InvalidArgument(StrCat(path, " is not a regular file"));
  size_bytes = info.st_size;
  return OkStatus();
}

}  // namespace

bool FileExists(const std::string& path) {
  struct stat info{};
  return stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
}

bool IsDirectory(const std::string& path) {
  struct stat info{};
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

std::string JoinPath(const std::string& dir, const std::string& name) {
  return dir.empty() || dir.back() == '/' ? dir + name : dir + "/" + name;
}

StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes) {
  Descriptor file;
  int64_t size_bytes = 0;
  FD_RETURN_IF_ERROR(OpenRegular(path, file, size_bytes));
  if (size_bytes > max_bytes) {
    return InvalidArgument(StrCat(path, " has ", size_bytes, " bytes; the limit is ", max_bytes));
  }
  std::string text(static_cast<size_t>(size_bytes), '\0');
  size_t done = 0;
  while (done < text.size()) {
    ssize_t n = read(file.get(), text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return SystemError(path, "read");
    if (n == 0) break;  // it shrank meanwhile
    done += static_cast<size_t>(n);
  }
  text.resize(done);
  return text;
}

StatusOr<std::shared_ptr<MappedFile>> MappedFile::Open(const std::string& path) {
  Descriptor file;
  int64_t size_bytes = 0;
  FD_RETURN_IF_ERROR(OpenRegular(path, file, size_bytes));
  void* data = nullptr;
  if (size_bytes > 0) {
    data = mmap(nullptr, static_cast<size_t>(size_bytes), PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (data == MAP_FAILED) return SystemError(path, "map");
  }
  return std::shared_ptr<MappedFile>(new MappedFile(path, static_cast<const uint8_t*>(data), size_bytes));
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), static_cast<size_t>(size_bytes_));
}

void MappedFile::Populate(int64_t offset, int64_t length_bytes) const {
  const int64_t page = sysconf(_SC_PAGESIZE);
  const int64_t begin = offset / page * page, end = std::min(offset + length_bytes, size_bytes_);
  if (begin >= end) return;
  void* at = const_cast<uint8_t*>(data_) + begin;
  const size_t length = static_cast<size_t>(end - begin);
#ifdef MADV_POPULATE_READ  // Linux 5.14
  if (madvise(at, length, MADV_POPULATE_READ) == 0) return;
#endif
  madvise(at, length, MADV_WILLNEED);
}

void MappedFile::Prefer(Pages pages, int64_t offset, int64_t length_bytes) const {
  const int64_t page = sysconf(_SC_PAGESIZE);
  const int64_t begin = offset / page * page, end = std::min(offset + length_bytes, size_bytes_);
  if (begin >= end) return;
  madvise(const_cast<uint8_t*>(data_) + begin, static_cast<size_t>(end - begin),
          pages == Pages::kLarge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

void MappedFile::Release(int64_t offset, int64_t length_bytes) const {
  // Whole pages inside the range only: its neighbours may still be needed.
  const int64_t page = sysconf(_SC_PAGESIZE);
  int64_t begin = (offset + page - 1) / page * page;
  int64_t end = std::min(offset + length_bytes, size_bytes_) / page * page;
  if (begin < end) {
    madvise(const_cast<uint8_t*>(data_) + begin, static_cast<size_t>(end - begin), MADV_DONTNEED);
  }
}

}  // namespace fd
