#include "server/multimodal/media_loader.h"

#include <algorithm>
#include <condition_variable>
#include <future>
#include <map>
#include <mutex>
#include <new>
#include <optional>
#include <set>
#include <thread>
#include <unordered_map>
#include <utility>

#include "base/clock.h"
#include "base/fault.h"
#include "base/json.h"
#include "base/log.h"
#include "base/strings.h"
#include "server/multimodal/video/media_nursery.h"

namespace fd {
namespace {

bool IsDataUrl(std::string_view url) { return LowerAscii(url.substr(0, 5)) == "data:"; }

Status ShuttingDown() { return Unavailable("the server is shutting down"); }

// What a library or the lack of memory threw.
Status Thrown(const std::exception& e) {
  if (dynamic_cast<const std::bad_alloc*>(&e) != nullptr) {
    return Unavailable("the server has no memory left for it; try again later");
  }
  LogError("preparing media failed: ", e.what());
  return Internal("the server failed while it prepared this request's media");
}

// An error of one item, as the request's error.
Status At(const MediaSpec& spec, const Status& status) {
  return {status.code(), StrCat(spec.where, ": ", status.message()), "messages"};
}

}  // namespace

class MediaLoader::Impl : public std::enable_shared_from_this<MediaLoader::Impl> {
 public:
  Impl(const MediaConfig& config, MediaReaders readers, const MediaLoaderOptions& options, MediaEvents events)
      : config_(config),
        readers_(std::move(readers)),
        events_(std::move(events)),
        max_fetched_bytes_(options.max_bytes / 2),
        max_pixel_bytes_(options.max_bytes - options.max_bytes / 2),
        cache_(options.max_cache_bytes) {
    fetches_.fetches = true;
  }

  void Run(const MediaLoaderOptions& options) {
    for (int i = 0; i < options.fetch_threads; ++i) threads_.emplace_back([this] { Work(fetches_); });
    for (int i = 0; i < options.prepare_threads; ++i) threads_.emplace_back([this] { Work(jobs_); });
  }
  void Stop();
  std::shared_ptr<MediaLoad> Start(MediaRequest request, Done done);

  int64_t jobs_in_flight() const {
    std::lock_guard lock(mutex_);
    return static_cast<int64_t>(jobs_.queue.size() + fetches_.queue.size()) + running_;
  }
  int64_t bytes_in_flight() const {
    std::lock_guard lock(mutex_);
    return fetched_bytes_ + pixel_bytes_;
  }
  const MediaCache& cache() const { return cache_; }

 private:
  // A request's item on its way. Touched by the thread that runs its job, and between jobs under the lock.
  struct Item {
    MediaSpec spec;
    std::optional<Hash128> uuid_key;
    std::string encoded;
    Hash128 key;
    int64_t tokens = 0;
    int64_t fetched_bytes = 0;  // held of the budget
    int64_t pixel_bytes = 0;    // held of the budget
    int64_t needed_bytes = 0;   // of pixels, to be prepared
    size_t same_as = 0;         // the item of the request that has the same pixels: itself, or one before
    std::shared_ptr<const PreparedMedia> ready;
    bool running = false;
    bool too_much = false;  // its error is the request's: all items together do not fit
  };
  struct Load : MediaLoad {
    std::weak_ptr<Impl> impl;
    uint64_t arrival = 0;
    std::vector<Item> items;
    std::function<Status(int64_t)> check_tokens;
    std::stop_source stop;
    size_t unfinished = 0;  // items of the present stage
    bool preparing = false;
    bool ended = false;
    std::mutex done_mutex;  // taken last, held while `done` runs, so that Cancel can promise its end
    Done done;

    void Cancel() override {
      {
        std::lock_guard lock(done_mutex);
        done = nullptr;
      }
      if (const auto loader = impl.lock()) loader->End(*this, ShuttingDown());
    }
  };
  using Key = std::pair<size_t, uint64_t>;  // index in its request, arrival
  struct Pool {
    std::map<Key, std::shared_ptr<Load>> queue;
    std::condition_variable ready;
    bool fetches = false;
    const Item* beyond = nullptr;  // runs beyond the budget: one at a time, whoever the oldest is
  };

