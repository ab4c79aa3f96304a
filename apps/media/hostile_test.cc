// Files that mean harm, and the sandbox: each is an error of its own call, in bounded time, and nothing is
// left behind.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <random>
#include <thread>

#include "base/strings.h"
#include "media/sandbox.h"
#include "media/video_for_tests.h"

namespace fd {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitizer = true;
#else
constexpr bool kSanitizer = false;
#endif

std::string Media(const std::string& name) { return ReadTestFile("tests/media/" + name); }

int64_t OpenDescriptors() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                       std::filesystem::directory_iterator());
}

void ExpectPrintable(const std::string& text) {
  EXPECT_LE(text.size(), 700u);
  for (char c : text) EXPECT_TRUE(c >= ' ' && c <= '~') << text;
  for (const char* secret : {"0x", "/tmp", "/usr", "/lib", "[h264 @", "[mov,"}) {
    EXPECT_EQ(text.find(secret), std::string::npos) << text;
  }
}

void ExpectRefused(std::string_view bytes, const std::string& reason = {}) {
  const VideoResult result = ReadForTest(bytes, VideoSampling{});
  EXPECT_EQ(result.status.code(), StatusCode::kInvalidArgument) << result.status.message();
  EXPECT_NE(result.status.message().find(reason), std::string::npos) << result.status.message();
  ExpectPrintable(result.status.message());
}

std::vector<pid_t> Children() {
  std::vector<pid_t> children;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream in(task.path() / "children");
    for (pid_t child = 0; in >> child;) children.push_back(child);
  }
  return children;
}

// Before and after each test the program that waits is the only child, and no descriptor is left open.
class NothingIsLeft : public testing::Test {
 protected:
  void SetUp() override {
    (void)ReadForTest("starts the program that waits", VideoSampling{});
    descriptors_ = OpenDescriptors();
    waiting_ = Children();
    ASSERT_EQ(waiting_.size(), 1u);
  }
  void TearDown() override {
    EXPECT_EQ(OpenDescriptors(), descriptors_);
    EXPECT_EQ(Children().size(), 1u) << "a child was left";
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), 0) << "a dead child was left";
  }
  // The child that decodes, while one does.
  pid_t Decoder() const {
    for (pid_t child : Children()) {
      if (child != waiting_[0]) return child;
    }
    return -1;
  }
  int64_t descriptors_ = 0;
  std::vector<pid_t> waiting_;
};

using HostileVideo = NothingIsLeft;

TEST_F(HostileVideo, PlaylistsAndScriptsAreNoVideos) {
  const char* files[] = {
      "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
      "ffconcat version 1.0\nfile /etc/passwd\n",
      "concat:/etc/passwd|/etc/hostname",
      "file:///etc/passwd",
      "subfile,,start,0,end,100,,:/etc/passwd",
      "<svg xmlns=\"http://www.w3.org/2000/svg\"><image href=\"file:///etc/passwd\"/></svg>",
      "<?xml version=\"1.0\"?><MPD><Period><BaseURL>file:///etc/passwd</BaseURL></Period></MPD>",
      "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=video 1234 RTP/AVP 96\r\n",
      "\xff\xd8\xff\xe0 a JPEG",
      "\x89PNG\r\n\x1a\n",
      "x",
  };
  for (const char* file : files) ExpectRefused(file, "no video that is read here: MP4, MOV");
}

// A file of a known kind that names others: tracks by reference in MOV, a playlist as AVI's subtitle.
TEST_F(HostileVideo, ReferencesToOtherFilesAreNotFollowed) {
  std::string mov = Media("h264.mp4");
  const size_t url = mov.find("url \0\0\0\1", 0, 8);
  ASSERT_NE(url, std::string::npos);
  mov[url + 7] = 0;  // no longer "in this file"
  const VideoResult result = ReadForTest(mov, VideoSampling{});
  // Read from this file all the same.
  ASSERT_TRUE(result.status.ok()) << result.status.message();
  EXPECT_EQ(NumberShown(result.frames[0].image), 0);
  std::string avi = Media("mpeg4.avi");
  const size_t list = avi.find("00dc", avi.find("movi"));
  ASSERT_NE(list, std::string::npos);
  const std::string playlist = "GAB2\0\2\0\0\0\0\0#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n";
  avi.replace(list + 8, playlist.size(), playlist);
  const VideoResult damaged = ReadForTest(avi, VideoSampling{});
  // The overwritten frame is one that cannot be read; nothing else came of it.
  ASSERT_TRUE(damaged.status.ok()) << damaged.status.message();
  EXPECT_EQ(damaged.frames.size(), 16u);
}

