#include "server/multimodal/video/video_reader.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdint>

#include "base/clock.h"
#include "base/descriptor.h"
#include "base/strings.h"
#include "server/multimodal/video/media_process.h"
#include "server/multimodal/video/protocol.h"

namespace fd {
namespace {

constexpr int kGraceMs = 2000;  // between the end of the messages and the end of the program

// Wakes a poll when a stop is requested. The callback is destroyed (and waited for) before the descriptor.
class StopEvent {
 public:
  explicit StopEvent(const std::stop_token& stop) : callback_(stop, Wake{event_.get()}) {}
  int fd() const { return event_.get(); }

 private:
  struct Wake {
    int fd;
    void operator()() const noexcept {
      const uint64_t one = 1;
      if (fd >= 0) (void)!write(fd, &one, sizeof(one));
    }
  };
  Descriptor event_{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  std::stop_callback<Wake> callback_;
};

Status TimedOut(const VideoLimits& limits) {
  return InvalidArgument(
      StrCat("decoding the video took longer than ", limits.timeout_s,
             " s (--video-timeout); send a shorter or smaller one, or ask for fewer frames"));
}

// Reads messages until the last one; false: the program closed its end first.
StatusOr<bool> ReadMessages(int fd, const StopEvent& stop_event, const std::stop_token& stop,
                            const VideoLimits& limits, Clock::time_point deadline, MediaParser* parser) {
  while (!parser->finished()) {
    if (stop.stop_requested()) return Status(StatusCode::kUnavailable, "the request was given up");
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return TimedOut(limits);
    pollfd waits[2] = {{fd, POLLIN, 0}, {stop_event.fd(), POLLIN, 0}};
    if (poll(waits, 2, static_cast<int>(std::min<int64_t>(left, 1000))) <= 0 || waits[0].revents == 0)
      continue;
    const std::span<uint8_t> space = parser->Space();
    const ssize_t count = read(fd, space.data(), space.size());
    if (count == 0) return false;
    if (count < 0) {
      if (errno == EAGAIN || errno == EINTR) continue;
      return Unavailable("the video decoder's answer cannot be read");
    }
    FD_RETURN_IF_ERROR(parser->Filled(static_cast<size_t>(count)));
  }
  return true;
}

}  // namespace

Status ReadVideo(std::string_view encoded, const VideoSampling& sampling, const VideoLimits& limits,
                 std::stop_token stop, const std::function<Status(const VideoInfo&)>& on_info,
                 const std::function<Status(VideoFrame&&)>& on_frame) {
  FD_RETURN_IF_ERROR(CheckVideoSampling(sampling, limits.max_sampled_frames));
  if (encoded.empty()) return InvalidArgument("the video is empty: 0 bytes");
  if (static_cast<int64_t>(encoded.size()) > limits.max_file_bytes) {
    return {StatusCode::kPayloadTooLarge,
            StrCat("the video's file has ", encoded.size(), " bytes; the limit is ", limits.max_file_bytes,
                   " (--max-video-bytes)")};
  }
  const auto deadline =
      Clock::now() + std::chrono::milliseconds(std::llround(std::clamp(limits.timeout_s, 0.0, 1e9) * 1000));
  VideoJob options;
  options.sampling = sampling;
  options.max_frame_pixels = limits.max_frame_pixels;
  options.max_side_pixels = limits.max_side_pixels;
  options.memory_bytes = limits.memory_bytes;
  options.timeout_s = limits.timeout_s;
  MediaParser::Limits expected;
  expected.max_frame_pixels = limits.max_frame_pixels;
  expected.max_side_pixels = limits.max_side_pixels;
  expected.max_frames =
      std::max(sampling.max_frames, sampling.target_frames) + 1;  // by time: both ends may count
  FD_ASSIGN_OR_RETURN(const std::string program, FindMediaProgram(limits.program));

  StopEvent stop_event(stop);
  if (stop_event.fd() < 0) return Unavailable("the video decoder cannot be started now: eventfd failed");
  MediaProcess process;
  FD_RETURN_IF_ERROR(process.Start(program, limits.keep_loaded, encoded, MediaArguments(options), deadline));
  MediaParser parser(expected, on_info, on_frame);
  FD_ASSIGN_OR_RETURN(const bool finished,
                      ReadMessages(process.output(), stop_event, stop, limits, deadline, &parser));
  const MediaExit exit = process.End(finished ? 0 : kGraceMs);
  return finished ? OkStatus() : MediaExitStatus(exit);
}

}  // namespace fd
