// The loops of a resize over rows of pixels, one set for each instruction set; private to this folder. All
// sets give the same bytes: sums are 32-bit integers, so no order of additions matters. Pure functions; any
// thread.
#pragma once

#include <cstdint>
#include <vector>

#include "server/multimodal/codecs.h"
#include "server/multimodal/image.h"

namespace fd {

// Weights are fixed point with this many bits behind the point, as in Pillow.
inline constexpr int kWeightBits = 32 - 8 - 2;

// For every output position: which inputs it reads and their weights. `first` never falls.
struct Taps {
  int64_t per_output = 0;
  int64_t max_count = 0;
  std::vector<int64_t> first;   // [out]
  std::vector<int64_t> count;   // [out], 1 to max_count
  std::vector<int32_t> weight;  // [out, per_output]
  // The same weights as a vector kernel reads them (PackTaps); empty for the plain set.
  int64_t groups = 0;           // of four taps, for each output
  std::vector<int16_t> packed;  // [out, groups, ...], as the set that packed it says
};

struct RowKernels {
  const char* name;
  // Fills groups and packed; nullptr where the set needs neither.
  void (*pack_taps)(Taps* taps);
  // One row [in_pixels, 3] -> [taps.first.size(), 3], for `num_rows` (1 to RowReader::kMaxRowsAtOnce) rows at
  // once.
  void (*resize_width)(const uint8_t* const* in, int64_t in_pixels, const Taps& taps, uint8_t* const* out,
                       int num_rows);
  // The weighted sum of `count` rows of `row_bytes`.
  void (*resize_height)(const uint8_t* const* rows, const int32_t* weight, int64_t count, int64_t row_bytes,
                        uint8_t* out);
  // One row of `num_patches` * 14 pixels; patch p's 14 values of channel c go to patches[p] + 196 * c.
  void (*split_patches_14)(const uint8_t* row, int64_t num_patches, uint8_t* const* patches);
};

// The portable loops.
const RowKernels& PlainRowKernels();
// The fastest set that this CPU runs. FASTDEPLOY_ISA=avx2 keeps to AVX2; --cpu-isa, which is about the order
// of sums in the model's kernels, does not matter here, where all sets agree.
const RowKernels& BestRowKernels();
// Every set that this CPU runs, the plain one first: for tests.
std::vector<const RowKernels*> AllRowKernels();

// ResizedPatchRows of a picture that is still to be read.
StatusOr<std::vector<uint8_t>> ReadPatchRows(RowReader* reader, ImageSize size, int64_t patch_size,
                                             int64_t merge_size);
// ResizeBicubic and ResizedPatchRows with a given set: for tests and measurements.
RgbImage ResizeBicubicWith(const RowKernels& kernels, const RgbImage& image, ImageSize size);
std::vector<uint8_t> ResizedPatchRowsWith(const RowKernels& kernels, const RgbImage& image, ImageSize size,
                                          int64_t patch_size, int64_t merge_size);

// Defined in resize_rows_avx2.cc and resize_rows_vnni.cc; call only where the CPU has these instructions.
const RowKernels& Avx2RowKernels();
const RowKernels& VnniRowKernels();

}  // namespace fd
