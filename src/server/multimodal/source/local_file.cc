#include "server/multimodal/source/local_file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/descriptor.h"
#include "base/strings.h"
#include "server/multimodal/source/url_text.h"

namespace fd {
namespace {

constexpr std::string_view kExample = ", for example file:///data/picture.png";

Status NotThere() {
  return InvalidArgument(
      StrCat("the file URL names no readable file beneath the folder that this server allows "
             "(--allowed-local-media-path)",
             kExample));
}

std::vector<std::string> PartsOf(std::string_view path) {
  std::vector<std::string> parts = Split(path, '/');
  std::erase_if(parts, [](const std::string& part) { return part.empty() || part == "."; });
  return parts;
}

int OpenAt2(int root_fd, const std::string& path, int flags, uint64_t resolve) {
  open_how how{};
  how.flags = static_cast<uint64_t>(flags);
  how.resolve = resolve;
  // EAGAIN: a folder on the way was renamed meanwhile.
  constexpr int kMaxTries = 16;
  for (int i = 0; i < kMaxTries; ++i) {
    long fd = syscall(SYS_openat2, root_fd, path.c_str(), &how, sizeof(how));
    if (fd >= 0 || (errno != EAGAIN && errno != EINTR)) return static_cast<int>(fd);
  }
  return -1;
}

// Part by part, no symbolic link.
int Walk(int root_fd, const std::vector<std::string>& parts, int flags) {
  Descriptor folder(fcntl(root_fd, F_DUPFD_CLOEXEC, 3));
  for (size_t i = 0; folder.ok() && i < parts.size(); ++i) {
    const bool last = i + 1 == parts.size();
    folder.Reset(openat(folder.get(), parts[i].c_str(),
                        (last ? flags : O_PATH | O_DIRECTORY | O_CLOEXEC) | O_NOFOLLOW));
    struct stat info{};
    // With O_PATH, O_NOFOLLOW opens the link itself.
    if (last && folder.ok() && (fstat(folder.get(), &info) != 0 || S_ISLNK(info.st_mode))) return -1;
  }
  return folder.Release();
}

bool IsKernelFileSystem(int fd) {
  struct statfs info{};
  if (fstatfs(fd, &info) != 0) return true;
  constexpr long kRefused[] = {PROC_SUPER_MAGIC,    SYSFS_MAGIC,      CGROUP_SUPER_MAGIC,
                               CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC,    TRACEFS_MAGIC,
                               BPF_FS_MAGIC,        SECURITYFS_MAGIC, DEVPTS_SUPER_MAGIC};
  return std::any_of(std::begin(kRefused), std::end(kRefused),
                     [&](long magic) { return static_cast<long>(info.f_type) == magic; });
}

Status TooLarge(int64_t bytes, int64_t max_bytes, std::string_view limit_flag) {
  return {StatusCode::kPayloadTooLarge,
          StrCat("the file has ", bytes, " bytes or more; the limit is ", max_bytes, " (", limit_flag, ")")};
}

}  // namespace

StatusOr<std::vector<std::string>> PathOfFileUrl(std::string_view url) {
  url = TrimUrlSpace(url);
  if (SchemeOf(url) != "file") return InvalidArgument(StrCat("this is no file URL", kExample));
  url.remove_prefix(5);
  if (url.starts_with("//")) {
    url.remove_prefix(2);
    const size_t slash = url.find('/');
    const std::string host = LowerAscii(url.substr(0, slash));
    if (slash == std::string_view::npos || (!host.empty() && host != "localhost")) {
      return InvalidArgument(
          StrCat("the file URL must have three slashes before its path; files of other hosts are not read",
                 kExample));
    }
    url.remove_prefix(slash);
  }
  if (!url.starts_with('/'))
    return InvalidArgument(StrCat("the file URL must have an absolute path", kExample));
  if (url.find_first_of("?#") != std::string_view::npos) {
    return InvalidArgument(
        StrCat("the file URL has '?' or '#'; in a file's name they are written %3F and %23", kExample));
  }
  std::string path;
  Unescaper unescape(url);
  while (std::optional<char> c = unescape.Next()) {
    if (*c == '\0') return InvalidArgument(StrCat("the file URL has a zero byte", kExample));
    path.push_back(*c);
  }
  if (unescape.bad_escape()) {
    return InvalidArgument(StrCat("the file URL has a '%' without two hexadecimal digits", kExample));
  }
  std::vector<std::string> parts = PartsOf(path);
  if (std::find(parts.begin(), parts.end(), "..") != parts.end()) {
    return InvalidArgument(StrCat("the file URL has '..' in its path", kExample));
  }
  return parts;
}

int OpenBeneath(int root_fd, const std::vector<std::string>& parts, int flags, bool root_is_slash,
                bool walk) {
  if (!walk) {
    // An absolute link leads out of any folder but "/".
    const uint64_t resolve = RESOLVE_NO_MAGICLINKS | (root_is_slash ? 0 : RESOLVE_BENEATH);
    const int fd = OpenAt2(root_fd, Join(parts, "/"), flags, resolve);
    // ENOSYS: Linux before 5.6. EPERM: a filter of system calls older than that.
    if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) return fd;
  }
  return Walk(root_fd, parts, flags);
}

