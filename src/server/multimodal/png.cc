#include <png.h>

#include <csetjmp>
#include <cstdio>
#include <cstring>

#include "base/strings.h"
#include "server/multimodal/codecs.h"

namespace fd {
namespace {

// Plain data: libpng leaves its functions by longjmp, so nothing with a destructor may live in a function
// that calls setjmp or in one that calls libpng below it.
struct PngReader {
  png_structp png;
  png_infop info;
  const uint8_t* data;
  size_t size_bytes;
  size_t offset;
  char error[120];
};

void OnError(png_structp png, png_const_charp message) {
  auto* reader = static_cast<PngReader*>(png_get_error_ptr(png));
  std::snprintf(reader->error, sizeof(reader->error), "%s", message);
  png_longjmp(png, 1);
}

void OnWarning(png_structp, png_const_charp) {}

void OnRead(png_structp png, png_bytep out, size_t count) {
  auto* reader = static_cast<PngReader*>(png_get_io_ptr(png));
  if (count > reader->size_bytes - reader->offset) png_error(png, "the file ends too early");
  std::memcpy(out, reader->data + reader->offset, count);
  reader->offset += count;
}

// Reads up to the first row and asks for 8-bit RGB or RGBA rows. The channel count, or 0 after an error.
int StartReading(PngReader* reader) {
  reader->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, reader, OnError, OnWarning);
  if (reader->png == nullptr) return 0;
  if (setjmp(png_jmpbuf(reader->png)) != 0) return 0;
  reader->info = png_create_info_struct(reader->png);
  if (reader->info == nullptr) return 0;
  png_set_read_fn(reader->png, reader, OnRead);
  // Text, profiles, gamma and the like are skipped unread: they can hold zlib bombs and change no pixel here.
  png_set_keep_unknown_chunks(reader->png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
  png_read_info(reader->png, reader->info);
  int color = png_get_color_type(reader->png, reader->info);
  png_set_strip_16(reader->png);  // the high byte, as Pillow does
  if (color == PNG_COLOR_TYPE_PALETTE) {
    png_set_palette_to_rgb(reader->png);  // with tRNS as alpha
  } else {
    png_set_expand_gray_1_2_4_to_8(reader->png);  // tRNS of grey and RGB stays unused
    png_set_gray_to_rgb(reader->png);
  }
  png_set_interlace_handling(reader->png);
  png_read_update_info(reader->png, reader->info);
  return png_get_channels(reader->png, reader->info);
}

bool ReadRows(PngReader* reader, int num_rows, uint8_t* const* rows) {
  if (setjmp(png_jmpbuf(reader->png)) != 0) return false;
  for (int r = 0; r < num_rows; ++r) png_read_row(reader->png, rows[r], nullptr);
  return true;
}

bool ReadInterlaced(PngReader* reader, uint8_t* out, size_t row_bytes, size_t height) {
  if (setjmp(png_jmpbuf(reader->png)) != 0) return false;
  for (int pass = 0; pass < 7; ++pass) {
    for (size_t y = 0; y < height; ++y) png_read_row(reader->png, out + y * row_bytes, nullptr);
  }
  return true;
}

Status Damaged(const PngReader& reader) {
  return InvalidArgument(StrCat("the PNG picture cannot be decoded: ",
                                reader.error[0] != '\0' ? reader.error : "not enough memory"));
}

class PngRows : public StreamReader {
 public:
  explicit PngRows(std::string_view bytes) {
    reader_.data = reinterpret_cast<const uint8_t*>(bytes.data());
    reader_.size_bytes = bytes.size();
  }
  ~PngRows() override { png_destroy_read_struct(&reader_.png, &reader_.info, nullptr); }

  Status Open(const ImageLimits& limits) {
    // IHDR is the first chunk: 8 bytes of signature, length, name, then width and height.
    auto big32 = [&](size_t at) {
      int64_t value = 0;
      for (size_t i = 0; i < 4; ++i) value = value << 8 | reader_.data[at + i];
      return value;
    };
    if (reader_.size_bytes < 33) {
      return InvalidArgument(
          StrCat("the PNG picture ends inside its header: ", reader_.size_bytes, " bytes"));
    }
    if (std::memcmp(reader_.data + 12, "IHDR", 4) != 0) {
      return InvalidArgument("the PNG picture does not begin with its header (IHDR)");
    }
    size_ = {big32(20), big32(16)};
    return CheckImageSize("PNG", size_.width, size_.height, limits);
  }

 protected:
  Status Decode(int num_rows, uint8_t* const* out) override {
    if (channels_ == 0) FD_RETURN_IF_ERROR(Start());
    if (!interlaced_.empty()) {
      for (int r = 0; r < num_rows; ++r) Finish(interlaced_.data() + RowBytes() * next_++, out[r]);
      return OkStatus();
    }
    if (channels_ == 3) return ReadRows(&reader_, num_rows, out) ? OkStatus() : Damaged(reader_);
    for (int r = 0; r < num_rows; ++r) {
      uint8_t* row = rgba_row_.data();
      if (!ReadRows(&reader_, 1, &row)) return Damaged(reader_);
      Finish(row, out[r]);
    }
    return OkStatus();
  }

 private:
  size_t RowBytes() const { return static_cast<size_t>(size_.width * channels_); }

  Status Start() {
    channels_ = StartReading(&reader_);
    if (channels_ == 0) return Damaged(reader_);
    FD_CHECK(channels_ == 3 || channels_ == 4, channels_);
    FD_CHECK_EQ(png_get_image_width(reader_.png, reader_.info), size_.width);
    FD_CHECK_EQ(png_get_image_height(reader_.png, reader_.info), size_.height);
    FD_CHECK_EQ(png_get_rowbytes(reader_.png, reader_.info), RowBytes());
    if (png_get_interlace_type(reader_.png, reader_.info) == PNG_INTERLACE_NONE) {
      if (channels_ == 4) rgba_row_.resize(RowBytes());
      return OkStatus();
    }
    interlaced_.resize(RowBytes() * static_cast<size_t>(size_.height));
    return ReadInterlaced(&reader_, interlaced_.data(), RowBytes(), static_cast<size_t>(size_.height))
               ? OkStatus()
               : Damaged(reader_);
  }

  void Finish(const uint8_t* row, uint8_t* out) const {
    if (channels_ == 3) {
      std::memcpy(out, row, RowBytes());
      return;
    }
    for (int64_t x = 0; x < size_.width; ++x) PasteOnWhite(row + 4 * x, out + 3 * x);
  }

  PngReader reader_ = {};
  int channels_ = 0;                 // 0 until the first row
  size_t next_ = 0;                  // row of interlaced_
  std::vector<uint8_t> interlaced_;  // [height, width, channels]: all rows come at once
  std::vector<uint8_t> rgba_row_;
};

}  // namespace

OpenedPicture OpenPng(std::string_view bytes, const ImageLimits& limits) {
  auto rows = std::make_unique<PngRows>(bytes);
  FD_RETURN_IF_ERROR(rows->Open(limits));
  return std::unique_ptr<RowReader>(std::move(rows));
}

}  // namespace fd
