#include "media/packet_index.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/strings.h"
#include "server/multimodal/video/protocol.h"

namespace fd {
namespace {

// Length of the sizes before NAL units, from avcC or hvcC; 0: start codes.
int NalLengthBytes(const AVCodecParameters& codec) {
  const uint8_t* extra = codec.extradata;
  if (extra == nullptr || codec.extradata_size < 7 || extra[0] != 1) return 0;
  if (codec.codec_id == AV_CODEC_ID_H264) return (extra[4] & 3) + 1;
  return codec.extradata_size >= 23 ? (extra[21] & 3) + 1 : 0;
}

// Calls visit(first bytes of a NAL unit, bytes left) for each unit; false when lengths are damaged.
template <typename Visit>
bool ForEachNal(const uint8_t* data, size_t size, int length_bytes, Visit visit) {
  if (length_bytes == 0) {
    for (size_t i = 0; i + 4 < size; ++i) {
      if (data[i] == 0 && data[i + 1] == 0 && data[i + 2] == 1) visit(data + i + 3, size - i - 3);
    }
    return true;
  }
  size_t at = 0;
  const auto step = static_cast<size_t>(length_bytes);
  while (at + step < size) {
    size_t length = 0;
    for (size_t i = 0; i < step; ++i) length = length << 8 | data[at + i];
    at += step;
    if (length < 2 || length > size - at) return false;
    visit(data + at, length);
    at += length;
  }
  return true;
}

struct NalFacts {
  bool slices = false;
  bool reference = false;
  bool instant = false;  // an IDR picture
};

NalFacts InspectH264(const AVPacket& packet, int length_bytes) {
  NalFacts facts;
  const bool whole = ForEachNal(packet.data, static_cast<size_t>(packet.size), length_bytes,
                                [&](const uint8_t* nal, size_t) {
                                  const int type = nal[0] & 31;
                                  if (type < 1 || type > 5) return;
                                  facts.slices = true;
                                  if ((nal[0] & 0x60) != 0) facts.reference = true;
                                  if (type == 5) facts.instant = true;
                                });
  if (!whole || !facts.slices) facts.reference = true;
  return facts;
}

NalFacts InspectHevc(const AVPacket& packet, int length_bytes, int* temporal_layer) {
  NalFacts facts;
  *temporal_layer = 0;
  const bool whole = ForEachNal(packet.data, static_cast<size_t>(packet.size), length_bytes,
                                [&](const uint8_t* nal, size_t) {
                                  const int type = (nal[0] >> 1) & 63;
                                  if (type > 31) return;
                                  facts.slices = true;
                                  *temporal_layer = (nal[1] & 7) - 1;
                                  if (type >= 16 || (type & 1) != 0) facts.reference = true;
                                  if (type == 19 || type == 20) facts.instant = true;
                                });
  if (!whole || !facts.slices) facts.reference = true;
  return facts;
}

bool IsHiddenVp8(const AVPacket& packet) { return (packet.data[0] & 0x10) == 0; }

struct Times {
  std::vector<int64_t> pts;       // of packets
  std::vector<int64_t> duration;  // of packets
};

// Ranks shown packets by their time; equal times keep decode order.
void OrderByTime(const Times& times, PacketIndex* index) {
  std::vector<int64_t> shown;
  for (size_t i = 0; i < index->packets.size(); ++i) {
    if (index->packets[i].display >= 0) shown.push_back(static_cast<int64_t>(i));
  }
  index->total_frames = static_cast<int64_t>(shown.size());
  if (index->by_time) {
    std::vector<int64_t> order = shown;
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return times.pts[static_cast<size_t>(a)] < times.pts[static_cast<size_t>(b)];
    });
    index->position = std::move(order);
  } else {
    index->position = shown;
  }
  for (size_t rank = 0; rank < index->position.size(); ++rank) {
    index->packets[static_cast<size_t>(index->position[rank])].display = static_cast<int64_t>(rank);
  }
  for (size_t i = 0; i < shown.size(); ++i) {
    const int64_t ahead = static_cast<int64_t>(i) - index->packets[static_cast<size_t>(shown[i])].display;
    index->reorder_frames = static_cast<int>(std::clamp<int64_t>(ahead, index->reorder_frames, 16));
  }
}

