#include "base/descriptor.h"

#include <cerrno>

namespace fd {

void Descriptor::Reset(int fd) {
  const int error = errno;
  // Not again after EINTR: Linux has closed it, and the number may be another thread's by now.
  if (fd_ >= 0) close(fd_);
  fd_ = fd;
  errno = error;
}

}  // namespace fd
