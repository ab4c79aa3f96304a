#include "server/text/bpe_tokenizer.h"

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "base/utf8.h"
#include "server/text/bpe_merge.h"
#include "server/text/byte_alphabet.h"
#include "server/text/json_scanner.h"
#include "server/text/loaded_tokenizer.h"
#include "server/text/nfc.h"
#include "server/text/piece_table.h"
#include "server/text/sentencepiece_model.h"
#include "server/text/tokenizer_json.h"

namespace fd {
namespace {

class BpeTokenizer final : public LoadedTokenizer {
 public:
  explicit BpeTokenizer(TokenizerJson json) : json_(std::move(json)) {}
  Status Init(TokenizerConfig config);
  bool strips_leading_space() const override { return json_.strips_leading_space; }

 protected:
  void EncodeSegment(std::string_view text, std::vector<int32_t>& ids) const override;
  void AppendPieceBytes(int32_t id, std::string& out) const override;
  std::optional<int32_t> FindPiece(std::string_view piece) const override;

 private:
  Status LoadVocab();
  Status LoadMerges();
  void EncodeWord(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& ids) const;
  // The symbols of one character (byte-level: one byte) at `begin` of the word.
  void AddCharacter(std::string_view word, uint32_t begin, uint32_t length,
                    std::vector<BpeSymbol>& symbols) const;

