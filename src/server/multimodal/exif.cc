#include "server/multimodal/exif.h"

#include <cstring>
#include <optional>

namespace fd {
namespace {

uint32_t Byte(std::string_view b, size_t at) { return static_cast<uint8_t>(b[at]); }
uint32_t Big16(std::string_view b, size_t at) { return Byte(b, at) << 8 | Byte(b, at + 1); }
uint32_t Big32(std::string_view b, size_t at) { return Big16(b, at) << 16 | Big16(b, at + 2); }
uint32_t Little16(std::string_view b, size_t at) { return Byte(b, at) | Byte(b, at + 1) << 8; }
uint32_t Little32(std::string_view b, size_t at) { return Little16(b, at) | Little16(b, at + 2) << 16; }

constexpr std::string_view kExifMark("Exif\0\0", 6);

// Everything before the first scan: EXIF stands there.
std::string_view FindInJpeg(std::string_view file) {
  size_t at = 2;
  while (at + 4 <= file.size()) {
    if (Byte(file, at) != 0xff) return {};
    uint32_t marker = Byte(file, at + 1);
    if (marker == 0xff) {  // fill byte
      ++at;
      continue;
    }
    if (marker == 0x01 || (marker >= 0xd0 && marker <= 0xd8)) {  // no length follows
      at += 2;
      continue;
    }
    if (marker == 0xda || marker == 0xd9) return {};
    uint32_t length = Big16(file, at + 2);
    if (length < 2 || length > file.size() - at - 2) return {};
    std::string_view payload = file.substr(at + 4, length - 2);
    if (marker == 0xe1 && payload.starts_with(kExifMark)) return payload;
    at += 2 + length;
  }
  return {};
}

std::string_view FindInPng(std::string_view file) {
  size_t at = 8;
  while (file.size() >= 12 && at <= file.size() - 12) {
    size_t length = Big32(file, at);
    if (length > file.size() - at - 12) return {};
    if (file.substr(at + 4, 4) == "eXIf") return file.substr(at + 8, length);
    at += 12 + length;
  }
  return {};
}

std::string_view FindInWebp(std::string_view file) {
  size_t at = 12;
  while (file.size() >= 8 && at <= file.size() - 8) {
    size_t length = Little32(file, at + 4);
    if (length > file.size() - at - 8) return {};
    if (file.substr(at, 4) == "EXIF") return file.substr(at + 8, length);
    at += 8 + length + (length & 1);
  }
  return {};
}

// The value of tag 0x0112 in the first directory of a TIFF structure.
std::optional<uint32_t> TiffOrientation(std::string_view tiff) {
  if (tiff.size() < 8) return std::nullopt;
  bool little = tiff.starts_with("II");
  if (!little && !tiff.starts_with("MM")) return std::nullopt;
  auto read16 = [&](size_t at) { return little ? Little16(tiff, at) : Big16(tiff, at); };
  auto read32 = [&](size_t at) { return little ? Little32(tiff, at) : Big32(tiff, at); };
  if (read16(2) != 42) return std::nullopt;
  size_t directory = read32(4);
  if (directory > tiff.size() - 2) return std::nullopt;
  size_t entries = read16(directory);
  for (size_t i = 0; i < entries; ++i) {
    size_t at = directory + 2 + 12 * i;
    if (at > tiff.size() - 12 || tiff.size() < 12) return std::nullopt;
    if (read16(at) != 0x0112) continue;
    uint32_t type = read16(at + 2);
    if (read32(at + 4) != 1) return std::nullopt;
    if (type == 3) return read16(at + 8);
    if (type == 4) return read32(at + 8);
    return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace

int ExifOrientation(std::string_view file) {
  std::string_view block;
  if (file.starts_with("\xff\xd8\xff")) {
    block = FindInJpeg(file);
  } else if (file.starts_with("\x89PNG")) {
    block = FindInPng(file);
  } else if (file.starts_with("RIFF")) {
    block = FindInWebp(file);
  }
  if (block.starts_with(kExifMark)) block.remove_prefix(kExifMark.size());
  uint32_t value = TiffOrientation(block).value_or(1);
  return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
}

RgbImage TurnUpright(RgbImage image, int orientation) {
  if (orientation <= 1 || orientation > 8) return image;
  const int64_t h = image.height, w = image.width;
  const bool swaps = orientation >= 5;
  RgbImage out;
  out.height = swaps ? w : h;
  out.width = swaps ? h : w;
  out.pixels.resize(image.pixels.size());
  // Stored rows are read in order; `start` is where the first stored pixel lands, `right` and `down` are the
  // steps in the output for one stored pixel to the right and one stored row down.
  int64_t start = 0, right = 0, down = 0;
  const int64_t row = out.width, last_x = out.width - 1, last_y = (out.height - 1) * row;
  switch (orientation) {
    case 2:
      start = last_x, right = -1, down = row;
      break;
    case 3:
      start = last_y + last_x, right = -1, down = -row;
      break;
    case 4:
      start = last_y, right = 1, down = -row;
      break;
    case 5:
      start = 0, right = row, down = 1;
      break;
    case 6:
      start = last_x, right = row, down = -1;
      break;
    case 7:
      start = last_y + last_x, right = -row, down = -1;
      break;
    default:  // 8
      start = last_y, right = -row, down = 1;
  }
  const uint8_t* from = image.pixels.data();
  for (int64_t y = 0; y < h; ++y) {
    int64_t to = start + y * down;
    for (int64_t x = 0; x < w; ++x, to += right, from += 3) {
      std::memcpy(out.pixels.data() + 3 * to, from, 3);
    }
  }
  return out;
}

}  // namespace fd
