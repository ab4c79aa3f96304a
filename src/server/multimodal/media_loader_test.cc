// Order, memory, cancellation and failure of the loader, with readers made of the test's own functions.
#include "server/multimodal/media_loader.h"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <future>
#include <mutex>
#include <new>
#include <thread>

#include "base/strings.h"

namespace fd {
namespace {

using std::chrono::milliseconds;

// A picture's URL is "data:SIDE NAME" or "http:SIDE NAME"; its bytes are the same text. A video's ends with
// " xFRAMES".
int64_t SideOf(std::string_view bytes) { return std::atoll(std::string(bytes.substr(5)).c_str()); }
int64_t FramesOf(std::string_view bytes) {
  const size_t x = bytes.rfind('x');
  return x == std::string_view::npos ? 0 : std::atoll(std::string(bytes.substr(x + 1)).c_str());
}
RgbImage Flat(int64_t side, uint8_t level) {
  return {side, side, std::vector<uint8_t>(static_cast<size_t>(3 * side * side), level)};
}

struct Result {
  std::promise<StatusOr<LoadedMedia>> promise;
  std::shared_ptr<MediaLoad> load;
  std::future<StatusOr<LoadedMedia>> future = promise.get_future();
  StatusOr<LoadedMedia> Wait() {
    FD_CHECK(future.wait_for(std::chrono::seconds(60)) == std::future_status::ready, "the loader hangs");
    return future.get();
  }
  bool ready() { return future.wait_for(milliseconds(0)) == std::future_status::ready; }
};

class MediaLoaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    config_.video_min_pixels = 784;
    config_.image_min_pixels = 784;
    readers_.read_media = [this](std::string_view url, int64_t, std::string_view,
                                 std::stop_token stop) -> StatusOr<MediaBytes> {
      Log("read ", url);
      if (url.find("slow") != std::string_view::npos) {
        while (!stop.stop_requested()) std::this_thread::sleep_for(milliseconds(1));
        ++stopped_;
        return Unavailable("stopped");
      }
      if (url.find("late") != std::string_view::npos) WaitLogged(StrCat("go ", url));
      if (url.find("gone") != std::string_view::npos) return InvalidArgument("the file is gone");
      if (url.find("memory") != std::string_view::npos) throw std::bad_alloc();
      return MediaBytes{"image/png", std::string(url)};
    };
    readers_.image_size = [](std::string_view bytes) -> StatusOr<ImageSize> {
      return ImageSize{SideOf(bytes), SideOf(bytes)};
    };
    readers_.make_image = [this](std::string_view bytes, const MediaOptions& options) {
      Log("make ", bytes);
      Count(1);
      if (bytes.find("hold") != std::string_view::npos) WaitForGate();
      VideoBuilder builder(config_, options.image_min_pixels, options.image_max_pixels);
      FD_CHECK(builder.Add(Flat(SideOf(bytes), static_cast<uint8_t>(bytes.back()))).ok());
      auto item = std::make_shared<MediaItem>(*builder.Finish().value().pairs[0]);
      item->grid_t = 1;
      item->patch_rows = std::vector<uint8_t>(item->patch_rows.begin(),
                                              item->patch_rows.begin() + std::ssize(item->patch_rows) / 2);
      std::this_thread::sleep_for(milliseconds(make_ms_));
      Count(-1);
      return StatusOr<std::shared_ptr<MediaItem>>(item);
    };
    readers_.read_video = [this](std::string_view bytes, const VideoSampling&, std::stop_token stop,
                                 const std::function<Status(const VideoInfo&)>& on_info,
                                 const std::function<Status(VideoFrame&&)>& on_frame) -> Status {
      Log("make ", bytes);
      const int64_t side = SideOf(bytes), frames = FramesOf(bytes);
      FD_RETURN_IF_ERROR(on_info({side, side, 10 * frames, static_cast<double>(frames), frames}));
      for (int64_t i = 0; i < frames; ++i) {
        if (stop.stop_requested()) return Unavailable("stopped");
        FD_RETURN_IF_ERROR(on_frame({Flat(side, static_cast<uint8_t>(i)), 10 * i, static_cast<double>(i)}));
      }
      return OkStatus();
    };
    readers_.draw_time = [this](double seconds, RgbImage* frame) {
      std::lock_guard lock(mutex_);
      drawn_.push_back(seconds);
      std::fill(frame->pixels.begin(), frame->pixels.end(), static_cast<uint8_t>(100 + seconds));
      return OkStatus();
    };
    options_.fetch_threads = 2;
    options_.prepare_threads = 1;
    options_.max_cache_bytes = 0;
  }
  void TearDown() override {
    OpenGate();
    if (!loader_) return;
    for (int i = 0; i < 5000 && loader_->jobs_in_flight() > 0; ++i)
      std::this_thread::sleep_for(milliseconds(1));
    EXPECT_EQ(loader_->jobs_in_flight(), 0);
    EXPECT_EQ(loader_->bytes_in_flight(), 0);
  }

