// A whole video: its frames are found, chosen, decoded, converted and sent. One thread.
#pragma once

#include <string_view>

#include "base/status.h"
#include "server/multimodal/video/protocol.h"

namespace fd {

// Sends the description and the frames (output.h); an error is left to the caller to send.
Status SendVideo(std::string_view file, const VideoJob& options);

}  // namespace fd
