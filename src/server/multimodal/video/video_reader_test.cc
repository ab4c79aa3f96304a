// The reader around programs that are not fastdeploy-media. What it decodes is tested in apps/media.
#include "server/multimodal/video/video_reader.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/clock.h"
#include "server/multimodal/video/media_process.h"

namespace fd {
namespace {

Status Read(const std::string& program, double timeout_s = 10, std::stop_token stop = {}) {
  VideoLimits limits;
  limits.program = program;
  limits.timeout_s = timeout_s;
  limits.keep_loaded = false;  // scripts do not know how to wait
  return ReadVideo(
      "bytes", VideoSampling{}, limits, std::move(stop), [](const VideoInfo&) { return OkStatus(); },
      [](VideoFrame&&) { return OkStatus(); });
}

// A shell script in place of the program; removed with the object.
class Script {
 public:
  explicit Script(const std::string& body)
      : path_(std::filesystem::temp_directory_path() / ("fd_video_reader_" + std::to_string(getpid()))) {
    std::ofstream(path_) << "#!/bin/sh\n" << body << "\n";
    chmod(path_.c_str(), 0700);
  }
  ~Script() { std::filesystem::remove(path_); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

int64_t OpenDescriptors() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                       std::filesystem::directory_iterator());
}

TEST(ReadVideo, AMissingProgramSaysWhatToInstall) {
  for (const Status& status :
       {Read("/nowhere/fastdeploy-media"), Read(Script("exit 127").path()), Read("/etc/hostname")}) {
    EXPECT_EQ(status.code(), StatusCode::kUnimplemented);
    EXPECT_NE(status.message().find("apt-get install libavformat59 libavcodec59 libswscale6 libseccomp2"),
              std::string::npos)
        << status.message();
    EXPECT_EQ(status.message().find("/nowhere"), std::string::npos);
  }
}

TEST(ReadVideo, AWaitingProgramThatCannotBeLoadedSaysWhatToInstall) {
  const int64_t before = OpenDescriptors();
  const Script script("exit 127");
  VideoLimits limits;
  limits.program = script.path();
  const Status status = ReadVideo(
      "bytes", VideoSampling{}, limits, {}, [](const VideoInfo&) { return OkStatus(); },
      [](VideoFrame&&) { return OkStatus(); });
  EXPECT_EQ(status.code(), StatusCode::kUnimplemented) << status.message();
  EXPECT_NE(status.message().find("apt-get install"), std::string::npos) << status.message();
  EXPECT_EQ(OpenDescriptors(), before);
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a child was left";
}

TEST(ReadVideo, AWaitingProgramThatSaysNothingIsEndedAtTheTimeLimit) {
  const int64_t before = OpenDescriptors();
  const Script script("exec sleep 1000");
  VideoLimits limits;
  limits.program = script.path();
  limits.timeout_s = 0.3;
  const auto begin = Clock::now();
  const Status status = ReadVideo(
      "bytes", VideoSampling{}, limits, {}, [](const VideoInfo&) { return OkStatus(); },
      [](VideoFrame&&) { return OkStatus(); });
  EXPECT_EQ(status.code(), StatusCode::kUnavailable) << status.message();
  EXPECT_NE(status.message().find("cannot be started now"), std::string::npos) << status.message();
  EXPECT_LT(SecondsSince(begin), 20);
  EXPECT_EQ(OpenDescriptors(), before);
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a child was left";
}

TEST(ReadVideo, ADyingProgramIsAnErrorOfThisVideo) {
  const int64_t before = OpenDescriptors();
  const std::pair<const char*, const char*> cases[] = {
      {"exit 0", "stopped early (code 0)"},
      {"exit 3", "stopped early (code 3)"},
      {"kill -9 $$", "ended by signal 9"},
      {"kill -11 $$", "ended by signal 11"},
      {"kill -31 $$", "ended by signal 31 (it made a call that its sandbox forbids)"},
      {"echo 0123456789abcdefghijklmnopqrstuvwxyz; sleep 100", "answered nonsense"},
  };
  for (const auto& [body, text] : cases) {
    const Script script(body);
    const Status status = Read(script.path());
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << body;
    EXPECT_NE(status.message().find(text), std::string::npos) << status.message();
  }
  EXPECT_EQ(OpenDescriptors(), before);
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a child was left";
}

TEST(ReadVideo, GetsThreeDescriptorsAndNoEnvironment) {
  const Script script(
      "[ -z \"$HOME$PATH_X$LD_LIBRARY_PATH$OMP_NUM_THREADS\" ] || exit 11\n"
      "for fd in 3 4 5 6 7 8 9 11 12; do [ ! -e /proc/$$/fd/$fd ] || [ $fd = 10 ] || exit 12; done\n"
      "[ \"$(cat)\" = bytes ] || exit 13\nexit 14");
  setenv("LD_LIBRARY_PATH", "/tmp", 1);
  EXPECT_NE(Read(script.path()).message().find("code 14"), std::string::npos)
      << Read(script.path()).message();
  unsetenv("LD_LIBRARY_PATH");
}

TEST(ReadVideo, StopsAtTheTimeLimitAndOnRequest) {
  using Clock = std::chrono::steady_clock;
  const Script script("exec sleep 1000");
  Clock::time_point begin = Clock::now();
  const Status late = Read(script.path(), 0.3);
  EXPECT_EQ(late.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(late.message().find("longer than 0.3 s (--video-timeout)"), std::string::npos) << late.message();
  std::stop_source stop;
  std::jthread stopper([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    stop.request_stop();
  });
  EXPECT_EQ(Read(script.path(), 1000, stop.get_token()).code(), StatusCode::kUnavailable);
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(60));
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a child was left";
  EXPECT_EQ(Read(script.path(), 1000, stop.get_token()).code(), StatusCode::kUnavailable);
}

TEST(ReadVideo, ChecksSizesAndOptionsBeforeItStartsAnything) {
  VideoLimits limits;
  limits.program = "/nowhere";
  limits.max_file_bytes = 4;
  auto read = [&](std::string_view bytes, const VideoSampling& sampling) {
    return ReadVideo(
        bytes, sampling, limits, {}, [](const VideoInfo&) { return OkStatus(); },
        [](VideoFrame&&) { return OkStatus(); });
  };
  EXPECT_EQ(read("", {}).code(), StatusCode::kInvalidArgument);
  const Status large = read("12345", {});
  EXPECT_EQ(large.code(), StatusCode::kPayloadTooLarge);
  EXPECT_EQ(large.message(), "the video's file has 5 bytes; the limit is 4 (--max-video-bytes)");
  VideoSampling sampling;
  sampling.max_frames = 769;
  EXPECT_EQ(read("123", sampling).param(), "max_frames");
}

TEST(FindMediaProgram, LooksIntoPath) {
  const Script script("exit 0");
  const auto folder = std::filesystem::path(script.path() + ".d");
  std::filesystem::create_directory(folder);
  std::filesystem::copy_file(script.path(), folder / "fastdeploy-media");
  const std::string before = std::getenv("PATH");
  setenv("PATH", ("relative:" + folder.string()).c_str(), 1);
  const auto found = FindMediaProgram("");
  setenv("PATH", before.c_str(), 1);
  std::filesystem::remove_all(folder);
  ASSERT_TRUE(found.ok()) << found.status().message();
  EXPECT_EQ(*found, (folder / "fastdeploy-media").string());
}

}  // namespace
}  // namespace fd
