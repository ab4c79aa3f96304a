// The media of requests, from URL to prepared pixels, on threads of its own.
//
// Two pools: fetching threads wait for other machines and disks, preparing threads compute; so a slow web
// server holds up no decoder, and neither pool is the one that parses and tokenises. Within a pool the order
// is (index of the item inside its request, arrival): a client's only picture goes before the 37th of a
// hundred.
//
// A request's media are first read, all of them, and their sizes taken from the headers; when all are known,
// `check_tokens` says whether they fit, and only then pixels are decoded. (A video's size is known when its
// decoder has opened it; it is checked then, before its first frame.)
//
// Memory: half of max_bytes for encoded bytes that were fetched, half for pixels. What does not fit waits, in
// order. The oldest request always goes on, beyond the budget one item at a time, or two that hold half of
// what they need would wait for each other for ever; no two items are beyond it at once. Bytes of data URLs
// are not counted: they replace a longer text that the limit on a request's body bounds.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "server/multimodal/media_cache.h"
#include "server/multimodal/processor.h"
#include "server/multimodal/source/media_source.h"

namespace fd {

// One picture or video of a request.
struct MediaSpec {
  MediaKind kind = MediaKind::kImage;
  std::string where;  // "messages[0].content[1].image_url": begins each error
  std::string url;    // empty: what came before under `uuid`
  std::string uuid;   // the client's name for it; empty: none
  MediaOptions options;
};

struct MediaRequest {
  std::vector<MediaSpec> items;
  std::string scope;  // whose uuids these are
  // Called with the tokens of all items known so far, from the loader's threads, one at a time; an error ends
  // the request.
  std::function<Status(int64_t media_tokens)> check_tokens;
};

// In order of appearance.
struct LoadedMedia {
  std::vector<std::shared_ptr<const MediaItem>> images;
  std::vector<PreparedVideo> videos;
};

// What the loader is made of; tests put their own in.
struct MediaReaders {
  std::function<StatusOr<MediaBytes>(std::string_view url, int64_t max_bytes, std::string_view limit_flag,
                                     std::stop_token stop)>
      read_media;
  std::function<StatusOr<ImageSize>(std::string_view encoded)> image_size;
  std::function<StatusOr<std::shared_ptr<MediaItem>>(std::string_view encoded, const MediaOptions&)>
      make_image;
  std::function<Status(const VideoSampling&)> check_sampling;
  std::function<Status(std::string_view encoded, const VideoSampling&, std::stop_token,
                       const std::function<Status(const VideoInfo&)>&,
                       const std::function<Status(VideoFrame&&)>&)>
      read_video;
  // Draws the time on a frame; an error when there is no font to do it with. Empty: frames stay as they are.
  std::function<Status(double seconds, RgbImage* frame)> draw_time;
};
// The real ones. The font of config.font_path is loaded now; if that fails, videos fail with the reason.
// config is copied.
MediaReaders ReadersFor(const MediaConfig& config, const MediaPolicy& policy);

// What happened, for metrics. Called from the loader's threads; each may be empty.
struct MediaEvents {
  std::function<void(double seconds)> fetched;
  std::function<void(MediaKind kind, double seconds)> prepared;
  std::function<void(bool hit)> looked_up;  // in the cache of prepared media
};

struct MediaLoaderOptions {
  int fetch_threads = 8;                         // --media-fetches
  int prepare_threads = 2;                       // --media-workers
  int64_t max_bytes = int64_t{1} << 30;          // --media-memory
  int64_t max_cache_bytes = int64_t{256} << 20;  // --max-processor-cache; 0: off
};

// A request whose media are on their way. Keeps the loader's state alive, not its threads.
class MediaLoad {
 public:
  // After it `done` is never called; what runs for the request ends soon. Any thread, but not from `done`.
  virtual void Cancel() = 0;
  virtual ~MediaLoad() = default;
};

class MediaLoader {
 public:
  MediaLoader(const MediaConfig& config, MediaReaders readers, const MediaLoaderOptions& options,
              MediaEvents events = {});
  // Ends what runs; requests that are not done get "shutting down". Joins all threads.
  ~MediaLoader();
  MediaLoader(const MediaLoader&) = delete;
  MediaLoader& operator=(const MediaLoader&) = delete;

  // done is called once, from a thread of the loader or from within Start, and must not block. Errors of an
  // item begin with its `where` and have param "messages"; those of check_tokens come as they are.
  using Done = std::function<void(StatusOr<LoadedMedia>)>;
  std::shared_ptr<MediaLoad> Start(MediaRequest request, Done done);
  // The same for who may wait.
  StatusOr<LoadedMedia> LoadAndWait(MediaRequest request);

  int64_t jobs_in_flight() const;   // queued or running
  int64_t bytes_in_flight() const;  // counted against max_bytes
  const MediaCache& cache() const;

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace fd
