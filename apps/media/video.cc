#include "media/video.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <memory>
#include <vector>

#include "base/strings.h"
#include "media/convert.h"
#include "media/decoder.h"
#include "media/output.h"
#include "media/webp_video.h"

namespace fd {
namespace {

// How far a readable frame may stand in for one that is not: FastDeploy's 10, and 20 at the ends.
constexpr int64_t kNeighbours = 10;
constexpr int64_t kNeighboursAtEnds = 20;

class Sender {
 public:
  Sender(const VideoFile& file, const VideoJob& options) : file_(file), options_(options) {
    wanted_ = SampleFrames(file.index.total_frames, file.index.duration_s, options.sampling);
  }

  Status Run() {
    FD_ASSIGN_OR_RETURN(std::unique_ptr<FrameSource> source, FrameSource::Open(file_, options_, wanted_));
    orientation_ = source->orientation();
    size_t next = 0;
    while (next < wanted_.size()) {
      FD_ASSIGN_OR_RETURN(const AVFrame* frame, source->Next());
      const int64_t index = frame != nullptr ? frame->pts : std::numeric_limits<int64_t>::max();
      while (next < wanted_.size() && wanted_[next] < index)
        FD_RETURN_IF_ERROR(SendNeighbour(wanted_[next++]));
      if (next < wanted_.size() && wanted_[next] == index) FD_RETURN_IF_ERROR(Send(*frame, wanted_[next++]));
    }
    return OkStatus();
  }

 private:
  Status Send(const AVFrame& frame, int64_t index) {
    if (size_.width == 0) {
      size_ = {frame.height, frame.width};
      VideoInfo info;
      const bool turned = orientation_ >= 5;
      info.width = turned ? size_.height : size_.width;
      info.height = turned ? size_.width : size_.height;
      info.total_frames = file_.index.total_frames;
      info.duration_s = file_.index.duration_s;
      info.num_frames = static_cast<int64_t>(wanted_.size());
      SendInfo(info);
    }
    FD_ASSIGN_OR_RETURN(RgbImage image, converter_.Convert(frame, size_, orientation_));
    SendFrame(index, image);
    return OkStatus();
  }

  // The frame `index` cannot be read: the nearest one that can takes its place, the earlier of two.
  Status SendNeighbour(int64_t index) {
    const int64_t last = file_.index.total_frames - 1;
    const bool at_end = index < kNeighbours || index > last - kNeighbours;
    const int64_t reach = at_end ? kNeighboursAtEnds : kNeighbours;
    std::vector<int64_t> around;
    for (int64_t i = std::max<int64_t>(index - reach, 0); i <= std::min(index + reach, last); ++i)
      around.push_back(i);
    FD_ASSIGN_OR_RETURN(std::unique_ptr<FrameSource> source, FrameSource::Open(file_, options_, around));
    std::unique_ptr<AVFrame, void (*)(AVFrame*)> best(nullptr, [](AVFrame* frame) { av_frame_free(&frame); });
    int64_t best_distance = reach + 1;
    while (true) {
      FD_ASSIGN_OR_RETURN(const AVFrame* frame, source->Next());
      if (frame == nullptr || frame->pts > index + reach) break;
      const int64_t distance = std::abs(frame->pts - index);
      if (frame->pts < 0 || distance >= best_distance) continue;
      best.reset(av_frame_clone(frame));
      best_distance = distance;
    }
    if (best == nullptr) {
      return InvalidArgument(StrCat("the video cannot be decoded: frame ", index, " of ", last + 1,
                                    " and the ", reach, " before and after it are unreadable"));
    }
    return Send(*best, index);
  }

  const VideoFile& file_;
  const VideoJob& options_;
  std::vector<int64_t> wanted_;
  RgbConverter converter_;
  int orientation_ = 1;
  ImageSize size_;
};

}  // namespace

Status SendVideo(std::string_view bytes, const VideoJob& options) {
  VideoFile file;
  file.bytes = bytes;
  file.container = ContainerOf(bytes);
  if (file.container == Container::kUnknown) {
    const bool picture = bytes.starts_with("\xff\xd8\xff") || bytes.starts_with("\x89PNG\r\n\x1a\n");
    return InvalidArgument(
        StrCat("the file is no video that is read here: MP4, MOV, WebM, MKV, AVI, GIF and animated WebP are",
               picture ? "; it is a picture, send it as an image_url part" : ""));
  }
  if (file.container == Container::kWebp) return SendWebpVideo(bytes, options);
  FD_ASSIGN_OR_RETURN(file.index, IndexPackets(bytes, file.container));
  return Sender(file, options).Run();
}

}  // namespace fd
