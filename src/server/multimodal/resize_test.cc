// Every set of row loops gives the same bytes, on odd sizes too, and the walk that resizes and cuts at once
// gives what the two steps give.
#include <gtest/gtest.h>

#include "server/multimodal/image.h"
#include "server/multimodal/resize_rows.h"

namespace fd {
namespace {

// Noise with many extreme values, so that sums reach beyond 0 and 255.
RgbImage Noise(int64_t height, int64_t width, uint32_t seed) {
  RgbImage image{height, width, std::vector<uint8_t>(static_cast<size_t>(3 * height * width))};
  uint32_t state = seed;
  for (uint8_t& v : image.pixels) {
    state = state * 1664525 + 1013904223;
    const uint32_t random = state >> 24;
    v = static_cast<uint8_t>(random < 80 ? 0 : random > 176 ? 255 : random);
  }
  return image;
}

// The definition, sample by sample, with the whole picture between the passes.
RgbImage TwoSteps(const RowKernels& kernels, const RgbImage& image, ImageSize size) {
  return ResizeBicubicWith(kernels, ResizeBicubicWith(kernels, image, {image.height, size.width}), size);
}

TEST(Resize, AllInstructionSetsGiveTheSameBytes) {
  const std::vector<const RowKernels*> sets = AllRowKernels();
  if (sets.size() < 2) GTEST_SKIP() << "only the plain loops run on this CPU";
  const int64_t sides[] = {1, 2, 3, 4, 5, 7, 11, 16, 17, 31, 37, 64, 101, 255, 300};
  uint32_t seed = 1;
  for (int64_t in_w : sides) {
    for (int64_t out_w : sides) {
      const int64_t in_h = sides[seed % 15], out_h = sides[seed / 15 % 15];
      const RgbImage image = Noise(in_h, in_w, ++seed);
      const ImageSize size{out_h, out_w};
      const RgbImage plain = ResizeBicubicWith(*sets[0], image, size);
      EXPECT_EQ(plain.pixels, TwoSteps(*sets[0], image, size).pixels);
      for (const RowKernels* set : sets) {
        ASSERT_EQ(ResizeBicubicWith(*set, image, size).pixels, plain.pixels)
            << set->name << " " << in_w << "x" << in_h << " to " << out_w << "x" << out_h;
      }
    }
  }
}

TEST(Resize, CutsWhileResizing) {
  uint32_t seed = 7;
  for (int64_t patch_size : {14, 7, 16}) {
    for (int64_t merge_size : {1, 2, 3}) {
      const int64_t block = patch_size * merge_size;
      for (ImageSize from : {ImageSize{block, block}, ImageSize{37, 90}, ImageSize{200, 3 * block},
                             ImageSize{2 * block, 11}, ImageSize{1, 1}}) {
        const RgbImage image = Noise(from.height, from.width, ++seed);
        const ImageSize to{2 * block, 3 * block};
        const RgbImage resized = ResizeBicubicWith(PlainRowKernels(), image, to);
        for (const RowKernels* set : AllRowKernels()) {
          const std::vector<uint8_t> rows = ResizedPatchRowsWith(*set, image, to, patch_size, merge_size);
          // Where each value must stand, counted from the order's definition.
          size_t at = 0;
          for (int64_t by = 0; by < to.height; by += block) {
            for (int64_t bx = 0; bx < to.width; bx += block) {
              for (int64_t patch = 0; patch < merge_size * merge_size; ++patch) {
                const int64_t y0 = by + patch / merge_size * patch_size;
                const int64_t x0 = bx + patch % merge_size * patch_size;
                for (int64_t i = 0; i < 3 * patch_size * patch_size; ++i, ++at) {
                  const int64_t c = i / (patch_size * patch_size), y = y0 + i / patch_size % patch_size;
                  const int64_t x = x0 + i % patch_size;
                  ASSERT_EQ(rows[at], resized.pixels[static_cast<size_t>(3 * (y * to.width + x) + c)])
                      << set->name << " value " << at;
                }
              }
            }
          }
          EXPECT_EQ(at, rows.size());
        }
        EXPECT_EQ(PatchRows(resized, patch_size, merge_size),
                  ResizedPatchRows(image, to, patch_size, merge_size));
      }
    }
  }
}

}  // namespace
}  // namespace fd
