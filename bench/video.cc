// Time from an encoded video to its sampled frames, through ReadVideo and fastdeploy-media. bench/video.py
// runs it beside ffmpeg. Prints one JSON line: seconds, their parts, and the indices of the frames.
//   bench_video FILE [REPEATS [TARGET_FRAMES [RGB_OUTPUT]]]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "server/multimodal/video/video_reader.h"

int main(int argc, char** argv) {
  using Clock = std::chrono::steady_clock;
  if (argc < 2) {
    std::fprintf(stderr, "bench_video FILE [REPEATS [TARGET_FRAMES [RGB_OUTPUT]]]\n");
    return 2;
  }
  std::ifstream in(argv[1], std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const int repeats = argc > 2 ? std::atoi(argv[2]) : 1;
  fd::VideoSampling sampling;  // FastDeploy's defaults
  if (argc > 3) {
    sampling.fps = -1;
    sampling.min_frames = 1;
    sampling.target_frames = std::atoi(argv[3]);
    sampling.max_frames = std::max<int64_t>(sampling.max_frames, sampling.target_frames);
  }
  std::ofstream rgb;
  if (argc > 4) rgb.open(argv[4], std::ios::binary);
  fd::VideoLimits limits;
  limits.max_file_bytes = int64_t{2} << 30;
  limits.memory_bytes = int64_t{4} << 30;
  limits.timeout_s = 3600;
  std::vector<double> seconds;
  std::vector<int64_t> indices;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    indices.clear();
    const auto begin = Clock::now();
    const fd::Status status = fd::ReadVideo(
        bytes, sampling, limits, {}, [](const fd::VideoInfo&) { return fd::OkStatus(); },
        [&](fd::VideoFrame&& frame) {
          indices.push_back(frame.index);
          const auto& pixels = frame.image.pixels;
          if (rgb.is_open())
            rgb.write(reinterpret_cast<const char*>(pixels.data()),
                      static_cast<std::streamsize>(pixels.size()));
          return fd::OkStatus();
        });
    if (!status.ok()) {
      std::fprintf(stderr, "%s\n", status.message().c_str());
      return 1;
    }
    seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  }
  std::sort(seconds.begin(), seconds.end());
  std::printf("{\"median_s\": %.4f, \"best_s\": %.4f, \"indices\": [", seconds[seconds.size() / 2],
              seconds.front());
  for (size_t i = 0; i < indices.size(); ++i)
    std::printf("%s%lld", i > 0 ? ", " : "", static_cast<long long>(indices[i]));
  std::printf("]}\n");
  return 0;
}
