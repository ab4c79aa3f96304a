#include "server/messages/messages_writer.h"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/strings.h"
#include "server/messages/messages_errors.h"

namespace fd {
namespace {

// Anthropic signs thoughts to know them again; here they are taken as they come back. Some clients drop a
// thought whose signature is empty.
constexpr std::string_view kSignature = "unsigned";

// "chatcmpl-tool-0123" -> "toolu_0123".
std::string ToolId(const std::string& id) {
  const size_t dash = id.rfind('-');
  return "toolu_" + (dash == std::string::npos ? id : id.substr(dash + 1));
}

Json InputOf(const ToolCall& call) {
  StatusOr<Json> input = ParseJson(call.arguments);
  return input.ok() && input->is_object() ? std::move(input).value() : Json(JsonObject{});
}

JsonObject UsageOf(const Generation& g) {
  const Usage u = g.usage();
  return JsonObject{{"input_tokens", u.prompt_tokens - u.cached_tokens},
                    {"cache_creation_input_tokens", 0},
                    {"cache_read_input_tokens", u.cached_tokens},
                    {"output_tokens", u.completion_tokens},
                    {"output_tokens_details", JsonObject{{"thinking_tokens", u.reasoning_tokens}}}};
}

class MessagesWriter : public ReplyWriter {
 public:
  explicit MessagesWriter(MessagesReplyOptions options) : options_(std::move(options)) {}

  Status Restate(const Status& status) const override {
    const std::string& message = status.message();
    for (const auto& [ours, theirs] : options_.places) {
      if (!message.starts_with(ours)) continue;
      return {status.code(), theirs + message.substr(ours.size()), status.param()};
    }
    return status;
  }

  void Push(const Generation& g, int /*choice*/, const Delta& delta, std::string& sse) override {
    Begin(g, sse);
    if (!delta.reasoning_content.empty()) {
      Open(Block::kThinking, sse);
      if (options_.show_thinking) AddDelta("thinking_delta", "thinking", delta.reasoning_content, sse);
    }
    if (!delta.content.empty()) {
      Open(Block::kText, sse);
      AddDelta("text_delta", "text", delta.content, sse);
    }
    // More text may follow a call; where it would stand must not depend on how the tokens came.
    calls_.insert(calls_.end(), delta.tool_calls.begin(), delta.tool_calls.end());
  }

  void Finish(const Generation& g, std::string& sse) override {
    Begin(g, sse);
    Close(sse);
    for (const ToolCallDelta& call : calls_) {
      Start(JsonObject{{"type", "tool_use"},
                       {"id", ToolId(call.id)},
                       {"name", call.call.name},
                       {"input", JsonObject{}}},
            sse);
      AddDelta("input_json_delta", "partial_json", WriteJson(InputOf(call.call)), sse);
      Stop(sse);
    }
    AppendSseEvent(sse, "message_delta",
                   WriteJson(JsonObject{{"type", "message_delta"},
                                        {"delta", JsonObject{{"stop_reason", StopReason(g)},
                                                             {"stop_sequence", StopSequence(g)}}},
                                        {"usage", UsageOf(g)}}));
    AppendSseEvent(sse, "message_stop", R"({"type":"message_stop"})");
  }

  void Fail(const Generation&, const ApiError& error, std::string& sse) override {
    AppendSseEvent(sse, "error", MessagesErrorJson(error, ""));
  }

  std::string ReplyJson(const Generation& g) override {
    const ChoiceReply& choice = g.choice(0);
    JsonArray content;
    if (!choice.reasoning_content.empty()) {
      content.push_back(
          JsonObject{{"type", "thinking"},
                     {"thinking", options_.show_thinking ? choice.reasoning_content : std::string()},
                     {"signature", kSignature}});
    }
    if (!choice.content.empty()) {
      content.push_back(JsonObject{{"type", "text"}, {"text", choice.content}});
    }
    for (const ToolCallDelta& call : choice.tool_calls) {
      content.push_back(JsonObject{{"type", "tool_use"},
                                   {"id", ToolId(call.id)},
                                   {"name", call.call.name},
                                   {"input", InputOf(call.call)}});
    }
    return WriteJson(Message(g, std::move(content), StopReason(g), StopSequence(g)));
  }

 private:
  enum class Block { kNone, kThinking, kText };

  static Json Message(const Generation& g, JsonArray content, Json stop_reason, Json stop_sequence) {
    return JsonObject{{"id", g.reply().id},
                      {"type", "message"},
                      {"role", "assistant"},
                      {"model", g.reply().model},
                      {"content", std::move(content)},
                      {"stop_reason", std::move(stop_reason)},
                      {"stop_sequence", std::move(stop_sequence)},
                      {"usage", UsageOf(g)}};
  }

  const char* StopReason(const Generation& g) const {
    const ChoiceReply& choice = g.choice(0);
    if (choice.finish_reason == "tool_calls") return "tool_use";
    if (choice.finish_reason == "length") {
      return g.usage().completion_tokens < options_.max_tokens ? "model_context_window_exceeded"
                                                               : "max_tokens";
    }
    return choice.stop_string.empty() ? "end_turn" : "stop_sequence";
  }
  static Json StopSequence(const Generation& g) {
    const ChoiceReply& choice = g.choice(0);
    return choice.stop_string.empty() || choice.finish_reason != "stop" ? Json() : Json(choice.stop_string);
  }

  void Begin(const Generation& g, std::string& sse) {
    if (std::exchange(begun_, true)) return;
    AppendSseEvent(
        sse, "message_start",
        WriteJson(JsonObject{{"type", "message_start"}, {"message", Message(g, {}, Json(), Json())}}));
    AppendSseEvent(sse, "ping", R"({"type":"ping"})");
  }

  void Open(Block block, std::string& sse) {
    if (open_ == block) return;
    Close(sse);
    open_ = block;
    if (block == Block::kThinking) {
      Start(JsonObject{{"type", "thinking"}, {"thinking", ""}, {"signature", ""}}, sse);
    } else {
      Start(JsonObject{{"type", "text"}, {"text", ""}}, sse);
    }
  }
  void Close(std::string& sse) {
    if (open_ == Block::kNone) return;
    if (open_ == Block::kThinking) AddDelta("signature_delta", "signature", kSignature, sse);
    Stop(sse);
    open_ = Block::kNone;
  }
  void Start(Json block, std::string& sse) const {
    AppendSseEvent(
        sse, "content_block_start",
        WriteJson(JsonObject{
            {"type", "content_block_start"}, {"index", index_}, {"content_block", std::move(block)}}));
  }
  void Stop(std::string& sse) {
    AppendSseEvent(sse, "content_block_stop",
                   StrCat(R"({"type":"content_block_stop","index":)", index_, "}"));
    ++index_;
  }
  // Of the open block; once for each event of the engine.
  void AddDelta(const char* type, const char* member, std::string_view text, std::string& sse) const {
    std::string json = StrCat(R"({"type":"content_block_delta","index":)", index_, R"(,"delta":{"type":")",
                              type, "\",\"", member, "\":");
    AppendJsonString(json, text);
    json += "}}";
    AppendSseEvent(sse, "content_block_delta", json);
  }

  const MessagesReplyOptions options_;
  bool begun_ = false;
  Block open_ = Block::kNone;
  int index_ = 0;  // of the open block, or the next one
  std::vector<ToolCallDelta> calls_;
};

}  // namespace

std::unique_ptr<ReplyWriter> MakeMessagesWriter(MessagesReplyOptions options) {
  return std::make_unique<MessagesWriter>(options);
}

}  // namespace fd
