#include "server/responses/responses_writer.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <optional>
#include <string_view>
#include <utility>

#include "base/json.h"
#include "base/strings.h"

namespace fd {
namespace {

constexpr const char* kInProgress = "in_progress";
constexpr const char* kCompleted = "completed";
constexpr const char* kIncomplete = "incomplete";
constexpr const char* kFailed = "failed";

int64_t NowUnixSeconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string Quoted(std::string_view text) {
  std::string out;
  AppendJsonString(out, text);
  return out;
}

struct Item {
  enum class Kind { kThought, kText, kCall };
  Kind kind = Kind::kText;
  std::string id;
  const char* status = kInProgress;
  std::string text;  // of a call: its arguments
  std::string call_id;
  std::string name;
  std::vector<LogprobEntry> logprobs;
};

void AppendTextPart(std::string& out, std::string_view text, const std::vector<LogprobEntry>& logprobs) {
  out += R"({"type":"output_text","text":)";
  AppendJsonString(out, text);
  out += R"(,"annotations":[],"logprobs":)";
  AppendLogprobList(out, logprobs, /*with_bytes=*/true);
  out += '}';
}

void AppendThoughtPart(std::string& out, std::string_view text) {
  out += R"({"type":"reasoning_text","text":)";
  AppendJsonString(out, text);
  out += '}';
}

void AppendPart(std::string& out, const Item& item) {
  if (item.kind == Item::Kind::kThought) {
    AppendThoughtPart(out, item.text);
  } else {
    AppendTextPart(out, item.text, item.logprobs);
  }
}

// An item that has just begun has no content yet.
void AppendItem(std::string& out, const Item& item, bool begun_only) {
  out += R"({"id":)";
  AppendJsonString(out, item.id);
  switch (item.kind) {
    case Item::Kind::kThought:
      out += R"(,"type":"reasoning","summary":[],"content":[)";
      if (!begun_only) AppendPart(out, item);
      out += R"(],"encrypted_content":null)";
      break;
    case Item::Kind::kText:
      out += R"(,"type":"message","role":"assistant","content":[)";
      if (!begun_only) AppendPart(out, item);
      out += ']';
      break;
    case Item::Kind::kCall:
      out += R"(,"type":"function_call","call_id":)";
      AppendJsonString(out, item.call_id);
      out += R"(,"name":)";
      AppendJsonString(out, item.name);
      out += R"(,"arguments":)";
      AppendJsonString(out, begun_only ? "" : item.text);
      break;
  }
  out += StrCat(R"(,"status":")", item.status, "\"}");
}

std::string UsageJson(const Usage& u) {
  return StrCat(R"({"input_tokens":)", u.prompt_tokens, R"(,"input_tokens_details":{"cached_tokens":)",
                u.cached_tokens, R"(,"cache_write_tokens":0},"output_tokens":)", u.completion_tokens,
                R"(,"output_tokens_details":{"reasoning_tokens":)", u.reasoning_tokens,
                R"(},"total_tokens":)", u.prompt_tokens + u.completion_tokens, "}");
}

// What ResponseError knows of the reasons why a response fails.
const char* FailureCode(const ApiError& error) {
  return error.http_status == 429 ? "rate_limit_exceeded" : "server_error";
}

// The id of one request's item: "msg_" and what follows "resp_" in its reply's.
std::string ItemId(const char* prefix, const std::string& reply_id, size_t index) {
  return StrCat(prefix, std::string_view(reply_id).substr(std::min(reply_id.find('_') + 1, reply_id.size())),
                "_", index);
}

class ResponsesWriter : public ReplyWriter {
 public:
  ResponsesWriter(std::string echo, std::vector<Place> places)
      : echo_(std::move(echo)), places_(std::move(places)) {}

  void Push(const Generation& g, int /*choice*/, const Delta& delta, std::string& sse) override {
    sse_ = &sse;
    Begin(g);
    Add(g, delta);
    sse_ = nullptr;
  }

  void Finish(const Generation& g, std::string& sse) override {
    sse_ = &sse;
    Begin(g);
    const char* status = End(g);
    Emit(StrCat("response.", status), StrCat(R"("response":)", ResponseJson(g, status, nullptr)));
    sse_ = nullptr;
  }

  // The client's stream helpers see `error`, its state the response that failed.
  void Fail(const Generation& g, const ApiError& error, std::string& sse) override {
    sse_ = &sse;
    Begin(g);
    if (open_) {
      open_ = false;
      items_.back().status = kIncomplete;
    }
    Emit("error",
         StrCat(R"("code":)", error.code.empty() ? "null" : Quoted(error.code), R"(,"message":)",
                Quoted(error.message), R"(,"param":)", error.param.empty() ? "null" : Quoted(error.param)));
    Emit("response.failed", StrCat(R"("response":)", ResponseJson(g, kFailed, &error)));
    sse_ = nullptr;
  }

