#include "media/decoder.h"

extern "C" {
#include <libavutil/opt.h>
}

#include <sched.h>

#include <algorithm>
#include <string>

#include "base/strings.h"
#include "media/convert.h"

namespace fd {
namespace {

constexpr int kMaxThreads = 8;
constexpr int64_t kPixelsWorthThreads = 40'000'000;  // below it starting threads costs more than they save

struct CodecChoice {
  AVCodecID id;
  const char* decoder;  // libavcodec's name
  const char* shown;
};
// What the containers commonly hold; each further decoder is a further way in. JPEG 2000 stays out.
constexpr CodecChoice kCodecs[] = {
    {AV_CODEC_ID_H264, "h264", "H.264"},   {AV_CODEC_ID_HEVC, "hevc", "HEVC"},
    {AV_CODEC_ID_VP8, "vp8", "VP8"},       {AV_CODEC_ID_VP9, "vp9", "VP9"},
    {AV_CODEC_ID_AV1, "libdav1d", "AV1"},  {AV_CODEC_ID_MPEG4, "mpeg4", "MPEG-4"},
    {AV_CODEC_ID_MJPEG, "mjpeg", "MJPEG"}, {AV_CODEC_ID_GIF, "gif", "GIF"},
};

int CoresOfThisProcess() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? std::max(CPU_COUNT(&set), 1) : 1;
}

Status OutOfMemory(const VideoJob& options) {
  return InvalidArgument(
      StrCat("decoding the video needs more memory than ", options.memory_bytes, " bytes (--video-memory)"));
}

}  // namespace

std::string ReadableCodecs() {
  std::vector<std::string> names;
  for (const CodecChoice& choice : kCodecs) names.emplace_back(choice.shown);
  return Join(names, ", ");
}

StatusOr<std::unique_ptr<FrameSource>> FrameSource::Open(const VideoFile& file, const VideoJob& options,
                                                         const std::vector<int64_t>& wanted) {
  std::unique_ptr<FrameSource> source(new FrameSource(file, options));
  FD_RETURN_IF_ERROR(source->Start(wanted));
  return source;
}

FrameSource::~FrameSource() {
  avcodec_free_context(&codec_);
  av_packet_free(&packet_);
  av_frame_free(&frame_);
}

Status FrameSource::CheckSize(int64_t width, int64_t height) {
  const std::string size = StrCat("the video's frames are ", width, " x ", height, " pixels");
  if (width > options_.max_side_pixels || height > options_.max_side_pixels) {
    return InvalidArgument(StrCat(size, "; the limit is ", options_.max_side_pixels, " pixels a side"));
  }
  if (width > 0 && height > 0 && width > options_.max_frame_pixels / height) {
    return InvalidArgument(StrCat(size, ", ", width * height, " in all; the limit is ",
                                  options_.max_frame_pixels, " (--max-video-pixels)"));
  }
  return OkStatus();
}

int FrameSource::GetBuffer(AVCodecContext* codec, AVFrame* frame, int flags) {
  // Called on libavcodec's threads; the size is looked at here before pixels are allocated.
  auto* source = static_cast<FrameSource*>(codec->opaque);
  if (!source->CheckSize(frame->width, frame->height).ok()) return AVERROR(EINVAL);
  return avcodec_default_get_buffer2(codec, frame, flags);
}

