// Pictures that lie, end early or are none: an error that says why, before memory is spent.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <tuple>
// jpeglib.h needs FILE.
#include <jpeglib.h>

#include "base/strings.h"
#include "server/multimodal/exif.h"
#include "server/multimodal/golden_for_tests.h"
#include "server/multimodal/image.h"

namespace fd {
namespace {

using golden::MustRead;

const char kImages[] = "tests/golden/preprocess/images/";

Status DecodeError(const std::string& bytes, const ImageLimits& limits = {}) {
  StatusOr<RgbImage> image = DecodeImage(bytes, limits, true);
  return image.ok() ? OkStatus() : image.status();
}

std::string Big32(uint32_t v) {
  return {static_cast<char>(v >> 24), static_cast<char>(v >> 16), static_cast<char>(v >> 8),
          static_cast<char>(v)};
}
std::string Big16(uint32_t v) { return {static_cast<char>(v >> 8), static_cast<char>(v)}; }
std::string Little16(uint32_t v) { return {static_cast<char>(v), static_cast<char>(v >> 8)}; }
std::string Little32(uint32_t v) { return Little16(v & 0xffff) + Little16(v >> 16); }

// Signature and IHDR (no checksum, no data): 33 bytes.
std::string PngHeader(uint32_t width, uint32_t height) {
  return "\x89PNG\r\n\x1a\n" + Big32(13) + "IHDR" + Big32(width) + Big32(height) +
         std::string("\x08\x02\0\0\0\0\0\0\0", 9);
}

std::string JpegWithSize(uint32_t width, uint32_t height) {
  std::string file = MustRead(std::string(kImages) + "baseline_420.jpg");
  size_t sof = file.find("\xff\xc0");
  file.replace(sof + 5, 4, Big16(height) + Big16(width));
  return file;
}

int64_t PeakKilobytes() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

TEST(HostileImage, LargeHeadersAreRefusedWithBothNumbersAndTheFlag) {
  int64_t before = PeakKilobytes();
  Status png = DecodeError(PngHeader(30000, 30000));
  EXPECT_EQ(png.code(), StatusCode::kPayloadTooLarge);
  EXPECT_EQ(
      png.message(),
      "the PNG picture is 30000 x 30000 pixels; the limit is 16384 pixels a side (--max-image-side-pixels)");
  Status area = DecodeError(PngHeader(16384, 16384));
  EXPECT_EQ(area.message(),
            "the PNG picture is 16384 x 16384 pixels, 268435456 in all; the limit is 67108864 "
            "(--max-image-pixels)");
  EXPECT_EQ(DecodeError(PngHeader(0x7fffffff, 0x7fffffff)).code(), StatusCode::kPayloadTooLarge);
  EXPECT_EQ(DecodeError(PngHeader(0xffffffff, 0xffffffff)).code(), StatusCode::kPayloadTooLarge);
  EXPECT_EQ(DecodeError(PngHeader(1, 100000)).code(), StatusCode::kPayloadTooLarge);

  EXPECT_NE(
      DecodeError(JpegWithSize(65500, 65500)).message().find("the JPEG picture is 65500 x 65500 pixels"),
      std::string::npos);
  std::string gif = MustRead(std::string(kImages) + "two_frames.gif");
  gif.replace(6, 4, "\xff\xff\xff\xff");
  EXPECT_NE(DecodeError(gif).message().find("the GIF picture is 65535 x 65535 pixels"), std::string::npos);
  std::string webp = MustRead(std::string(kImages) + "lossy.webp");
  ASSERT_EQ(webp.substr(12, 4), "VP8 ");
  webp.replace(26, 4, Little16(0x3fff) + Little16(0x3fff));
  EXPECT_NE(DecodeError(webp).message().find("the WebP picture is 16383 x 16383 pixels"), std::string::npos);
  EXPECT_LT(PeakKilobytes() - before, 64 << 10) << "pixels were allocated for a picture that was refused";
}

TEST(HostileImage, FileSizeIsChecked) {
  ImageLimits limits;
  limits.max_file_bytes = 100;
  Status status = DecodeError(MustRead(std::string(kImages) + "rgb.png"), limits);
  EXPECT_EQ(status.code(), StatusCode::kPayloadTooLarge);
  EXPECT_EQ(status.message(), "the picture's file has 437 bytes; the limit is 100 (--max-image-bytes)");
}

TEST(HostileImage, LimitsAreInclusive) {
  std::string file = MustRead(std::string(kImages) + "rgb.png");  // 60 x 44
  ImageLimits limits{437, 60 * 44, 60};
  EXPECT_TRUE(DecodeError(file, limits).ok());
  EXPECT_FALSE(DecodeError(file, {436, 60 * 44, 60}).ok());
  EXPECT_FALSE(DecodeError(file, {437, 60 * 44 - 1, 60}).ok());
  EXPECT_FALSE(DecodeError(file, {437, 60 * 44, 59}).ok());
}

TEST(HostileImage, ZeroSizes) {
  EXPECT_EQ(DecodeError(PngHeader(0, 5)).message(), "the PNG picture's header says 0 x 5 pixels");
  EXPECT_FALSE(DecodeError(PngHeader(5, 0)).ok());
  EXPECT_FALSE(DecodeError(JpegWithSize(0, 8)).ok());
  EXPECT_FALSE(DecodeError(JpegWithSize(8, 0)).ok());
  std::string gif = MustRead(std::string(kImages) + "two_frames.gif");
  gif.replace(6, 4, std::string(4, '\0'));
  EXPECT_FALSE(DecodeError(gif).ok());
  EXPECT_EQ(DecodeError("").message(), "the picture is empty: 0 bytes");
}

TEST(HostileImage, WhatIsNoPictureSaysWhatItIs) {
  auto expect = [](const std::string& bytes, const std::string& part) {
    Status status = DecodeError(bytes);
    EXPECT_EQ(status.code(), StatusCode::kUnsupportedMedia);
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
    EXPECT_NE(status.message().find("PNG, JPEG, WebP and GIF are supported"), std::string::npos);
  };
  expect("hello world", "its first bytes are 68 65 6c 6c 6f 20 77 6f");
  expect(std::string(3, '\0'), "its first bytes are 00 00 00");
  expect("BM123456", "a BMP picture");
  expect(std::string("II*\0....", 8), "a TIFF picture");
  expect(std::string("\0\0\0\x18", 4) + "ftypheic....", "a HEIC picture");
  expect(std::string("\0\0\0\x18", 4) + "ftypavif....", "an AVIF picture");
  expect(std::string("\0\0\0\x18", 4) + "ftypisom....", "an MP4 video");
  expect("<svg xmlns=", "an SVG or XML document");
  expect("%PDF-1.7", "a PDF document");
  expect("RIFF1234AVI LIST", "an AVI video");
  expect("#EXTM3U\n#EXTINF:10,\nconcat:/etc/passwd\n", "an HLS playlist");
  expect("8BPS....", "a Photoshop document");
  expect(std::string("\0\0\1\0\1\0", 6), "an icon (ICO)");
  expect("RIFF1234WAVEfmt ", "its first bytes are 52 49 46 46");
}

// Every prefix of every picture is an error, or has the pixels of the whole when only what follows them is
// cut.
TEST(HostileImage, TruncatedFiles) {
  testing::internal::CaptureStderr();
  testing::internal::CaptureStdout();
  int pictures = 0;
  std::string failures;
  for (const auto& entry : std::filesystem::directory_iterator(kImages)) {
    std::string file = MustRead(entry.path());
    std::string name = entry.path().filename();
    StatusOr<RgbImage> whole = DecodeImage(file, {}, false);
    ASSERT_TRUE(whole.ok()) << name << whole.status().message();
    ++pictures;
    for (size_t size = 0; size < file.size(); size += size < 64 ? 1 : file.size() / 61 + 1) {
      StatusOr<RgbImage> part = DecodeImage(std::string_view(file).substr(0, size), {}, false);
      if (part.ok() && part->pixels != whole->pixels) failures += StrCat(name, " at ", size, " bytes\n");
      if (!part.ok() && part.status().message().size() < 20) failures += part.status().message() + "\n";
      if (part.ok() && size < file.size() / 2 && !name.ends_with(".gif")) failures += StrCat(name, " half\n");
    }
  }
  EXPECT_EQ(failures, "");
  EXPECT_GT(pictures, 50);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "") << "a codec library printed";
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "") << "a codec library printed";
}

