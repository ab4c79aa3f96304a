#include "media/webp_video.h"

#include <webp/demux.h>

#include <memory>
#include <vector>

#include "base/strings.h"
#include "media/output.h"
#include "server/multimodal/codecs.h"

namespace fd {
namespace {

struct Canvas {
  int64_t width = 0, height = 0;
  int64_t frames = 0;
  double duration_s = 0;
};

// Sizes and durations from the headers; no pixel is decoded.
StatusOr<Canvas> ReadHeaders(const WebPData& data) {
  std::unique_ptr<WebPDemuxer, void (*)(WebPDemuxer*)> demuxer(WebPDemux(&data), &WebPDemuxDelete);
  if (demuxer == nullptr) return InvalidArgument("the WebP file is damaged or cut off");
  Canvas canvas;
  canvas.width = WebPDemuxGetI(demuxer.get(), WEBP_FF_CANVAS_WIDTH);
  canvas.height = WebPDemuxGetI(demuxer.get(), WEBP_FF_CANVAS_HEIGHT);
  WebPIterator frame = {};
  if (WebPDemuxGetFrame(demuxer.get(), 1, &frame) != 0) {
    do {
      ++canvas.frames;
      canvas.duration_s += frame.duration / 1000.0;
    } while (WebPDemuxNextFrame(&frame) != 0);
  }
  WebPDemuxReleaseIterator(&frame);
  return canvas;
}

}  // namespace

Status SendWebpVideo(std::string_view file, const VideoJob& options) {
  const WebPData data = {reinterpret_cast<const uint8_t*>(file.data()), file.size()};
  FD_ASSIGN_OR_RETURN(const Canvas canvas, ReadHeaders(data));
  if (canvas.frames == 0 || canvas.width < 1 || canvas.height < 1) {
    return InvalidArgument("the WebP file holds no frame");
  }
  const std::string size = StrCat("the video's frames are ", canvas.width, " x ", canvas.height, " pixels");
  if (canvas.width > options.max_side_pixels || canvas.height > options.max_side_pixels) {
    return InvalidArgument(StrCat(size, "; the limit is ", options.max_side_pixels, " pixels a side"));
  }
  if (canvas.width > options.max_frame_pixels / canvas.height) {
    return InvalidArgument(StrCat(size, ", ", canvas.width * canvas.height, " in all; the limit is ",
                                  options.max_frame_pixels, " (--max-video-pixels)"));
  }
  const std::vector<int64_t> wanted = SampleFrames(canvas.frames, canvas.duration_s, options.sampling);
  WebPAnimDecoderOptions how = {};
  if (WebPAnimDecoderOptionsInit(&how) == 0)
    return Unavailable("libwebpdemux is of another version than it was built for");
  how.color_mode = MODE_RGBA;
  std::unique_ptr<WebPAnimDecoder, void (*)(WebPAnimDecoder*)> decoder(WebPAnimDecoderNew(&data, &how),
                                                                       &WebPAnimDecoderDelete);
  if (decoder == nullptr)
    return InvalidArgument("the WebP file is damaged, or needs more memory than --video-memory allows");
  VideoInfo info;
  info.width = canvas.width;
  info.height = canvas.height;
  info.total_frames = canvas.frames;
  info.duration_s = canvas.duration_s;
  info.num_frames = static_cast<int64_t>(wanted.size());
  RgbImage image;
  image.width = canvas.width;
  image.height = canvas.height;
  image.pixels.resize(static_cast<size_t>(canvas.width * canvas.height) * 3);
  size_t next = 0;
  for (int64_t index = 0; next < wanted.size(); ++index) {
    uint8_t* rgba = nullptr;  // the decoder's
    int timestamp_ms = 0;
    // Each frame is drawn on the one before: after a damaged one there is nothing true to show.
    if (WebPAnimDecoderGetNext(decoder.get(), &rgba, &timestamp_ms) == 0) {
      return InvalidArgument(
          StrCat("the WebP file is damaged: frame ", index, " of ", canvas.frames, " is unreadable"));
    }
    if (index != wanted[next]) continue;
    for (size_t i = 0; i < image.pixels.size() / 3; ++i)
      PasteOnWhite(rgba + 4 * i, image.pixels.data() + 3 * i);
    if (next == 0) SendInfo(info);
    SendFrame(index, image);
    ++next;
  }
  return OkStatus();
}

}  // namespace fd
