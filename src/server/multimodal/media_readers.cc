// The real parts of the loader.
#include "server/multimodal/media_loader.h"
#include "server/multimodal/timestamp.h"

namespace fd {

MediaReaders ReadersFor(const MediaConfig& given, const MediaPolicy& policy) {
  const auto config = std::make_shared<const MediaConfig>(given);
  MediaReaders readers;
  readers.read_media = [policy](std::string_view url, int64_t max_bytes, std::string_view limit_flag,
                                std::stop_token stop) {
    return ReadMedia(url, policy, max_bytes, limit_flag, std::move(stop));
  };
  readers.image_size = [config](std::string_view encoded) {
    return ReadImageSize(encoded, config->limits, config->apply_exif);
  };
  readers.make_image = [config](std::string_view encoded, const MediaOptions& options) {
    return MakeImageItem(encoded, *config, options.image_min_pixels, options.image_max_pixels);
  };
  readers.check_sampling = [config](const VideoSampling& sampling) {
    return CheckVideoSampling(sampling, config->video_limits.max_sampled_frames);
  };
  readers.read_video = [config](std::string_view encoded, const VideoSampling& sampling, std::stop_token stop,
                                const std::function<Status(const VideoInfo&)>& on_info,
                                const std::function<Status(VideoFrame&&)>& on_frame) {
    return ReadVideo(encoded, sampling, config->video_limits, std::move(stop), on_info, on_frame);
  };
  if (!config->draw_on_frames) return readers;
  StatusOr<std::unique_ptr<TimestampFont>> font = TimestampFont::Load(config->font_path);
  if (font.ok()) {
    readers.draw_time = [font = std::shared_ptr<const TimestampFont>(std::move(*font))](double seconds,
                                                                                        RgbImage* frame) {
      font->Draw(seconds, frame);
      return OkStatus();
    };
  } else {
    const std::string name = config->font_path.substr(config->font_path.rfind('/') + 1);
    readers.draw_time = [name, why = font.status().message()](double, RgbImage*) {
      return Unavailable("this server cannot take videos: the time on their frames is drawn with " + name +
                         " of the checkpoint's folder, which could not be loaded (" + why + ")");
    };
  }
  return readers;
}

}  // namespace fd