TEST(HostileImage, ErrorsNameTheCause) {
  std::string png = MustRead(std::string(kImages) + "rgb.png");
  EXPECT_EQ(DecodeError(png.substr(0, 200)).message(),
            "the PNG picture cannot be decoded: the file ends too early");
  std::string jpeg = MustRead(std::string(kImages) + "large.jpg");
  EXPECT_EQ(DecodeError(jpeg.substr(0, jpeg.size() / 2)).message(),
            "the JPEG picture cannot be decoded: Premature end of JPEG file");
  std::string webp = MustRead(std::string(kImages) + "lossy.webp");
  EXPECT_EQ(DecodeError(webp.substr(0, 300)).message(),
            "the WebP picture cannot be decoded: the file ends too early");
  std::string gif = MustRead(std::string(kImages) + "two_frames.gif");
  EXPECT_EQ(DecodeError(gif.substr(0, 300)).message(),
            "the GIF picture cannot be decoded: the file ends too early");
  png[120] = static_cast<char>(png[120] ^ 0x40);
  EXPECT_TRUE(DecodeError(png).message().starts_with("the PNG picture cannot be decoded: "))
      << DecodeError(png).message();
}

// A progressive file that repeats its scans: each is a walk over the whole picture.
TEST(HostileImage, JpegScanBomb) {
  std::string file = MustRead(std::string(kImages) + "progressive_420.jpg");
  // The first scan (DC coefficients) may come again and again; it ends at the next marker.
  size_t scan = file.find("\xff\xda"), end = scan + 2;
  while (file[end] != '\xff' || file[end + 1] == '\0') ++end;
  std::string first = file.substr(scan, end - scan);
  std::string bomb = file.substr(0, end);
  for (int i = 0; i < 5000; ++i) bomb += first;
  bomb += file.substr(end);
  EXPECT_EQ(DecodeError(bomb).message(), "the JPEG picture cannot be decoded: more than 100 scans");
}

