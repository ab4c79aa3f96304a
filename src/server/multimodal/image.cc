#include "server/multimodal/image.h"

#include <algorithm>
#include <new>

#include "base/strings.h"
#include "server/multimodal/codecs.h"
#include "server/multimodal/exif.h"
#include "server/multimodal/resize_rows.h"

namespace fd {
namespace {

// The name of a format that people do send and that we do not read; empty when the bytes say nothing.
std::string_view KnownOtherFormat(std::string_view b) {
  auto has = [&](std::string_view mark, size_t at = 0) {
    return b.size() >= at && b.substr(at).starts_with(mark);
  };
  if (has("ftypavif", 4) || has("ftypavis", 4)) return "an AVIF picture";
  if (has("ftypheic", 4) || has("ftypheix", 4) || has("ftypmif1", 4) || has("ftyphevc", 4))
    return "a HEIC picture";
  if (has("ftyp", 4)) return "an MP4 video";
  if (has("RIFF") && has("AVI ", 8)) return "an AVI video";
  if (has("#EXTM3U")) return "an HLS playlist";
  if (has("8BPS")) return "a Photoshop document";
  if (has(std::string_view("\0\0\1\0", 4))) return "an icon (ICO)";
  if (has("BM")) return "a BMP picture";
  if (has(std::string_view("II*\0", 4)) || has(std::string_view("MM\0*", 4))) return "a TIFF picture";
  if (has("<svg") || has("<?xml")) return "an SVG or XML document";
  if (has("<!DOCTYPE") || has("<!doctype") || has("<html")) return "an HTML page";
  if (has("%PDF")) return "a PDF document";
  if (has("\x1a\x45\xdf\xa3")) return "a WebM or Matroska video";
  if (has("\xff\x0a") || has(std::string_view("\0\0\0\x0cJXL ", 8))) return "a JPEG XL picture";
  if (has(std::string_view("\0\0\0\x0cjP  ", 8))) return "a JPEG 2000 picture";
  return {};
}

Status UnknownFormat(std::string_view bytes) {
  constexpr std::string_view kSupported = "; PNG, JPEG, WebP and GIF are supported";
  if (std::string_view name = KnownOtherFormat(bytes); !name.empty()) {
    return {StatusCode::kUnsupportedMedia,
            StrCat("the data is ", name, kSupported,
                   name.ends_with("video") ? "; send a video as a video_url part" : "")};
  }
  constexpr char kHex[] = "0123456789abcdef";
  std::string first;
  for (size_t i = 0; i < bytes.size() && i < 8; ++i) {
    uint8_t byte = static_cast<uint8_t>(bytes[i]);
    if (i > 0) first += ' ';
    first += kHex[byte >> 4];
    first += kHex[byte & 15];
  }
  return {StatusCode::kUnsupportedMedia,
          StrCat("the data is no picture: its first bytes are ", first, kSupported)};
}

OpenedPicture OpenByFormat(std::string_view bytes, const ImageLimits& limits) {
  if (bytes.starts_with("\x89PNG\r\n\x1a\n")) return OpenPng(bytes, limits);
  if (bytes.starts_with("\xff\xd8\xff")) return OpenJpeg(bytes, limits);
  if (bytes.size() >= 12 && bytes.starts_with("RIFF") && bytes.substr(8, 4) == "WEBP") {
    return OpenWebp(bytes, limits);
  }
  if (bytes.starts_with("GIF87a") || bytes.starts_with("GIF89a")) return OpenGif(bytes, limits);
  return UnknownFormat(bytes);
}

OpenedPicture Open(std::string_view bytes, const ImageLimits& limits) {
  if (bytes.empty()) return InvalidArgument("the picture is empty: 0 bytes");
  if (static_cast<int64_t>(bytes.size()) > limits.max_file_bytes) {
    return Status(StatusCode::kPayloadTooLarge,
                  StrCat("the picture's file has ", bytes.size(), " bytes; the limit is ",
                         limits.max_file_bytes, " (--max-image-bytes)"));
  }
  return OpenByFormat(bytes, limits);
}

Status NoMemory() {
  return {StatusCode::kResourceExhausted, "not enough memory to decode the picture; try again later"};
}

// Orientations from 5 on exchange rows and columns.
ImageSize UprightSize(ImageSize size, int orientation) {
  return orientation >= 5 ? ImageSize{size.width, size.height} : size;
}

// A picture in memory that owns its pixels.
class OwnedRows : public WholeReader {
 public:
  explicit OwnedRows(RgbImage image) : image_(std::move(image)) { size_ = {image_.height, image_.width}; }

