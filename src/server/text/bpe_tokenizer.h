// The BPE of a tokenizer.json: byte-level (GPT-2, Llama 3, Qwen) or on characters with "▁" for spaces (Llama
// 2).
#pragma once

#include <memory>
#include <string_view>

#include "base/status.h"
#include "server/text/tokenizer.h"
#include "server/text/tokenizer_config.h"

namespace fd {

// file: the text of tokenizer.json, not needed afterwards. Of config, what the file does not say counts.
StatusOr<std::unique_ptr<Tokenizer>> MakeBpeTokenizer(std::string_view file, TokenizerConfig config);

}  // namespace fd
