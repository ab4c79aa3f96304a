#include <gif_lib.h>

#include <algorithm>
#include <cstring>

#include "base/strings.h"
#include "server/multimodal/codecs.h"

namespace fd {
namespace {

struct GifSource {
  std::string_view bytes;
  size_t offset = 0;
};

int OnRead(GifFileType* gif, GifByteType* out, int count) {
  auto* source = static_cast<GifSource*>(gif->UserData);
  size_t available = std::min<size_t>(static_cast<size_t>(count), source->bytes.size() - source->offset);
  std::memcpy(out, source->bytes.data() + source->offset, available);
  source->offset += available;
  return static_cast<int>(available);
}

Status Damaged(int code) {
  const char* reason = GifErrorString(code);
  std::string text = reason != nullptr ? reason : "its data are damaged";
  if (code == D_GIF_ERR_READ_FAILED || code == D_GIF_ERR_EOF_TOO_SOON) text = "the file ends too early";
  return InvalidArgument(StrCat("the GIF picture cannot be decoded: ", text));
}

// Skips to the first frame's descriptor; what a graphics control block before it says of transparency goes to
// `control`.
Status FindFirstFrame(GifFileType* gif, GraphicsControlBlock* control) {
  while (true) {
    GifRecordType record;
    if (DGifGetRecordType(gif, &record) == GIF_ERROR) return Damaged(gif->Error);
    if (record == TERMINATE_RECORD_TYPE) return InvalidArgument("the GIF picture has no frame");
    if (record == IMAGE_DESC_RECORD_TYPE) {
      return DGifGetImageDesc(gif) == GIF_ERROR ? Damaged(gif->Error) : OkStatus();
    }
    int code = 0;
    GifByteType* block = nullptr;  // a length byte, then the bytes; owned by giflib
    if (DGifGetExtension(gif, &code, &block) == GIF_ERROR) return Damaged(gif->Error);
    if (code == GRAPHICS_EXT_FUNC_CODE && block != nullptr && block[0] == 4) {
      DGifExtensionToGCB(block[0], block + 1, control);
    }
    while (block != nullptr) {
      if (DGifGetExtensionNext(gif, &block) == GIF_ERROR) return Damaged(gif->Error);
    }
  }
}

class GifPicture : public WholeReader {
 public:
  explicit GifPicture(std::string_view bytes) : source_{bytes} {}
  ~GifPicture() override {
    int error = 0;
    if (gif_ != nullptr) DGifCloseFile(gif_, &error);
  }

  Status Open(const ImageLimits& limits) {
    int error = 0;
    gif_ = DGifOpen(&source_, OnRead, &error);
    if (gif_ == nullptr) return Damaged(error);
    FD_RETURN_IF_ERROR(CheckImageSize("GIF", gif_->SWidth, gif_->SHeight, limits));
    control_.TransparentColor = NO_TRANSPARENT_COLOR;
    FD_RETURN_IF_ERROR(FindFirstFrame(gif_, &control_));
    const GifImageDesc& frame = gif_->Image;
    FD_RETURN_IF_ERROR(CheckImageSize("GIF", frame.Width, frame.Height, limits));
    // Like Pillow, a frame that reaches beyond the screen makes it larger.
    size_.width = std::max<int64_t>(gif_->SWidth, int64_t{frame.Left} + frame.Width);
    size_.height = std::max<int64_t>(gif_->SHeight, int64_t{frame.Top} + frame.Height);
    return CheckImageSize("GIF", size_.width, size_.height, limits);
  }

 protected:
  StatusOr<RgbImage> Decode() override;

 private:
  GifSource source_;
  GifFileType* gif_ = nullptr;
  GraphicsControlBlock control_ = {};
};

StatusOr<RgbImage> GifPicture::Decode() {
  const GifImageDesc frame = gif_->Image;
  RgbImage image;
  image.width = size_.width;
  image.height = size_.height;

  // The colour of every index: black beyond the table, a grey ramp without a table, white where transparent.
  const ColorMapObject* map = frame.ColorMap != nullptr ? frame.ColorMap : gif_->SColorMap;
  uint8_t palette[256][3] = {};
  for (int i = 0; i < 256; ++i) {
    if (map == nullptr) {
      std::memset(palette[i], i, 3);
    } else if (i < map->ColorCount) {
      const GifColorType& c = map->Colors[i];
      palette[i][0] = c.Red, palette[i][1] = c.Green, palette[i][2] = c.Blue;
    }
  }
  int background = 0;
  if (control_.TransparentColor >= 0 && control_.TransparentColor < 256) {
    background = control_.TransparentColor;
    std::memset(palette[background], 255, 3);
  }

  image.pixels.resize(static_cast<size_t>(3 * image.width * image.height));
  bool covers =
      frame.Left == 0 && frame.Top == 0 && frame.Width == image.width && frame.Height == image.height;
  if (!covers) {
    for (int64_t i = 0; i < image.width * image.height; ++i) {
      std::memcpy(image.pixels.data() + 3 * i, palette[background], 3);
    }
  }
  std::vector<GifPixelType> row(static_cast<size_t>(frame.Width));
  constexpr int kFirst[] = {0, 4, 2, 1}, kStep[] = {8, 8, 4, 2};
  for (int pass = 0; pass < (frame.Interlace ? 4 : 1); ++pass) {
    int step = frame.Interlace ? kStep[pass] : 1;
    for (int y = frame.Interlace ? kFirst[pass] : 0; y < frame.Height; y += step) {
      if (DGifGetLine(gif_, row.data(), frame.Width) == GIF_ERROR) return Damaged(gif_->Error);
      uint8_t* out = image.pixels.data() + 3 * ((int64_t{frame.Top} + y) * image.width + frame.Left);
      for (int x = 0; x < frame.Width; ++x) std::memcpy(out + 3 * x, palette[row[x]], 3);
    }
  }
  return image;
}

}  // namespace

OpenedPicture OpenGif(std::string_view bytes, const ImageLimits& limits) {
  auto picture = std::make_unique<GifPicture>(bytes);
  FD_RETURN_IF_ERROR(picture->Open(limits));
  return std::unique_ptr<RowReader>(std::move(picture));
}

}  // namespace fd