  MediaLoader& loader() {
    if (!loader_) {
      MediaEvents events;
      events.looked_up = [this](bool hit) { ++(hit ? hits_ : misses_); };
      loader_ = std::make_unique<MediaLoader>(config_, readers_, options_, std::move(events));
    }
    return *loader_;
  }
  MediaSpec Image(const std::string& url, const std::string& uuid = "") {
    return {MediaKind::kImage, "messages[0].content[0].image_url", url, uuid, config_};
  }
  MediaSpec Video(const std::string& url) {
    return {MediaKind::kVideo, "messages[0].content[1].video_url", url, "", config_};
  }
  std::unique_ptr<Result> Start(std::vector<MediaSpec> items, int64_t max_tokens = 1 << 30,
                                const std::string& scope = "") {
    auto result = std::make_unique<Result>();
    MediaRequest request{std::move(items), scope, [max_tokens](int64_t tokens) -> Status {
                           if (tokens <= max_tokens) return OkStatus();
                           return InvalidArgument(StrCat(tokens, " tokens, ", max_tokens, " allowed"));
                         }};
    result->load = loader().Start(std::move(request), [r = result.get()](StatusOr<LoadedMedia> m) {
      r->promise.set_value(std::move(m));
    });
    return result;
  }
  std::vector<MediaSpec> Many(int count, const std::string& scheme, int side, const std::string& name) {
    std::vector<MediaSpec> items;
    for (int i = 0; i < count; ++i) items.push_back(Image(StrCat(scheme, ":", side, " ", name, i)));
    return items;
  }

  template <typename... Args>
  void Log(const Args&... args) {
    std::lock_guard lock(mutex_);
    log_.push_back(StrCat(args...));
    logged_.notify_all();
  }
  std::vector<std::string> Logged() {
    std::lock_guard lock(mutex_);
    return log_;
  }
  bool WaitLogged(const std::string& line) {
    std::unique_lock lock(mutex_);
    return logged_.wait_for(lock, std::chrono::seconds(60),
                            [&] { return std::find(log_.begin(), log_.end(), line) != log_.end(); });
  }
  void WaitForGate() {
    std::unique_lock lock(mutex_);
    logged_.wait_for(lock, std::chrono::seconds(60), [&] { return gate_open_; });
  }
  void OpenGate() {
    std::lock_guard lock(mutex_);
    gate_open_ = true;
    logged_.notify_all();
  }
  void Count(int by) {
    std::lock_guard lock(mutex_);
    most_at_once_ = std::max(most_at_once_, at_once_ += by);
  }

  MediaConfig config_;
  MediaReaders readers_;
  MediaLoaderOptions options_;
  std::mutex mutex_;
  std::condition_variable logged_;
  std::vector<std::string> log_;
  std::vector<double> drawn_;
  int at_once_ = 0, most_at_once_ = 0;
  bool gate_open_ = false;
  int make_ms_ = 0;
  std::atomic<int> stopped_{0}, hits_{0}, misses_{0};
  std::unique_ptr<MediaLoader> loader_;
};

TEST_F(MediaLoaderTest, ItemsComeBackInTheirOrder) {
  options_.prepare_threads = 3;
  auto r = Start({Image("data:56 a"), Video("data:28 vx5"), Image("http:84 b"), Video("http:56 wx2")});
  auto media = r->Wait();
  ASSERT_TRUE(media.ok()) << media.status().message();
  ASSERT_EQ(media->images.size(), 2u);
  ASSERT_EQ(media->videos.size(), 2u);
  EXPECT_EQ(media->images[0]->num_tokens, 4);
  EXPECT_EQ(media->images[1]->num_tokens, 9);
  EXPECT_EQ(media->videos[0].grid_t, 6);  // five frames: the last one twice
  EXPECT_EQ(media->videos[0].num_tokens(), 3);
  EXPECT_EQ(media->videos[1].num_tokens(), 4);
  // The last drawn frame is the one that is doubled, and frames are drawn before they are cut.
  EXPECT_EQ(drawn_.size(), 7u);
  const PixelRows& last = media->videos[0].pairs[2]->patch_rows;
  EXPECT_TRUE(std::all_of(last.begin(), last.end(), [](uint8_t v) { return v == 104; }));
}

