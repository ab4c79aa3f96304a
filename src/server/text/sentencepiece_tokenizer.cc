#include "server/text/sentencepiece_tokenizer.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "base/utf8.h"
#include "server/text/bpe_merge.h"
#include "server/text/loaded_tokenizer.h"
#include "server/text/piece_table.h"
#include "server/text/prefix_matcher.h"
#include "server/text/sentencepiece_model.h"

namespace fd {
namespace {

using Type = SentencePieceModel::Type;
constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581

// Pieces by falling score; equal scores have equal ranks, then the leftmost pair goes first.
std::vector<uint32_t> RanksByScore(const std::vector<SentencePieceModel::Piece>& pieces) {
  std::vector<int32_t> order(pieces.size());
  std::iota(order.begin(), order.end(), 0);
  auto before = [&](int32_t a, int32_t b) { return pieces[a].score > pieces[b].score; };
  if (!std::is_sorted(order.begin(), order.end(), before))
    std::stable_sort(order.begin(), order.end(), before);
  std::vector<uint32_t> ranks(pieces.size());
  for (size_t i = 1; i < order.size(); ++i) {
    ranks[order[i]] = ranks[order[i - 1]] + (before(order[i - 1], order[i]) ? 1 : 0);
  }
  return ranks;
}

// A symbol "▁" that follows another character inside a piece.
bool HasInnerSpace(std::string_view piece) {
  for (size_t at = piece.find(kSpaceSymbol); at != piece.npos; at = piece.find(kSpaceSymbol, at + 1)) {
    if (at > 0 && !piece.substr(0, at).ends_with(kSpaceSymbol)) return true;
  }
  return false;
}

class SentencePieceTokenizer final : public LoadedTokenizer {
 public:
  Status Init(const SentencePieceModel& model, TokenizerConfig config);
  bool strips_leading_space() const override { return add_dummy_prefix_; }

 protected:
  void EncodeSegment(std::string_view text, std::vector<int32_t>& ids) const override;
  void AppendPieceBytes(int32_t id, std::string& out) const override;
  std::optional<int32_t> FindPiece(std::string_view piece) const override;

 private:
  // One segment's working memory and what a merge into an unused piece was made of.
  struct Pass {
    BpeScratch scratch;
    std::unordered_map<int32_t, uint32_t> unused_left_bytes;
    bool after_unknown = false;
  };
  std::string Normalize(std::string_view text) const;
  void EncodeRun(std::string_view run, Pass& pass, std::vector<int32_t>& ids) const;
  void EmitSymbol(std::string_view text, int32_t id, Pass& pass, std::vector<int32_t>& ids) const;

  PieceTable table_;  // findable: normal, user-defined and unused pieces that are not reserved
  std::vector<uint32_t> ranks_;
  std::vector<Type> types_;
  std::array<int32_t, 256> byte_ids_;
  PrefixMatcher user_defined_;
  Charsmap charsmap_;
  int32_t unk_id_ = 0;
  bool byte_fallback_ = false;
  bool add_dummy_prefix_ = false;
  bool remove_extra_whitespaces_ = false;
  bool escape_whitespaces_ = true;
  bool splits_before_space_ = false;  // no piece reaches over the border between a word and a following "▁"
};

Status SentencePieceTokenizer::Init(const SentencePieceModel& model, TokenizerConfig config) {
  const auto& pieces = model.pieces;
  unk_id_ = model.unk_id;
  byte_fallback_ = model.byte_fallback;
  add_dummy_prefix_ = model.add_dummy_prefix && config.add_prefix_space.value_or(true);
  remove_extra_whitespaces_ = model.remove_extra_whitespaces;
  escape_whitespaces_ = model.escape_whitespaces;
  charsmap_ = model.charsmap;
  ranks_ = RanksByScore(pieces);
  byte_ids_.fill(-1);

  size_t total_bytes = 0;
  for (const auto& piece : pieces) total_bytes += piece.text.size();
  table_.Reserve(pieces.size(), total_bytes);
  types_.resize(pieces.size());
  for (size_t i = 0; i < pieces.size(); ++i) {
    const int32_t id = static_cast<int32_t>(i);
    types_[i] = pieces[i].type;
    table_.Set(id, pieces[i].text);
    if (types_[i] == Type::kByte) byte_ids_[BytePieceValue(pieces[i].text)] = id;
    if (types_[i] == Type::kControl || types_[i] == Type::kUnknown) {
      AddedToken token;
      token.content = pieces[i].text;
      token.id = id;
      token.special = true;
      config.added.push_back(std::move(token));
      config.special_strings.emplace_back(pieces[i].text);
    }
  }
  // A string named as special that is a piece becomes an added token of that piece's id.
  std::unordered_map<std::string_view, int32_t> named;
  for (const std::string& s : config.special_strings) named.emplace(s, -1);
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (auto it = named.find(pieces[i].text); it != named.end() && it->second < 0)
      it->second = static_cast<int32_t>(i);
  }
  for (const auto& [content, id] : named) {
    if (id < 0) continue;
    AddedToken token;
    token.content = std::string(content);
    token.id = id;
    token.special = true;
    config.added.push_back(std::move(token));
  }
  const std::optional<bool> add_bos = config.add_bos_token;
  const std::optional<bool> add_eos = config.add_eos_token;
  const bool is_llama = config.tokenizer_class.starts_with("LlamaTokenizer");
  SetAddedTokens(std::move(config), static_cast<int64_t>(pieces.size()));