Status FrameSource::Start(const std::vector<int64_t>& wanted) {
  needed_ = NeededPackets(file_.index, wanted);
  for (size_t i = 0; i < needed_.size(); ++i) {
    if (needed_[i]) last_needed_ = i;
  }
  FD_ASSIGN_OR_RETURN(demuxer_, Demuxer::Open(file_.bytes, file_.container));
  const AVStream& stream = demuxer_->stream();
  const AVCodecParameters& parameters = *stream.codecpar;
  FD_RETURN_IF_ERROR(CheckSize(parameters.width, parameters.height));
  const auto* choice = std::find_if(std::begin(kCodecs), std::end(kCodecs),
                                    [&](const CodecChoice& c) { return c.id == parameters.codec_id; });
  if (choice == std::end(kCodecs)) {
    return InvalidArgument(StrCat("the video is coded as ", avcodec_get_name(parameters.codec_id),
                                  ", which is not read; ", ReadableCodecs(), " are"));
  }
  const AVCodec* decoder = avcodec_find_decoder_by_name(choice->decoder);
  if (decoder == nullptr) {
    return Unavailable(
        StrCat("this machine's FFmpeg was built without ", choice->decoder, ", which reads ", choice->shown));
  }
  codec_ = avcodec_alloc_context3(decoder);
  packet_ = av_packet_alloc();
  frame_ = av_frame_alloc();
  if (codec_ == nullptr || packet_ == nullptr || frame_ == nullptr) return OutOfMemory(options_);
  if (avcodec_parameters_to_context(codec_, &parameters) < 0) return OutOfMemory(options_);
  codec_->opaque = this;
  codec_->get_buffer2 = &GetBuffer;
  // The exact limit is GetBuffer's; this one stops tables that are made before a frame, and has room for the
  // blocks at the borders.
  codec_->max_pixels = options_.max_frame_pixels + 2 * 128 * options_.max_side_pixels;
  codec_->has_b_frames = std::max(codec_->has_b_frames, file_.index.by_time ? file_.index.reorder_frames : 0);
  codec_->err_recognition = 0;
  const auto packets_needed = static_cast<int64_t>(std::count(needed_.begin(), needed_.end(), true));
  const int64_t pixels = packets_needed * std::max<int64_t>(int64_t{parameters.width} * parameters.height, 1);
  codec_->thread_count = pixels < kPixelsWorthThreads ? 1 : std::min(CoresOfThisProcess() + 1, kMaxThreads);
  codec_->thread_type = FF_THREAD_FRAME | FF_THREAD_SLICE;
  const int opened = avcodec_open2(codec_, decoder, nullptr);
  if (opened == AVERROR(ENOMEM) || opened == AVERROR(EAGAIN)) return OutOfMemory(options_);
  if (opened < 0) {
    FD_RETURN_IF_ERROR(CheckSize(codec_->width, codec_->height));
    return InvalidArgument(StrCat("the video cannot be decoded: its ", choice->shown, " header is damaged"));
  }
  size_t matrix_bytes = 0;
  const uint8_t* matrix = av_stream_get_side_data(&stream, AV_PKT_DATA_DISPLAYMATRIX, &matrix_bytes);
  if (matrix != nullptr && matrix_bytes >= 9 * sizeof(int32_t)) {
    orientation_ = OrientationOfMatrix(reinterpret_cast<const int32_t*>(matrix));
  }
  return OkStatus();
}

Status FrameSource::Feed() {
  while (!packet_held_) {
    if (ended_ || position_ > last_needed_ || !demuxer_->Next(packet_) || position_ >= needed_.size()) {
      ended_ = true;
      draining_ = true;
      avcodec_send_packet(codec_, nullptr);
      return OkStatus();
    }
    const size_t at = position_++;
    const PacketEntry& entry = file_.index.packets[at];
    if (!needed_[at]) {
      if (!entry.non_reference) jumped_ = true;
      continue;
    }
    packet_held_ = true;
    // The decoder orders frames by what the stream says and gives these numbers back with them.
    packet_->pts = entry.display;
    packet_->dts = AV_NOPTS_VALUE;
    if (jumped_ && !entry.clean) {
      draining_ = true;
      avcodec_send_packet(codec_, nullptr);
      jumped_ = false;
      return OkStatus();
    }
    jumped_ = false;
  }
  const int sent = avcodec_send_packet(codec_, packet_);
  if (sent == AVERROR(EAGAIN)) return OkStatus();  // its frames are fetched first
  packet_held_ = false;
  if (sent == AVERROR(ENOMEM)) return OutOfMemory(options_);
  if (sent < 0) FD_RETURN_IF_ERROR(CheckSize(codec_->width, codec_->height));
  return OkStatus();
}

StatusOr<const AVFrame*> FrameSource::Next() {
  while (true) {
    const int result = avcodec_receive_frame(codec_, frame_);
    if (result == 0) {
      FD_RETURN_IF_ERROR(CheckSize(frame_->width, frame_->height));
      if (!file_.index.by_time) frame_->pts = frames_out_++;
      return frame_;
    }
    if (result == AVERROR(ENOMEM)) return OutOfMemory(options_);
    if (result == AVERROR_EOF) {
      if (ended_) return nullptr;
      avcodec_flush_buffers(codec_);
      draining_ = false;
      continue;
    }
    if (result != AVERROR(EAGAIN)) FD_RETURN_IF_ERROR(CheckSize(codec_->width, codec_->height));
    if (draining_ && result != AVERROR(EAGAIN)) continue;  // a damaged frame among the last ones
    FD_RETURN_IF_ERROR(Feed());
  }
}

}  // namespace fd