TEST_F(HostileVideo, TruncatedFilesAreReadOrRefused) {
  for (const char* name :
       {"h264.mp4", "vp9.webm", "mpeg4.avi", "animated.gif", "animated.webp", "hevc_10bit.mkv"}) {
    const std::string file = Media(name);
    for (size_t size :
         {size_t{1}, size_t{12}, size_t{40}, file.size() / 4, file.size() / 2, file.size() - 1}) {
      const VideoResult result = ReadForTest(std::string_view(file).substr(0, size), VideoSampling{});
      if (result.status.ok()) {
        EXPECT_EQ(static_cast<int64_t>(result.frames.size()), result.info.num_frames);
      } else {
        EXPECT_EQ(result.status.code(), StatusCode::kInvalidArgument) << name;
        ExpectPrintable(result.status.message());
      }
    }
  }
}

TEST_F(HostileVideo, ChangedAndRandomBytesNeverHarm) {
  std::mt19937 random(7);
  auto any = [&](size_t below) { return static_cast<size_t>(random() % below); };
  for (const char* name :
       {"h264.mp4", "vp8.webm", "mjpeg.avi", "animated.gif", "animated.webp", "av1.webm"}) {
    for (int round = 0; round < 6; ++round) {
      std::string file = Media(name);
      for (int edit = 0; edit < 1 << round; ++edit) file[any(file.size())] = static_cast<char>(random());
      const VideoResult result = ReadForTest(file, VideoSampling{});
      if (!result.status.ok()) {
        EXPECT_EQ(result.status.code(), StatusCode::kInvalidArgument)
            << name << ": " << result.status.message();
        ExpectPrintable(result.status.message());
      }
    }
    std::string noise = Media(name).substr(0, 16);
    for (int i = 0; i < 5000; ++i) noise += static_cast<char>(random());
    ExpectRefused(noise);
  }
}

std::string LittleEndian(uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i));
  return out;
}

