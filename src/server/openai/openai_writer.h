// OpenAI's objects: chat.completion, text_completion and their chunks. Complete JSON texts.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/openai/reply_writer.h"

namespace fd {

// For /v1/chat/completions and /v1/completions.
std::unique_ptr<ReplyWriter> MakeOpenAiWriter();

// The chunk before a choice's first delta (chat: the role; completions: the echo); "" when there is none.
std::string FirstChunkJson(const Generation& generation, int choice);
// One or more: the finish reason comes in a chunk of its own, as OpenAI sends it. None for an empty delta.
std::vector<std::string> ChunksJson(const Generation& generation, int choice, const Delta& delta);
std::string UsageChunkJson(const Generation& generation);
std::string ReplyJson(const Generation& generation);  // of a request without "stream"

// [1,2,3]
void AppendIds(std::string& out, const std::vector<int32_t>& ids);

}  // namespace fd
