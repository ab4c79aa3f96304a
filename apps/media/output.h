// The messages of fastdeploy-media, written to descriptor 1 as server/multimodal/video/protocol.h has them.
// One thread. A reader that has gone ends the process by SIGPIPE.
#pragma once

#include "base/status.h"
#include "server/multimodal/image.h"
#include "server/multimodal/video/video_reader.h"

namespace fd {

void SendInfo(const VideoInfo& info);
void SendFrame(int64_t index, const RgbImage& image);
// kUnavailable is the machine's fault, every other code the video's.
void SendError(const Status& status);
void SendEnd();

}  // namespace fd
