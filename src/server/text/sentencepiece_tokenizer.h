// SentencePiece BPE: the segmentation of Kudo and Richardson's library for model_type BPE, with byte
// fallback.
#pragma once

#include <memory>
#include <string_view>

#include "base/status.h"
#include "server/text/tokenizer.h"
#include "server/text/tokenizer_config.h"

namespace fd {

// model: the bytes of tokenizer.model, not needed afterwards. A text gets a leading space if the model says
// so and config.add_prefix_space does not forbid it.
StatusOr<std::unique_ptr<Tokenizer>> MakeSentencePieceTokenizer(std::string_view model,
                                                                TokenizerConfig config);

}  // namespace fd
