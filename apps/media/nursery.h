// The program that waits (server/multimodal/video/media_nursery.h). One thread, before anything else is
// started.
#pragma once

#include <string>
#include <vector>

namespace fd {

// Forks for each request and returns in the fork alone, with its arguments; descriptors 0 and 1 are then the
// video's. The waiting process ends when the server has gone, and kills what it forked for a server that
// died.
std::vector<std::string> WaitForVideo();

}  // namespace fd
