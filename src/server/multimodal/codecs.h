// One decoder per picture format, private to this folder. Each checks the header's size against the limits
// when it is opened, prints nothing, and lets no longjmp of a C library pass a C++ destructor.
#pragma once

#include <memory>
#include <string_view>

#include "server/multimodal/image.h"

namespace fd {

// A picture file whose header has been read and checked; no pixels are allocated before they are asked for.
// The file's bytes outlive the reader. Errors are user errors. For one thread.
class RowReader {
 public:
  virtual ~RowReader() = default;
  ImageSize size() const { return size_; }
  // The next num_rows rows (1 to kMaxRowsAtOnce, not beyond the last), each [width, 3]; valid until the next
  // call.
  virtual Status Next(int num_rows, const uint8_t** rows) = 0;
  // All pixels. Once, and not after Next.
  virtual StatusOr<RgbImage> ReadAll() = 0;

  static constexpr int kMaxRowsAtOnce = 4;

 protected:
  ImageSize size_;
};

// A format that is decoded row by row: only the rows asked for are in memory.
class StreamReader : public RowReader {
 public:
  Status Next(int num_rows, const uint8_t** rows) final;
  StatusOr<RgbImage> ReadAll() final;

 protected:
  // Writes the next num_rows rows to out[0], out[1], ...
  virtual Status Decode(int num_rows, uint8_t* const* out) = 0;

 private:
  std::vector<uint8_t> buffer_;
};

// A format that is decoded as a whole.
class WholeReader : public RowReader {
 public:
  Status Next(int num_rows, const uint8_t** rows) final;
  StatusOr<RgbImage> ReadAll() final { return Decode(); }

 protected:
  virtual StatusOr<RgbImage> Decode() = 0;

 private:
  RgbImage image_;
  int64_t next_ = 0;
};

using OpenedPicture = StatusOr<std::unique_ptr<RowReader>>;
OpenedPicture OpenPng(std::string_view bytes, const ImageLimits& limits);
OpenedPicture OpenJpeg(std::string_view bytes, const ImageLimits& limits);
OpenedPicture OpenWebp(std::string_view bytes, const ImageLimits& limits);
OpenedPicture OpenGif(std::string_view bytes, const ImageLimits& limits);

// Sides and area of a header against the limits; the message has the size, the limit and its flag.
Status CheckImageSize(std::string_view format, int64_t width, int64_t height, const ImageLimits& limits);

// round(a * b / 255) as Pillow computes it, for a, b in [0, 255].
inline uint8_t MulDiv255(int a, int b) {
  int t = a * b + 128;
  return static_cast<uint8_t>(((t >> 8) + t) >> 8);
}

// Writes the RGBA pixel pasted on white, rounding as Pillow's paste does; equal to its colour when opaque.
inline void PasteOnWhite(const uint8_t* rgba, uint8_t* rgb) {
  int alpha = rgba[3];
  for (int c = 0; c < 3; ++c) {
    int t = 255 * (255 - alpha) + rgba[c] * alpha + 128;
    rgb[c] = static_cast<uint8_t>(((t >> 8) + t) >> 8);
  }
}

}  // namespace fd
