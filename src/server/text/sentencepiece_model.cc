#include "server/text/sentencepiece_model.h"

#include <bit>
#include <bitset>
#include <cmath>

#include "base/strings.h"
#include "base/utf8.h"
#include "server/text/proto_reader.h"
#include "server/text/tokenizer_config.h"

namespace fd {
namespace {

Status Expect(const ProtoField& field, ProtoField::Type type, const char* name) {
  if (field.type == type) return OkStatus();
  return InvalidArgument(StrCat(name, " (field ", field.number, ") has wire type ",
                                static_cast<int>(field.type), ", expected ", static_cast<int>(type)));
}

StatusOr<SentencePieceModel::Piece> ParsePiece(std::string_view bytes) {
  SentencePieceModel::Piece piece;
  for (ProtoReader reader(bytes); !reader.done();) {
    FD_ASSIGN_OR_RETURN(const ProtoField field, reader.Next());
    if (field.number == 1) {
      FD_RETURN_IF_ERROR(Expect(field, ProtoField::kBytes, "piece"));
      piece.text = field.bytes;
    } else if (field.number == 2) {
      FD_RETURN_IF_ERROR(Expect(field, ProtoField::kFixed32, "score"));
      piece.score = std::bit_cast<float>(static_cast<uint32_t>(field.value));
    } else if (field.number == 3) {
      FD_RETURN_IF_ERROR(Expect(field, ProtoField::kVarint, "type"));
      if (field.value < 1 || field.value > 6)
        return InvalidArgument(StrCat("type ", field.value, " is unknown"));
      piece.type = static_cast<SentencePieceModel::Type>(field.value);
    }
  }
  if (piece.text.empty()) return InvalidArgument("its text is empty");
  if (!IsValidUtf8(piece.text)) return InvalidArgument("its text is not UTF-8");
  if (std::isnan(piece.score)) return InvalidArgument("its score is not a number");
  if (piece.type == SentencePieceModel::kByte && BytePieceValue(piece.text) < 0) {
    return InvalidArgument(StrCat("a byte piece is spelled \"", piece.text, "\", expected the form <0x0A>"));
  }
  return piece;
}

Status ParseTrainerSpec(std::string_view bytes, SentencePieceModel& model) {
  uint64_t model_type = 1;
  for (ProtoReader reader(bytes); !reader.done();) {
    FD_ASSIGN_OR_RETURN(const ProtoField field, reader.Next());
    switch (field.number) {
      case 3:
        FD_RETURN_IF_ERROR(Expect(field, ProtoField::kVarint, "model_type"));
        model_type = field.value;
        break;
      case 24:
        FD_RETURN_IF_ERROR(Expect(field, ProtoField::kVarint, "treat_whitespace_as_suffix"));
        if (field.value != 0) return Unimplemented("treat_whitespace_as_suffix is not supported");
        break;
      case 35:
        FD_RETURN_IF_ERROR(Expect(field, ProtoField::kVarint, "byte_fallback"));
        model.byte_fallback = field.value != 0;
        break;
      default:
        break;
    }
  }
  constexpr const char* kTypes[] = {"?", "UNIGRAM", "BPE", "WORD", "CHAR"};
  if (model_type == 2) return OkStatus();
  return Unimplemented(StrCat("model_type ", model_type < 5 ? kTypes[model_type] : "?", " (", model_type,
                              ") is not supported, only BPE (2)"));
}

Status ParseNormalizerSpec(std::string_view bytes, SentencePieceModel& model) {
  for (ProtoReader reader(bytes); !reader.done();) {
    FD_ASSIGN_OR_RETURN(const ProtoField field, reader.Next());
    bool* flags[] = {&model.add_dummy_prefix, &model.remove_extra_whitespaces, &model.escape_whitespaces};
    if (field.number == 2) {
      FD_RETURN_IF_ERROR(Expect(field, ProtoField::kBytes, "precompiled_charsmap"));
      FD_ASSIGN_OR_RETURN(model.charsmap, Charsmap::Parse(field.bytes));
    } else if (field.number >= 3 && field.number <= 5) {
      FD_RETURN_IF_ERROR(Expect(field, ProtoField::kVarint, "a flag of normalizer_spec"));
      *flags[field.number - 3] = field.value != 0;
    }
  }
  return OkStatus();
}

Status ParseDenormalizerSpec(std::string_view bytes) {
  for (ProtoReader reader(bytes); !reader.done();) {
    FD_ASSIGN_OR_RETURN(const ProtoField field, reader.Next());
    if (field.number == 2 && !field.bytes.empty()) {
      return Unimplemented("denormalizer_spec with replacements is not supported");
    }
  }
  return OkStatus();
}

Status CheckPieces(SentencePieceModel& model) {
  if (model.pieces.empty()) return InvalidArgument("it has no pieces");
  std::bitset<256> bytes;
  for (size_t i = 0; i < model.pieces.size(); ++i) {
    const SentencePieceModel::Piece& piece = model.pieces[i];
    const int32_t id = static_cast<int32_t>(i);
    if (piece.type == SentencePieceModel::kUnknown) {
      if (model.unk_id >= 0)
        return InvalidArgument(StrCat("pieces ", model.unk_id, " and ", id, " are both unknown"));
      model.unk_id = id;
    } else if (piece.type == SentencePieceModel::kByte) {
      const int value = BytePieceValue(piece.text);
      if (bytes.test(value))
        return InvalidArgument(StrCat("piece ", id, ": \"", piece.text, "\" stands twice"));
      bytes.set(value);
    } else if (piece.type == SentencePieceModel::kControl) {
      if (piece.text == "<s>") model.bos_id = id;
      if (piece.text == "</s>") model.eos_id = id;
    }
  }
  if (model.unk_id < 0) return InvalidArgument("no piece has type unknown");
  if (model.byte_fallback && !bytes.all()) {
    return InvalidArgument(StrCat("byte_fallback needs 256 byte pieces, there are ", bytes.count()));
  }
  return OkStatus();
}

}  // namespace

int BytePieceValue(std::string_view piece) {
  if (piece.size() != 6 || piece.substr(0, 3) != "<0x" || piece[5] != '>') return -1;
  int value = 0;
  for (char c : piece.substr(3, 2)) {
    if (c >= '0' && c <= '9') {
      value = value * 16 + (c - '0');
    } else if (c >= 'A' && c <= 'F') {
      value = value * 16 + (c - 'A' + 10);
    } else {
      return -1;
    }
  }
  return value;
}

StatusOr<SentencePieceModel> ParseSentencePieceModel(std::string_view bytes) {
  SentencePieceModel model;
  bool has_trainer_spec = false;
  for (ProtoReader reader(bytes); !reader.done();) {
    FD_ASSIGN_OR_RETURN(const ProtoField field, reader.Next());
    if (field.number < 1 || field.number > 5 || field.number == 4) continue;  // 4: self test data
    FD_RETURN_IF_ERROR(Expect(field, ProtoField::kBytes, "a part of the model"));
    if (field.number == 1) {
      const size_t id = model.pieces.size();
      if (id >= kMaxTokenId) return InvalidArgument(StrCat("more than ", kMaxTokenId, " pieces"));
      StatusOr<SentencePieceModel::Piece> piece = ParsePiece(field.bytes);
      if (!piece.ok()) return piece.status().WithContext(StrCat("piece ", id));
      model.pieces.push_back(*piece);
    } else if (field.number == 2) {
      has_trainer_spec = true;
      if (Status s = ParseTrainerSpec(field.bytes, model); !s.ok()) return s.WithContext("trainer_spec");
    } else if (field.number == 3) {
      if (Status s = ParseNormalizerSpec(field.bytes, model); !s.ok())
        return s.WithContext("normalizer_spec");
    } else {
      FD_RETURN_IF_ERROR(ParseDenormalizerSpec(field.bytes));
    }
  }
  if (!has_trainer_spec) return InvalidArgument("not a SentencePiece model: there is no trainer_spec");
  FD_RETURN_IF_ERROR(CheckPieces(model));
  return model;
}

}  // namespace fd
