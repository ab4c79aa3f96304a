// Decoded frames of a video by their display index, in the order the decoder releases them. One thread
// calls; libavcodec decodes on threads of its own.
#pragma once

extern "C" {
#include <libavcodec/avcodec.h>
}

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "media/demuxer.h"
#include "media/packet_index.h"
#include "server/multimodal/video/protocol.h"

namespace fd {

// An encoded file and what has been found out about it; outlives every FrameSource on it.
struct VideoFile {
  std::string_view bytes;
  Container container = Container::kUnknown;
  PacketIndex index;
};

class FrameSource {
 public:
  // Decodes what `wanted` (ascending display indices) needs and skips the rest.
  static StatusOr<std::unique_ptr<FrameSource>> Open(const VideoFile& file, const VideoJob& options,
                                                     const std::vector<int64_t>& wanted);
  ~FrameSource();
  FrameSource(const FrameSource&) = delete;
  FrameSource& operator=(const FrameSource&) = delete;

  // The next frame, valid until the following call, and its display index in frame->pts; null at the end.
  // Damaged packets are passed over; an error is a limit or a lack of memory.
  StatusOr<const AVFrame*> Next();
  int orientation() const { return orientation_; }

 private:
  FrameSource(const VideoFile& file, const VideoJob& options) : file_(file), options_(options) {}
  Status Start(const std::vector<int64_t>& wanted);
  Status CheckSize(int64_t width, int64_t height);
  // Sends one needed packet, or the end. A skipped group makes some decoders drain and start anew first.
  Status Feed();
  static int GetBuffer(AVCodecContext* codec, AVFrame* frame, int flags);

  const VideoFile& file_;
  const VideoJob& options_;
  std::vector<bool> needed_;
  size_t last_needed_ = 0;
  std::unique_ptr<Demuxer> demuxer_;
  AVCodecContext* codec_ = nullptr;
  AVPacket* packet_ = nullptr;
  AVFrame* frame_ = nullptr;
  size_t position_ = 0;       // of the packet that the demuxer gives next
  int64_t frames_out_ = 0;    // for containers without times
  bool packet_held_ = false;  // packet_ waits for the decoder to be empty
  bool jumped_ = false;       // packets that others refer to were skipped since the last one sent
  bool draining_ = false;
  bool ended_ = false;  // no packet is left
  int orientation_ = 1;
};

// The codecs that are decoded, for messages.
std::string ReadableCodecs();

}  // namespace fd