// The time that total_frames frames are shown. The container's mean rate is taken where the time stamps agree
// with it to a frame, because stamps in milliseconds round; else the stamps alone.
double DurationOf(const AVStream& stream, const Times& times, const PacketIndex& index) {
  const auto total = static_cast<double>(index.total_frames);
  const double rate =
      stream.avg_frame_rate.num > 0 && stream.avg_frame_rate.den > 0 ? av_q2d(stream.avg_frame_rate) : 0;
  const double by_rate = rate > 0 ? total / rate : 0;
  if (!index.by_time) return by_rate;
  const auto first = static_cast<size_t>(index.position.front());
  const auto last = static_cast<size_t>(index.position.back());
  const double unit_s = av_q2d(stream.time_base);
  // Differences in floating point: hostile stamps may be any 64-bit numbers.
  const double span = (static_cast<double>(times.pts[last]) - static_cast<double>(times.pts[first])) * unit_s;
  double last_s = static_cast<double>(std::max<int64_t>(times.duration[last], 0)) * unit_s;
  if (last_s == 0 && total > 1) last_s = span / (total - 1);
  const double by_stamps = span + last_s;
  if (total > 1 && by_rate > 0 && std::abs(by_rate - by_stamps) <= 1.01 * by_rate / total) return by_rate;
  if (total == 1 && by_stamps == 0) return by_rate;
  return std::isfinite(by_stamps) ? std::max(by_stamps, 0.0) : 0;
}

}  // namespace

StatusOr<PacketIndex> IndexPackets(std::string_view file, Container container) {
  FD_ASSIGN_OR_RETURN(std::unique_ptr<Demuxer> demuxer, Demuxer::Open(file, container));
  const AVCodecParameters& codec = *demuxer->stream().codecpar;
  const int length_bytes = NalLengthBytes(codec);
  PacketIndex index;
  Times times;
  std::vector<int8_t> layers;  // of HEVC pictures that are non-references inside their own layer
  int top_layer = 0;
  AVPacket* packet = av_packet_alloc();
  if (packet == nullptr) return InvalidArgument("the video needs more memory than --video-memory allows");
  while (demuxer->Next(packet)) {
    PacketEntry entry;
    bool shown = (packet->flags & AV_PKT_FLAG_DISCARD) == 0;
    entry.key = (packet->flags & AV_PKT_FLAG_KEY) != 0;
    entry.clean = entry.key;
    int layer = 0;
    if (codec.codec_id == AV_CODEC_ID_H264) {
      const NalFacts facts = InspectH264(*packet, length_bytes);
      entry.non_reference = !facts.reference;
      entry.key = entry.key || facts.instant;
      entry.clean = facts.instant;
    } else if (codec.codec_id == AV_CODEC_ID_HEVC) {
      const NalFacts facts = InspectHevc(*packet, length_bytes, &layer);
      entry.non_reference = !facts.reference;
      entry.key = entry.key || facts.instant;
      entry.clean = facts.instant;
      top_layer = std::max(top_layer, layer);
    } else if (codec.codec_id == AV_CODEC_ID_VP8) {
      shown = shown && !IsHiddenVp8(*packet);
    }
    if (shown) {
      entry.display = 0;
      if (packet->pts == AV_NOPTS_VALUE) index.by_time = false;
    }
    index.packets.push_back(entry);
    layers.push_back(static_cast<int8_t>(layer));
    times.pts.push_back(packet->pts);
    times.duration.push_back(packet->duration);
  }
  av_packet_free(&packet);
  // Pictures of a lower layer may be referred to from a higher one.
  for (size_t i = 0; i < layers.size(); ++i) {
    if (layers[i] < top_layer) index.packets[i].non_reference = false;
  }
  OrderByTime(times, &index);
  if (index.total_frames == 0)
    return InvalidArgument("the video holds no frame: it is empty or cut off before its first");
  if (index.total_frames > kMaxMediaFrames)
    return InvalidArgument(
        StrCat("the video has ", index.total_frames, " frames; the limit is ", kMaxMediaFrames));
  index.duration_s = DurationOf(demuxer->stream(), times, index);
  return index;
}

std::vector<bool> NeededPackets(const PacketIndex& index, const std::vector<int64_t>& wanted) {
  const size_t count = index.packets.size();
  if (!index.by_time) return std::vector<bool>(count, true);
  std::vector<bool> needed(count, false);
  // Last key frame at or before each position; -1 before the first.
  std::vector<int64_t> key_before(count, -1);
  for (size_t i = 0; i < count; ++i) {
    key_before[i] = index.packets[i].key ? static_cast<int64_t>(i) : (i > 0 ? key_before[i - 1] : -1);
  }
  std::vector<int64_t> begins(count + 1, 0);  // +1 where a needed span begins, -1 after its end
  for (int64_t display : wanted) {
    const int64_t position = index.position[static_cast<size_t>(display)];
    int64_t start = key_before[static_cast<size_t>(position)];
    // A frame shown before the key frame that precedes it in the file refers to the group before.
    while (start > 0 && index.packets[static_cast<size_t>(start)].display > display) {
      start = key_before[static_cast<size_t>(start - 1)];
    }
    ++begins[static_cast<size_t>(std::max<int64_t>(start, 0))];
    --begins[static_cast<size_t>(position) + 1];
    needed[static_cast<size_t>(position)] = true;
  }
  int64_t open = 0;
  for (size_t i = 0; i < count; ++i) {
    open += begins[i];
    if (open > 0 && !index.packets[i].non_reference) needed[i] = true;
  }
  return needed;
}

}  // namespace fd
