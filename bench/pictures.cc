// Milliseconds of each step from an encoded picture to patch rows, on one thread; decoding alone is the
// floor.
//   build/release/bench/bench_pictures FILE [SECONDS]
//   build/release/bench/bench_pictures --checksums FILE...     sha256 of each file's pixels
//   (tests/golden/make_pictures.py sweep)
// One JSON line: medians over as many pictures as fit the time. bench/pictures.py puts Pillow beside it.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>

#include "base/files.h"
#include "base/hash.h"
#include "base/memory_policy.h"
#include "server/multimodal/golden_for_tests.h"
#include "server/multimodal/image.h"
#include "server/multimodal/processor.h"
#include "server/multimodal/resize_rows.h"
#include "server/multimodal/timestamp.h"

namespace fd {
namespace {

double MedianMs(double seconds, const std::function<void()>& work) {
  using Time = std::chrono::steady_clock;
  work();
  std::vector<double> ms;
  const auto end = Time::now() + std::chrono::duration<double>(seconds);
  while (ms.size() < 3 || Time::now() < end) {
    const auto begin = Time::now();
    work();
    ms.push_back(std::chrono::duration<double, std::milli>(Time::now() - begin).count());
  }
  std::nth_element(ms.begin(), ms.begin() + ms.size() / 2, ms.end());
  return ms[ms.size() / 2];
}

template <typename T>
T MustGet(StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::fprintf(stderr, "bench_pictures: %s\n", value.status().message().c_str());
  std::exit(1);
}

int PrintChecksums(int count, char** paths) {
  for (int i = 0; i < count; ++i) {
    const StatusOr<RgbImage> image = DecodeImage(MustGet(ReadFile(paths[i])), ImageLimits(), false);
    std::printf("%s\n", image.ok() ? golden::Sha256(image->pixels).c_str() : "error");
  }
  return 0;
}

int Main(int argc, char** argv) {
  if (argc > 2 && std::string_view(argv[1]) == "--checksums") return PrintChecksums(argc - 2, argv + 2);
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_pictures FILE [SECONDS]\n");
    return 2;
  }
  const std::string file = MustGet(ReadFile(argv[1]));
  const double seconds = argc > 2 ? std::atof(argv[2]) : 1.0;
  const MediaConfig config;
  const RgbImage image = MustGet(DecodeImage(file, config.limits, true));
  const ImageSize size =
      MustGet(SmartResize(image.height, image.width, 28, config.image_min_pixels, config.image_max_pixels));
  const std::vector<uint8_t> rows = ResizedPatchRows(image, size, 14, 2);
  auto decode = [&] { return MustGet(DecodeImage(file, config.limits, true)); };
  const double header_ms = MedianMs(seconds / 8, [&] { MustGet(ReadImageSize(file, config.limits, true)); });
  const double decode_ms = MedianMs(seconds, decode);
  const double rows_ms = MedianMs(seconds, [&] { ResizedPatchRows(image, size, 14, 2); });
  const double plain_ms =
      MedianMs(seconds / 4, [&] { ResizedPatchRowsWith(PlainRowKernels(), image, size, 14, 2); });
  const double total_ms =
      MedianMs(seconds, [&] { MustGet(DecodePatchRows(file, config.limits, true, PatchRule())); });
  const double hash_ms =
      MedianMs(seconds / 4, [&] { KeyedHash({reinterpret_cast<const char*>(rows.data()), rows.size()}); });
  const double item_ms = MedianMs(seconds, [&] { MustGet(MakeImageItem(file, config)); });
  double stamp_ms = 0;
  auto font = TimestampFont::Load("tests/golden/models/ernie4_5_vl_moe/Roboto-Regular.ttf");
  if (font.ok()) {
    RgbImage frame{1080, 1920, std::vector<uint8_t>(3 * 1080 * 1920, 90)};
    double time = 0;
    stamp_ms = MedianMs(seconds / 4, [&] { (*font)->Draw(time += 0.5, &frame); });
  }
  std::printf(
      "{\"width\": %lld, \"height\": %lld, \"resized_width\": %lld, \"resized_height\": %lld, \"kernels\": "
      "\"%s\", "
      "\"header_ms\": %.4f, \"decode_ms\": %.3f, \"resize_and_cut_ms\": %.3f, \"resize_and_cut_plain_ms\": "
      "%.3f, "
      "\"rows_ms\": %.3f, \"hash_ms\": %.3f, \"item_ms\": %.3f, \"timestamp_1080p_ms\": %.4f}\n",
      static_cast<long long>(image.width), static_cast<long long>(image.height),
      static_cast<long long>(size.width), static_cast<long long>(size.height), BestRowKernels().name,
      header_ms, decode_ms, rows_ms, plain_ms, total_ms, hash_ms, item_ms, stamp_ms);
  return 0;
}

}  // namespace
}  // namespace fd

int main(int argc, char** argv) {
  fd::KeepFreedMemory();  // as the server does
  return fd::Main(argc, argv);
}