TEST_F(MediaLoaderTest, NothingIsDecodedThatCannotFit) {
  auto r = Start(Many(100, "data", 280, "p"), /*max_tokens=*/9999);
  EXPECT_EQ(r->Wait().status().message(), "10000 tokens, 9999 allowed");
  for (const std::string& line : Logged()) EXPECT_TRUE(line.starts_with("read")) << line;
  // Videos tell their size when they are opened; not a frame is drawn. No item is named: together they are
  // too many.
  r = Start({Image("data:280 p"), Video("data:280 vx7")}, /*max_tokens=*/499);
  EXPECT_EQ(r->Wait().status().message(), "500 tokens, 499 allowed");
  EXPECT_TRUE(drawn_.empty());
  EXPECT_TRUE(Start({Image("data:280 p"), Video("data:280 vx7")}, 500)->Wait().ok());
}

TEST_F(MediaLoaderTest, ASinglePictureGoesBeforeTheRestOfAHundred) {
  auto first = Start({Image("data:28 hold")});
  ASSERT_TRUE(WaitLogged("make data:28 hold"));  // the only thread is busy
  auto hundred = Start(Many(100, "data", 28, "h"));
  auto single = Start({Image("data:28 single")});
  OpenGate();
  EXPECT_TRUE(single->Wait().ok());
  EXPECT_TRUE(hundred->Wait().ok());
  const std::vector<std::string> log = Logged();
  const auto at = [&](const std::string& line) {
    return std::find(log.begin(), log.end(), line) - log.begin();
  };
  EXPECT_LT(at("read data:28 single"), at("read data:28 h1"));
  EXPECT_LT(at("make data:28 single"), at("make data:28 h1"));
}

TEST_F(MediaLoaderTest, SlowServersHoldUpNoDecoder) {
  auto slow = Start({Image("http:28 slow1"), Image("http:28 slow2"), Image("http:28 slow3")});
  ASSERT_TRUE(WaitLogged("read http:28 slow1"));
  EXPECT_TRUE(Start({Image("data:28 a")})->Wait().ok());
  slow->load->Cancel();
}

TEST_F(MediaLoaderTest, CancelStopsWhatRunsAndNothingIsLeft) {
  auto slow =
      Start({Image("http:28 slow1"), Image("http:28 slow2"), Image("http:28 slow3"), Image("data:28 a")});
  ASSERT_TRUE(WaitLogged("read http:28 slow1"));
  const auto begin = std::chrono::steady_clock::now();
  slow->load->Cancel();
  while (loader().jobs_in_flight() > 0) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, milliseconds(5000));  // about 1 on an idle machine
  EXPECT_EQ(loader().bytes_in_flight(), 0);
  EXPECT_FALSE(slow->ready());  // done is never called
  EXPECT_GE(stopped_, 1);
  slow->load->Cancel();  // again: nothing
  EXPECT_TRUE(Start({Image("data:28 b")})->Wait().ok());
}

TEST_F(MediaLoaderTest, AFailureEndsItsOwnRequestAlone) {
  options_.prepare_threads = 2;
  auto good = Start(Many(20, "data", 28, "g"));
  auto bad = Start({Image("data:28 a"), Image("data:28 gone"), Image("http:28 slow")});
  auto full = Start({Image("data:28 memory")});
  const Status status = bad->Wait().status();
  EXPECT_EQ(status.message(), "messages[0].content[0].image_url: the file is gone");
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(status.param(), "messages");
  EXPECT_EQ(full->Wait().status().code(), StatusCode::kUnavailable);
  EXPECT_TRUE(good->Wait().ok());
}

TEST_F(MediaLoaderTest, WhatTheCheckThrowsEndsItsOwnRequestAlone) {
  options_.max_cache_bytes = 1 << 30;
  ASSERT_TRUE(Start({Image("data:56 a", "kept")})->Wait().ok());
  // From a thread of the loader, and from within Start, where everything is in the cache.
  for (const MediaSpec& item : {Image("data:56 b"), Image("", "kept")}) {
    std::promise<StatusOr<LoadedMedia>> promise;
    loader().Start({{item}, "", [](int64_t) -> Status { throw std::bad_alloc(); }},
                   [&](StatusOr<LoadedMedia> m) { promise.set_value(std::move(m)); });
    auto future = promise.get_future();
    ASSERT_EQ(future.wait_for(std::chrono::seconds(60)), std::future_status::ready);
    const StatusOr<LoadedMedia> result = future.get();
    EXPECT_EQ(result.status().code(), StatusCode::kUnavailable) << result.status().message();
  }
  EXPECT_TRUE(Start({Image("data:56 c")})->Wait().ok());
}

