// The small JSON files beside a tokenizer: tokenizer_config.json, special_tokens_map.json, added_tokens.json.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace fd {

// A string that is one token, cut out of the text before the model sees it.
struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool special = false;
  bool lstrip = false;  // also takes the white space before it
  bool rstrip = false;  // also takes the white space after it
};

struct TokenizerConfig {
  std::vector<AddedToken> added;             // by file; ids and contents may repeat what the model file says
  std::vector<std::string> special_strings;  // named as special; their ids may stand elsewhere
  std::string bos_token, eos_token, pad_token, unk_token;
  std::string tokenizer_class;
  std::optional<bool> add_bos_token, add_eos_token, add_prefix_space;
};

// Ids of any kind are below this: arrays are sized by the largest one.
inline constexpr int64_t kMaxTokenId = int64_t{1} << 22;

// An entry of added_tokens (tokenizer.json) or added_tokens_decoder. `where` names it in errors.
StatusOr<AddedToken> ParseAddedToken(const Json& entry, int64_t id, const std::string& where);

// Reads those of the three files that exist; errors name file and member.
StatusOr<TokenizerConfig> ReadTokenizerConfig(const std::string& model_dir);

}  // namespace fd
