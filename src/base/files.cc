#include "base/files.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>

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
Status OpenRegular(const std::string& path, Descriptor& file, struct stat& info) {
  file.Reset(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.ok()) return SystemError(path, "open");
  if (fstat(file.get(), &info) != 0) return SystemError(path, "inspect");
  if (!S_ISREG(info.st_mode)) return InvalidArgument(StrCat(path, " is not a regular file"));
  return OkStatus();
}

// Mappings where the handler of a signal finds them: a slot is taken when `end` is not 0. More than there are
// slots go without an explanation.
struct Mapping {
  std::atomic<uintptr_t> begin{0}, end{0};
  std::atomic<const char*> path{nullptr};
};
constexpr size_t kMaxMappings = 1024;
Mapping g_mappings[kMaxMappings];
std::mutex g_mappings_mutex;
int g_bus_exit_code = 1;

void Register(const uint8_t* data, int64_t size_bytes, const char* path) {
  std::lock_guard lock(g_mappings_mutex);
  for (Mapping& m : g_mappings) {
    if (m.end != 0) continue;
    const auto begin = reinterpret_cast<uintptr_t>(data);
    m.path = path;
    m.begin = begin;
    m.end = begin + static_cast<uintptr_t>(size_bytes);
    return;
  }
}

void Unregister(const uint8_t* data) {
  std::lock_guard lock(g_mappings_mutex);
  for (Mapping& m : g_mappings) {
    if (m.end != 0 && m.begin == reinterpret_cast<uintptr_t>(data)) m.end = 0;
  }
}

// Of a signal handler: nothing here may allocate or lock.
void Say(const char* text) {
  [[maybe_unused]] const ssize_t n = write(STDERR_FILENO, text, std::strlen(text));
}

void OnBusError(int, siginfo_t* info, void*) {
  const auto at = reinterpret_cast<uintptr_t>(info->si_addr);
  for (const Mapping& m : g_mappings) {
    if (at < m.begin || at >= m.end) continue;
    char digits[24];
    char* place = digits + sizeof(digits) - 1;
    *place = '\0';
    uintptr_t byte = at - m.begin;
    do {
      *--place = static_cast<char>('0' + byte % 10);
      byte /= 10;
    } while (byte != 0);
    Say("fastdeploy: ");
    Say(m.path);
    Say(" cannot be read at byte ");
    Say(place);
    Say(" any more: it was truncated while in use, or its disk failed\n");
    _exit(g_bus_exit_code);
  }
  signal(SIGBUS, SIG_DFL);  // the instruction runs again
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
  struct stat info{};
  FD_RETURN_IF_ERROR(OpenRegular(path, file, info));
  const int64_t size_bytes = info.st_size;
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
  struct stat info{};
  FD_RETURN_IF_ERROR(OpenRegular(path, file, info));
  const int64_t size_bytes = info.st_size;
  void* data = nullptr;
  if (size_bytes > 0) {
    data = mmap(nullptr, static_cast<size_t>(size_bytes), PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (data == MAP_FAILED) return SystemError(path, "map");
  }
  const Version version = {info.st_dev, info.st_ino, size_bytes, info.st_mtim.tv_sec, info.st_mtim.tv_nsec};
  return std::shared_ptr<MappedFile>(new MappedFile(path, static_cast<const uint8_t*>(data), version));
}

MappedFile::MappedFile(std::string path, const uint8_t* data, const Version& version)
    : path_(std::move(path)), data_(data), size_bytes_(version.size_bytes), version_(version) {
  if (data_ != nullptr) Register(data_, size_bytes_, path_.c_str());
}

Status MappedFile::CheckUnchanged() const {
  struct stat info{};
  if (stat(path_.c_str(), &info) != 0) return OkStatus();  // gone, but still mapped
  if (info.st_dev != version_.device || info.st_ino != version_.inode) return OkStatus();
  if (info.st_size == version_.size_bytes && info.st_mtim.tv_sec == version_.changed_s &&
      info.st_mtim.tv_nsec == version_.changed_ns) {
    return OkStatus();
  }
  return InvalidArgument(StrCat(path_, " was written to while it was read: it had ", version_.size_bytes,
                                " bytes and has ", static_cast<int64_t>(info.st_size),
                                "; start again when the copy or download is complete"));
}

void ExplainMappedFileErrors(int exit_code) {
  g_bus_exit_code = exit_code;
  struct sigaction action{};
  action.sa_sigaction = OnBusError;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &action, nullptr);
}

MappedFile::~MappedFile() {
  if (data_ == nullptr) return;
  Unregister(data_);
  munmap(const_cast<uint8_t*>(data_), static_cast<size_t>(size_bytes_));
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