  splits_before_space_ = true;
  std::vector<std::pair<std::string, int32_t>> user_defined;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const int32_t id = static_cast<int32_t>(i);
    const Type type = types_[i];
    if (type != Type::kNormal && type != Type::kUserDefined && type != Type::kUnused) continue;
    if (IsReserved(id)) continue;
    if (!table_.Index(id)) {
      return InvalidArgument(StrCat("piece ", id, ": \"", pieces[i].text, "\" stands twice"));
    }
    if (HasInnerSpace(pieces[i].text)) splits_before_space_ = false;
    if (type == Type::kUserDefined) user_defined.emplace_back(pieces[i].text, id);
  }
  user_defined_ = PrefixMatcher(std::move(user_defined));

  const std::optional<int32_t> bos =
      bos_token().empty() ? std::optional<int32_t>(model.bos_id) : TokenId(bos_token());
  const std::optional<int32_t> eos =
      eos_token().empty() ? std::optional<int32_t>(model.eos_id) : TokenId(eos_token());
  // transformers' Llama classes add a BOS unless told not to.
  if (add_bos.value_or(is_llama) && bos.value_or(-1) >= 0) prefix_ids_.push_back(*bos);
  if (add_eos.value_or(false) && eos.value_or(-1) >= 0) suffix_ids_.push_back(*eos);
  return OkStatus();
}

// As the library does: replacements, then extra spaces are removed, then spaces become "▁". User-defined
// pieces are left as they are.
std::string SentencePieceTokenizer::Normalize(std::string_view text) const {
  const std::string_view space = escape_whitespaces_ ? kSpaceSymbol : std::string_view(" ");
  std::string out;
  out.reserve(text.size() + text.size() / 4 + 3);
  bool started = false;
  bool after_space = remove_extra_whitespaces_;
  while (!text.empty()) {
    size_t length = user_defined_.Longest(text).length;
    std::string_view chars = text.substr(0, length);
    if (length == 0 && !charsmap_.empty()) {
      const Charsmap::Match match = charsmap_.Longest(text);
      length = match.length;
      chars = match.replacement;
    }
    if (length == 0) {
      length = WellFormedLength(text);
      chars = text.substr(0, length);
    }
    text.remove_prefix(length);
    if (!started) {
      if (remove_extra_whitespaces_ && chars == " ") continue;
      started = true;
      if (add_dummy_prefix_) out += space;
    }
    while (after_space && chars.starts_with(' ')) chars.remove_prefix(1);
    if (chars.empty()) continue;
    for (char c : chars) {
      if (c == ' ') {
        out += space;
      } else {
        out += c;
      }
    }
    after_space = remove_extra_whitespaces_ && chars.back() == ' ';
  }
  if (remove_extra_whitespaces_) {
    while (std::string_view(out).ends_with(space)) out.resize(out.size() - space.size());
  }
  return out;
}

