#include <algorithm>
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

// Each scan of a progressive file walks the whole picture; real files have about ten. A large picture may
// have fewer, so that a file cannot buy more work than this many pixels times scans.
constexpr int kMaxScans = 100;
constexpr int kMinMaxScans = 20;
constexpr int64_t kMaxScanPixels = int64_t{1} << 29;

// Plain data: libjpeg leaves its functions by longjmp, so nothing with a destructor may live in a function
// that calls setjmp.
struct JpegReader {
  jpeg_decompress_struct cinfo;
  jpeg_error_mgr errors;
  jpeg_progress_mgr progress;
  std::jmp_buf jump;
  int max_scans;
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
  if (reader->cinfo.input_scan_number <= reader->max_scans) return;
  std::snprintf(reader->error, sizeof(reader->error), "more than %d scans", reader->max_scans);
  std::longjmp(reader->jump, 1);
}

bool ReadHeader(JpegReader* reader, const uint8_t* data, size_t size_bytes) {
  reader->cinfo.err = jpeg_std_error(&reader->errors);
  reader->errors.error_exit = OnError;
  reader->errors.emit_message = OnMessage;
  reader->errors.output_message = OnPrint;
  reader->cinfo.client_data = reader;
  reader->max_scans = kMaxScans;
  if (setjmp(reader->jump) != 0) return false;
  jpeg_create_decompress(&reader->cinfo);
  reader->progress.progress_monitor = OnProgress;
  reader->cinfo.progress = &reader->progress;
  jpeg_mem_src(&reader->cinfo, data, size_bytes);
  jpeg_read_header(&reader->cinfo, TRUE);
  return true;
}

bool Start(JpegReader* reader) {
  if (setjmp(reader->jump) != 0) return false;
  jpeg_decompress_struct* cinfo = &reader->cinfo;
  // The coefficients of a progressive file are two bytes each; what asks for more is a trick.
  int64_t padded = (int64_t{cinfo->image_width} + 64) * (int64_t{cinfo->image_height} + 64);
  cinfo->mem->max_memory_to_use = static_cast<long>(padded * 2 * cinfo->num_components + (64 << 20));
  cinfo->out_color_space = cinfo->num_components == 4 ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(cinfo);
  return true;
}

// cmyk_row: [width, 4], used only for four components.
bool ReadRows(JpegReader* reader, int num_rows, uint8_t* const* rows, uint8_t* cmyk_row) {
  if (setjmp(reader->jump) != 0) return false;
  jpeg_decompress_struct* cinfo = &reader->cinfo;
  for (int done = 0; done < num_rows;) {
    if (cinfo->num_components != 4) {
      done += static_cast<int>(jpeg_read_scanlines(cinfo, const_cast<JSAMPARRAY>(rows) + done,
                                                   static_cast<JDIMENSION>(num_rows - done)));
      continue;
    }
    jpeg_read_scanlines(cinfo, &cmyk_row, 1);
    // Adobe stores 255 minus ink, and so does everyone: the stored fourth value is the light that black
    // leaves.
    uint8_t* out = rows[done++];
    for (size_t x = 0; x < cinfo->output_width; ++x) {
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

class JpegRows : public StreamReader {
 public:
  ~JpegRows() override { jpeg_destroy_decompress(&reader_.cinfo); }

  Status Open(std::string_view bytes, const ImageLimits& limits) {
    if (!ReadHeader(&reader_, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size())) {
      return Damaged(reader_);
    }
    size_ = {reader_.cinfo.image_height, reader_.cinfo.image_width};
    FD_RETURN_IF_ERROR(CheckImageSize("JPEG", size_.width, size_.height, limits));
    reader_.max_scans = static_cast<int>(
        std::clamp(kMaxScanPixels / (size_.width * size_.height), int64_t{kMinMaxScans}, int64_t{kMaxScans}));
    int components = reader_.cinfo.num_components;
    if (components == 1 || components == 3 || components == 4) return OkStatus();
    return InvalidArgument(StrCat("the JPEG picture has ", components,
                                  " components; 1 (grey), 3 (colour) and 4 (CMYK) are read"));
  }

 protected:
  Status Decode(int num_rows, uint8_t* const* out) override {
    if (!started_) {
      started_ = true;
      if (reader_.cinfo.num_components == 4) cmyk_row_.resize(static_cast<size_t>(4 * size_.width));
      if (!Start(&reader_)) return Damaged(reader_);
    }
    return ReadRows(&reader_, num_rows, out, cmyk_row_.data()) ? OkStatus() : Damaged(reader_);
  }

 private:
  JpegReader reader_ = {};
  bool started_ = false;
  std::vector<uint8_t> cmyk_row_;
};

}  // namespace

OpenedPicture OpenJpeg(std::string_view bytes, const ImageLimits& limits) {
  auto rows = std::make_unique<JpegRows>();
  FD_RETURN_IF_ERROR(rows->Open(bytes, limits));
  return std::unique_ptr<RowReader>(std::move(rows));
}

}  // namespace fd
