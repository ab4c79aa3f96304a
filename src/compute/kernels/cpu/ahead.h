// What the tiles of a slice of weights ask memory for while they compute. Products of few rows wait for
// memory unless the weights that come next are already on their way.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace fd::cpu::FD_ISA_NS {

// How far ahead of the loads a weight that is read once is asked for, in each panel of a tile.
inline constexpr int64_t kStreamedBytes = 4096;

// For a weight at byte b of a panel's slice, byte b + near is asked for while b < turn, then b + far.
struct Ahead {
  int64_t near = 0;
  int64_t turn = 0;
  int64_t far = 0;
  // The slice to come is shared out between the row tiles of the present one: a tile asks for the steps of k
  // whose low bits equal its share; -1: nothing.
  int64_t mask = 0;
  int64_t share = 0;
  bool streamed = false;  // used next, and once: into the first-level cache

  bool Now(int64_t step) const { return (step & mask) == share; }
  void Prefetch(const void* weight, int64_t b) const {
    const char* p = static_cast<const char*>(weight) + (b < turn ? near : far);
    if (streamed) {
      _mm_prefetch(p, _MM_HINT_T0);
    } else {
      _mm_prefetch(p, _MM_HINT_T1);
    }
  }
};

// A slice of `slice_bytes` in each panel, of which one tile of rows passes by: it streams through to the next
// panels, if any, `panels_bytes` further on.
inline Ahead StreamAhead(int64_t slice_bytes, int64_t panels_bytes, bool last) {
  Ahead ahead;
  ahead.near = kStreamedBytes;
  ahead.turn = slice_bytes - kStreamedBytes;
  ahead.far = last ? 0 : panels_bytes - ahead.turn;
  ahead.streamed = true;
  return ahead;
}
// Tile `tile` of ceil(rows / tile_rows); the slice to come lies `step` bytes further on.
inline Ahead SliceAhead(int64_t step, int64_t rows, int64_t tile_rows, int64_t tile) {
  int64_t shares = 1;
  while (shares * 2 * tile_rows <= rows) shares *= 2;
  Ahead ahead;
  ahead.far = step;
  ahead.mask = shares - 1;
  ahead.share = tile < shares ? tile : -1;
  return ahead;
}

}  // namespace fd::cpu::FD_ISA_NS
