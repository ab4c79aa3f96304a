#include "server/openai/openai_writer.h"

#include <charconv>
#include <iterator>

#include "base/json.h"
#include "base/strings.h"

namespace fd {
namespace {

bool IsChat(const Generation& g) { return g.reply().endpoint == ApiEndpoint::kChat; }

void AppendUsage(std::string& out, const Usage& u) {
  out += StrCat("{\"prompt_tokens\":", u.prompt_tokens, ",\"completion_tokens\":", u.completion_tokens,
                ",\"total_tokens\":", u.prompt_tokens + u.completion_tokens,
                ",\"prompt_tokens_details\":{\"cached_tokens\":", u.cached_tokens,
                ",\"image_tokens\":", u.image_tokens, ",\"video_tokens\":", u.video_tokens,
                "},\"completion_tokens_details\":{\"reasoning_tokens\":", u.reasoning_tokens,
                ",\"image_tokens\":0}}");
}

// The whole call, or for a stream its beginning, which has no arguments yet.
void AppendToolCall(std::string& out, const ToolCallDelta& delta, bool streamed) {
  out += '{';
  if (streamed) out += StrCat("\"index\":", delta.index, ",");
  out += StrCat("\"id\":\"", delta.id, "\",\"type\":\"function\",\"function\":{\"name\":");
  AppendJsonString(out, delta.call.name);
  out += ",\"arguments\":";
  AppendJsonString(out, streamed ? "" : delta.call.arguments);
  out += "}}";
}

// Up to and with "system_fingerprint"; text completions have one object name for both.
std::string Head(const Generation& g, const char* chat_object) {
  std::string out = "{\"id\":";
  AppendJsonString(out, g.reply().id);
  out += StrCat(",\"object\":\"", IsChat(g) ? chat_object : "text_completion",
                "\",\"created\":", g.reply().created_unix_s, ",\"model\":");
  AppendJsonString(out, g.reply().model);
  if (!g.reply().system_fingerprint.empty()) {
    out += ",\"system_fingerprint\":";
    AppendJsonString(out, g.reply().system_fingerprint);
  }
  return out;
}

std::string ChunkHead(const Generation& g) { return Head(g, "chat.completion.chunk"); }

void AppendNumber(std::string& out, int64_t number) { internal::AppendPiece(out, number); }

void AppendLogprobs(const Generation& g, std::string& out, const std::vector<LogprobEntry>& entries,
                    bool present) {
  out += ",\"logprobs\":";
  if (g.reply().top_logprobs < 0 || !present) {
    out += "null";
  } else if (IsChat(g)) {
    AppendChatLogprobs(out, entries);
  } else {
    AppendCompletionLogprobs(out, entries, g.reply().top_logprobs > 0);
  }
}

// Of an echoed prompt, where log-probabilities are asked for.
std::vector<LogprobEntry> EchoLogprobs(const Generation& g, const ChoiceReply& choice) {
  if (!g.reply().echo || g.reply().top_logprobs < 0) return {};
  return EchoEntries(g.tokenizer(), choice.first_prompt_id, choice.prompt_logprobs, g.reply().top_logprobs);
}

// What every chunk of a stream ends with.
void AppendChunkUsage(const Generation& g, std::string& out) {
  if (g.reply().continuous_usage) {
    out += ",\"usage\":";
    AppendUsage(out, g.usage());
  } else if (g.reply().include_usage) {
    out += ",\"usage\":null";
  }
}

// One chunk. tool_call: the member of a delta that says something of a call; "" in the others.
void AppendChunk(const Generation& g, std::string_view head, int index, const Delta& delta, bool with_text,
                 bool with_finish, std::string_view tool_call, std::string& out) {
  const bool chat = IsChat(g);
  out.append(head).append(",\"choices\":[{\"index\":");
  AppendNumber(out, index);
  const char* separator = "";
  if (chat) {
    out += ",\"delta\":{";
    if (with_text && !delta.reasoning_content.empty()) {
      out += "\"reasoning_content\":";
      AppendJsonString(out, delta.reasoning_content);
      separator = ",";
    }
    if (with_text && !delta.content.empty()) {
      out.append(separator).append("\"content\":");
      AppendJsonString(out, delta.content);
      separator = ",";
    }
    if (!tool_call.empty()) out.append("\"tool_calls\":[").append(tool_call).append("]");
  } else {
    out += ",\"text\":";
    AppendJsonString(out, with_text ? std::string_view(delta.content) : "");
    separator = ",";
  }
  if (with_text && g.reply().return_token_ids) {
    out.append(separator).append("\"completion_token_ids\":");
    AppendIds(out, delta.token_ids);
  }
  if (chat) out += '}';
  AppendLogprobs(g, out, delta.logprobs, with_text && !delta.logprobs.empty());
  out += ",\"finish_reason\":";
  if (with_finish) {
    AppendJsonString(out, *delta.finish_reason);
  } else {
    out += "null";
  }
  out += "}]";
  AppendChunkUsage(g, out);
  out += '}';
}

// All chunks of a delta; begin and end are called around each.
template <typename Begin, typename End>
void AppendChunks(const Generation& g, std::string_view head, int index, const Delta& delta, std::string& out,
                  const Begin& begin, const End& end) {
  const auto add = [&](bool with_text, bool with_finish, std::string_view tool_call) {
    begin();
    AppendChunk(g, head, index, delta, with_text, with_finish, tool_call, out);
    end();
  };
  if (!delta.content.empty() || !delta.reasoning_content.empty() || !delta.token_ids.empty() ||
      !delta.logprobs.empty()) {
    add(true, false, "");
  }
  for (const ToolCallDelta& call : delta.tool_calls) {
    std::string start;
    AppendToolCall(start, call, /*streamed=*/true);
    add(false, false, start);
    std::string arguments = StrCat("{\"index\":", call.index, ",\"function\":{\"arguments\":");
    AppendJsonString(arguments, call.call.arguments);
    add(false, false, arguments + "}}");
  }
  if (delta.finish_reason) add(false, true, "");
}

class OpenAiWriter : public ReplyWriter {
 public:
  void Push(const Generation& g, int choice, const Delta& delta, std::string& sse) override {
    if (begun_.empty()) {
      begun_.resize(static_cast<size_t>(g.num_choices()));
      chunk_head_ = ChunkHead(g);
    }
    if (!begun_[static_cast<size_t>(choice)]) {
      begun_[static_cast<size_t>(choice)] = true;
      const std::string first = FirstChunkJson(g, choice);
      if (!first.empty()) AppendSseEvent(sse, "", first);
    }
    AppendChunks(g, chunk_head_, choice, delta, sse, [&] { sse += "data: "; }, [&] { sse += "\n\n"; });
  }
  void Finish(const Generation& g, std::string& sse) override {
    if (g.reply().include_usage) AppendSseEvent(sse, "", UsageChunkJson(g));
    AppendSseEvent(sse, "", "[DONE]");
  }
  void Fail(const Generation&, const ApiError& error, std::string& sse) override {
    AppendSseEvent(sse, "", ErrorJson(error));
    AppendSseEvent(sse, "", "[DONE]");
  }
  std::string ReplyJson(const Generation& g) override { return fd::ReplyJson(g); }

