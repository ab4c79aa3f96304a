// What a tokenizer.json says outside its vocabulary: normalizer, pre-tokenizer, post-processor, decoder,
// added tokens. A component that is not known here is refused by name.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "server/text/split_pattern.h"
#include "server/text/tokenizer_config.h"

namespace fd {

struct TokenizerJson {
  struct NormalizeStep {
    enum Kind { kNfc, kPrepend, kReplace } kind;
    std::string from;     // kReplace; not empty
    std::string content;  // kPrepend, kReplace
  };
  std::vector<AddedToken> added;
  std::vector<NormalizeStep> normalizer;
  std::vector<SplitPattern> splits;  // each splits the pieces of the one before
  bool byte_level = false;           // the vocabulary is written in GPT-2's byte alphabet
  // Decoding, when not byte_level: `replace_from` becomes `replace_to`, <0x0A> a byte if byte_fallback, and
  // one leading space goes.
  std::string replace_from;
  std::string replace_to;
  bool decodes_bytes = false;
  bool strips_leading_space = false;
  // Around the text, from TemplateProcessing.
  std::vector<int32_t> prefix_ids;
  std::vector<int32_t> suffix_ids;

  // The model (BPE); texts within the file.
  std::string_view vocab;
  std::string_view merges;
  size_t vocab_offset = 0;
  size_t merges_offset = 0;
  std::string unk_token;
  bool fuse_unk = false;
  bool byte_fallback = false;
  bool ignore_merges = false;
};

// file: UTF-8; must outlive the result. Errors name the member.
StatusOr<TokenizerJson> ParseTokenizerJson(std::string_view file);

// `text` with every `from` replaced; from must not be empty.
std::string ReplaceAll(std::string_view text, std::string_view from, std::string_view to);

}  // namespace fd
