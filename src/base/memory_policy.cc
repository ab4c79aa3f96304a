#include "base/memory_policy.h"

#include <linux/mempolicy.h>
#include <malloc.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "base/log.h"

namespace fd {
namespace {

constexpr size_t kBits = 8 * sizeof(unsigned long);

std::vector<int>& Nodes() {
  static std::vector<int> nodes;
  return nodes;
}

}  // namespace

bool SetInterleavedNodes(const std::vector<int>& nodes) {
  Nodes().clear();
  if (nodes.size() < 2) return false;
  int mode = MPOL_DEFAULT;
  if (syscall(SYS_get_mempolicy, &mode, nullptr, 0UL, nullptr, 0UL) != 0) {
    LogWarning("memory is not spread over the nodes: get_mempolicy: ",
               static_cast<const char*>(std::strerror(errno)));
    return false;
  }
  if (mode != MPOL_DEFAULT) return false;
  Nodes() = nodes;
  return true;
}

void PlacePages(void* data, size_t size_bytes) {
  if (Nodes().empty() || InterleavePages(data, size_bytes, Nodes())) return;
  static std::atomic<bool> warned{false};
  if (!warned.exchange(true)) {
    LogWarning("memory is not spread over the nodes: mbind: ", static_cast<const char*>(std::strerror(errno)),
               "; numactl --interleave=all before the command does the same where it is allowed");
  }
}

bool InterleavePages(void* data, size_t size_bytes, const std::vector<int>& nodes) {
  std::vector<unsigned long> mask(1, 0);
  for (int node : nodes) {
    const size_t at = static_cast<size_t>(node);
    if (mask.size() <= at / kBits) mask.resize(at / kBits + 1, 0);
    mask[at / kBits] |= 1UL << (at % kBits);
  }
  // The kernel reads one bit less than it is told.
  return syscall(SYS_mbind, data, size_bytes, MPOL_INTERLEAVE, mask.data(), mask.size() * kBits + 1, 0UL) ==
         0;
}

void KeepFreedMemory() {
  mallopt(M_MMAP_THRESHOLD, 16 << 20);
  mallopt(M_TRIM_THRESHOLD, 16 << 20);
}

void ReleaseFreedMemory() { malloc_trim(0); }

}  // namespace fd
