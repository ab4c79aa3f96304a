#include "media_work_flags.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <thread>

#include "base/strings.h"

namespace fd {
namespace {

constexpr double kGiB = 1024.0 * 1024 * 1024;
// Decoding is done long before the model is; beyond this many threads the model's own need the cores.
constexpr int kMostDefaultThreads = 16;

// A size in GiB.
void AddGiB(FlagSet& flags, const std::string& name, int64_t* bytes, double min, double max, double example,
            const std::string& help) {
  flags.Custom(name, "GIB", help, StrCat(static_cast<double>(*bytes) / kGiB),
               [=](const std::string& text) -> Status {
                 char* end = nullptr;
                 const double gib = std::strtod(text.c_str(), &end);
                 if (text.empty() || *end != '\0' || !(gib >= min && gib <= max)) {
                   return InvalidArgument(
                       StrCat("must be from ", min, " to ", max, " GiB, for example --", name, " ", example));
                 }
                 *bytes = std::max<int64_t>(0, std::llround(gib * kGiB));
                 return OkStatus();
               });
}

}  // namespace

void AddMediaWorkFlags(FlagSet& flags, MediaWorkFlags* values) {
  flags.Group("Pictures and videos");
  JsonObject* kwargs = &values->mm_processor_kwargs;
  flags.Custom("mm-processor-kwargs", "JSON",
               "Areas, frames per second and number of frames, laid over the checkpoint's; requests may "
               "choose others, but no larger areas",
               "the checkpoint's", [kwargs](const std::string& text) -> Status {
                 FD_ASSIGN_OR_RETURN(*kwargs,
                                     ParseObject(text,
                                                 "--mm-processor-kwargs '{\"image_max_pixels\": 1003520, "
                                                 "\"video_fps\": 1}'"));
                 return OkStatus();
               });
  flags.Integer("media-workers", &values->loader.prepare_threads, {1, 256, 4},
                "Threads that decode and resize", StrCat("half the cores, 2 to ", kMostDefaultThreads));
  flags.Integer("media-fetches", &values->loader.fetch_threads, {1, 256, 8}, "URLs that are fetched at once",
                StrCat(values->loader.fetch_threads));
  AddGiB(flags, "media-memory", &values->loader.max_bytes, 0.001, 1024, 2,
         "Memory for media on their way: half for fetched files, half for pixels; what finds no room waits");
  AddGiB(flags, "max-processor-cache", &values->loader.max_cache_bytes, -1, 1024, 2,
         "Memory for prepared media of earlier requests; 0 or -1: none are kept, and no uuid is known");
  VideoLimits& video = values->video_limits;
  flags.Integer("max-video-bytes", &video.max_file_bytes, {1, int64_t{1} << 36, 268435456},
                "Bytes of a video's file");
  flags.Integer("max-video-pixels", &video.max_frame_pixels, {1, int64_t{1} << 32, 8294400},
                "Pixels of a video's frame");
  flags.Integer("max-video-frames", &video.max_sampled_frames, {1, 100'000, 768},
                "Frames of a video that a request may have looked at");
  flags.Real("video-timeout", &video.timeout_s, {0.1, 86400, 120}, "Seconds that decoding a video may take");
  AddGiB(flags, "video-memory", &video.memory_bytes, 0.1, 1024, 2, "Memory that decoding a video may take");
}

MediaLoaderOptions LoaderOptions(const MediaWorkFlags& flags) {
  MediaLoaderOptions options = flags.loader;
  if (options.prepare_threads == 0) {
    const auto cores = static_cast<int>(std::thread::hardware_concurrency());
    options.prepare_threads = std::clamp(cores / 2, 2, kMostDefaultThreads);
  }
  return options;
}

}  // namespace fd