// A progressive grey picture of one tone: a small file for many pixels. Beside it, the whole of its first
// scan.
std::pair<std::string, std::string> FlatProgressive(uint32_t side) {
  jpeg_compress_struct cinfo;
  jpeg_error_mgr errors;
  cinfo.err = jpeg_std_error(&errors);
  jpeg_create_compress(&cinfo);
  unsigned char* data = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&cinfo, &data, &size);
  cinfo.image_width = cinfo.image_height = side;
  cinfo.input_components = 1;
  cinfo.in_color_space = JCS_GRAYSCALE;
  jpeg_set_defaults(&cinfo);
  jpeg_simple_progression(&cinfo);
  jpeg_start_compress(&cinfo, TRUE);
  std::vector<uint8_t> row(side, 130);
  uint8_t* rows[] = {row.data()};
  for (uint32_t y = 0; y < side; ++y) jpeg_write_scanlines(&cinfo, rows, 1);
  jpeg_finish_compress(&cinfo);
  std::string file(reinterpret_cast<char*>(data), size);
  jpeg_destroy_compress(&cinfo);
  std::free(data);
  size_t scan = file.find("\xff\xda"), end = scan + 2;
  while (file[end] != '\xff' || file[end + 1] == '\0') ++end;
  return {file, file.substr(scan, end - scan)};
}

