#include <webp/decode.h>
#include <webp/demux.h>

#include <memory>

#include "base/strings.h"
#include "server/multimodal/codecs.h"

namespace fd {
namespace {

const char* Reason(VP8StatusCode code) {
  switch (code) {
    case VP8_STATUS_OUT_OF_MEMORY:
      return "not enough memory";
    case VP8_STATUS_BITSTREAM_ERROR:
      return "its data are damaged";
    case VP8_STATUS_UNSUPPORTED_FEATURE:
      return "it uses an unknown feature of the format";
    case VP8_STATUS_NOT_ENOUGH_DATA:
    case VP8_STATUS_SUSPENDED:
      return "the file ends too early";
    default:
      return "the decoder refused it";
  }
}

Status Damaged(const char* reason) {
  return InvalidArgument(StrCat("the WebP picture cannot be decoded: ", reason));
}

StatusOr<WebPBitstreamFeatures> ReadHeader(const uint8_t* data, size_t size_bytes,
                                           const ImageLimits& limits) {
  WebPBitstreamFeatures features;
  VP8StatusCode code = WebPGetFeatures(data, size_bytes, &features);
  if (code != VP8_STATUS_OK) return Damaged(Reason(code));
  FD_RETURN_IF_ERROR(CheckImageSize("WebP", features.width, features.height, limits));
  return features;
}

// One still picture over white.
StatusOr<RgbImage> DecodeStill(const uint8_t* data, size_t size_bytes, const ImageLimits& limits) {
  FD_ASSIGN_OR_RETURN(WebPBitstreamFeatures features, ReadHeader(data, size_bytes, limits));
  WebPDecoderConfig config;
  if (!WebPInitDecoderConfig(&config))
    return Internal("libwebp has another ABI than the one we were built for");
  const int64_t channels = features.has_alpha ? 4 : 3;
  RgbImage image;
  image.width = features.width;
  image.height = features.height;
  image.pixels.resize(static_cast<size_t>(channels * image.width * image.height));
  config.output.colorspace = features.has_alpha ? MODE_RGBA : MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA.rgba = image.pixels.data();
  config.output.u.RGBA.stride = static_cast<int>(channels * image.width);
  config.output.u.RGBA.size = image.pixels.size();
  VP8StatusCode code = WebPDecode(data, size_bytes, &config);
  WebPFreeDecBuffer(&config.output);
  if (code != VP8_STATUS_OK) return Damaged(Reason(code));
  if (channels == 4) {
    uint8_t* pixels = image.pixels.data();
    for (int64_t i = 0; i < image.width * image.height; ++i) {
      const uint8_t rgba[4] = {pixels[4 * i], pixels[4 * i + 1], pixels[4 * i + 2], pixels[4 * i + 3]};
      PasteOnWhite(rgba, pixels + 3 * i);
    }
    image.pixels.resize(static_cast<size_t>(3 * image.width * image.height));
  }
  return image;
}

// The first frame at its place on a white canvas.
StatusOr<RgbImage> DecodeFirstFrame(const uint8_t* data, size_t size_bytes, const ImageLimits& limits) {
  WebPData file{data, size_bytes};
  std::unique_ptr<WebPDemuxer, void (*)(WebPDemuxer*)> demuxer(WebPDemux(&file), WebPDemuxDelete);
  if (demuxer == nullptr) return Damaged("its animation is damaged or ends too early");
  RgbImage canvas;
  canvas.width = WebPDemuxGetI(demuxer.get(), WEBP_FF_CANVAS_WIDTH);
  canvas.height = WebPDemuxGetI(demuxer.get(), WEBP_FF_CANVAS_HEIGHT);
  FD_RETURN_IF_ERROR(CheckImageSize("WebP", canvas.width, canvas.height, limits));
  WebPIterator frame;
  if (!WebPDemuxGetFrame(demuxer.get(), 1, &frame)) return Damaged("its animation has no frame");
  std::unique_ptr<WebPIterator, void (*)(WebPIterator*)> frame_owner(&frame, WebPDemuxReleaseIterator);
  FD_ASSIGN_OR_RETURN(RgbImage part, DecodeStill(frame.fragment.bytes, frame.fragment.size, limits));
  if (frame.x_offset < 0 || frame.y_offset < 0 || frame.x_offset + part.width > canvas.width ||
      frame.y_offset + part.height > canvas.height) {
    return Damaged("its first frame does not fit the canvas");
  }
  canvas.pixels.assign(static_cast<size_t>(3 * canvas.width * canvas.height), 255);
  for (int64_t y = 0; y < part.height; ++y) {
    const uint8_t* from = part.pixels.data() + 3 * y * part.width;
    std::copy(from, from + 3 * part.width,
              canvas.pixels.data() + 3 * ((y + frame.y_offset) * canvas.width + frame.x_offset));
  }
  return canvas;
}

class WebpPicture : public WholeReader {
 public:
  WebpPicture(std::string_view bytes, const ImageLimits& limits) : bytes_(bytes), limits_(limits) {}

  Status Open() {
    FD_ASSIGN_OR_RETURN(WebPBitstreamFeatures features, ReadHeader(data(), bytes_.size(), limits_));
    size_ = {features.height, features.width};  // of the canvas, where it is animated
    is_animated_ = features.has_animation != 0;
    return OkStatus();
  }

 protected:
  StatusOr<RgbImage> Decode() override {
    StatusOr<RgbImage> image = is_animated_ ? DecodeFirstFrame(data(), bytes_.size(), limits_)
                                            : DecodeStill(data(), bytes_.size(), limits_);
    if (image.ok() && (image->height != size_.height || image->width != size_.width)) {
      return Damaged("its header and its pixels differ in size");
    }
    return image;
  }

 private:
  const uint8_t* data() const { return reinterpret_cast<const uint8_t*>(bytes_.data()); }

  const std::string_view bytes_;
  const ImageLimits limits_;
  bool is_animated_ = false;
};

}  // namespace

OpenedPicture OpenWebp(std::string_view bytes, const ImageLimits& limits) {
  auto picture = std::make_unique<WebpPicture>(bytes, limits);
  FD_RETURN_IF_ERROR(picture->Open());
  return std::unique_ptr<RowReader>(std::move(picture));
}

}  // namespace fd
