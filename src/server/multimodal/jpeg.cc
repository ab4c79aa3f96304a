#include <csetjmp>
#include <cstddef>
#include <cstdio>
#include <cstring>
// jpeglib.h needs FILE and size_t from above, jerror.h needs what jpeglib.h configures.
#include <jpeglib.h>

#include <jerror.h>

#include "base/strings.h"
#include "server/multimodal/codecs.h"

namespace fd {
namespace {

// Each scan of a progressive file walks the whole picture; real files have about ten.
constexpr int kMaxScans = 100;

// Plain data: libjpeg leaves its functions by longjmp, so nothing with a destructor may live in a function
// that calls setjmp.
struct JpegReader {
  jpeg_decompress_struct cinfo;
  jpeg_error_mgr errors;
  jpeg_progress_mgr progress;
  std::jmp_buf jump;
  char error[JMSG_LENGTH_MAX];
};

[[noreturn]] void OnError(j_common_ptr cinfo) {
  auto* reader = static_cast<JpegReader*>(cinfo->client_data);
  reader->errors.format_message(cinfo, reader->error);
  std::longjmp(reader->jump, 1);
}

// libjpeg only warns when pixel data are missing or wrong, and fills in grey: for us that is an error.
void OnMessage(j_common_ptr cinfo, int level) {
  if (level >= 0) return;
  switch (cinfo->err->msg_code) {
    case JWRN_HIT_MARKER:
    case JWRN_JPEG_EOF:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_MUST_RESYNC:
      OnError(cinfo);
    default:
      break;
  }
}

void OnPrint(j_common_ptr) {}

void OnProgress(j_common_ptr cinfo) {
  auto* reader = static_cast<JpegReader*>(cinfo->client_data);
  if (reader->cinfo.input_scan_number <= kMaxScans) return;
  std::snprintf(reader->error, sizeof(reader->error), "more than %d scans", kMaxScans);
  std::longjmp(reader->jump, 1);
}

bool ReadHeader(JpegReader* reader, const uint8_t* data, size_t size_bytes) {
  reader->cinfo.err = jpeg_std_error(&reader->errors);
  reader->errors.error_exit = OnError;
  reader->errors.emit_message = OnMessage;
  reader->errors.output_message = OnPrint;
  reader->cinfo.client_data = reader;
  if (setjmp(reader->jump) != 0) return false;
  jpeg_create_decompress(&reader->cinfo);
  reader->progress.progress_monitor = OnProgress;
  reader->cinfo.progress = &reader->progress;
  jpeg_mem_src(&reader->cinfo, data, size_bytes);
  jpeg_read_header(&reader->cinfo, TRUE);
  return true;
}

// cmyk_row: [width, 4], used only for four components.
bool ReadRows(JpegReader* reader, uint8_t* pixels, uint8_t* cmyk_row) {
  if (setjmp(reader->jump) != 0) return false;
  jpeg_decompress_struct* cinfo = &reader->cinfo;
  // The coefficients of a progressive file are two bytes each; what asks for more is a trick.
  int64_t padded = (int64_t{cinfo->image_width} + 64) * (int64_t{cinfo->image_height} + 64);
  cinfo->mem->max_memory_to_use = static_cast<long>(padded * 2 * cinfo->num_components + (64 << 20));
  cinfo->out_color_space = cinfo->num_components == 4 ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(cinfo);
  const size_t width = cinfo->output_width;
  while (cinfo->output_scanline < cinfo->output_height) {
    uint8_t* out = pixels + size_t{3} * width * cinfo->output_scanline;
    if (cinfo->num_components != 4) {
      jpeg_read_scanlines(cinfo, &out, 1);
      continue;
    }
    jpeg_read_scanlines(cinfo, &cmyk_row, 1);
    // Adobe stores 255 minus ink, and so does everyone: the stored fourth value is the light that black
    // leaves.
    for (size_t x = 0; x < width; ++x) {
      const uint8_t* in = cmyk_row + 4 * x;
      for (int c = 0; c < 3; ++c) {
        out[3 * x + c] = static_cast<uint8_t>(in[3] - MulDiv255(255 - in[c], in[3]));
      }
    }
  }
  return true;
}

Status Damaged(const JpegReader& reader) {
  return InvalidArgument(StrCat("the JPEG picture cannot be decoded: ", reader.error));
}

StatusOr<RgbImage> Decode(JpegReader* reader, std::string_view bytes, const ImageLimits& limits) {
  if (!ReadHeader(reader, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size())) {
    return Damaged(*reader);
  }
  RgbImage image;
  image.width = reader->cinfo.image_width;
  image.height = reader->cinfo.image_height;
  FD_RETURN_IF_ERROR(CheckImageSize("JPEG", image.width, image.height, limits));
  int components = reader->cinfo.num_components;
  if (components != 1 && components != 3 && components != 4) {
    return InvalidArgument(StrCat("the JPEG picture has ", components,
                                  " components; 1 (grey), 3 (colour) and 4 (CMYK) are read"));
  }
  image.pixels.resize(static_cast<size_t>(3 * image.width * image.height));
  std::vector<uint8_t> cmyk_row(components == 4 ? static_cast<size_t>(4 * image.width) : 0);
  if (!ReadRows(reader, image.pixels.data(), cmyk_row.data())) return Damaged(*reader);
  return image;
}

}  // namespace

StatusOr<RgbImage> DecodeJpeg(std::string_view bytes, const ImageLimits& limits) {
  JpegReader reader = {};
  struct Destroyer {
    JpegReader* reader;
    ~Destroyer() { jpeg_destroy_decompress(&reader->cinfo); }
  } destroyer{&reader};
  return Decode(&reader, bytes, limits);
}

}  // namespace fd
