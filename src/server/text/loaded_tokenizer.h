// What the tokenizers of both file formats share: added tokens, spans, special strings, decoding.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/text/prefix_matcher.h"
#include "server/text/tokenizer.h"
#include "server/text/tokenizer_config.h"

namespace fd {

class LoadedTokenizer : public Tokenizer {
 public:
  std::vector<int32_t> EncodeSpans(const std::vector<TextSpan>& spans) const final;
  std::vector<int32_t> EncodeWithBos(std::string_view text) const final;
  std::string Decode(const std::vector<int32_t>& ids, bool skip_special) const final;
  std::string TokenBytes(int32_t id, bool skip_special) const final;
  int64_t vocab_size() const final { return vocab_size_; }
  std::optional<int32_t> TokenId(std::string_view token) const final;
  bool IsSpecial(int32_t id) const final;
  const std::string& bos_token() const final { return config_.bos_token; }
  const std::string& eos_token() const final { return config_.eos_token; }
  const std::string& pad_token() const final { return config_.pad_token; }
  const std::string& unk_token() const final { return config_.unk_token; }

 protected:
  // config.added holds every added token by then. Of one id or one content, the first entry counts; a content
  // in config.special_strings is special whatever its entry says. num_pieces: ids of the model itself.
  void SetAddedTokens(TokenizerConfig config, int64_t num_pieces);
  // Whether text may become this token only where special tokens are allowed.
  bool IsReserved(int32_t id) const;
  const TokenizerConfig& config() const { return config_; }

  // Appends the ids of a text between added tokens: well-formed UTF-8, not empty.
  virtual void EncodeSegment(std::string_view text, std::vector<int32_t>& ids) const = 0;
  virtual void AppendPieceBytes(int32_t id, std::string& out) const = 0;
  virtual std::optional<int32_t> FindPiece(std::string_view piece) const = 0;

  // What EncodeWithBos puts around the text.
  std::vector<int32_t> prefix_ids_;
  std::vector<int32_t> suffix_ids_;

 private:
  TokenizerConfig config_;
  PrefixMatcher matcher_;             // content -> index in config_.added
  std::vector<int32_t> added_by_id_;  // index in config_.added, or -1
  int64_t vocab_size_ = 0;
};

}  // namespace fd
