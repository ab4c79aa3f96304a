#include "media/convert.h"

extern "C" {
#include <libavutil/frame.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
}

#include <cstdlib>
#include <cstring>
#include <utility>

#include "server/multimodal/codecs.h"
#include "server/multimodal/exif.h"

namespace fd {
namespace {

// The formats with a J in their name mean their plain twin at full range.
AVPixelFormat WithoutJ(AVPixelFormat format, bool* full_range) {
  AVPixelFormat plain = format;
  switch (format) {
    case AV_PIX_FMT_YUVJ420P:
      plain = AV_PIX_FMT_YUV420P;
      break;
    case AV_PIX_FMT_YUVJ422P:
      plain = AV_PIX_FMT_YUV422P;
      break;
    case AV_PIX_FMT_YUVJ444P:
      plain = AV_PIX_FMT_YUV444P;
      break;
    case AV_PIX_FMT_YUVJ440P:
      plain = AV_PIX_FMT_YUV440P;
      break;
    case AV_PIX_FMT_YUVJ411P:
      plain = AV_PIX_FMT_YUV411P;
      break;
    default:
      return format;
  }
  *full_range = true;
  return plain;
}

int SwsColorspace(AVColorSpace colorspace) {
  switch (colorspace) {
    case AVCOL_SPC_BT709:
      return SWS_CS_ITU709;
    case AVCOL_SPC_FCC:
      return SWS_CS_FCC;
    case AVCOL_SPC_SMPTE240M:
      return SWS_CS_SMPTE240M;
    case AVCOL_SPC_BT2020_NCL:
    case AVCOL_SPC_BT2020_CL:
      return SWS_CS_BT2020;
    default:
      return SWS_CS_ITU601;
  }
}

}  // namespace

int OrientationOfMatrix(const int32_t* matrix) {
  // x' = a x + c y, y' = b x + d y
  const int64_t a = matrix[0], b = matrix[1], c = matrix[3], d = matrix[4];
  if (std::abs(a) + std::abs(d) >= std::abs(b) + std::abs(c)) {
    if (a < 0) return d < 0 ? 3 : 2;
    return d < 0 ? 4 : 1;
  }
  if (b > 0) return c < 0 ? 6 : 5;
  return c > 0 ? 8 : 7;
}

RgbConverter::~RgbConverter() { sws_freeContext(context_); }

Status RgbConverter::Prepare(const AVFrame& frame, ImageSize size) {
  bool full_range = frame.color_range == AVCOL_RANGE_JPEG;
  const AVPixelFormat format = WithoutJ(static_cast<AVPixelFormat>(frame.format), &full_range);
  const bool same = context_ != nullptr && format_ == frame.format && colorspace_ == frame.colorspace &&
                    full_range_ == full_range && from_.width == frame.width && from_.height == frame.height &&
                    to_.width == size.width && to_.height == size.height;
  if (same) return OkStatus();
  const AVPixFmtDescriptor* description = av_pix_fmt_desc_get(format);
  if (description == nullptr) return InvalidArgument("the video's frames have an unknown pixel format");
  sws_freeContext(context_);
  alpha_ = (description->flags & AV_PIX_FMT_FLAG_ALPHA) != 0;
  const AVPixelFormat target = alpha_ ? AV_PIX_FMT_RGBA : AV_PIX_FMT_RGB24;
  context_ = sws_getContext(frame.width, frame.height, format, static_cast<int>(size.width),
                            static_cast<int>(size.height), target,
                            SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT, nullptr, nullptr, nullptr);
  if (context_ == nullptr)
    return InvalidArgument("the video's frames have a pixel format that cannot become RGB");
  const int* coefficients = sws_getCoefficients(SwsColorspace(frame.colorspace));
  // Fails for formats that are RGB already, which have neither matrix nor range.
  sws_setColorspaceDetails(context_, coefficients, full_range ? 1 : 0, sws_getCoefficients(SWS_CS_ITU601), 1,
                           0, 1 << 16, 1 << 16);
  format_ = frame.format;
  colorspace_ = frame.colorspace;
  full_range_ = full_range;
  from_ = {frame.height, frame.width};
  to_ = size;
  // Rows with room after them: swscale may write whole vectors.
  stride_ = (static_cast<int>(size.width) * (alpha_ ? 4 : 3) + 127) / 64 * 64;
  scratch_.assign(static_cast<size_t>(stride_) * static_cast<size_t>(size.height) + 64, 0);
  return OkStatus();
}

StatusOr<RgbImage> RgbConverter::Convert(const AVFrame& frame, ImageSize size, int orientation) {
  FD_RETURN_IF_ERROR(Prepare(frame, size));
  uint8_t* planes[4] = {scratch_.data(), nullptr, nullptr, nullptr};
  const int strides[4] = {stride_, 0, 0, 0};
  if (sws_scale(context_, frame.data, frame.linesize, 0, frame.height, planes, strides) != size.height) {
    return InvalidArgument("a frame of the video cannot be converted to RGB");
  }
  RgbImage image;
  image.width = size.width;
  image.height = size.height;
  const auto width = static_cast<size_t>(size.width);
  image.pixels.resize(width * static_cast<size_t>(size.height) * 3);
  for (size_t y = 0; y < static_cast<size_t>(size.height); ++y) {
    const uint8_t* from = scratch_.data() + y * static_cast<size_t>(stride_);
    uint8_t* to = image.pixels.data() + y * width * 3;
    if (!alpha_) {
      std::memcpy(to, from, width * 3);
      continue;
    }
    for (size_t x = 0; x < width; ++x) PasteOnWhite(from + 4 * x, to + 3 * x);
  }
  return TurnUpright(std::move(image), orientation);
}

}  // namespace fd
