#include "server/multimodal/video/protocol.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/strings.h"

namespace fd {
namespace {

enum MessageType : uint32_t { kInfo = 1, kFrame = 2, kError = 3, kEnd = 4 };
constexpr size_t kInfoBytes = 40;
constexpr size_t kErrorFieldsBytes = 8;
constexpr size_t kNumArguments = 11;
constexpr std::string_view kVersion = "fastdeploy-media-1";

template <typename T>
void Append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

template <typename T>
T At(const uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

std::string Header(MessageType type, uint64_t payload_bytes) {
  std::string out;
  Append<uint32_t>(out, type);
  Append<uint32_t>(out, 0);
  Append<uint64_t>(out, payload_bytes);
  return out;
}

template <typename T>
bool Parse(std::string_view text, T* value) {
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, *value);
  return result.ec == std::errc() && result.ptr == end;
}

// The program itself misbehaves: a fault of the video that made it so.
Status Breach(std::string_view what) {
  return InvalidArgument(StrCat("the video decoder answered nonsense (", what, ")"));
}

}  // namespace

std::vector<std::string> MediaArguments(const VideoJob& options) {
  const VideoSampling& sampling = options.sampling;
  return {std::string(kVersion),           StrCat(sampling.fps),
          StrCat(sampling.min_frames),     StrCat(sampling.max_frames),
          StrCat(sampling.target_frames),  StrCat(static_cast<int>(sampling.frames_sample)),
          StrCat(sampling.seed),           StrCat(options.max_frame_pixels),
          StrCat(options.max_side_pixels), StrCat(options.memory_bytes),
          StrCat(options.timeout_s)};
}

std::optional<VideoJob> ParseMediaArguments(const std::vector<std::string_view>& arguments) {
  if (arguments.size() != kNumArguments || arguments[0] != kVersion) return std::nullopt;
  VideoJob options;
  VideoSampling& sampling = options.sampling;
  int sample = -1;
  const bool parsed = Parse(arguments[1], &sampling.fps) && Parse(arguments[2], &sampling.min_frames) &&
                      Parse(arguments[3], &sampling.max_frames) &&
                      Parse(arguments[4], &sampling.target_frames) && Parse(arguments[5], &sample) &&
                      Parse(arguments[6], &sampling.seed) && Parse(arguments[7], &options.max_frame_pixels) &&
                      Parse(arguments[8], &options.max_side_pixels) &&
                      Parse(arguments[9], &options.memory_bytes) && Parse(arguments[10], &options.timeout_s);
  if (!parsed || sample < 0 || sample > 2) return std::nullopt;
  sampling.frames_sample = static_cast<FramesSample>(sample);
  if (!CheckVideoSampling(sampling, std::max(sampling.max_frames, sampling.target_frames)).ok()) {
    return std::nullopt;
  }
  return options;
}

std::string EncodeMediaInfo(const VideoInfo& info) {
  std::string out = Header(kInfo, kInfoBytes);
  Append(out, info.width);
  Append(out, info.height);
  Append(out, info.total_frames);
  Append(out, info.duration_s);
  Append(out, info.num_frames);
  return out;
}

std::string EncodeMediaFrame(int64_t index, int64_t width, int64_t height) {
  std::string out = Header(kFrame, kMediaFrameFieldsBytes + static_cast<uint64_t>(width * height * 3));
  Append(out, index);
  Append(out, width);
  Append(out, height);
  return out;
}

std::string EncodeMediaError(MediaFault fault, std::string_view text) {
  text = text.substr(0, kMaxMediaErrorBytes);
  std::string out = Header(kError, kErrorFieldsBytes + text.size());
  Append(out, static_cast<uint32_t>(fault));
  Append<uint32_t>(out, 0);
  out.append(text);
  return out;
}

std::string EncodeMediaEnd() { return Header(kEnd, 0); }

std::string PrintableMediaText(std::string_view text) {
  std::string out(text.substr(0, kMaxMediaErrorBytes));
  for (char& c : out) {
    if (c < ' ' || c > '~') c = '?';
  }
  return out;
}

MediaParser::MediaParser(const Limits& limits, std::function<Status(const VideoInfo&)> on_info,
                         std::function<Status(VideoFrame&&)> on_frame)
    : limits_(limits), on_info_(std::move(on_info)), on_frame_(std::move(on_frame)) {}

std::span<uint8_t> MediaParser::Space() {
  if (finished_) return {};
  uint8_t* begin = part_ == Part::kPixels ? frame_.image.pixels.data() : small_.data();
  return {begin + filled_, wanted_ - filled_};
}

Status MediaParser::Filled(size_t count) {
  FD_CHECK(!finished_ && count <= wanted_ - filled_, "more bytes than there was space for: ", count);
  filled_ += count;
  if (filled_ < wanted_) return OkStatus();
  switch (part_) {
    case Part::kHeader:
      return HeaderDone();
    case Part::kPayload:
      return PayloadDone();
    case Part::kPixels:
      return PixelsDone();
  }
  return OkStatus();
}

void MediaParser::ExpectHeader() {
  part_ = Part::kHeader;
  wanted_ = kMediaHeaderBytes;
  filled_ = 0;
}

Status MediaParser::HeaderDone() {
  type_ = At<uint32_t>(small_.data());
  payload_bytes_ = At<uint64_t>(small_.data() + 8);
  if (At<uint32_t>(small_.data() + 4) != 0) return Breach("a malformed header");
  part_ = Part::kPayload;
  filled_ = 0;
  switch (type_) {
    case kInfo:
      if (info_seen()) return Breach("two descriptions of the video");
      if (payload_bytes_ != kInfoBytes) return Breach("a description of a wrong length");
      wanted_ = kInfoBytes;
      return OkStatus();
    case kFrame:
      if (!info_seen()) return Breach("a frame before the description of the video");
      if (frames_seen_ == info_.num_frames) return Breach("more frames than announced");
      if (payload_bytes_ != kMediaFrameFieldsBytes + static_cast<uint64_t>(info_.width * info_.height * 3)) {
        return Breach("a frame of a wrong length");
      }
      wanted_ = kMediaFrameFieldsBytes;
      return OkStatus();
    case kError:
      if (payload_bytes_ < kErrorFieldsBytes || payload_bytes_ > kErrorFieldsBytes + kMaxMediaErrorBytes) {
        return Breach("an error of a wrong length");
      }
      wanted_ = static_cast<size_t>(payload_bytes_);
      return OkStatus();
    case kEnd:
      if (payload_bytes_ != 0) return Breach("an end with a payload");
      if (!info_seen() || frames_seen_ != info_.num_frames) return Breach("an end before all frames came");
      finished_ = true;
      return OkStatus();
    default:
      return Breach("a message of an unknown type");
  }
}

Status MediaParser::PayloadDone() {
  switch (type_) {
    case kInfo:
      return InfoDone();
    case kFrame:
      return FrameFieldsDone();
    default: {
      const auto fault = static_cast<MediaFault>(At<uint32_t>(small_.data()));
      const std::string text =
          PrintableMediaText({reinterpret_cast<const char*>(small_.data()) + kErrorFieldsBytes,
                              static_cast<size_t>(payload_bytes_) - kErrorFieldsBytes});
      if (fault == MediaFault::kMachine) return Unavailable(text);
      return InvalidArgument(text);
    }
  }
}

Status MediaParser::InfoDone() {
  VideoInfo info;
  info.width = At<int64_t>(small_.data());
  info.height = At<int64_t>(small_.data() + 8);
  info.total_frames = At<int64_t>(small_.data() + 16);
  info.duration_s = At<double>(small_.data() + 24);
  info.num_frames = At<int64_t>(small_.data() + 32);
  if (info.width < 1 || info.height < 1 || info.width > limits_.max_side_pixels ||
      info.height > limits_.max_side_pixels || info.width > limits_.max_frame_pixels / info.height) {
    return Breach("a frame size beyond the limits");
  }
  if (info.total_frames < 1 || info.total_frames > kMaxMediaFrames)
    return Breach("an impossible number of frames");
  if (!(info.duration_s >= 0) || !std::isfinite(info.duration_s)) return Breach("an impossible duration");
  if (info.num_frames < 1 || info.num_frames > limits_.max_frames || info.num_frames > info.total_frames) {
    return Breach("an impossible number of sampled frames");
  }
  info_ = info;
  ExpectHeader();
  return on_info_(info_);
}

Status MediaParser::FrameFieldsDone() {
  const auto index = At<int64_t>(small_.data());
  const auto width = At<int64_t>(small_.data() + 8);
  const auto height = At<int64_t>(small_.data() + 16);
  if (width != info_.width || height != info_.height) return Breach("a frame of another size");
  if (index <= last_index_ || index >= info_.total_frames) return Breach("a frame out of order");
  last_index_ = index;
  frame_ = VideoFrame{};
  frame_.index = index;
  frame_.time_s = static_cast<double>(index) * info_.duration_s / static_cast<double>(info_.total_frames);
  frame_.image.width = width;
  frame_.image.height = height;
  frame_.image.pixels.resize(static_cast<size_t>(width * height * 3));
  part_ = Part::kPixels;
  wanted_ = frame_.image.pixels.size();
  filled_ = 0;
  return OkStatus();
}

Status MediaParser::PixelsDone() {
  ++frames_seen_;
  ExpectHeader();
  return on_frame_(std::move(frame_));
}

}  // namespace fd