TEST_F(MediaLoaderTest, MemoryIsBoundedAndNobodyWaitsForEver) {
  // A picture of 280 x 280 needs 10 * 280 * 280 = 784000 bytes of pixels, its rows hold 235200.
  options_.max_bytes = 2 * 1'000'000;
  options_.prepare_threads = 4;
  options_.fetch_threads = 4;
  config_.limits.max_file_bytes = 300'000;
  make_ms_ = 2;
  std::vector<std::unique_ptr<Result>> results;
  for (int i = 0; i < 6; ++i) {
    results.push_back(Start(Many(10, i % 2 ? "data" : "http", 280, StrCat("r", i, "-"))));
  }
  results.push_back(Start({Image("data:1400 larger than all")}));
  results.push_back(Start({Video("data:560 vx40"), Video("http:560 wx40")}));
  for (auto& r : results) {
    auto media = r->Wait();
    EXPECT_TRUE(media.ok()) << media.status().message();
  }
  EXPECT_LE(most_at_once_, 2);  // one within the budget, and one of the oldest request
}

// Requests become the oldest of those that prepare one after the other; each may not take memory of its own.
TEST_F(MediaLoaderTest, OneItemAloneIsBeyondTheBudget) {
  options_.max_bytes = 2 * 1'000'000;
  options_.prepare_threads = 4;
  options_.fetch_threads = 4;
  config_.limits.max_file_bytes = 1000;
  std::vector<std::unique_ptr<Result>> results;
  for (const char* url :
       {"http:280 late a hold", "http:280 late b hold", "http:280 late c hold", "http:280 d hold"})
    results.push_back(Start({Image(url)}));
  ASSERT_TRUE(WaitLogged("make http:280 d hold"));
  Log("go http:280 late c hold");
  ASSERT_TRUE(WaitLogged("make http:280 late c hold"));
  Log("go http:280 late b hold");
  Log("go http:280 late a hold");
  std::this_thread::sleep_for(milliseconds(100));
  OpenGate();
  for (auto& r : results) EXPECT_TRUE(r->Wait().ok());
  EXPECT_EQ(most_at_once_, 2);
}

TEST_F(MediaLoaderTest, EqualBytesAreDecodedOnce) {
  auto r =
      Start({Image("data:56 same"), Image("data:56 other"), Image("data:56 same"), Image("data:56 same")});
  auto media = r->Wait();
  ASSERT_TRUE(media.ok()) << media.status().message();
  ASSERT_EQ(media->images.size(), 4u);
  EXPECT_EQ(media->images[0], media->images[2]);
  EXPECT_EQ(media->images[0], media->images[3]);
  int made = 0;
  for (const std::string& line : Logged()) made += line == "make data:56 same";
  EXPECT_EQ(made, 1);
}

TEST_F(MediaLoaderTest, TheCacheServesLaterRequests) {
  options_.max_cache_bytes = 1 << 20;
  EXPECT_TRUE(Start({Image("data:56 a"), Video("data:28 vx4")})->Wait().ok());
  const size_t before = Logged().size();
  auto media = Start({Image("data:56 a"), Video("data:28 vx4")})->Wait();
  ASSERT_TRUE(media.ok());
  EXPECT_EQ(media->images[0]->num_tokens, 4);
  EXPECT_EQ(media->videos[0].num_tokens(), 2);
  const std::vector<std::string> log = Logged();
  for (size_t i = before; i < log.size(); ++i) EXPECT_TRUE(log[i].starts_with("read")) << log[i];
  EXPECT_EQ(hits_, 2);
  EXPECT_EQ(misses_, 2);
  // Other options make other pixels.
  MediaSpec smaller = Image("data:56 a");
  smaller.options.image_max_pixels = 784;
  media = Start({smaller})->Wait();
  ASSERT_TRUE(media.ok());
  EXPECT_EQ(media->images[0]->num_tokens, 1);
}

