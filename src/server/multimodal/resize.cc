// Sizes, Pillow's bicubic and the cut into patches. The fixed-point arithmetic is that of Pillow's
// ImagingResample for 8-bit pixels, so the order of every floating-point operation below matters.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/strings.h"
#include "server/multimodal/image.h"
#include "server/multimodal/resize_rows.h"

namespace fd {
namespace {

// A double as Python prints it, below 1e16.
std::string PythonFloat(double value) {
  char buffer[400];
  auto end = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::fixed).ptr;
  std::string text(buffer, end);
  return text.find('.') == std::string::npos ? text + ".0" : text;
}

double BicubicWeight(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

Taps MakeTaps(int64_t in_size, int64_t out_size, const RowKernels& kernels) {
  const double scale = static_cast<double>(in_size) / static_cast<double>(out_size);
  const double filter_scale = std::max(scale, 1.0);
  const double support = 2.0 * filter_scale;
  Taps taps;
  taps.per_output = static_cast<int64_t>(std::ceil(support)) * 2 + 1;
  taps.first.resize(out_size);
  taps.count.resize(out_size);
  taps.weight.assign(out_size * taps.per_output, 0);
  std::vector<double> w(taps.per_output);
  const double step = 1.0 / filter_scale;
  for (int64_t i = 0; i < out_size; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    int64_t begin = std::max<int64_t>(static_cast<int64_t>(center - support + 0.5), 0);
    int64_t end = std::min(static_cast<int64_t>(center + support + 0.5), in_size);
    double sum = 0.0;
    for (int64_t x = 0; x < end - begin; ++x) {
      w[x] = BicubicWeight((static_cast<double>(x + begin) - center + 0.5) * step);
      sum += w[x];
    }
    for (int64_t x = 0; x < end - begin; ++x) {
      double v = (sum != 0.0 ? w[x] / sum : w[x]) * (1 << kWeightBits);
      taps.weight[i * taps.per_output + x] = static_cast<int32_t>(v < 0 ? v - 0.5 : v + 0.5);
    }
    taps.first[i] = begin;
    taps.count[i] = end - begin;
    taps.max_count = std::max(taps.max_count, end - begin);
  }
  if (kernels.pack_taps != nullptr) kernels.pack_taps(&taps);
  return taps;
}

constexpr int kAtOnce = RowReader::kMaxRowsAtOnce;

// The rows of a picture that somebody else keeps.
class ImageRows : public RowReader {
 public:
  explicit ImageRows(const RgbImage& image) : image_(image) {
    FD_CHECK(image.height > 0 && image.width > 0);
    FD_CHECK_EQ(static_cast<int64_t>(image.pixels.size()), 3 * image.height * image.width);
    size_ = {image.height, image.width};
  }
  Status Next(int num_rows, const uint8_t** rows) override {
    for (int r = 0; r < num_rows; ++r, ++next_) rows[r] = image_.pixels.data() + 3 * image_.width * next_;
    return OkStatus();
  }
  StatusOr<RgbImage> ReadAll() override { return image_; }

 private:
  const RgbImage& image_;
  int64_t next_ = 0;
};

// Rows of the picture at the new width, in order; the last few are kept, for the sum over rows.
class WideRows {
 public:
  // keep: how many rows are asked for together, at most.
  WideRows(RowReader* reader, int64_t width, int64_t keep, const RowKernels& kernels)
      : reader_(*reader), kernels_(kernels), row_bytes_(3 * width), slots_(keep + kAtOnce) {
    is_identity_ = reader_.size().width == width;
    if (!is_identity_) taps_ = MakeTaps(reader_.size().width, width, kernels);
    ring_.resize(static_cast<size_t>(slots_ * row_bytes_));
  }

  // Reads on until row y is there.
  Status ReadTo(int64_t y) {
    while (next_ <= y) {
      const int n = static_cast<int>(std::min<int64_t>(kAtOnce, reader_.size().height - next_));
      const uint8_t* in[kAtOnce];
      uint8_t* out[kAtOnce];
      FD_RETURN_IF_ERROR(reader_.Next(n, in));
      for (int r = 0; r < n; ++r) out[r] = Slot(next_ + r);
      if (is_identity_) {
        for (int r = 0; r < n; ++r) std::memcpy(out[r], in[r], static_cast<size_t>(row_bytes_));
      } else {
        kernels_.resize_width(in, reader_.size().width, taps_, out, n);
      }
      next_ += n;
    }
    return OkStatus();
  }
  // One of the `keep` rows up to the last that ReadTo was asked for.
  const uint8_t* Row(int64_t y) { return Slot(y); }

 private:
  uint8_t* Slot(int64_t y) { return ring_.data() + y % slots_ * row_bytes_; }

  RowReader& reader_;
  const RowKernels& kernels_;
  const int64_t row_bytes_;
  const int64_t slots_;
  bool is_identity_ = false;
  Taps taps_;
  int64_t next_ = 0;  // the first row that is not in the ring yet
  std::vector<uint8_t> ring_;
};

// Both passes, row by row. An output row is written to target(y) and then handed to done(y, row); where the
// height stays, nothing is left to compute and only done() sees it.
template <typename Target, typename Done>
Status ForEachResizedRow(RowReader* reader, ImageSize size, const RowKernels& kernels, Target target,
                         Done done) {
  FD_CHECK(size.height > 0 && size.width > 0);
  if (reader->size().height == size.height) {
    WideRows rows(reader, size.width, 1, kernels);
    for (int64_t y = 0; y < size.height; ++y) {
      FD_RETURN_IF_ERROR(rows.ReadTo(y));
      done(y, rows.Row(y));
    }
    return OkStatus();
  }
  const Taps taps = MakeTaps(reader->size().height, size.height, PlainRowKernels());
  WideRows rows(reader, size.width, taps.max_count, kernels);
  std::vector<const uint8_t*> summands(static_cast<size_t>(taps.max_count));
  for (int64_t y = 0; y < size.height; ++y) {
    const int64_t first = taps.first[static_cast<size_t>(y)], count = taps.count[static_cast<size_t>(y)];
    FD_RETURN_IF_ERROR(rows.ReadTo(first + count - 1));
    for (int64_t k = 0; k < count; ++k) summands[static_cast<size_t>(k)] = rows.Row(first + k);
    uint8_t* out = target(y);
    kernels.resize_height(summands.data(), taps.weight.data() + y * taps.per_output, count, 3 * size.width,
                          out);
    done(y, out);
  }
  return OkStatus();
}

StatusOr<std::vector<uint8_t>> CutRows(const RowKernels& kernels, RowReader* reader, ImageSize size,
                                       int64_t patch_size, int64_t merge_size) {
  const int64_t block = patch_size * merge_size;
  FD_CHECK(block > 0 && size.height % block == 0 && size.width % block == 0, size.height, "x", size.width);
  const int64_t across = size.width / patch_size, channel = patch_size * patch_size, patch = 3 * channel;
  std::vector<uint8_t> rows(static_cast<size_t>(3 * size.height * size.width));
  std::vector<uint8_t> resized(static_cast<size_t>(3 * size.width));
  std::vector<int64_t> place(static_cast<size_t>(across));  // of a patch in its row of blocks, in bytes
  for (int64_t px = 0; px < across; ++px) {
    place[static_cast<size_t>(px)] = (px / merge_size * merge_size * merge_size + px % merge_size) * patch;
  }
  std::vector<uint8_t*> patches(static_cast<size_t>(across));  // where the row goes in each patch
  auto split = [&](int64_t y, const uint8_t* row) {
    // Patches stand in blocks of merge_size x merge_size, blocks row by row.
    const int64_t py = y / patch_size;
    uint8_t* begin = rows.data() + y % patch_size * patch_size +
                     (py / merge_size * merge_size * across + py % merge_size * merge_size) * patch;
    for (size_t px = 0; px < place.size(); ++px) patches[px] = begin + place[px];
    if (patch_size == 14) return kernels.split_patches_14(row, across, patches.data());
    for (int64_t px = 0; px < across; ++px) {
      uint8_t* to = patches[static_cast<size_t>(px)];
      for (int64_t x = 0; x < patch_size; ++x, row += 3) {
        to[x] = row[0], to[channel + x] = row[1], to[2 * channel + x] = row[2];
      }
    }
  };
  FD_RETURN_IF_ERROR(
      ForEachResizedRow(reader, size, kernels, [&](int64_t) { return resized.data(); }, split));
  return rows;
}

}  // namespace

StatusOr<ImageSize> SmartResize(int64_t height, int64_t width, int64_t factor, int64_t min_pixels,
                                int64_t max_pixels) {
  FD_CHECK(factor > 0, factor);
  if (height <= 0 || width <= 0) {
    return InvalidArgument(StrCat("a picture of ", width, " x ", height, " pixels has no area"));
  }
  const double h = static_cast<double>(height), w = static_cast<double>(width);
  const double f = static_cast<double>(factor);
  const double ratio = std::max(h, w) / std::min(h, w);
  if (ratio > 200) {
    return InvalidArgument(
        StrCat("absolute aspect ratio must be smaller than 200, got ", PythonFloat(ratio)));
  }
  // nearbyint rounds half to even, as Python's round does.
  int64_t hb = static_cast<int64_t>(std::nearbyint(h / f)) * factor;
  int64_t wb = static_cast<int64_t>(std::nearbyint(w / f)) * factor;
  if (hb * wb > max_pixels) {
    const double beta = std::sqrt(h * w / static_cast<double>(max_pixels));
    hb = std::max(factor, static_cast<int64_t>(std::floor(h / beta / f)) * factor);
    wb = std::max(factor, static_cast<int64_t>(std::floor(w / beta / f)) * factor);
  } else if (hb * wb < min_pixels) {
    const double beta = std::sqrt(static_cast<double>(min_pixels) / (h * w));
    hb = static_cast<int64_t>(std::ceil(h * beta / f)) * factor;
    wb = static_cast<int64_t>(std::ceil(w * beta / f)) * factor;
  }
  if (hb <= 0 || wb <= 0) {
    return InvalidArgument(StrCat("a picture of ", width, " x ", height,
                                  " pixels rounds to nothing in steps of ", factor,
                                  "; the smallest area allowed is ", min_pixels, " pixels"));
  }
  return ImageSize{hb, wb};
}

RgbImage ResizeBicubic(const RgbImage& image, ImageSize size) {
  return ResizeBicubicWith(BestRowKernels(), image, size);
}

RgbImage ResizeBicubicWith(const RowKernels& kernels, const RgbImage& image, ImageSize size) {
  const int64_t row_bytes = 3 * size.width;
  RgbImage out{size.height, size.width, std::vector<uint8_t>(static_cast<size_t>(size.height * row_bytes))};
  auto target = [&](int64_t y) { return out.pixels.data() + y * row_bytes; };
  ImageRows reader(image);
  const Status status = ForEachResizedRow(&reader, size, kernels, target, [&](int64_t y, const uint8_t* row) {
    if (row != target(y)) std::memcpy(target(y), row, static_cast<size_t>(row_bytes));
  });
  FD_CHECK(status.ok(), status.message());
  return out;
}

std::vector<uint8_t> PatchRows(const RgbImage& image, int64_t patch_size, int64_t merge_size) {
  return ResizedPatchRows(image, {image.height, image.width}, patch_size, merge_size);
}

std::vector<uint8_t> ResizedPatchRows(const RgbImage& image, ImageSize size, int64_t patch_size,
                                      int64_t merge_size) {
  return ResizedPatchRowsWith(BestRowKernels(), image, size, patch_size, merge_size);
}

std::vector<uint8_t> ResizedPatchRowsWith(const RowKernels& kernels, const RgbImage& image, ImageSize size,
                                          int64_t patch_size, int64_t merge_size) {
  ImageRows reader(image);
  StatusOr<std::vector<uint8_t>> rows = CutRows(kernels, &reader, size, patch_size, merge_size);
  FD_CHECK(rows.ok(), rows.status().message());
  return *std::move(rows);
}

StatusOr<std::vector<uint8_t>> ReadPatchRows(RowReader* reader, ImageSize size, int64_t patch_size,
                                             int64_t merge_size) {
  return CutRows(BestRowKernels(), reader, size, patch_size, merge_size);
}

}  // namespace fd