  std::string ReplyJson(const Generation& g) override {
    const ChoiceReply& choice = g.choice(0);
    Delta all;
    all.reasoning_content = choice.reasoning_content;
    all.content = choice.content;
    all.tool_calls = choice.tool_calls;
    all.logprobs = choice.logprobs;
    Add(g, all);
    const char* status = End(g);
    return ResponseJson(g, status, nullptr);
  }

  Status Restate(const Status& status) const override { return InInputTerms(places_, status); }

 private:
  // Once, before all other events.
  void Begin(const Generation& g) {
    if (std::exchange(begun_, true)) return;
    const std::string response = StrCat(R"("response":)", ResponseJson(g, kInProgress, nullptr));
    Emit("response.created", response);
    Emit("response.in_progress", response);
  }

  // members: what the event has besides its type and number; nothing is made of them in a whole reply.
  void Emit(std::string_view type, std::string_view members) {
    if (sse_ == nullptr) return;
    AppendSseEvent(
        *sse_, type,
        StrCat(R"({"type":")", type, R"(","sequence_number":)", sequence_number_++, ",", members, "}"));
  }

  // "item_id":...,"output_index":...,"content_index":0,
  std::string At(const Item& item, bool in_content) const {
    return StrCat(R"("item_id":)", Quoted(item.id), R"(,"output_index":)", items_.size() - 1,
                  in_content ? R"(,"content_index":0,)" : ",");
  }

  Item& Open(const Generation& g, Item::Kind kind) {
    constexpr const char* kPrefixes[] = {"rs_", "msg_", "fc_"};
    if (open_ && items_.back().kind == kind) return items_.back();
    Close(kCompleted);
    open_ = true;
    Item& item = items_.emplace_back();
    item.kind = kind;
    item.id = ItemId(kPrefixes[static_cast<size_t>(kind)], g.reply().id, items_.size() - 1);
    if (kind != Item::Kind::kCall) EmitBegin(item);
    return item;
  }

  void EmitBegin(const Item& item) {
    if (sse_ == nullptr) return;
    std::string added = StrCat(R"("output_index":)", items_.size() - 1, R"(,"item":)");
    AppendItem(added, item, /*begun_only=*/true);
    Emit("response.output_item.added", added);
    if (item.kind == Item::Kind::kCall) return;
    std::string part = At(item, true) + R"("part":)";
    AppendPart(part, item);  // still empty
    Emit("response.content_part.added", part);
  }

  void Close(const char* status) {
    if (!open_) return;
    Item& item = items_.back();
    // Tokens that added no text, those of a stop string for example.
    if (item.kind == Item::Kind::kText && !waiting_.empty()) AppendText(item, "");
    open_ = false;
    item.status = status;
    if (sse_ == nullptr) return;
    switch (item.kind) {
      case Item::Kind::kThought:
        Emit("response.reasoning_text.done", StrCat(At(item, true), R"("text":)", Quoted(item.text)));
        break;
      case Item::Kind::kText: {
        std::string done = StrCat(At(item, true), R"("text":)", Quoted(item.text), R"(,"logprobs":)");
        AppendLogprobList(done, item.logprobs, /*with_bytes=*/false);
        Emit("response.output_text.done", done);
        break;
      }
      case Item::Kind::kCall:
        Emit("response.function_call_arguments.done",
             StrCat(At(item, false), R"("arguments":)", Quoted(item.text)));
        break;
    }
    if (item.kind != Item::Kind::kCall) {
      std::string part = At(item, true) + R"("part":)";
      AppendPart(part, item);
      Emit("response.content_part.done", part);
    }
    std::string done = StrCat(R"("output_index":)", items_.size() - 1, R"(,"item":)");
    AppendItem(done, item, /*begun_only=*/false);
    Emit("response.output_item.done", done);
  }

  // With the log-probabilities that wait for text.
  void AppendText(Item& item, std::string_view text) {
    item.text += text;
    if (sse_ != nullptr) {
      std::string added = StrCat(At(item, true), R"("delta":)", Quoted(text), R"(,"logprobs":)");
      AppendLogprobList(added, waiting_, /*with_bytes=*/false);
      Emit("response.output_text.delta", added);
    }
    item.logprobs.insert(item.logprobs.end(), std::make_move_iterator(waiting_.begin()),
                         std::make_move_iterator(waiting_.end()));
    waiting_.clear();
  }