TEST_F(MediaLoaderTest, AUuidFindsWhatWasSentUnderIt) {
  options_.max_cache_bytes = 1 << 20;
  EXPECT_TRUE(Start({Image("data:56 a", "cat")}, 1 << 30, "key-1")->Wait().ok());
  auto media = Start({Image("", "cat"), Image("", "cat")}, 1 << 30, "key-1")->Wait();
  ASSERT_TRUE(media.ok()) << media.status().message();
  EXPECT_EQ(media->images[1]->num_tokens, 4);
  // Tokens of kept items count too.
  EXPECT_FALSE(Start({Image("", "cat")}, 3, "key-1")->Wait().ok());
  // Another client's name is another name.
  EXPECT_EQ(Start({Image("", "cat")}, 1 << 30, "key-2")->Wait().status().message(),
            "messages[0].content[0].image_url: nothing is kept under the uuid \"cat\" any more "
            "(--max-processor-cache); send it again with its URL");
  // A name given in the same request, and one on a copy of another's bytes.
  media = Start({Image("data:28 b", "dog"), Image("", "dog"), Image("data:56 a", "tom"), Image("", "tom")})
              ->Wait();
  ASSERT_TRUE(media.ok()) << media.status().message();
  EXPECT_EQ(media->images[1]->num_tokens, 1);
  EXPECT_EQ(media->images[3]->num_tokens, 4);
  media = Start({Image("data:28 c", "x"), Image("data:28 c", "y")})->Wait();
  ASSERT_TRUE(media.ok());
  EXPECT_TRUE(Start({Image("", "y")})->Wait().ok());
  // The name moves to what is sent under it next.
  EXPECT_TRUE(Start({Image("data:84 d", "cat")}, 1 << 30, "key-1")->Wait().ok());
  EXPECT_EQ(Start({Image("", "cat")}, 1 << 30, "key-1")->Wait()->images[0]->num_tokens, 9);
}

TEST_F(MediaLoaderTest, WithoutACacheAUuidSaysSo) {
  EXPECT_TRUE(Start({Image("data:56 a", "cat")})->Wait().ok());
  const Status status = Start({Image("", "cat")})->Wait().status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("--max-processor-cache 0"), std::string::npos) << status.message();
  // Inside one request it works all the same.
  EXPECT_TRUE(Start({Image("data:56 a", "cat"), Image("", "cat")})->Wait().ok());
}

TEST_F(MediaLoaderTest, WrongSamplingAndAMissingFontAreErrorsOfTheVideo) {
  readers_.check_sampling = [](const VideoSampling& s) {
    return s.fps > 0 ? OkStatus() : InvalidArgument("fps is -1");
  };
  readers_.draw_time = [](double, RgbImage*) { return Unavailable("no font.ttf"); };
  MediaSpec wrong = Video("data:28 vx4");
  wrong.options.sampling.fps = -1;
  EXPECT_EQ(Start({Image("data:28 a"), wrong})->Wait().status().message(),
            "messages[0].content[1].video_url: fps is -1");
  EXPECT_TRUE(Logged().empty());  // nothing was read for it
  EXPECT_EQ(Start({Video("data:28 vx4")})->Wait().status().message(),
            "messages[0].content[1].video_url: no font.ttf");
}

TEST_F(MediaLoaderTest, TheEndOfTheLoaderEndsItsRequests) {
  auto slow = Start({Image("http:28 slow")});
  ASSERT_TRUE(WaitLogged("read http:28 slow"));
  loader_.reset();
  EXPECT_EQ(slow->Wait().status().code(), StatusCode::kUnavailable);
  slow->load->Cancel();  // the handle may outlive the loader
}

TEST_F(MediaLoaderTest, RandomRequestsAllEnd) {
  options_.prepare_threads = 3;
  options_.fetch_threads = 3;
  options_.max_bytes = 1'500'000;
  options_.max_cache_bytes = 500'000;
  config_.limits.max_file_bytes = 200'000;
  config_.video_limits.max_file_bytes = 400'000;
  uint64_t state = 7;
  const auto random = [&](uint64_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % n;
  };
  std::vector<std::unique_ptr<Result>> results;
  std::vector<bool> cancelled;
  for (int i = 0; i < 150; ++i) {
    std::vector<MediaSpec> items;
    for (uint64_t k = 0, count = 1 + random(12); k < count; ++k) {
      const std::string scheme = random(2) ? "data" : "http";
      const int64_t side = 28 + static_cast<int64_t>(random(300));
      if (random(5) == 0) {
        items.push_back(Video(StrCat(scheme, ":", side, " v", i, "-", k, "x", 1 + random(6))));
      } else {
        items.push_back(Image(StrCat(scheme, ":", side, random(40) ? " p" : " gone", random(20))));
      }
    }
    results.push_back(Start(std::move(items)));
    cancelled.push_back(random(6) == 0);
    if (cancelled.back()) results.back()->load->Cancel();
  }
  for (size_t i = 0; i < results.size(); ++i) {
    if (!cancelled[i]) (void)results[i]->Wait();
  }
}

}  // namespace
}  // namespace fd
