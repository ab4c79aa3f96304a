#include "media/demuxer.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/strings.h"

namespace fd {
namespace {

constexpr int kIoBufferBytes = 1 << 16;
constexpr int kMaxStreams = 64;
constexpr int kMaxErrors = 1000;  // of damaged places that the demuxer steps over

struct ContainerNames {
  const char* demuxer;
  const char* shown;
};
ContainerNames NamesOf(Container container) {
  switch (container) {
    case Container::kMov:
      return {"mov", "MP4 or MOV"};
    case Container::kMatroska:
      return {"matroska", "WebM or MKV"};
    case Container::kAvi:
      return {"avi", "AVI"};
    default:
      return {"gif", "GIF"};
  }
}

int RefuseFile(AVFormatContext*, AVIOContext**, const char*, int, AVDictionary**) { return AVERROR(EPERM); }

}  // namespace

Container ContainerOf(std::string_view file) {
  auto at = [&](size_t offset, std::string_view text) {
    return file.substr(std::min(offset, file.size())).starts_with(text);
  };
  if (at(0, "GIF87a") || at(0, "GIF89a")) return Container::kGif;
  if (at(0, "RIFF") && at(8, "WEBP")) return Container::kWebp;
  if (at(0, "RIFF") && at(8, "AVI ")) return Container::kAvi;
  if (at(0, "\x1a\x45\xdf\xa3")) return Container::kMatroska;
  for (std::string_view atom : {"ftyp", "moov", "mdat", "free", "skip", "wide"}) {
    if (at(4, atom)) return Container::kMov;
  }
  return Container::kUnknown;
}

int Demuxer::Read(void* self, uint8_t* out, int size) {
  auto& demuxer = *static_cast<Demuxer*>(self);
  const size_t left = demuxer.file_.size() - demuxer.offset_;
  const size_t count = std::min(left, static_cast<size_t>(std::max(size, 0)));
  if (count == 0) return AVERROR_EOF;
  std::memcpy(out, demuxer.file_.data() + demuxer.offset_, count);
  demuxer.offset_ += count;
  return static_cast<int>(count);
}

int64_t Demuxer::Seek(void* self, int64_t offset, int whence) {
  auto& demuxer = *static_cast<Demuxer*>(self);
  const auto size = static_cast<int64_t>(demuxer.file_.size());
  if ((whence & AVSEEK_SIZE) != 0) return size;
  int64_t base = 0;
  if ((whence & 3) == SEEK_CUR) base = static_cast<int64_t>(demuxer.offset_);
  if ((whence & 3) == SEEK_END) base = size;
  if (offset < -base || offset > size - base) return AVERROR(EINVAL);
  demuxer.offset_ = static_cast<size_t>(base + offset);
  return base + offset;
}

StatusOr<std::unique_ptr<Demuxer>> Demuxer::Open(std::string_view file, Container container) {
  std::unique_ptr<Demuxer> demuxer(new Demuxer(file));
  FD_RETURN_IF_ERROR(demuxer->OpenAs(container));
  return demuxer;
}

Status Demuxer::OpenAs(Container container) {
  const ContainerNames names = NamesOf(container);
  const AVInputFormat* input = av_find_input_format(names.demuxer);
  if (input == nullptr) return Unavailable(StrCat("this machine's FFmpeg was built without ", names.shown));
  auto* buffer = static_cast<uint8_t*>(av_malloc(kIoBufferBytes));
  io_ = buffer == nullptr ? nullptr
                          : avio_alloc_context(buffer, kIoBufferBytes, 0, this, &Read, nullptr, &Seek);
  format_ = avformat_alloc_context();
  if (io_ == nullptr || format_ == nullptr)
    return InvalidArgument("the video needs more memory than --video-memory");
  format_->pb = io_;
  format_->flags |= AVFMT_FLAG_CUSTOM_IO;
  // Frames are put in order by their time stamps below; GIF alone needs its parser to find them.
  if (container != Container::kGif) format_->flags |= AVFMT_FLAG_NOPARSE | AVFMT_FLAG_NOFILLIN;
  format_->io_open = &RefuseFile;
  format_->protocol_whitelist = av_strdup("");
  format_->format_whitelist = av_strdup(input->name);
  format_->codec_whitelist = nullptr;  // decoders are opened by name (decoder.cc)
  format_->max_streams = kMaxStreams;
  format_->probesize = 1 << 20;
  // Frees format_ when it fails.
  const int opened = avformat_open_input(&format_, "", input, nullptr);
  if (opened == AVERROR(ENOMEM))
    return InvalidArgument("the video needs more memory than --video-memory allows");
  if (opened < 0)
    return InvalidArgument(
        StrCat("the video cannot be read: its ", names.shown, " structure is damaged or cut off"));
  // The largest picture; a cover image is no video.
  int64_t best_area = -1;
  for (unsigned i = 0; i < format_->nb_streams; ++i) {
    AVStream& stream = *format_->streams[i];
    stream.discard = AVDISCARD_ALL;
    const bool cover = (stream.disposition & AV_DISPOSITION_ATTACHED_PIC) != 0;
    if (stream.codecpar->codec_type != AVMEDIA_TYPE_VIDEO || cover) continue;
    const int64_t area = int64_t{stream.codecpar->width} * stream.codecpar->height;
    if (area > best_area) {
      best_area = area;
      stream_index_ = static_cast<int>(i);
    }
  }
  if (stream_index_ < 0) return InvalidArgument(StrCat("the ", names.shown, " file holds no video stream"));
  format_->streams[stream_index_]->discard = AVDISCARD_DEFAULT;
  return OkStatus();
}

Demuxer::~Demuxer() {
  avformat_close_input(&format_);
  if (io_ != nullptr) av_freep(&io_->buffer);
  avio_context_free(&io_);
}

bool Demuxer::Next(AVPacket* packet) {
  for (int errors = 0; errors < kMaxErrors;) {
    av_packet_unref(packet);
    const int result = av_read_frame(format_, packet);
    if (result == AVERROR_EOF || result == AVERROR(ENOMEM)) return false;
    if (result < 0) {
      if (avio_feof(io_) != 0) return false;
      ++errors;
      continue;
    }
    if (packet->stream_index == stream_index_ && packet->size > 0) return true;
  }
  return false;
}

}  // namespace fd
