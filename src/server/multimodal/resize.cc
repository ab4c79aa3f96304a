// Sizes, Pillow's bicubic and the cut into patches. The fixed-point arithmetic is that of Pillow's
// ImagingResample for 8-bit pixels, so the order of every floating-point operation below matters.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/strings.h"
#include "server/multimodal/image.h"

namespace fd {
namespace {

constexpr int kPrecisionBits = 32 - 8 - 2;

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

// For every output position: which inputs it reads and their 22-bit weights.
struct Taps {
  int64_t per_output = 0;
  std::vector<int64_t> first;   // [out]
  std::vector<int64_t> count;   // [out]
  std::vector<int32_t> weight;  // [out, per_output]
};

Taps MakeTaps(int64_t in_size, int64_t out_size) {
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
      double v = (sum != 0.0 ? w[x] / sum : w[x]) * (1 << kPrecisionBits);
      taps.weight[i * taps.per_output + x] = static_cast<int32_t>(v < 0 ? v - 0.5 : v + 0.5);
    }
    taps.first[i] = begin;
    taps.count[i] = end - begin;
  }
  return taps;
}

uint8_t Clip8(int32_t value) { return static_cast<uint8_t>(std::clamp(value >> kPrecisionBits, 0, 255)); }

RgbImage ResizeWidth(const RgbImage& in, int64_t width) {
  const Taps taps = MakeTaps(in.width, width);
  RgbImage out{in.height, width, std::vector<uint8_t>(static_cast<size_t>(3 * in.height * width))};
  uint8_t* to = out.pixels.data();
  for (int64_t y = 0; y < in.height; ++y) {
    const uint8_t* row = in.pixels.data() + 3 * y * in.width;
    for (int64_t x = 0; x < width; ++x, to += 3) {
      const uint8_t* from = row + 3 * taps.first[x];
      const int32_t* weight = taps.weight.data() + x * taps.per_output;
      int32_t r = 1 << (kPrecisionBits - 1), g = r, b = r;
      for (int64_t k = 0; k < taps.count[x]; ++k, from += 3) {
        r += from[0] * weight[k];
        g += from[1] * weight[k];
        b += from[2] * weight[k];
      }
      to[0] = Clip8(r), to[1] = Clip8(g), to[2] = Clip8(b);
    }
  }
  return out;
}

RgbImage ResizeHeight(const RgbImage& in, int64_t height) {
  const Taps taps = MakeTaps(in.height, height);
  const int64_t row_bytes = 3 * in.width;
  RgbImage out{height, in.width, std::vector<uint8_t>(static_cast<size_t>(height * row_bytes))};
  std::vector<int32_t> sum(static_cast<size_t>(row_bytes));
  for (int64_t y = 0; y < height; ++y) {
    std::fill(sum.begin(), sum.end(), 1 << (kPrecisionBits - 1));
    for (int64_t k = 0; k < taps.count[y]; ++k) {
      const uint8_t* from = in.pixels.data() + (taps.first[y] + k) * row_bytes;
      const int32_t weight = taps.weight[y * taps.per_output + k];
      for (int64_t i = 0; i < row_bytes; ++i) sum[i] += from[i] * weight;
    }
    uint8_t* to = out.pixels.data() + y * row_bytes;
    for (int64_t i = 0; i < row_bytes; ++i) to[i] = Clip8(sum[i]);
  }
  return out;
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
  FD_CHECK(image.height > 0 && image.width > 0 && size.height > 0 && size.width > 0);
  FD_CHECK_EQ(static_cast<int64_t>(image.pixels.size()), 3 * image.height * image.width);
  // A pass between equal sizes is the identity.
  if (image.width == size.width) {
    return image.height == size.height ? image : ResizeHeight(image, size.height);
  }
  RgbImage wide = ResizeWidth(image, size.width);
  return image.height == size.height ? wide : ResizeHeight(wide, size.height);
}

std::vector<uint8_t> PatchRows(const RgbImage& image, int64_t patch_size, int64_t merge_size) {
  const int64_t block = patch_size * merge_size;
  FD_CHECK(block > 0 && image.height % block == 0 && image.width % block == 0, image.height, "x",
           image.width);
  std::vector<uint8_t> rows(image.pixels.size());
  uint8_t* out = rows.data();
  for (int64_t by = 0; by < image.height; by += block) {
    for (int64_t bx = 0; bx < image.width; bx += block) {
      for (int64_t patch = 0; patch < merge_size * merge_size; ++patch) {
        const int64_t y0 = by + patch / merge_size * patch_size, x0 = bx + patch % merge_size * patch_size;
        for (int64_t c = 0; c < 3; ++c) {
          for (int64_t y = 0; y < patch_size; ++y) {
            const uint8_t* from = image.pixels.data() + 3 * ((y0 + y) * image.width + x0) + c;
            for (int64_t x = 0; x < patch_size; ++x) *out++ = from[3 * x];
          }
        }
      }
    }
  }
  return rows;
}

}  // namespace fd
