// An open file descriptor, closed with its owner.
#pragma once

#include <unistd.h>

#include <utility>

namespace fd {

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { Reset(); }
  Descriptor(Descriptor&& other) noexcept : fd_(other.Release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    if (this != &other) Reset(other.Release());
    return *this;
  }

  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }
  // What was open is closed; errno stays as it was.
  void Reset(int fd = -1);
  // The caller owns it now.
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;  // negative: none
};

}  // namespace fd
