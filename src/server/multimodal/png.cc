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

bool ReadRows(PngReader* reader, uint8_t* out, size_t row_bytes, size_t height, int passes) {
  if (setjmp(png_jmpbuf(reader->png)) != 0) return false;
  for (int pass = 0; pass < passes; ++pass) {
    for (size_t y = 0; y < height; ++y) png_read_row(reader->png, out + y * row_bytes, nullptr);
  }
  return true;
}

Status Damaged(const PngReader& reader) {
  return InvalidArgument(StrCat("the PNG picture cannot be decoded: ",
                                reader.error[0] != '\0' ? reader.error : "not enough memory"));
}

StatusOr<RgbImage> Decode(PngReader* reader, const ImageLimits& limits) {
  // IHDR is the first chunk: 8 bytes of signature, length, name, then width and height.
  auto big32 = [&](size_t at) {
    int64_t value = 0;
    for (size_t i = 0; i < 4; ++i) value = value << 8 | reader->data[at + i];
    return value;
  };
  if (reader->size_bytes < 33) {
    return InvalidArgument(StrCat("the PNG picture ends inside its header: ", reader->size_bytes, " bytes"));
  }
  if (std::memcmp(reader->data + 12, "IHDR", 4) != 0) {
    return InvalidArgument("the PNG picture does not begin with its header (IHDR)");
  }
  RgbImage image;
  image.width = big32(16);
  image.height = big32(20);
  FD_RETURN_IF_ERROR(CheckImageSize("PNG", image.width, image.height, limits));

  int channels = StartReading(reader);
  if (channels == 0) return Damaged(*reader);
  FD_CHECK(channels == 3 || channels == 4, channels);
  FD_CHECK_EQ(png_get_image_width(reader->png, reader->info), image.width);
  FD_CHECK_EQ(png_get_image_height(reader->png, reader->info), image.height);
  size_t row_bytes = static_cast<size_t>(image.width * channels);
  FD_CHECK_EQ(png_get_rowbytes(reader->png, reader->info), row_bytes);
  int passes = png_get_interlace_type(reader->png, reader->info) == PNG_INTERLACE_NONE ? 1 : 7;

  image.pixels.resize(row_bytes * static_cast<size_t>(image.height));
  if (!ReadRows(reader, image.pixels.data(), row_bytes, static_cast<size_t>(image.height), passes)) {
    return Damaged(*reader);
  }
  if (channels == 4) {
    uint8_t* out = image.pixels.data();
    const uint8_t* in = image.pixels.data();
    for (int64_t i = 0; i < image.width * image.height; ++i, in += 4, out += 3) {
      uint8_t rgba[4];
      std::memcpy(rgba, in, 4);
      PasteOnWhite(rgba, out);
    }
    image.pixels.resize(static_cast<size_t>(3 * image.width * image.height));
  }
  return image;
}

}  // namespace

StatusOr<RgbImage> DecodePng(std::string_view bytes, const ImageLimits& limits) {
  PngReader reader = {};
  reader.data = reinterpret_cast<const uint8_t*>(bytes.data());
  reader.size_bytes = bytes.size();
  struct Destroyer {
    PngReader* reader;
    ~Destroyer() { png_destroy_read_struct(&reader->png, &reader->info, nullptr); }
  } destroyer{&reader};
  return Decode(&reader, limits);
}

}  // namespace fd