  TokenizerJson json_;  // without views into the file after Init
  PieceTable table_;    // byte-level: the bytes that a piece stands for
  PairTable merges_;
  std::array<int32_t, 256> byte_ids_;  // byte-level: of single bytes; else of <0x0A>
  int32_t unk_id_ = -1;
};

Status BpeTokenizer::Init(TokenizerConfig config) {
  FD_RETURN_IF_ERROR(LoadVocab());
  std::vector<AddedToken> added = json_.added;
  added.insert(added.end(), config.added.begin(), config.added.end());
  config.added = std::move(added);
  SetAddedTokens(std::move(config), table_.size());
  FD_RETURN_IF_ERROR(LoadMerges());

  for (int byte = 0; byte < 256; ++byte) {
    if (json_.byte_level) {
      const char c = static_cast<char>(byte);
      byte_ids_[byte] = table_.Find({&c, 1});
    } else {
      constexpr char kHex[] = "0123456789ABCDEF";
      const char piece[] = {'<', '0', 'x', kHex[byte / 16], kHex[byte % 16], '>'};
      byte_ids_[byte] = table_.Find({piece, sizeof(piece)});
    }
  }
  if (!json_.unk_token.empty()) {
    unk_id_ = TokenId(json_.unk_token).value_or(-1);
    if (unk_id_ < 0)
      return InvalidArgument(StrCat("model.unk_token: \"", json_.unk_token, "\" is not in the vocabulary"));
  }
  for (const std::vector<int32_t>* ids : {&json_.prefix_ids, &json_.suffix_ids}) {
    for (int32_t id : *ids) {
      if (id >= vocab_size()) {
        return InvalidArgument(StrCat("post_processor: token id ", id, " of ", vocab_size(), " tokens"));
      }
    }
  }
  prefix_ids_ = json_.prefix_ids;
  suffix_ids_ = json_.suffix_ids;
  json_.vocab = json_.merges = {};
  return OkStatus();
}

Status BpeTokenizer::LoadVocab() {
  JsonScanner scanner(json_.vocab, json_.vocab_offset);
  table_.Reserve(json_.vocab.size() / 20, json_.vocab.size() / 3);
  FD_RETURN_IF_ERROR(scanner.Expect('{'));
  std::string key, bytes;
  for (bool first = true;; first = false) {
    FD_ASSIGN_OR_RETURN(const bool more, scanner.More('}', first));
    if (!more) break;
    FD_RETURN_IF_ERROR(scanner.String(key));
    FD_RETURN_IF_ERROR(scanner.Expect(':'));
    FD_ASSIGN_OR_RETURN(const int64_t id, scanner.Int());
    if (id < 0 || id >= kMaxTokenId)
      return scanner.Error(StrCat("token id ", id, " is outside [0, ", kMaxTokenId, ")"));
    if (key.empty()) return scanner.Error("a token without text");
    if (!table_.Bytes(static_cast<int32_t>(id)).empty())
      return scanner.Error(StrCat("token id ", id, " stands twice"));
    // A byte-level key outside the alphabet cannot be the result of a merge: it has its text and no more.
    const bool findable = !json_.byte_level || AlphabetToBytes(key, bytes);
    table_.Set(static_cast<int32_t>(id), json_.byte_level && findable ? bytes : key);
    if (findable && !table_.Index(static_cast<int32_t>(id)))
      return scanner.Error(StrCat("\"", key, "\" stands twice"));
  }
  if (table_.size() == 0) return scanner.Error("the vocabulary is empty");
  return OkStatus();
}

Status BpeTokenizer::LoadMerges() {
  JsonScanner scanner(json_.merges, json_.merges_offset);
  merges_ = PairTable(json_.merges.size() / 18);
  FD_RETURN_IF_ERROR(scanner.Expect('['));
  std::string left, right, converted, joined;
  uint32_t rank = 0;
  for (bool first = true;; first = false, ++rank) {
    FD_ASSIGN_OR_RETURN(const bool more, scanner.More(']', first));
    if (!more) return OkStatus();
    if (rank == BpeRank::kNever - 1) return scanner.Error("too many merges");
    if (scanner.Peek() == '[') {
      FD_RETURN_IF_ERROR(scanner.Expect('['));
      FD_RETURN_IF_ERROR(scanner.String(left));
      FD_RETURN_IF_ERROR(scanner.Expect(','));
      FD_RETURN_IF_ERROR(scanner.String(right));
      FD_RETURN_IF_ERROR(scanner.Expect(']'));
    } else {
      FD_RETURN_IF_ERROR(scanner.String(joined));
      const size_t space = joined.find(' ');
      if (space == joined.npos || joined.find(' ', space + 1) != joined.npos) {
        return scanner.Error(StrCat("merge ", rank, ": expected two tokens with one space between them"));
      }
      left.assign(joined, 0, space);
      right.assign(joined, space + 1, std::string::npos);
    }
    if (json_.byte_level) {
      if (!AlphabetToBytes(left, converted))
        return scanner.Error(StrCat("merge ", rank, ": \"", left, "\" is outside the byte alphabet"));
      left.swap(converted);
      if (!AlphabetToBytes(right, converted))
        return scanner.Error(StrCat("merge ", rank, ": \"", right, "\" is outside the byte alphabet"));
      right.swap(converted);
    }
    joined.assign(left).append(right);
    const int32_t left_id = table_.Find(left);
    const int32_t right_id = table_.Find(right);
    const int32_t id = table_.Find(joined);
    if (left_id < 0 || right_id < 0 || id < 0) {
      return scanner.Error(StrCat("merge ", rank, ": a token of it is not in the vocabulary"));
    }
    // Text must not become a control token by way of merges.
    if (!IsReserved(id)) merges_.Set(left_id, right_id, {rank, id});
  }
}

void BpeTokenizer::EncodeSegment(std::string_view text, std::vector<int32_t>& ids) const {
  std::string normalized;
  for (const TokenizerJson::NormalizeStep& step : json_.normalizer) {
    switch (step.kind) {
      case TokenizerJson::NormalizeStep::kNfc:
        if (std::optional<std::string> nfc = NormalizeNfc(text); nfc.has_value()) {
          normalized = *std::move(nfc);
          text = normalized;
        }
        break;
      case TokenizerJson::NormalizeStep::kPrepend:
        normalized = StrCat(step.content, text);
        text = normalized;
        break;
      case TokenizerJson::NormalizeStep::kReplace:
        normalized = ReplaceAll(text, step.from, step.content);
        text = normalized;
        break;
    }
  }
  std::vector<std::string_view> words = {text};
  for (const SplitPattern& split : json_.splits) {
    std::vector<std::string_view> parts;
    parts.reserve(words.size() > 1 ? words.size() : text.size() / 4 + 1);
    for (std::string_view word : words) split.Split(word, parts);
    words = std::move(parts);
  }
  BpeScratch scratch;
  for (std::string_view word : words) EncodeWord(word, scratch, ids);
}

void BpeTokenizer::EncodeWord(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& ids) const {
  if (json_.ignore_merges) {
    const int32_t id = table_.Find(word);
    if (id >= 0 && !IsReserved(id)) {
      ids.push_back(id);
      return;
    }
  }
  auto& symbols = scratch.symbols;
  symbols.clear();
  for (size_t at = 0; at < word.size();) {
    const uint32_t length = json_.byte_level ? 1 : static_cast<uint32_t>(WellFormedLength(word.substr(at)));
    AddCharacter(word, static_cast<uint32_t>(at), length, symbols);
    at += length;
  }
  MergeSymbols(scratch, [&](const BpeSymbol& left, const BpeSymbol& right) {
    const PairTable::Merge* merge = merges_.Find(left.id, right.id);
    return merge == nullptr ? BpeRank{} : BpeRank{merge->rank, merge->id};
  });
  for (const BpeSymbol& s : symbols) ids.push_back(s.id);
}

void BpeTokenizer::AddCharacter(std::string_view word, uint32_t begin, uint32_t length,
                                std::vector<BpeSymbol>& symbols) const {
  const int32_t id = json_.byte_level ? byte_ids_[static_cast<uint8_t>(word[begin])]
                                      : table_.Find(word.substr(begin, length));
  if (id >= 0 && !IsReserved(id)) {
    symbols.push_back({begin, length, id});
    return;
  }
  if (json_.byte_fallback && !json_.byte_level) {
    bool all = true;
    for (uint32_t i = 0; i < length; ++i) all = all && byte_ids_[static_cast<uint8_t>(word[begin + i])] >= 0;
    if (all) {
      for (uint32_t i = 0; i < length; ++i) {
        symbols.push_back({begin + i, 1, byte_ids_[static_cast<uint8_t>(word[begin + i])]});
      }
      return;
    }
  }
  // Without an unknown token such characters are dropped, as the library does.
  if (unk_id_ < 0) return;
  if (json_.fuse_unk && !symbols.empty() && symbols.back().id == unk_id_) {
    symbols.back().length += length;
  } else {
    symbols.push_back({begin, length, unk_id_});
  }
}

void BpeTokenizer::AppendPieceBytes(int32_t id, std::string& out) const {
  const std::string_view piece = table_.Bytes(id);
  if (json_.byte_level) {
    out += piece;
    return;
  }
  const int byte = json_.decodes_bytes ? BytePieceValue(piece) : -1;
  if (byte >= 0) {
    out.push_back(static_cast<char>(byte));
  } else if (json_.replace_from.empty()) {
    out += piece;
  } else {
    out += ReplaceAll(piece, json_.replace_from, json_.replace_to);
  }
}

std::optional<int32_t> BpeTokenizer::FindPiece(std::string_view piece) const {
  std::string bytes;
  if (json_.byte_level && !AlphabetToBytes(piece, bytes)) return std::nullopt;
  const int32_t id = table_.Find(json_.byte_level ? std::string_view(bytes) : piece);
  return id >= 0 ? std::optional<int32_t>(id) : std::nullopt;
}

}  // namespace

StatusOr<std::unique_ptr<Tokenizer>> MakeBpeTokenizer(std::string_view file, TokenizerConfig config) {
  if (!IsValidUtf8(file)) return InvalidArgument("the file is not UTF-8");
  FD_ASSIGN_OR_RETURN(TokenizerJson json, ParseTokenizerJson(file));
  auto tokenizer = std::make_unique<BpeTokenizer>(std::move(json));
  FD_RETURN_IF_ERROR(tokenizer->Init(std::move(config)));
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

}  // namespace fd