  void Work(Pool& pool);
  // All below with the lock held.
  std::map<Key, std::shared_ptr<Load>>::iterator Pick(Pool& pool);
  bool FetchFits(const Item& item) const {
    return fetched_bytes_ == 0 || fetched_bytes_ + MaxFileBytes(item.spec.kind) <= max_fetched_bytes_;
  }
  bool PixelsFit(const Item& item, int64_t bytes) const {
    const int64_t others = pixel_bytes_ - item.pixel_bytes;
    return others == 0 || others + bytes <= max_pixel_bytes_;
  }
  bool MayFetch(const Load& load, const Item& item) const;
  bool MayHoldPixels(const Load& load, const Item& item, int64_t bytes) const;
  // Beyond the budget the oldest request goes on one item at a time.
  static bool MayGoBeyond(const Pool& pool, const Load& load, const Item& item) {
    return (pool.beyond == nullptr || pool.beyond == &item) &&
           std::none_of(load.items.begin(), load.items.end(),
                        [&](const Item& other) { return &other != &item && other.running; });
  }
  void Enqueue(const std::shared_ptr<Load>& load, size_t index);
  // Items of equal content point at the first of them, what the cache has is ready; the tokens of all.
  int64_t FindEquals(std::vector<Item>& items);
  void Release(Item& item);
  void Forget(Load& load);
  void WakeAll() {
    jobs_.ready.notify_all();
    fetches_.ready.notify_all();
  }

  // All below without it.
  void RunJob(const std::shared_ptr<Load>& load, size_t index, bool fetch);
  Status Read(Load& load, Item& item, bool fetch);
  // Of all items of the present stage; what is thrown ends the request.
  void AllDone(const std::shared_ptr<Load>& load);
  void AllRead(const std::shared_ptr<Load>& load);
  // False: there is no room yet; the item waits once more, and needed_bytes says how much.
  StatusOr<bool> Prepare(Load& load, Item& item);
  StatusOr<bool> PrepareVideo(Load& load, Item& item, PreparedMedia* prepared);
  Status CountTokens(Load& load, Item& item, int64_t tokens);
  void AllPrepared(Load& load);
  void End(Load& load, StatusOr<LoadedMedia> result);
  int64_t MaxFileBytes(MediaKind kind) const {
    return kind == MediaKind::kImage ? config_.limits.max_file_bytes : config_.video_limits.max_file_bytes;
  }

  const MediaConfig config_;
  const MediaReaders readers_;
  const MediaEvents events_;
  const int64_t max_fetched_bytes_;
  const int64_t max_pixel_bytes_;
  MediaCache cache_;