 protected:
  StatusOr<RgbImage> Decode() override { return std::move(image_); }

 private:
  RgbImage image_;
};

}  // namespace

Status CheckImageSize(std::string_view format, int64_t width, int64_t height, const ImageLimits& limits) {
  if (width <= 0 || height <= 0) {
    return InvalidArgument(
        StrCat("the ", format, " picture's header says ", width, " x ", height, " pixels"));
  }
  std::string size = StrCat("the ", format, " picture is ", width, " x ", height, " pixels");
  if (width > limits.max_side_pixels || height > limits.max_side_pixels) {
    return {StatusCode::kPayloadTooLarge, StrCat(size, "; the limit is ", limits.max_side_pixels,
                                                 " pixels a side (--max-image-side-pixels)")};
  }
  if (width > limits.max_pixels / height) {
    return {StatusCode::kPayloadTooLarge, StrCat(size, ", ", width * height, " in all; the limit is ",
                                                 limits.max_pixels, " (--max-image-pixels)")};
  }
  return OkStatus();
}

Status StreamReader::Next(int num_rows, const uint8_t** rows) {
  const int64_t row_bytes = 3 * size_.width;
  if (buffer_.empty()) buffer_.resize(static_cast<size_t>(kMaxRowsAtOnce * row_bytes));
  uint8_t* out[kMaxRowsAtOnce];
  for (int r = 0; r < num_rows; ++r) rows[r] = out[r] = buffer_.data() + r * row_bytes;
  return Decode(num_rows, out);
}

StatusOr<RgbImage> StreamReader::ReadAll() {
  const int64_t row_bytes = 3 * size_.width;
  RgbImage image{size_.height, size_.width, {}};
  image.pixels.resize(static_cast<size_t>(size_.height * row_bytes));
  for (int64_t y = 0; y < size_.height;) {
    const int n = static_cast<int>(std::min<int64_t>(kMaxRowsAtOnce, size_.height - y));
    uint8_t* out[kMaxRowsAtOnce];
    for (int r = 0; r < n; ++r) out[r] = image.pixels.data() + (y + r) * row_bytes;
    FD_RETURN_IF_ERROR(Decode(n, out));
    y += n;
  }
  return image;
}

Status WholeReader::Next(int num_rows, const uint8_t** rows) {
  if (image_.pixels.empty()) {
    FD_ASSIGN_OR_RETURN(image_, Decode());
  }
  for (int r = 0; r < num_rows; ++r, ++next_) rows[r] = image_.pixels.data() + 3 * image_.width * next_;
  return OkStatus();
}

StatusOr<RgbImage> DecodeImage(std::string_view bytes, const ImageLimits& limits, bool apply_exif) {
  try {
    FD_ASSIGN_OR_RETURN(std::unique_ptr<RowReader> reader, Open(bytes, limits));
    FD_ASSIGN_OR_RETURN(RgbImage image, reader->ReadAll());
    return apply_exif ? TurnUpright(std::move(image), ExifOrientation(bytes)) : std::move(image);
  } catch (const std::bad_alloc&) {
    return NoMemory();
  }
}

StatusOr<ImageSize> ReadImageSize(std::string_view bytes, const ImageLimits& limits, bool apply_exif) {
  try {
    FD_ASSIGN_OR_RETURN(std::unique_ptr<RowReader> reader, Open(bytes, limits));
    return apply_exif ? UprightSize(reader->size(), ExifOrientation(bytes)) : reader->size();
  } catch (const std::bad_alloc&) {
    return NoMemory();
  }
}

StatusOr<PatchImage> DecodePatchRows(std::string_view bytes, const ImageLimits& limits, bool apply_exif,
                                     const PatchRule& rule) {
  try {
    FD_ASSIGN_OR_RETURN(std::unique_ptr<RowReader> reader, Open(bytes, limits));
    const int orientation = apply_exif ? ExifOrientation(bytes) : 1;
    const ImageSize size = UprightSize(reader->size(), orientation);
    PatchImage out;
    FD_ASSIGN_OR_RETURN(out.size, SmartResize(size.height, size.width, rule.patch_size * rule.merge_size,
                                              rule.min_pixels, rule.max_pixels));
    if (orientation != 1) {
      FD_ASSIGN_OR_RETURN(RgbImage image, reader->ReadAll());
      reader = std::make_unique<OwnedRows>(TurnUpright(std::move(image), orientation));
    }
    FD_ASSIGN_OR_RETURN(out.rows, ReadPatchRows(reader.get(), out.size, rule.patch_size, rule.merge_size));
    return out;
  } catch (const std::bad_alloc&) {
    return NoMemory();
  }
}

}  // namespace fd