void SentencePieceTokenizer::EncodeSegment(std::string_view text, std::vector<int32_t>& ids) const {
  const std::string normalized = Normalize(text);
  const std::string_view all = normalized;
  Pass pass;
  size_t run_begin = 0;
  bool after_space = true;
  for (size_t at = 0; at < all.size();) {
    const PrefixMatcher::Match match = user_defined_.Longest(all.substr(at));
    if (match.length > 0) {
      EncodeRun(all.substr(run_begin, at - run_begin), pass, ids);
      EmitSymbol(all.substr(at, match.length), match.value, pass, ids);
      at += match.length;
      run_begin = at;
      after_space = true;
      continue;
    }
    const bool is_space = all.substr(at).starts_with(kSpaceSymbol);
    if (is_space && !after_space && splits_before_space_) {
      EncodeRun(all.substr(run_begin, at - run_begin), pass, ids);
      run_begin = at;
    }
    after_space = is_space;
    at += WellFormedLength(all.substr(at));
  }
  EncodeRun(all.substr(run_begin), pass, ids);
}

void SentencePieceTokenizer::EncodeRun(std::string_view run, Pass& pass, std::vector<int32_t>& ids) const {
  auto& symbols = pass.scratch.symbols;
  symbols.clear();
  for (size_t at = 0; at < run.size();) {
    const uint32_t length = static_cast<uint32_t>(WellFormedLength(run.substr(at)));
    symbols.push_back({static_cast<uint32_t>(at), length, table_.Find(run.substr(at, length))});
    at += length;
  }
  MergeSymbols(pass.scratch, [&](const BpeSymbol& left, const BpeSymbol& right) {
    BpeRank rank;
    rank.id = table_.Find(run.substr(left.begin, size_t{left.length} + right.length));
    if (rank.id < 0) return rank;
    rank.rank = ranks_[rank.id];
    if (types_[rank.id] == Type::kUnused) pass.unused_left_bytes[rank.id] = left.length;
    return rank;
  });
  for (const BpeSymbol& s : symbols) EmitSymbol(run.substr(s.begin, s.length), s.id, pass, ids);
}

// Unused pieces are taken apart again, down to what is in use; characters without a piece become bytes, or
// one unknown token for a row of them.
void SentencePieceTokenizer::EmitSymbol(std::string_view text, int32_t id, Pass& pass,
                                        std::vector<int32_t>& ids) const {
  if (id >= 0 && types_[id] == Type::kUnused) {
    std::vector<std::string_view> open = {text};
    while (!open.empty()) {
      const std::string_view part = open.back();
      open.pop_back();
      const int32_t part_id = table_.Find(part);
      auto made_of = pass.unused_left_bytes.find(part_id);
      if (part_id < 0 || types_[part_id] != Type::kUnused) {
        EmitSymbol(part, part_id, pass, ids);
      } else if (made_of == pass.unused_left_bytes.end()) {
        EmitSymbol(part, -1, pass, ids);
      } else {
        open.push_back(part.substr(made_of->second));
        open.push_back(part.substr(0, made_of->second));
      }
    }
    return;
  }
  if (id < 0 && byte_fallback_) {
    for (char c : text) ids.push_back(byte_ids_[static_cast<uint8_t>(c)]);
  } else if (id >= 0) {
    ids.push_back(id);
  } else if (!pass.after_unknown) {
    ids.push_back(unk_id_);
  }
  pass.after_unknown = id < 0 && !byte_fallback_;
}

void SentencePieceTokenizer::AppendPieceBytes(int32_t id, std::string& out) const {
  std::string_view piece = table_.Bytes(id);
  if (piece.empty()) return;
  if (types_[id] == Type::kByte) {
    out.push_back(static_cast<char>(BytePieceValue(piece)));
    return;
  }
  for (size_t at; (at = piece.find(kSpaceSymbol)) != piece.npos;
       piece.remove_prefix(at + kSpaceSymbol.size())) {
    out += piece.substr(0, at);
    out += ' ';
  }
  out += piece;
}

std::optional<int32_t> SentencePieceTokenizer::FindPiece(std::string_view piece) const {
  if (const int32_t id = table_.Find(piece); id >= 0) return id;
  const int byte = BytePieceValue(piece);
  if (byte >= 0 && byte_ids_[byte] >= 0) return byte_ids_[byte];
  return std::nullopt;
}

}  // namespace

StatusOr<std::unique_ptr<Tokenizer>> MakeSentencePieceTokenizer(std::string_view bytes,
                                                                TokenizerConfig config) {
  FD_ASSIGN_OR_RETURN(const SentencePieceModel model, ParseSentencePieceModel(bytes));
  auto tokenizer = std::make_unique<SentencePieceTokenizer>();
  FD_RETURN_IF_ERROR(tokenizer->Init(model, std::move(config)));
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

}  // namespace fd
