// file: URLs, read beneath one folder. Any thread; blocks while it reads.
#pragma once

#include <cstdint>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace fd {

// The path's parts of "file:///a/b%20c" or "file://localhost/a/b%20c", percent-decoded: {"a", "b c"}.
// Relative paths, other hosts, "..", "?" and "#" that are not escaped, and zero bytes are errors.
StatusOr<std::vector<std::string>> PathOfFileUrl(std::string_view url);

// The bytes of a regular file beneath `root` (absolute). Symbolic links are followed as long as they stay
// beneath; under the root "/" every one is. One message covers all that is not there, not readable or not
// beneath, so that it tells nothing about the machine. FIFOs, devices and files of /proc and /sys are refused
// before they are opened for reading.
StatusOr<std::string> ReadLocalFile(std::string_view url, const std::string& root, int64_t max_bytes,
                                    std::string_view limit_flag, std::stop_token stop);

// Opens parts beneath the open folder root_fd, or -1. walk: as on kernels without openat2, where symbolic
// links are refused; for tests.
int OpenBeneath(int root_fd, const std::vector<std::string>& parts, int flags, bool root_is_slash, bool walk);

}  // namespace fd