  mutable std::mutex mutex_;
  Pool jobs_;
  Pool fetches_;
  std::map<uint64_t, std::shared_ptr<Load>> loads_;  // not ended, by arrival
  std::set<uint64_t> preparing_;                     // of them, those whose pixels are being made
  uint64_t next_arrival_ = 0;
  int64_t running_ = 0;
  int64_t fetched_bytes_ = 0;
  int64_t pixel_bytes_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

bool MediaLoader::Impl::MayFetch(const Load& load, const Item& item) const {
  if (FetchFits(item)) return true;
  // The oldest of those that still read.
  for (const auto& [arrival, other] : loads_) {
    if (!other->preparing) return arrival == load.arrival && MayGoBeyond(fetches_, load, item);
  }
  return false;
}

bool MediaLoader::Impl::MayHoldPixels(const Load& load, const Item& item, int64_t bytes) const {
  return PixelsFit(item, bytes) ||
         (!preparing_.empty() && *preparing_.begin() == load.arrival && MayGoBeyond(jobs_, load, item));
}

std::map<MediaLoader::Impl::Key, std::shared_ptr<MediaLoader::Impl::Load>>::iterator MediaLoader::Impl::Pick(
    Pool& pool) {
  // Nobody passes the first that waits for room, but for the oldest, whose end makes room.
  bool waiting = false;
  for (auto it = pool.queue.begin(); it != pool.queue.end(); ++it) {
    const Load& load = *it->second;
    const Item& item = load.items[it->first.first];
    if (pool.fetches) {
      if (MayFetch(load, item)) return it;
      continue;
    }
    if (!load.preparing) return it;  // reads a data URL
    const bool oldest = *preparing_.begin() == load.arrival;
    if ((oldest || !waiting) && MayHoldPixels(load, item, item.needed_bytes)) return it;
    waiting = true;
  }
  return pool.queue.end();
}

void MediaLoader::Impl::Enqueue(const std::shared_ptr<Load>& load, size_t index) {
  const bool fetch = !load->preparing && !IsDataUrl(load->items[index].spec.url);
  Pool& pool = fetch ? fetches_ : jobs_;
  pool.queue.emplace(Key{index, load->arrival}, load);
  pool.ready.notify_one();
}

void MediaLoader::Impl::Release(Item& item) {
  fetched_bytes_ -= std::exchange(item.fetched_bytes, 0);
  pixel_bytes_ -= std::exchange(item.pixel_bytes, 0);
  item.encoded = std::string();
  item.ready = nullptr;
}

void MediaLoader::Impl::Forget(Load& load) {
  for (size_t i = 0; i < load.items.size(); ++i) {
    jobs_.queue.erase({i, load.arrival});
    fetches_.queue.erase({i, load.arrival});
    if (!load.items[i].running) Release(load.items[i]);
  }
  preparing_.erase(load.arrival);
  WakeAll();
  loads_.erase(load.arrival);
}

void MediaLoader::Impl::Work(Pool& pool) {
  std::unique_lock lock(mutex_);
  while (true) {
    auto picked = pool.queue.end();
    pool.ready.wait(lock, [&] { return stopping_ || (picked = Pick(pool)) != pool.queue.end(); });
    if (stopping_) return;
    const std::shared_ptr<Load> load = picked->second;
    const size_t index = picked->first.first;
    pool.queue.erase(picked);
    Item& item = load->items[index];
    item.running = true;
    ++running_;
    if (pool.fetches) {
      if (!FetchFits(item)) pool.beyond = &item;
      fetched_bytes_ += item.fetched_bytes = MaxFileBytes(item.spec.kind);
    }
    if (load->preparing) {
      if (!PixelsFit(item, item.needed_bytes)) pool.beyond = &item;
      pixel_bytes_ += item.pixel_bytes = item.needed_bytes;
    }
    lock.unlock();
    RunJob(load, index, pool.fetches);
    lock.lock();
  }
}

void MediaLoader::Impl::RunJob(const std::shared_ptr<Load>& load, size_t index, bool fetch) {
  Item& item = load->items[index];
  const bool preparing = load->preparing;
  Status status;
  bool again = false;
  try {
    FaultBadAlloc(Fault::kMediaAlloc);
    if (preparing) {
      StatusOr<bool> made = Prepare(*load, item);
      status = made.ok() ? OkStatus() : made.status();
      again = made.ok() && !*made;
    } else {
      status = Read(*load, item, fetch);
    }
  } catch (const std::exception& e) {
    status = Thrown(e);
  }
  bool last = false;
  {
    std::lock_guard lock(mutex_);
    item.running = false;
    --running_;
    Pool& pool = fetch ? fetches_ : jobs_;
    if (pool.beyond == &item) pool.beyond = nullptr;
    if (load->ended || !status.ok()) {
      Release(item);
    } else if (again) {
      pixel_bytes_ -= std::exchange(item.pixel_bytes, 0);
      Enqueue(load, index);
    } else {
      if (!preparing) {
        fetched_bytes_ -= item.fetched_bytes;
        item.fetched_bytes = fetch ? static_cast<int64_t>(item.encoded.size()) : 0;
        fetched_bytes_ += item.fetched_bytes;
      } else {
        fetched_bytes_ -= std::exchange(item.fetched_bytes, 0);
        pixel_bytes_ -= item.pixel_bytes;
        pixel_bytes_ += item.pixel_bytes = item.ready->num_bytes();
      }
      last = --load->unfinished == 0;
    }
    WakeAll();
    if (load->ended) return;
  }
  if (!status.ok()) return End(*load, item.too_much ? status : At(item.spec, status));
  if (last) AllDone(load);
}

void MediaLoader::Impl::AllDone(const std::shared_ptr<Load>& load) {
  try {
    if (load->preparing) {
      AllPrepared(*load);
    } else {
      AllRead(load);
    }
  } catch (const std::exception& e) {
    End(*load, Thrown(e));
  }
}

Status MediaLoader::Impl::Read(Load& load, Item& item, bool fetch) {
  const bool image = item.spec.kind == MediaKind::kImage;
  const auto begin = Clock::now();
  FD_ASSIGN_OR_RETURN(MediaBytes media, readers_.read_media(item.spec.url, MaxFileBytes(item.spec.kind),
                                                            image ? "--max-image-bytes" : "--max-video-bytes",
                                                            load.stop.get_token()));
  if (fetch && events_.fetched) events_.fetched(SecondsSince(begin));
  item.spec.url = std::string();  // megabytes that are no longer needed
  item.encoded = std::move(media.bytes);
  item.key = MediaKey(item.spec.kind, item.encoded, item.spec.options);
  if (!image) return OkStatus();
  FD_ASSIGN_OR_RETURN(const ImageSize size, readers_.image_size(item.encoded));
  const MediaOptions& options = item.spec.options;
  FD_ASSIGN_OR_RETURN(const ImageSize fitted,
                      FittedSize(size, 1, config_, options.image_min_pixels, options.image_max_pixels));
  item.tokens = TokensOf(fitted, config_);
  // The decoded picture takes four bytes a pixel, the resized one and its rows three each.
  item.needed_bytes = 4 * size.height * size.width + 6 * fitted.height * fitted.width;
  return OkStatus();
}

// Every header has been read: whether all fit, who equals whom, what is known already; then the pixels.
void MediaLoader::Impl::AllRead(const std::shared_ptr<Load>& load) {
  Status refused;
  bool complete = false;
  {
    std::lock_guard lock(mutex_);
    if (load->ended) return;
    const int64_t tokens = FindEquals(load->items);
    if (load->check_tokens) refused = load->check_tokens(tokens);
    if (refused.ok()) {
      load->preparing = true;
      preparing_.insert(load->arrival);
      for (size_t i = 0; i < load->items.size(); ++i) {
        Item& item = load->items[i];
        if (item.same_as == i && item.ready == nullptr) {
          ++load->unfinished;
          Enqueue(load, i);
        } else {  // its bytes are no longer needed
          fetched_bytes_ -= std::exchange(item.fetched_bytes, 0);
          item.encoded = std::string();
        }
      }
      complete = load->unfinished == 0;
      WakeAll();
    }
  }
  if (!refused.ok()) return End(*load, refused);
  if (complete) AllPrepared(*load);
}

int64_t MediaLoader::Impl::FindEquals(std::vector<Item>& items) {
  std::unordered_map<Hash128, size_t, Hash128Hasher> first_of;
  int64_t tokens = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    Item& item = items[i];
    if (item.same_as != i) {
      item.same_as = items[item.same_as].same_as;  // whose own equal may have been found meanwhile
    } else if (item.ready == nullptr) {
      item.same_as = first_of.try_emplace(item.key, i).first->second;
      if (item.same_as == i && cache_.enabled()) {
        item.ready = cache_.Find(item.key);
        if (events_.looked_up) events_.looked_up(item.ready != nullptr);
        if (item.ready != nullptr) {
          item.tokens = item.ready->num_tokens();
          if (item.uuid_key) cache_.Add(item.key, item.ready, &*item.uuid_key);
        }
      }
    }
    tokens += items[item.same_as].tokens;
  }
  return tokens;
}

StatusOr<bool> MediaLoader::Impl::Prepare(Load& load, Item& item) {
  const auto begin = Clock::now();
  auto prepared = std::make_shared<PreparedMedia>();
  prepared->kind = item.spec.kind;
  if (item.spec.kind == MediaKind::kImage) {
    FD_ASSIGN_OR_RETURN(prepared->image, readers_.make_image(item.encoded, item.spec.options));
  } else {
    FD_ASSIGN_OR_RETURN(const bool made, PrepareVideo(load, item, prepared.get()));
    if (!made) return false;
  }
  if (events_.prepared) events_.prepared(item.spec.kind, SecondsSince(begin));
  item.encoded = std::string();
  item.ready = prepared;
  cache_.Add(item.key, item.ready, item.uuid_key ? &*item.uuid_key : nullptr);
  return true;
}

StatusOr<bool> MediaLoader::Impl::PrepareVideo(Load& load, Item& item, PreparedMedia* prepared) {
  const MediaOptions& options = item.spec.options;
  VideoBuilder builder(config_, options.video_min_pixels, options.video_max_pixels);
  bool no_room = false;
  int64_t frames_left = 0;
  const Status status = readers_.read_video(
      item.encoded, options.sampling, load.stop.get_token(),
      [&](const VideoInfo& info) -> Status {
        FD_ASSIGN_OR_RETURN(const ImageSize fitted,
                            FittedSize({info.height, info.width}, 2, config_, options.video_min_pixels,
                                       options.video_max_pixels));
        const int64_t pairs = (info.num_frames + 1) / 2;
        FD_RETURN_IF_ERROR(CountTokens(load, item, pairs * TokensOf(fitted, config_)));
        frames_left = info.num_frames;
        // All rows, and one frame as it came, as it is drawn and as it is resized.
        const int64_t bytes = 6 * pairs * fitted.height * fitted.width + 7 * info.height * info.width +
                              6 * fitted.height * fitted.width;
        std::lock_guard lock(mutex_);
        item.needed_bytes = bytes;
        // What was held for it when it was picked stays enough.
        if (bytes > item.pixel_bytes && !MayHoldPixels(load, item, bytes)) {
          no_room = true;
          return Unavailable("no room");
        }
        if (bytes > item.pixel_bytes && !PixelsFit(item, bytes)) jobs_.beyond = &item;
        pixel_bytes_ += bytes - std::exchange(item.pixel_bytes, bytes);
        return OkStatus();
      },
      [&](VideoFrame&& frame) -> Status {
        if (frames_left-- <= 0) return InvalidArgument("the video has more frames than it said");
        if (config_.draw_on_frames && readers_.draw_time) {
          FD_RETURN_IF_ERROR(readers_.draw_time(frame.time_s, &frame.image));
        }
        return builder.Add(frame.image);
      });
  if (no_room) return false;
  FD_RETURN_IF_ERROR(status);
  FD_ASSIGN_OR_RETURN(prepared->video, builder.Finish());
  return true;
}

Status MediaLoader::Impl::CountTokens(Load& load, Item& item, int64_t tokens) {
  std::lock_guard lock(mutex_);
  item.tokens = tokens;
  if (!load.check_tokens) return OkStatus();
  int64_t all = 0;
  for (const Item& other : load.items) all += load.items[other.same_as].tokens;
  Status status = load.check_tokens(all);
  item.too_much = !status.ok();
  return status;
}

void MediaLoader::Impl::AllPrepared(Load& load) {
  LoadedMedia result;
  {
    std::lock_guard lock(mutex_);
    if (load.ended) return;
    for (size_t i = 0; i < load.items.size(); ++i) {
      const Item& item = load.items[i];
      const Item& made = load.items[item.same_as];
      // A name may stand on a copy of what was decoded once.
      if (item.same_as != i && item.uuid_key) cache_.Add(made.key, made.ready, &*item.uuid_key);
      if (made.ready->kind == MediaKind::kImage) {
        result.images.push_back(made.ready->image);
      } else {
        result.videos.push_back(made.ready->video);
      }
    }
  }
  End(load, std::move(result));
}

void MediaLoader::Impl::End(Load& load, StatusOr<LoadedMedia> result) {
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(load.ended, true)) return;
    Forget(load);
  }
  if (!result.ok()) load.stop.request_stop();
  std::lock_guard lock(load.done_mutex);
  if (const Done done = std::exchange(load.done, nullptr)) done(std::move(result));
}

