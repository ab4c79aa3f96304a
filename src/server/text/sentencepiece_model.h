// The contents of a SentencePiece tokenizer.model (sentencepiece_model.proto), checked.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "server/text/charsmap.h"

namespace fd {

struct SentencePieceModel {
  enum Type : uint8_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };
  struct Piece {
    std::string_view text;  // into the parsed bytes; UTF-8, not empty
    float score = 0;
    Type type = kNormal;
  };
  std::vector<Piece> pieces;  // the index is the id
  int32_t unk_id = -1;
  int32_t bos_id = -1;  // -1: none
  int32_t eos_id = -1;
  bool byte_fallback = false;  // then all 256 bytes have a piece
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  Charsmap charsmap;
};

// `bytes` must outlive the result. Models that are not BPE: kUnimplemented.
StatusOr<SentencePieceModel> ParseSentencePieceModel(std::string_view bytes);

// The byte that a piece "<0x0A>" stands for, or -1.
int BytePieceValue(std::string_view piece);

}  // namespace fd
