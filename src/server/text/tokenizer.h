// Text to token ids and back, from a checkpoint's files. Immutable after loading; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace fd {

struct TextSpan {
  std::string_view text;
  bool allow_special = false;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Loads tokenizer.model (SentencePiece BPE, with tokenizer_config.json / added_tokens.json) or
  // tokenizer.json (byte-level or metaspace BPE). Errors name the folder and the files looked for.
  static StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& model_dir);

  // Encodes the spans as one continuous text. Added tokens match only inside text of allow_special spans, so
  // what a user writes never becomes a control token. No BOS is added. Ill-formed UTF-8 is read as U+FFFD.
  virtual std::vector<int32_t> EncodeSpans(const std::vector<TextSpan>& spans) const = 0;
  std::vector<int32_t> Encode(std::string_view text, bool allow_special) const {
    return EncodeSpans({{text, allow_special}});
  }
  // Encode(text, true) with the tokens that the tokenizer's own post-processor adds (BOS), for
  // /v1/completions.
  virtual std::vector<int32_t> EncodeWithBos(std::string_view text) const = 0;

  virtual std::string Decode(const std::vector<int32_t>& ids, bool skip_special) const = 0;
  // Raw bytes that one token adds after the first position of a text (a metaspace is a space; a byte token is
  // its byte). Special tokens give their text when !skip_special, else nothing. Unknown ids give nothing.
  virtual std::string TokenBytes(int32_t id, bool skip_special) const = 0;

  // Whether a decoded text loses one leading space, because encoding put it there (Llama 2, SentencePiece
  // with a dummy prefix). Decode and Detokenizer do it; TokenBytes does not.
  virtual bool strips_leading_space() const { return false; }

  virtual int64_t vocab_size() const = 0;  // largest id + 1
  // The id of an added token or piece spelled exactly so.
  virtual std::optional<int32_t> TokenId(std::string_view token) const = 0;
  virtual bool IsSpecial(int32_t id) const = 0;
  // The chat template and special strings found in tokenizer_config.json; empty when absent.
  virtual const std::string& bos_token() const = 0;
  virtual const std::string& eos_token() const = 0;
  virtual const std::string& pad_token() const = 0;
  virtual const std::string& unk_token() const = 0;
};

}  // namespace fd