StatusOr<std::string> ReadLocalFile(std::string_view url, const std::string& root, int64_t max_bytes,
                                    std::string_view limit_flag, std::stop_token stop) {
  FD_ASSIGN_OR_RETURN(std::vector<std::string> parts, PathOfFileUrl(url));
  const std::vector<std::string> root_parts = PartsOf(root);
  if (parts.size() <= root_parts.size() || !std::equal(root_parts.begin(), root_parts.end(), parts.begin())) {
    return NotThere();
  }
  parts.erase(parts.begin(), parts.begin() + static_cast<std::ptrdiff_t>(root_parts.size()));
  const bool root_is_slash = root_parts.empty();

  const Descriptor root_fd(open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root_fd.ok()) return NotThere();
  // Looked at before it is opened: opening a device can have effects, opening a FIFO can wait.
  const Descriptor place(OpenBeneath(root_fd.get(), parts, O_PATH | O_CLOEXEC, root_is_slash, false));
  struct stat seen{};
  if (!place.ok() || fstat(place.get(), &seen) != 0) return NotThere();
  if (!S_ISREG(seen.st_mode) || IsKernelFileSystem(place.get())) return NotThere();

  const Descriptor file(
      OpenBeneath(root_fd.get(), parts, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, root_is_slash, false));
  struct stat opened{};
  if (!file.ok() || fstat(file.get(), &opened) != 0) return NotThere();
  if (opened.st_dev != seen.st_dev || opened.st_ino != seen.st_ino) return NotThere();  // replaced meanwhile
  if (opened.st_size > max_bytes) return TooLarge(opened.st_size, max_bytes, limit_flag);
  if (opened.st_size == 0) return InvalidArgument("the file is empty");

  std::string bytes;
  constexpr size_t kChunkBytes = 1 << 20;
  while (true) {
    if (stop.stop_requested()) return Unavailable("the request ended while its file was read");
    const size_t have = bytes.size();
    if (static_cast<int64_t>(have) > max_bytes)
      return TooLarge(static_cast<int64_t>(have), max_bytes, limit_flag);
    const size_t known =
        have < static_cast<size_t>(opened.st_size) ? static_cast<size_t>(opened.st_size) - have : 1;
    bytes.resize(have + std::min(known, kChunkBytes));
    const ssize_t got = read(file.get(), bytes.data() + have, bytes.size() - have);
    bytes.resize(have + static_cast<size_t>(std::max<ssize_t>(got, 0)));
    if (got < 0 && errno != EINTR) return NotThere();
    if (got == 0) break;
  }
  return bytes;
}

}  // namespace fd
