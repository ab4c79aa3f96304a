// Log-probabilities in replies: OpenAI's two shapes. Pure functions; internal to this folder.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/plan/request.h"
#include "server/text/tokenizer.h"

namespace fd {

// One generated token. `text` is printable UTF-8; a token that is only a part of a character is written as
// "bytes:\xe2\x98", as OpenAI does.
struct LogprobEntry {
  struct Token {
    std::string text;
    std::string bytes;
    float logprob = 0;
  };
  Token token;
  std::vector<Token> top;   // likeliest first
  bool is_first = false;    // of a prompt: nothing is before it, so nothing says how likely it is
  int64_t text_offset = 0;  // in characters, from the begin of the choice's text
  // Calls of the choice before this token of its answer; kOutsideText: it belongs to a thought or a call.
  static constexpr int kOutsideText = -1;
  int calls_before = 0;
};

// *text_offset: where the token's text begins; moved behind it.
LogprobEntry MakeLogprobEntry(const Tokenizer& tokenizer, int32_t token_id, float logprob,
                              const std::vector<TokenLogprob>& top, bool skip_special, int64_t* text_offset);

// Writes "token_id:7" in place of each token's text, as vLLM does for return_tokens_as_token_ids. top: what
// the entry was made of.
void SpellAsTokenIds(int32_t token_id, const std::vector<TokenLogprob>& top, LogprobEntry* entry);

// [{"token": ..., "logprob": ..., "bytes": [...], "top_logprobs": [...]}, ...]
void AppendLogprobList(std::string& out, const std::vector<LogprobEntry>& entries, bool with_bytes);
// The tokens of an echoed prompt, `top` of the likeliest with each. logprobs: of the tokens behind first_id.
std::vector<LogprobEntry> EchoEntries(const Tokenizer& tokenizer, int32_t first_id,
                                      const std::vector<PromptLogprob>& logprobs, int32_t top);

// vLLM's [null, {"123": {"logprob": x, "rank": 1, "decoded_token": "a"}, ...}, ...]: the token itself first,
// then `top` of the likeliest, if it is not among them.
void AppendPromptLogprobs(std::string& out, const Tokenizer& tokenizer,
                          const std::vector<PromptLogprob>& logprobs, int32_t top);

// {"content": [...], "refusal": null}, for choices of chats and their chunks.
void AppendChatLogprobs(std::string& out, const std::vector<LogprobEntry>& entries);
// {"tokens": [...], "token_logprobs": [...], "top_logprobs": [...], "text_offset": [...]}; with_top false:
// top_logprobs is null. The dictionaries hold the chosen token too. Of a first token both are null.
void AppendCompletionLogprobs(std::string& out, const std::vector<LogprobEntry>& entries, bool with_top);

}  // namespace fd