std::shared_ptr<MediaLoad> MediaLoader::Impl::Start(MediaRequest request, Done done) {
  auto load = std::make_shared<Load>();
  load->impl = weak_from_this();
  load->check_tokens = std::move(request.check_tokens);
  load->done = std::move(done);
  std::unordered_map<Hash128, size_t, Hash128Hasher> named;  // items with a URL, by their uuid
  Status refused;
  for (MediaSpec& spec : request.items) {
    Item item;
    item.spec = std::move(spec);
    const size_t index = item.same_as = load->items.size();
    FD_CHECK(!item.spec.url.empty() || !item.spec.uuid.empty());
    if (!item.spec.uuid.empty()) item.uuid_key = UuidKey(item.spec.kind, request.scope, item.spec.uuid);
    if (!item.spec.url.empty()) {
      if (item.uuid_key) named.emplace(*item.uuid_key, index);
    } else if (const auto sent = named.find(*item.uuid_key); sent != named.end()) {
      item.same_as = sent->second;
    } else if ((item.ready = cache_.FindUuid(*item.uuid_key)) != nullptr) {
      item.tokens = item.ready->num_tokens();
    } else if (refused.ok()) {
      std::string shown;
      AppendJsonString(shown, item.spec.uuid);
      refused = At(item.spec,
                   InvalidArgument(
                       cache_.enabled()
                           ? StrCat("nothing is kept under the uuid ", shown,
                                    " any more (--max-processor-cache); send it again with its URL")
                           : StrCat("nothing is kept under the uuid ", shown,
                                    ", because this server keeps no media (--max-processor-cache 0); send it "
                                    "with its URL")));
    }
    if (refused.ok() && item.spec.kind == MediaKind::kVideo && readers_.check_sampling) {
      if (Status s = readers_.check_sampling(item.spec.options.sampling); !s.ok()) refused = At(item.spec, s);
    }
    if (events_.looked_up && item.spec.url.empty()) events_.looked_up(item.ready != nullptr);
    load->items.push_back(std::move(item));
  }
  bool complete = false;
  {
    std::lock_guard lock(mutex_);
    if (stopping_) refused = ShuttingDown();
    load->arrival = next_arrival_++;
    loads_.emplace(load->arrival, load);
    for (size_t i = 0; refused.ok() && i < load->items.size(); ++i) {
      if (load->items[i].same_as != i || load->items[i].ready != nullptr) continue;
      ++load->unfinished;
      Enqueue(load, i);
    }
    complete = load->unfinished == 0;
  }
  if (!refused.ok()) {
    End(*load, refused);
  } else if (complete) {
    AllDone(load);
  }
  return load;
}

