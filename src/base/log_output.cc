#include "base/log_output.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/fault.h"
#include "base/log_sink.h"
#include "base/strings.h"

namespace fd {
namespace {

constexpr std::chrono::seconds kOpenAgain{5};

int64_t LinesOf(std::string_view text) { return std::count(text.begin(), text.end(), '\n'); }

}  // namespace

PatientStream::PatientStream(int fd, size_t max_waiting_bytes)
    : fd_(fd), max_waiting_bytes_(max_waiting_bytes), kind_(Kind::kOther) {
  struct stat info{};
  if (::fstat(fd, &info) != 0) return;
  if (S_ISREG(info.st_mode)) kind_ = Kind::kFile;
  if (S_ISSOCK(info.st_mode)) kind_ = Kind::kSocket;
}

int64_t PatientStream::WriteNow(std::string_view bytes) const {
  if (kind_ == Kind::kFile) return ::write(fd_, bytes.data(), bytes.size());
  if (kind_ == Kind::kSocket) return ::send(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  // The descriptor is shared with whoever started the program, so it must not become O_NONBLOCK.
  const iovec piece = {const_cast<char*>(bytes.data()), std::min<size_t>(bytes.size(), PIPE_BUF)};
  const ssize_t n = ::pwritev2(fd_, &piece, 1, -1, RWF_NOWAIT);
  if (n >= 0 || errno == EPIPE || errno == EBADF || errno == EINTR) return n;
  // Full, or one that does not know the flag.
  pollfd entry = {fd_, POLLOUT, 0};
  if (::poll(&entry, 1, 0) == 0) {
    errno = EAGAIN;
    return -1;
  }
  return ::write(fd_, piece.iov_base, piece.iov_len);  // a pipe with room takes PIPE_BUF bytes at once
}

bool PatientStream::Push() {
  size_t done = 0;
  bool works = true;
  while (done < waiting_.size()) {
    const int64_t n = WriteNow(std::string_view(waiting_).substr(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) works = errno == EAGAIN || errno == EWOULDBLOCK;
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
  waiting_.erase(0, done);
  return works;
}

int64_t PatientStream::Write(std::string_view line) {
  std::lock_guard lock(mutex_);
  if (!Push()) {  // nobody reads any more, or the disk is full
    const int64_t lost = LinesOf(waiting_);
    untold_ += lost;
    CountLostLines(lost);
    waiting_.clear();
  }
  if (waiting_.size() + line.size() > max_waiting_bytes_) {
    ++untold_;
    CountLostLines(1);
    return -1;
  }
  const bool first = waiting_.empty();
  waiting_ += line;
  if (!Push() && first) {
    ++untold_;
    CountLostLines(1);
    waiting_.clear();
    return -1;
  }
  return std::exchange(untold_, 0);
}

void PatientStream::Flush(std::chrono::steady_clock::time_point deadline) {
  std::lock_guard lock(mutex_);
  while (Push() && !waiting_.empty()) {
    const auto left = deadline - std::chrono::steady_clock::now();
    if (left <= left.zero()) return;
    pollfd entry = {fd_, POLLOUT, 0};
    ::poll(&entry, 1, static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(left).count()));
  }
}

bool RotatingFile::Open(const std::string& path, int64_t max_bytes, int backups) {
  std::lock_guard lock(mutex_);
  path_ = path;
  max_bytes_ = max_bytes;
  backups_ = backups;
  failing_ = false;
  lost_lines_ = 0;
  return OpenPath();
}

bool RotatingFile::OpenPath() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
  struct stat info{};
  bytes_ = fd_ >= 0 && ::fstat(fd_, &info) == 0 ? info.st_size : 0;
  return fd_ >= 0;
}

void RotatingFile::Rotate() {
  for (int i = backups_; i > 0; --i) {
    const std::string from = i == 1 ? path_ : StrCat(path_, ".", i - 1);
    ::rename(from.c_str(), StrCat(path_, ".", i).c_str());
  }
  if (backups_ == 0) ::unlink(path_.c_str());
  OpenPath();
}

RotatingFile::Outcome RotatingFile::Failed(int error) {
  ++lost_lines_;
  CountLostLines(1);
  if (std::exchange(failing_, true)) return {};
  return {.event = Event::kFailed, .error = error};
}

RotatingFile::Outcome RotatingFile::Write(std::string_view line) {
  std::lock_guard lock(mutex_);
  const auto now = std::chrono::steady_clock::now();
  if (fd_ >= 0 && bytes_ > 0 && bytes_ + static_cast<int64_t>(line.size()) > max_bytes_) Rotate();
  if (fd_ < 0) {
    if (now < open_again_) return Failed(EBADF);
    if (!OpenPath()) {
      const int error = errno;
      open_again_ = now + kOpenAgain;
      return Failed(error);
    }
  }
  ssize_t n = -1;
  if (FaultHits(Fault::kLogDiskFull)) {
    errno = ENOSPC;
  } else {
    n = ::write(fd_, line.data(), line.size());
  }
  if (n != static_cast<ssize_t>(line.size())) {
    const int error = n < 0 ? errno : ENOSPC;
    // A part of a line would run into the next one.
    if (n > 0 && ::ftruncate(fd_, bytes_) != 0) bytes_ += n;
    return Failed(error);
  }
  bytes_ += n;
  if (!std::exchange(failing_, false)) return {};
  return {.event = Event::kWorksAgain, .lost_lines = std::exchange(lost_lines_, 0)};
}

RotatingFile::Outcome RotatingFile::Reopen() {
  std::lock_guard lock(mutex_);
  if (path_.empty() || OpenPath()) return {};
  const int error = errno;
  open_again_ = std::chrono::steady_clock::now() + kOpenAgain;
  failing_ = true;
  return {.event = Event::kFailed, .error = error};
}

}  // namespace fd