// What a scan costs grows with the picture, so a large one may have fewer; an honest large file stays fine.
TEST(HostileImage, JpegScanBombOfALargePicture) {
  constexpr uint32_t kSide = 5200;  // 27 million pixels
  auto [file, scan] = FlatProgressive(kSide);
  ASSERT_LT(file.size(), size_t{1} << 20);
  EXPECT_EQ(DecodeError(file).message(), "");
  std::string bomb = file;
  for (int i = 0; i < 25; ++i) bomb.insert(file.find(scan), scan);
  EXPECT_EQ(DecodeError(bomb).message(), "the JPEG picture cannot be decoded: more than 20 scans");
  std::tie(file, scan) = FlatProgressive(64);
  bomb = file;
  for (int i = 0; i < 25; ++i) bomb.insert(file.find(scan), scan);
  EXPECT_EQ(DecodeError(bomb).message(), "");
}

TEST(HostileImage, JpegProcessesThatNobodyReads) {
  EXPECT_EQ(DecodeError(MustRead("tests/golden/pictures/precision_12.jpg")).message(),
            "the JPEG picture cannot be decoded: Unsupported JPEG data precision 12");
  EXPECT_EQ(DecodeError(MustRead("tests/golden/pictures/lossless_process.jpg")).message(),
            "the JPEG picture cannot be decoded: Unsupported JPEG process: SOF type 0xc3");
  EXPECT_EQ(DecodeError(MustRead("tests/golden/pictures/two_components.jpg")).message(),
            "the JPEG picture has 2 components; 1 (grey), 3 (colour) and 4 (CMYK) are read");
}

// A checksum that is wrong, of each chunk that a picture cannot do without.
TEST(HostileImage, PngChecksums) {
  for (const char* name : {"palette_4.png", "rgb_8.png", "rgba_16_interlaced.png"}) {
    const std::string file = MustRead(std::string("tests/golden/pictures/") + name);
    for (const char* chunk : {"IHDR", "PLTE", "IDAT"}) {
      const size_t at = file.find(chunk);
      if (at == std::string::npos) continue;
      uint32_t length = 0;
      for (size_t i = 4; i >= 1; --i) length = length << 8 | static_cast<uint8_t>(file[at - i]);
      std::string bad = file;
      bad[at + 4 + length] = static_cast<char>(bad[at + 4 + length] ^ 1);
      EXPECT_NE(DecodeError(bad).message().find("CRC error"), std::string::npos)
          << name << " " << chunk << ": " << DecodeError(bad).message();
    }
  }
}

// Text and profiles may hold bombs; they are skipped unread.
TEST(HostileImage, PngTextIsNotUnpacked) {
  const std::string file = MustRead(std::string(kImages) + "rgb.png");
  std::string junk(1 << 20, '\xff');
  std::string with = file.substr(0, 33) + Big32(static_cast<uint32_t>(junk.size())) + "zTXt" + junk;
  // The checksum counts for these too: libpng passes over a chunk whose checksum is wrong.
  with += Big32(0) + file.substr(33);
  StatusOr<RgbImage> image = DecodeImage(with, {}, false);
  ASSERT_TRUE(image.ok()) << image.status().message();
  EXPECT_EQ(image->pixels, DecodeImage(file, {}, false)->pixels);
}

TEST(HostileImage, SizesTakeNoMemory) {
  const int64_t before = PeakKilobytes();
  StatusOr<ImageSize> size = ReadImageSize(PngHeader(8192, 8192), {}, true);
  ASSERT_TRUE(size.ok()) << size.status().message();
  EXPECT_EQ(size->width, 8192);
  size = ReadImageSize(JpegWithSize(8000, 8191), {}, true);
  ASSERT_TRUE(size.ok());
  EXPECT_EQ(size->height, 8191);
  std::string gif = MustRead(std::string(kImages) + "two_frames.gif");
  gif.replace(6, 4, Little16(8000) + Little16(7000));
  size = ReadImageSize(gif, {}, true);
  ASSERT_TRUE(size.ok());
  EXPECT_EQ(size->width, 8000);
  EXPECT_EQ(size->height, 7000);
  std::string webp = MustRead(std::string(kImages) + "lossy.webp");
  webp.replace(26, 4, Little16(8000) + Little16(7000));
  size = ReadImageSize(webp, {}, true);
  ASSERT_TRUE(size.ok());
  EXPECT_EQ(size->height, 7000);
  EXPECT_EQ(ReadImageSize("BM123456", {}, true).status().message(), DecodeError("BM123456").message());
  EXPECT_LT(PeakKilobytes() - before, 8 << 10);
}

