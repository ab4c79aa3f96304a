// An animated (or still) WebP as a video, through libwebpdemux. One thread.
#pragma once

#include <string_view>

#include "base/status.h"
#include "server/multimodal/video/protocol.h"

namespace fd {

// Sends the description and the frames (output.h).
Status SendWebpVideo(std::string_view file, const VideoJob& options);

}  // namespace fd