void MediaLoader::Impl::Stop() {
  std::vector<std::shared_ptr<Load>> rest;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    for (const auto& [arrival, load] : loads_) rest.push_back(load);
    WakeAll();
  }
  for (const auto& load : rest) End(*load, ShuttingDown());
  for (std::thread& thread : threads_) thread.join();
  EndMediaNurseries();
}

MediaLoader::MediaLoader(const MediaConfig& config, MediaReaders readers, const MediaLoaderOptions& options,
                         MediaEvents events)
    : impl_(std::make_shared<Impl>(config, std::move(readers), options, std::move(events))) {
  impl_->Run(options);
}
MediaLoader::~MediaLoader() { impl_->Stop(); }

std::shared_ptr<MediaLoad> MediaLoader::Start(MediaRequest request, Done done) {
  return impl_->Start(std::move(request), std::move(done));
}

StatusOr<LoadedMedia> MediaLoader::LoadAndWait(MediaRequest request) {
  std::promise<StatusOr<LoadedMedia>> promise;
  std::future<StatusOr<LoadedMedia>> result = promise.get_future();
  Start(std::move(request), [&promise](StatusOr<LoadedMedia> r) { promise.set_value(std::move(r)); });
  return result.get();
}

int64_t MediaLoader::jobs_in_flight() const { return impl_->jobs_in_flight(); }
int64_t MediaLoader::bytes_in_flight() const { return impl_->bytes_in_flight(); }
const MediaCache& MediaLoader::cache() const { return impl_->cache(); }

}  // namespace fd
