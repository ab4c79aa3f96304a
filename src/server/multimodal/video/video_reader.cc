#include "server/multimodal/video/video_reader.h"

namespace fd {

Status ReadVideo(std::string_view, const VideoSampling&, const VideoLimits&, std::stop_token,
                 const std::function<Status(const VideoInfo&)>&, const std::function<Status(VideoFrame&&)>&) {
  return Unimplemented("videos are still to come");
}

}  // namespace fd