// Fifty thousand frames: only the first is read.
TEST(HostileImage, GifWithManyFrames) {
  std::string file = MustRead(std::string(kImages) + "two_frames.gif");
  StatusOr<RgbImage> one = DecodeImage(file, {}, false);
  std::string many = file.substr(0, file.size() - 1);
  std::string frame = std::string("\x2c", 1) + std::string(4, '\0') + Little16(1) + Little16(1) +
                      std::string("\0\x02\x02\x44\x01\0", 6);
  for (int i = 0; i < 50000; ++i) many += frame;
  many += ";";
  StatusOr<RgbImage> decoded = DecodeImage(many, {}, false);
  ASSERT_TRUE(decoded.ok()) << decoded.status().message();
  EXPECT_EQ(decoded->pixels, one->pixels);
}

// One black pixel of a 1 x 1 frame somewhere in or beyond the screen.
std::string TinyGif(uint32_t screen_w, uint32_t screen_h, uint32_t left, uint32_t top, bool transparent) {
  std::string gif = "GIF89a" + Little16(screen_w) + Little16(screen_h) + std::string("\x80\0\0", 3) +
                    std::string("\x0a\x14\x1e\x28\x32\x3c", 6);
  if (transparent) gif += std::string("\x21\xf9\x04\x01\0\0\0\0", 8);
  return gif + "\x2c" + Little16(left) + Little16(top) + Little16(1) + Little16(1) +
         std::string("\0\x02\x02\x4c\x01\0", 6) + ";";
}

TEST(HostileImage, GifFrameOutsideTheScreen) {
  StatusOr<RgbImage> image = DecodeImage(TinyGif(2, 1, 1, 0, false), {}, false);
  ASSERT_TRUE(image.ok()) << image.status().message();
  EXPECT_EQ(image->pixels, (std::vector<uint8_t>{10, 20, 30, 40, 50, 60}));
  image = DecodeImage(TinyGif(2, 1, 1, 0, true), {}, false);
  ASSERT_TRUE(image.ok());
  EXPECT_EQ(image->pixels, (std::vector<uint8_t>{255, 255, 255, 40, 50, 60}));
  image = DecodeImage(TinyGif(1, 1, 2, 3, false), {}, false);
  ASSERT_TRUE(image.ok());
  EXPECT_EQ(image->width, 3);
  EXPECT_EQ(image->height, 4);
  EXPECT_EQ(DecodeError(TinyGif(1, 1, 65535, 65535, false)).code(), StatusCode::kPayloadTooLarge);
}

std::string Tiff(const std::string& entries, uint32_t count, uint32_t offset = 8) {
  return std::string("II*\0", 4) + Little32(offset) + Little16(count) + entries;
}
std::string Entry(uint32_t tag, uint32_t type, uint32_t count, uint32_t value) {
  return Little16(tag) + Little16(type) + Little32(count) + Little32(value);
}
std::string JpegOf(const std::string& tiff) {
  std::string block = std::string("Exif\0\0", 6) + tiff;
  return "\xff\xd8\xff\xe1" + Big16(static_cast<uint32_t>(block.size() + 2)) + block;
}