TEST_F(HostileVideo, FrameSizesAreCheckedBeforePixels) {
  // The sample entry of an MP4 has its sides 32 bytes after "avc1"; the decoder's own header still says 64
  // x 48.
  std::string mp4 = Media("h264.mp4");
  const size_t entry = mp4.find("avc1", mp4.find("stsd"));
  mp4.replace(entry + 28, 4, std::string("\xff\xff\xff\xff", 4));
  ExpectRefused(mp4, "65535 x 65535 pixels; the limit is 8192 pixels a side");
  std::string gif = Media("animated.gif");
  gif.replace(6, 4, LittleEndian(8000, 2) + LittleEndian(8000, 2));
  ExpectRefused(gif, "8000 x 8000 pixels, 64000000 in all; the limit is 8294400 (--max-video-pixels)");
  gif.replace(6, 4, std::string(4, '\0'));
  const VideoResult zero = ReadForTest(gif, VideoSampling{});
  EXPECT_EQ(zero.status.code(), zero.status.ok() ? StatusCode::kOk : StatusCode::kInvalidArgument);
  std::string webp = Media("animated.webp");
  const size_t header = webp.find("VP8X");
  webp.replace(header + 12, 6, LittleEndian(16383, 3) + LittleEndian(16383, 3));
  ExpectRefused(webp, "16384 x 16384 pixels; the limit is 8192 pixels a side");
  // A limit below the true size, where the container and the decoder agree.
  VideoLimits limits = TestLimits();
  limits.max_frame_pixels = 64 * 48 - 1;
  for (const char* name :
       {"h264.mp4", "vp9.webm", "mjpeg.avi", "animated.gif", "animated.webp", "av1.webm"}) {
    const VideoResult result = ReadForTest(Media(name), VideoSampling{}, limits);
    EXPECT_EQ(result.status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(result.status.message().find("64 x 48 pixels, 3072 in all; the limit is 3071"),
              std::string::npos)
        << name << ": " << result.status.message();
  }
}

// A GIF of `frames` pictures of one pixel on a canvas of side x side: 20 bytes each.
std::string GifBomb(int frames, int side) {
  std::string gif =
      "GIF89a" + LittleEndian(static_cast<uint64_t>(side), 2) + LittleEndian(static_cast<uint64_t>(side), 2);
  gif += std::string("\x80\0\0\0\0\0\xff\xff\xff", 9);
  for (int i = 0; i < frames; ++i) {
    gif += std::string("\x21\xf9\x04\0\1\0\0\0", 8) + std::string("\x2c\0\0\0\0\1\0\1\0\0", 10) +
           std::string("\2\2\x44\1\0", 5);
  }
  return gif + ";";
}

TEST_F(HostileVideo, AHundredThousandFramesAreBoundedWork) {
  const VideoResult small = ReadForTest(GifBomb(100000, 16), VideoSampling{});
  ASSERT_TRUE(small.status.ok()) << small.status.message();
  EXPECT_EQ(small.info.total_frames, 100000);
  EXPECT_EQ(small.frames.size(), 180u);
  VideoLimits limits = TestLimits();
  limits.timeout_s = 2;
  const VideoResult large = ReadForTest(GifBomb(100000, 2800), VideoSampling{}, limits);
  EXPECT_EQ(large.status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(large.status.message().find("--video-timeout"), std::string::npos) << large.status.message();
}

TEST_F(HostileVideo, MemoryIsLimited) {
  if (kSanitizer) GTEST_SKIP() << "sanitizers map more than any limit";
  VideoLimits limits = TestLimits();
  limits.memory_bytes = 400 << 20;
  limits.max_frame_pixels = int64_t{8192} * 8192;
  const VideoResult result = ReadForTest(GifBomb(3, 8192), VideoSampling{}, limits);
  EXPECT_EQ(result.status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(result.status.message().find("--video-memory"), std::string::npos) << result.status.message();
}

TEST_F(HostileVideo, AnErrorOfACallbackEndsTheProgram) {
  int frames = 0;
  const Status status = ReadVideo(
      Media("h264.mp4"), VideoSampling{}, TestLimits(), {}, [](const VideoInfo&) { return OkStatus(); },
      [&](VideoFrame&&) { return ++frames == 3 ? InvalidArgument("enough") : OkStatus(); });
  EXPECT_EQ(status.message(), "enough");
  EXPECT_EQ(frames, 3);
}

// Whoever kills the program gives that request an error, and no other.
TEST_F(HostileVideo, KilledInTheMiddleIsAnErrorOfThisCallAlone) {
  const std::string file = GifBomb(60000, 64);  // long at work after its first frame
  for (bool keep_loaded : {true, false}) {
    VideoLimits limits = TestLimits();
    limits.keep_loaded = keep_loaded;
    bool killed = false;
    const Status status = ReadVideo(
        file, VideoSampling{}, limits, {}, [](const VideoInfo&) { return OkStatus(); },
        [&](VideoFrame&&) {
          if (!killed) {
            killed = true;
            EXPECT_EQ(kill(Decoder(), SIGKILL), 0);
          }
          return OkStatus();
        });
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find("ended by signal 9"), std::string::npos) << status.message();
    EXPECT_TRUE(ReadForTest(Media("h264.mp4"), VideoSampling{}).status.ok());
  }
}

TEST_F(HostileVideo, AWaitingProgramThatWasKilledIsReplaced) {
  const int64_t before = OpenDescriptors();
  for (int round = 0; round < 3; ++round) {
    const std::vector<pid_t> waiting = Children();
    ASSERT_EQ(waiting.size(), 1u);
    ASSERT_EQ(kill(waiting[0], SIGKILL), 0);
    const VideoResult result = ReadForTest(Media("h264.mp4"), VideoSampling{});
    EXPECT_TRUE(result.status.ok()) << result.status.message();
    EXPECT_NE(Children(), waiting);
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST_F(HostileVideo, AProgramStartedAnewDoesTheSame) {
  VideoLimits limits = TestLimits();
  limits.keep_loaded = false;
  const VideoResult anew = ReadForTest(Media("vp9.webm"), VideoSampling{}, limits);
  const VideoResult forked = ReadForTest(Media("vp9.webm"), VideoSampling{});
  ASSERT_TRUE(anew.status.ok()) << anew.status.message();
  ASSERT_EQ(anew.frames.size(), forked.frames.size());
  for (size_t i = 0; i < anew.frames.size(); ++i)
    EXPECT_EQ(anew.frames[i].image.pixels, forked.frames[i].image.pixels);
}

// A stop, and a callback that takes its time while the time limit passes.
TEST_F(HostileVideo, StopsInTheMiddle) {
  std::stop_source stop;
  const Status status = ReadVideo(
      GifBomb(100000, 64), VideoSampling{}, TestLimits(), stop.get_token(),
      [](const VideoInfo&) { return OkStatus(); },
      [&](VideoFrame&&) {
        stop.request_stop();
        return OkStatus();
      });
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
}

TEST_F(HostileVideo, ManyAtOnce) {
  const std::string file = Media("h264.mp4");
  std::vector<std::jthread> threads;
  std::atomic<int> right = 0;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 3; ++round) {
        const VideoResult result =
            i % 4 == 3 ? ReadForTest("nonsense", VideoSampling{}) : ReadForTest(file, VideoSampling{});
        if (result.status.ok() == (i % 4 != 3)) ++right;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(right, 24);
}

// What is left of a process in the sandbox. Each attempt runs in a child of its own.
class Sandbox : public NothingIsLeft {
 protected:
  // The way the child ended; it exits with 0 where `attempt` is true.
  template <typename Attempt>
  int Run(Attempt attempt) {
    const pid_t child = fork();
    if (child == 0) {
      SandboxLimits limits{.memory_bytes = 1 << 30, .cpu_seconds = 5};
      const Status status = EnterSandbox(limits);
      if (!status.ok()) _exit(99);
      _exit(attempt() ? 0 : 1);
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return status;
  }
};

TEST_F(Sandbox, AllowsWhatDecodingNeeds) {
  EXPECT_EQ(Run([] {
              std::vector<char> memory(10 << 20, 'x');
              std::atomic<int> sum = 0;
              std::thread([&] { ++sum; }).join();
              return sum == 1 && memory[5] == 'x' &&
                     std::chrono::steady_clock::now().time_since_epoch().count() > 0;
            }),
            0);
}

TEST_F(Sandbox, RefusesFilesAndExecutableMemory) {
  if (kSanitizer) GTEST_SKIP() << "sanitizers read /proc themselves";
  EXPECT_EQ(Run([] { return open("/etc/passwd", O_RDONLY) < 0 && errno == EPERM; }), 0);
  EXPECT_EQ(Run([] { return open("/tmp/x", O_CREAT | O_WRONLY, 0600) < 0 && errno == EPERM; }), 0);
  EXPECT_EQ(Run([] {
              return mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
                     MAP_FAILED;
            }),
            0);
  EXPECT_EQ(Run([] { return dup(1) < 0; }), 0);
  EXPECT_EQ(Run([] { return unlink("/tmp/nothing") < 0 && errno == EPERM; }), 0);
  EXPECT_EQ(Run([] {
              return mmap(nullptr, size_t{2} << 30, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
                     MAP_FAILED;
            }),
            0);
}

TEST_F(Sandbox, EndsWhoTriesProcessesSocketsOrPrograms) {
  auto killed = [](int status) { return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS; };
  EXPECT_TRUE(killed(Run([] { return socket(AF_INET, SOCK_STREAM, 0) >= 0; })));
  EXPECT_TRUE(killed(Run([] {
    char* none[] = {nullptr};
    return execve("/bin/true", none, none) == 0;
  })));
  EXPECT_TRUE(killed(Run([] { return kill(getppid(), SIGTERM) == 0; })));
  if (!kSanitizer) {  // fork is clone without CLONE_THREAD: refused, not deadly
    EXPECT_EQ(Run([] { return fork() < 0; }), 0);
  }
}

}  // namespace
}  // namespace fd
