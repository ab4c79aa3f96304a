// The packets of the one video stream of a file in memory, in decode order, through libavformat. One thread.
#pragma once

extern "C" {
#include <libavcodec/packet.h>
#include <libavformat/avformat.h>
}

#include <cstdint>
#include <memory>
#include <string_view>

#include "base/status.h"

namespace fd {

enum class Container { kUnknown, kMov, kMatroska, kAvi, kGif, kWebp };
// By the first bytes alone; nothing of a library runs before its container is known.
Container ContainerOf(std::string_view file);

// Reads from memory alone: no protocol exists for it, its hook to open further files refuses, and the demuxer
// is named, not guessed, so that a playlist or a script is never taken for a video.
class Demuxer {
 public:
  static StatusOr<std::unique_ptr<Demuxer>> Open(std::string_view file, Container container);
  ~Demuxer();
  Demuxer(const Demuxer&) = delete;
  Demuxer& operator=(const Demuxer&) = delete;

  // The next packet of the stream that holds data; false at the end, which a damaged file reaches early.
  bool Next(AVPacket* packet);
  const AVStream& stream() const { return *format_->streams[stream_index_]; }

 private:
  explicit Demuxer(std::string_view file) : file_(file) {}
  Status OpenAs(Container container);
  static int Read(void* self, uint8_t* out, int size);
  static int64_t Seek(void* self, int64_t offset, int whence);

  std::string_view file_;
  size_t offset_ = 0;
  AVIOContext* io_ = nullptr;
  AVFormatContext* format_ = nullptr;
  int stream_index_ = -1;
};

}  // namespace fd