  // In the order in which the model made them: a delta may hold text on both sides of a call.
  void Add(const Generation& g, const Delta& delta) {
    if (!delta.reasoning_content.empty()) {
      Item& item = Open(g, Item::Kind::kThought);
      item.text += delta.reasoning_content;
      if (sse_ != nullptr) {
        Emit("response.reasoning_text.delta",
             StrCat(At(item, true), R"("delta":)", Quoted(delta.reasoning_content)));
      }
    }
    std::string_view rest = delta.content;
    for (const ToolCallDelta& call : delta.tool_calls) {
      const auto before = static_cast<size_t>(std::max<int64_t>(call.content_offset - content_bytes_, 0));
      AddText(g, delta, rest.substr(0, before));
      rest.remove_prefix(std::min(before, rest.size()));
      AddCall(g, call);
    }
    AddText(g, delta, rest);
  }

  // The text between two calls, and the log-probabilities of its tokens.
  void AddText(const Generation& g, const Delta& delta, std::string_view text) {
    content_bytes_ += std::ssize(text);
    for (const LogprobEntry& entry : delta.logprobs) {
      if (entry.calls_before == num_calls_) waiting_.push_back(entry);
    }
    if (!text.empty()) AppendText(Open(g, Item::Kind::kText), text);
  }

  // Calls come whole, so their arguments are one delta.
  void AddCall(const Generation& g, const ToolCallDelta& call) {
    constexpr std::string_view kChatPrefix = "chatcmpl-tool-";
    Close(kCompleted);
    waiting_.clear();  // of tokens between calls that are no text
    ++num_calls_;
    Item& item = Open(g, Item::Kind::kCall);
    item.call_id =
        "call_" + (call.id.starts_with(kChatPrefix) ? call.id.substr(kChatPrefix.size()) : call.id);
    item.name = call.call.name;
    EmitBegin(item);
    item.text = call.call.arguments;
    if (sse_ != nullptr) {
      Emit("response.function_call_arguments.delta",
           StrCat(At(item, false), R"("delta":)", Quoted(item.text)));
    }
    Close(kCompleted);
  }

  // The status of the response.
  const char* End(const Generation& g) {
    const char* status = g.choice(0).finish_reason == "length" ? kIncomplete : kCompleted;
    // An answer without a word is an answer; a thought that was cut off has none.
    const bool no_answer = items_.empty() || items_.back().kind == Item::Kind::kThought;
    if (no_answer && (items_.empty() || status == kCompleted)) Open(g, Item::Kind::kText);
    Close(status);
    return status;
  }

  // error: of a response that failed.
  std::string ResponseJson(const Generation& g, const char* status, const ApiError* error) const {
    const bool ended = status != kInProgress;
    std::string out = R"({"id":)";
    AppendJsonString(out, g.reply().id);
    out += StrCat(R"(,"object":"response","created_at":)", g.reply().created_unix_s, R"(,"status":")", status,
                  R"(","completed_at":)");
    out += status == kCompleted ? StrCat(std::max(NowUnixSeconds(), g.reply().created_unix_s)) : "null";
    out += R"(,"error":)";
    if (error != nullptr) {
      out += StrCat(R"({"code":")", FailureCode(*error), R"(","message":)", Quoted(error->message), "}");
    } else {
      out += "null";
    }
    out += R"(,"incomplete_details":)";
    out += status == kIncomplete ? R"({"reason":"max_output_tokens"})" : "null";
    out += R"(,"model":)";
    AppendJsonString(out, g.reply().model);
    out += R"(,"output":[)";
    for (size_t i = 0; i < items_.size(); ++i) {
      if (i > 0) out += ',';
      AppendItem(out, items_[i], /*begun_only=*/false);
    }
    out += R"(],"usage":)";
    out += ended ? UsageJson(g.usage()) : "null";
    out += StrCat(",", echo_, "}");
    return out;
  }

  const std::string echo_;
  const std::vector<Place> places_;
  std::vector<Item> items_;
  bool begun_ = false;
  bool open_ = false;  // the last item is
  std::vector<LogprobEntry> waiting_;
  int64_t content_bytes_ = 0;
  int num_calls_ = 0;
  int64_t sequence_number_ = 0;
  std::string* sse_ = nullptr;  // null: no stream
};

}  // namespace

std::unique_ptr<ReplyWriter> MakeResponsesWriter(std::string echo, std::vector<Place> places) {
  return std::make_unique<ResponsesWriter>(std::move(echo), std::move(places));
}

}  // namespace fd