TEST(Exif, ReadsOrientationAndSurvivesNonsense) {
  EXPECT_EQ(ExifOrientation(JpegOf(Tiff(Entry(0x0112, 3, 1, 6), 1))), 6);
  EXPECT_EQ(ExifOrientation(JpegOf(Tiff(Entry(0x0110, 2, 4, 0) + Entry(0x0112, 4, 1, 8), 2))), 8);
  std::string big = std::string("MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x05\0\0", 22);
  EXPECT_EQ(ExifOrientation(JpegOf(big)), 5);
  std::string png = PngHeader(1, 1) + Big32(22) + "eXIf" + big + Big32(0);
  EXPECT_EQ(ExifOrientation(png), 5);
  std::string webp = "RIFF" + Little32(100) + "WEBPXXXX" + Little32(1) + "z" + std::string(1, '\0') + "EXIF" +
                     Little32(28) + std::string("Exif\0\0", 6) + big;
  EXPECT_EQ(ExifOrientation(webp), 5);

  EXPECT_EQ(ExifOrientation(JpegOf(Tiff(Entry(0x0112, 3, 1, 0), 1))), 1);
  EXPECT_EQ(ExifOrientation(JpegOf(Tiff(Entry(0x0112, 3, 1, 9), 1))), 1);
  EXPECT_EQ(ExifOrientation(JpegOf(Tiff(Entry(0x0112, 3, 2, 6), 1))), 1);
  EXPECT_EQ(ExifOrientation(JpegOf(Tiff(Entry(0x0112, 7, 1, 6), 1))), 1);
  EXPECT_EQ(ExifOrientation(JpegOf(Tiff("", 65535))), 1);
  EXPECT_EQ(ExifOrientation(JpegOf(Tiff("", 1, 0xffffffff))), 1);
  EXPECT_EQ(ExifOrientation(JpegOf(Tiff("", 1, 0xfffffffe))), 1);
  EXPECT_EQ(ExifOrientation("\xff\xd8\xff\xe1\xff\xff"), 1);
  EXPECT_EQ(ExifOrientation(std::string("\xff\xd8\xff\xe1\0\0", 6)), 1);
  EXPECT_EQ(ExifOrientation("RIFF"), 1);
  EXPECT_EQ(ExifOrientation("\x89PNG"), 1);
  for (std::string file : {JpegOf(Tiff(Entry(0x0112, 3, 1, 6), 1)), png, webp}) {
    for (size_t size = 0; size < file.size(); ++size) {
      int orientation = ExifOrientation(std::string_view(file).substr(0, size));
      EXPECT_GE(orientation, 1);
      EXPECT_LE(orientation, 8);
    }
  }
}

// A 2 x 3 picture with pixels 1 2 / 3 4 / 5 6, as each orientation must show it.
TEST(Exif, TurnsUpright) {
  RgbImage image{3, 2, {}};
  for (uint8_t v = 1; v <= 6; ++v) image.pixels.insert(image.pixels.end(), 3, v);
  struct Case {
    int orientation;
    int64_t height, width;
    std::vector<uint8_t> values;
  };
  for (const Case& c : {Case{1, 3, 2, {1, 2, 3, 4, 5, 6}}, Case{2, 3, 2, {2, 1, 4, 3, 6, 5}},
                        Case{3, 3, 2, {6, 5, 4, 3, 2, 1}}, Case{4, 3, 2, {5, 6, 3, 4, 1, 2}},
                        Case{5, 2, 3, {1, 3, 5, 2, 4, 6}}, Case{6, 2, 3, {5, 3, 1, 6, 4, 2}},
                        Case{7, 2, 3, {6, 4, 2, 5, 3, 1}}, Case{8, 2, 3, {2, 4, 6, 1, 3, 5}}}) {
    RgbImage out = TurnUpright(image, c.orientation);
    EXPECT_EQ(out.height, c.height);
    EXPECT_EQ(out.width, c.width);
    std::vector<uint8_t> values;
    for (size_t i = 0; i < out.pixels.size(); i += 3) values.push_back(out.pixels[i]);
    EXPECT_EQ(values, c.values) << "orientation " << c.orientation;
  }
}

TEST(SmartResize, RefusesWhatHasNoArea) {
  EXPECT_FALSE(SmartResize(0, 5, 28, 3136, 12544).ok());
  EXPECT_FALSE(SmartResize(5, 0, 28, 3136, 12544).ok());
  EXPECT_FALSE(SmartResize(-3, 5, 28, 3136, 12544).ok());
  EXPECT_FALSE(SmartResize(10, 10, 28, 0, 12544).ok());
}

}  // namespace
}  // namespace fd
