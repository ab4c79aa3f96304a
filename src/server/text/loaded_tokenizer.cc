#include "server/text/loaded_tokenizer.h"

#include <algorithm>
#include <unordered_set>

#include "base/utf8.h"

namespace fd {
namespace {

bool IsAsciiSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

bool IsBlank(std::string_view text) { return std::all_of(text.begin(), text.end(), IsAsciiSpace); }

}  // namespace

void LoadedTokenizer::SetAddedTokens(TokenizerConfig config, int64_t num_pieces) {
  std::unordered_set<std::string> special(config.special_strings.begin(), config.special_strings.end());
  std::unordered_set<std::string> seen;
  std::vector<AddedToken> added;
  vocab_size_ = num_pieces;
  for (AddedToken& token : config.added) {
    vocab_size_ = std::max<int64_t>(vocab_size_, int64_t{token.id} + 1);
    added_by_id_.resize(static_cast<size_t>(std::max<int64_t>(vocab_size_, 0)), -1);
    if (added_by_id_[token.id] >= 0 || !seen.insert(token.content).second) continue;
    added_by_id_[token.id] = static_cast<int32_t>(added.size());
    token.special = token.special || special.contains(token.content);
    added.push_back(std::move(token));
  }
  added_by_id_.resize(static_cast<size_t>(vocab_size_), -1);
  config.added = std::move(added);
  config_ = std::move(config);
  std::vector<std::pair<std::string, int32_t>> entries;
  entries.reserve(config_.added.size());
  for (size_t i = 0; i < config_.added.size(); ++i) {
    entries.emplace_back(config_.added[i].content, static_cast<int32_t>(i));
  }
  matcher_ = PrefixMatcher(std::move(entries));
}

bool LoadedTokenizer::IsReserved(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= added_by_id_.size() || added_by_id_[id] < 0) return false;
  const AddedToken& token = config_.added[added_by_id_[id]];
  // Digits and runs of spaces are added tokens of some models, yet ordinary text.
  return token.special || (CountUtf8Chars(token.content) > 1 && !IsBlank(token.content));
}

std::vector<int32_t> LoadedTokenizer::EncodeSpans(const std::vector<TextSpan>& spans) const {
  std::vector<int32_t> ids;
  std::string segment;  // text since the last added token, across spans
  auto flush = [&] {
    if (segment.empty()) return;
    if (IsValidUtf8(segment)) {
      EncodeSegment(segment, ids);
    } else {
      EncodeSegment(ReplaceInvalidUtf8(segment), ids);
    }
    segment.clear();
  };
  for (const TextSpan& span : spans) {
    if (!span.allow_special || matcher_.empty()) {
      segment.append(span.text);
      continue;
    }
    size_t taken = 0;  // bytes of the span that are in `segment` or behind it
    for (size_t at = 0; at < span.text.size();) {
      const PrefixMatcher::Match match = matcher_.Longest(span.text.substr(at));
      if (match.length == 0) {
        ++at;
        continue;
      }
      const AddedToken& token = config_.added[match.value];
      size_t begin = at;
      size_t end = at + match.length;
      while (token.lstrip && begin > taken && IsAsciiSpace(span.text[begin - 1])) --begin;
      while (token.rstrip && end < span.text.size() && IsAsciiSpace(span.text[end])) ++end;
      segment.append(span.text.substr(taken, begin - taken));
      flush();
      ids.push_back(token.id);
      taken = at = end;
    }
    segment.append(span.text.substr(taken));
  }
  flush();
  return ids;
}

std::vector<int32_t> LoadedTokenizer::EncodeWithBos(std::string_view text) const {
  std::vector<int32_t> ids = prefix_ids_;
  const std::vector<int32_t> body = EncodeSpans({{text, true}});
  ids.insert(ids.end(), body.begin(), body.end());
  ids.insert(ids.end(), suffix_ids_.begin(), suffix_ids_.end());
  return ids;
}

std::string LoadedTokenizer::TokenBytes(int32_t id, bool skip_special) const {
  std::string out;
  if (id < 0 || id >= vocab_size_ || (skip_special && IsSpecial(id))) return out;
  if (added_by_id_[id] >= 0) {
    out = config_.added[added_by_id_[id]].content;
  } else {
    AppendPieceBytes(id, out);
  }
  return out;
}

std::string LoadedTokenizer::Decode(const std::vector<int32_t>& ids, bool skip_special) const {
  std::string bytes;
  for (int32_t id : ids) bytes += TokenBytes(id, skip_special);
  if (strips_leading_space() && !bytes.empty() && bytes[0] == ' ') bytes.erase(0, 1);
  return IsValidUtf8(bytes) ? bytes : ReplaceInvalidUtf8(bytes);
}

std::optional<int32_t> LoadedTokenizer::TokenId(std::string_view token) const {
  const int32_t index = matcher_.Find(token);
  if (index >= 0) return config_.added[index].id;
  return FindPiece(token);
}

bool LoadedTokenizer::IsSpecial(int32_t id) const {
  if (id < 0 || id >= vocab_size_ || added_by_id_[id] < 0) return false;
  return config_.added[added_by_id_[id]].special;
}

}  // namespace fd
