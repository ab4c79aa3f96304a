// What passes between the server and fastdeploy-media: options on the command line, the encoded file as file
// descriptor 0, messages on file descriptor 1. The child is not trusted: each length is checked against what
// is expected before it is allocated. Pure functions and one parser; any thread.
//
// A message is a header of 16 bytes, {u32 type, u32 zero, u64 payload bytes} in the machine's byte order, and
// its payload:
//   info   {i64 width, i64 height, i64 total_frames, f64 duration_s, i64 num_frames}   once, before any frame
//   frame  {i64 index, i64 width, i64 height} and width * height * 3 bytes             indices ascend
//   error  {u32 fault, u32 zero} and at most 512 bytes of text                         the last message
//   end    nothing                                                                     after all num_frames
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "server/multimodal/video/video_reader.h"

namespace fd {

inline constexpr size_t kMediaHeaderBytes = 16;
inline constexpr size_t kMediaFrameFieldsBytes = 24;
inline constexpr size_t kMaxMediaErrorBytes = 512;
inline constexpr int64_t kMaxMediaFrames = int64_t{1} << 31;  // of a whole video

enum class MediaFault : uint32_t {
  kVideo = 1,    // the file is damaged, of an unknown kind, or beyond a limit
  kMachine = 2,  // the sandbox cannot be set up here
};

// The only argument of a program that waits and is forked for each video (media_nursery.h). Its descriptor 0
// is a SEQPACKET socket; a request is the arguments, joined by newlines, with the descriptors for 0 and 1 of
// the fork; the answer an i32, the fork's process id or a negative errno.
inline constexpr std::string_view kMediaNurseryArgument = "--nursery";
inline constexpr size_t kMaxMediaRequestBytes = 1024;

// What fastdeploy-media is told.
struct VideoJob {
  VideoSampling sampling;
  int64_t max_frame_pixels = 0;
  int64_t max_side_pixels = 0;
  int64_t memory_bytes = 0;
  double timeout_s = 0;
};
// The arguments after the program's name, and back. Numbers return exactly; nothing when one is missing or
// malformed.
std::vector<std::string> MediaArguments(const VideoJob& options);
std::optional<VideoJob> ParseMediaArguments(const std::vector<std::string_view>& arguments);

std::string EncodeMediaInfo(const VideoInfo& info);
// The header and the fields of a frame; its pixels follow.
std::string EncodeMediaFrame(int64_t index, int64_t width, int64_t height);
std::string EncodeMediaError(MediaFault fault, std::string_view text);
std::string EncodeMediaEnd();

// Bytes that are not printable ASCII become '?'; at most kMaxMediaErrorBytes.
std::string PrintableMediaText(std::string_view text);

// The server's side. Owner and thread: one call of ReadVideo.
//   while (!parser.finished()) { n = read(fd, parser.Space()); status = parser.Filled(n); }
class MediaParser {
 public:
  struct Limits {
    int64_t max_frame_pixels = 0;
    int64_t max_side_pixels = 0;
    int64_t max_frames = 0;  // that may come
  };
  MediaParser(const Limits& limits, std::function<Status(const VideoInfo&)> on_info,
              std::function<Status(VideoFrame&&)> on_frame);

  // Where the next bytes belong; never empty before finished().
  std::span<uint8_t> Space();
  // The first `count` bytes of Space() hold data. An error is the child's message, a breach of the protocol,
  // or what a callback returned; it is final.
  Status Filled(size_t count);
  // All frames and the end have come.
  bool finished() const { return finished_; }
  bool info_seen() const { return info_.num_frames > 0; }

 private:
  enum class Part { kHeader, kPayload, kPixels };
  Status HeaderDone();
  Status PayloadDone();
  Status InfoDone();
  Status FrameFieldsDone();
  Status PixelsDone();
  void ExpectHeader();

  const Limits limits_;
  const std::function<Status(const VideoInfo&)> on_info_;
  const std::function<Status(VideoFrame&&)> on_frame_;
  Part part_ = Part::kHeader;
  uint32_t type_ = 0;
  uint64_t payload_bytes_ = 0;
  std::array<uint8_t, 8 + kMaxMediaErrorBytes> small_{};  // a header, or a payload but for pixels
  size_t wanted_ = kMediaHeaderBytes;                     // bytes of this part
  size_t filled_ = 0;
  VideoInfo info_;
  VideoFrame frame_;
  int64_t last_index_ = -1;
  int64_t frames_seen_ = 0;
  bool finished_ = false;
};

}  // namespace fd
