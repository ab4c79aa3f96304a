// One pass over all packets of a video: how many frames it has, in which order they are shown, and where
// decoding can begin. Metadata of the container are not trusted for any of it. Pure functions of the file.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "media/demuxer.h"

namespace fd {

struct PacketEntry {
  int64_t display = -1;        // place among the shown frames; -1: never shown (edit list, hidden frame)
  bool key = false;            // decoding can begin here
  bool clean = false;          // a decoder takes it after any other packet without being reset
  bool non_reference = false;  // no other frame needs it
};

struct PacketIndex {
  std::vector<PacketEntry> packets;  // in decode order
  std::vector<int64_t> position;     // of the packet that holds a shown frame
  // False where the container keeps no presentation times (AVI): a frame's place is then known only by
  // counting what leaves the decoder, from the first packet on.
  bool by_time = true;
  int64_t total_frames = 0;
  double duration_s = 0;
  int reorder_frames = 0;  // how far decode order runs ahead of display order
};

StatusOr<PacketIndex> IndexPackets(std::string_view file, Container container);

// Which packets a decoder must see so that the wanted frames (ascending display indices) come out exactly:
// for each its own packet and, from the key frame before it, all that others refer to.
std::vector<bool> NeededPackets(const PacketIndex& index, const std::vector<int64_t>& wanted);

}  // namespace fd