 private:
  std::vector<bool> begun_;
  std::string chunk_head_;  // the same in all chunks of the reply
};

}  // namespace

std::unique_ptr<ReplyWriter> MakeOpenAiWriter() { return std::make_unique<OpenAiWriter>(); }

void AppendSseEvent(std::string& sse, std::string_view name, std::string_view json) {
  if (!name.empty()) sse.append("event: ").append(name).append("\n");
  sse.append("data: ").append(json).append("\n\n");
}

void AppendIds(std::string& out, const std::vector<int32_t>& ids) {
  constexpr size_t kLongest = 12;  // ",-2147483648"
  char buffer[1024];
  char* at = buffer;
  out += '[';
  for (size_t i = 0; i < ids.size(); ++i) {
    if (at > std::end(buffer) - kLongest) {
      out.append(buffer, at);
      at = buffer;
    }
    if (i > 0) *at++ = ',';
    at = std::to_chars(at, std::end(buffer), ids[i]).ptr;
  }
  out.append(buffer, at) += ']';
}

std::string FirstChunkJson(const Generation& g, int index) {
  const ChoiceReply& choice = g.choice(index);
  if (!IsChat(g) && !g.reply().echo && !g.reply().return_token_ids) return "";
  std::string out = ChunkHead(g);
  out += StrCat(",\"choices\":[{\"index\":", index);
  if (IsChat(g)) {
    out += ",\"delta\":{\"role\":\"assistant\",\"content\":\"\"";
    if (choice.has_reasoning) out += ",\"reasoning_content\":\"\"";
  } else {
    out += ",\"text\":";
    AppendJsonString(out, choice.echo);
  }
  if (g.reply().return_token_ids) {
    out += ",\"prompt_token_ids\":";
    AppendIds(out, choice.prompt_token_ids);
  }
  if (IsChat(g)) out += '}';
  AppendLogprobs(g, out, EchoLogprobs(g, choice), g.reply().echo);
  out += ",\"finish_reason\":null}]";
  AppendChunkUsage(g, out);
  out += '}';
  return out;
}

std::vector<std::string> ChunksJson(const Generation& g, int index, const Delta& delta) {
  std::vector<std::string> chunks;
  std::string chunk;
  AppendChunks(
      g, ChunkHead(g), index, delta, chunk, [&] { chunk.clear(); }, [&] { chunks.push_back(chunk); });
  return chunks;
}

std::string UsageChunkJson(const Generation& g) {
  std::string out = ChunkHead(g);
  out += ",\"choices\":[],\"usage\":";
  AppendUsage(out, g.usage());
  out += '}';
  return out;
}

std::string ReplyJson(const Generation& g) {
  std::string out = Head(g, "chat.completion");
  out += ",\"choices\":[";
  for (int i = 0; i < g.num_choices(); ++i) {
    const ChoiceReply& choice = g.choice(i);
    if (i > 0) out += ',';
    out += StrCat("{\"index\":", i);
    if (IsChat(g)) {
      out += ",\"message\":{\"role\":\"assistant\",\"content\":";
      if (choice.content.empty() && !choice.tool_calls.empty()) {
        out += "null";
      } else {
        AppendJsonString(out, choice.content);
      }
      out += ",\"reasoning_content\":";
      if (choice.has_reasoning) {
        AppendJsonString(out, choice.reasoning_content);
      } else {
        out += "null";
      }
      out += ",\"tool_calls\":";
      if (choice.tool_calls.empty()) out += "null";
      for (size_t k = 0; k < choice.tool_calls.size(); ++k) {
        out += k == 0 ? '[' : ',';
        AppendToolCall(out, choice.tool_calls[k], /*streamed=*/false);
        if (k + 1 == choice.tool_calls.size()) out += ']';
      }
    } else {
      out += ",\"text\":";
      AppendJsonString(out, choice.echo + choice.content);
    }
    if (g.reply().return_token_ids) {
      out += ",\"prompt_token_ids\":";
      AppendIds(out, choice.prompt_token_ids);
      out += ",\"completion_token_ids\":";
      AppendIds(out, choice.token_ids);
    }
    if (IsChat(g)) out += '}';
    std::vector<LogprobEntry> logprobs = EchoLogprobs(g, choice);
    logprobs.insert(logprobs.end(), choice.logprobs.begin(), choice.logprobs.end());
    AppendLogprobs(g, out, logprobs, true);
    if (g.reply().prompt_logprobs >= 0 && !IsChat(g)) {
      out += ",\"prompt_logprobs\":";
      AppendPromptLogprobs(out, g.tokenizer(), choice.prompt_logprobs, g.reply().prompt_logprobs);
    }
    out += ",\"finish_reason\":";
    AppendJsonString(out, choice.finish_reason);
    out += '}';
  }
  out += "],\"usage\":";
  AppendUsage(out, g.usage());
  if (g.reply().prompt_logprobs >= 0 && IsChat(g)) {
    out += ",\"prompt_logprobs\":";
    AppendPromptLogprobs(out, g.tokenizer(), g.choice(0).prompt_logprobs, g.reply().prompt_logprobs);
  }
  out += '}';
  return out;
}

}  // namespace fd
