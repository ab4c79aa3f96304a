// One request from JSON to finished choices: Prepare checks and tokenises it, Submit starts its sequences,
// Push turns their events into text, and the writers make the OpenAI objects. Knows no sockets: the HTTP
// server and `fastdeploy run` use it alike. Who must not wait while pictures are fetched and decoded calls
// Parse, gives the media to Service::media_loader, and then Finish, instead of Prepare.
//
//   auto generation = Generation::Prepare(service, ApiEndpoint::kChat, json_text);   // slow: waits for
//   pictures generation->Submit([&](int choice, TokenEvent&& event) { queue.Add(choice, std::move(event));
//   }); while (!generation->finished()) {                                                // one thread
//     auto [choice, event] = queue.Take();
//     Delta delta = generation->Push(choice, std::move(event));
//     ... print delta.content, or send generation->ChunksJson(choice, delta)
//   }
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "engine/plan/request.h"
#include "server/metrics/metrics.h"
#include "server/openai/logprobs.h"
#include "server/openai/service.h"
#include "server/text/detokenizer.h"

namespace fd {

enum class ApiEndpoint { kChat, kCompletions };

struct ToolCallDelta {
  int index = 0;  // within the choice
  std::string id;
  ToolCall call;
};

// What one event adds to one choice.
struct Delta {
  std::string reasoning_content;
  std::string content;
  std::vector<ToolCallDelta> tool_calls;     // whole ones
  std::vector<int32_t> token_ids;            // new since the delta before
  std::vector<LogprobEntry> logprobs;        // of the tokens of the text, where they are asked for
  std::optional<std::string> finish_reason;  // "stop", "length", "tool_calls"; in the choice's last delta,
                                             // and only there
  bool empty() const {
    return reasoning_content.empty() && content.empty() && tool_calls.empty() && token_ids.empty() &&
           logprobs.empty() && !finish_reason;
  }
};

struct Usage {
  int64_t prompt_tokens = 0;  // each prompt once, however many choices it has
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t image_tokens = 0;
  int64_t video_tokens = 0;
  int64_t reasoning_tokens = 0;
};

// A request that is checked and tokenised, and whose media may still have to be loaded.
class GenerationDraft {
 public:
  ~GenerationDraft();
  bool has_media() const;
  // Once. The service must outlive the request.
  MediaRequest TakeMedia();

 private:
  friend class Generation;
  struct Impl;
  explicit GenerationDraft(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

class Generation {
 public:
  // JSON, fields, template, tokens; on a worker thread. scope: whose uuids of media these are (an API key;
  // empty for everyone without one). The service must outlive the generation. arrived_at: when the request
  // was read, for the metrics.
  static StatusOr<std::unique_ptr<GenerationDraft>> Parse(const Service& service, ApiEndpoint endpoint,
                                                          Json body, std::string scope,
                                                          Clock::time_point arrived_at);
  static StatusOr<std::unique_ptr<GenerationDraft>> Parse(const Service& service, ApiEndpoint endpoint,
                                                          std::string_view body, std::string scope,
                                                          Clock::time_point arrived_at);
  // media: what the loader made of TakeMedia(); nothing for a draft without media.
  static StatusOr<std::unique_ptr<Generation>> Finish(std::unique_ptr<GenerationDraft> draft,
                                                      LoadedMedia media);

  // Parse, load and Finish in one; the thread waits while media are loaded.
  static StatusOr<std::unique_ptr<Generation>> Prepare(const Service& service, ApiEndpoint endpoint,
                                                       std::string_view body,
                                                       Clock::time_point arrived_at = Clock::now());
  static StatusOr<std::unique_ptr<Generation>> Prepare(const Service& service, ApiEndpoint endpoint,
                                                       Json body,
                                                       Clock::time_point arrived_at = Clock::now());
  ~Generation();  // aborts what still runs
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  // Called on the engine thread, once for each event of each choice; must not block. All sequences start or
  // none does. Once only.
  using Sink = std::function<void(int choice, TokenEvent&&)>;
  Status Submit(Sink sink);
  // Any thread, after Submit: the sequences leave the engine within one step.
  void Abort();

  // All below: one thread.
  // An event of a choice that has ended (a stop string was found) is dropped. A sequence that failed or was
  // aborted by the engine makes status() an error; the caller ends the whole reply.
  Delta Push(int choice, TokenEvent&& event);
  bool finished() const { return unfinished_ == 0; }
  const Status& status() const { return status_; }

  bool stream() const { return stream_; }
  // Writing the reply takes long enough to do it on a worker.
  bool has_long_reply() const { return scores_prompt_; }
  int num_choices() const { return static_cast<int>(choices_.size()); }
  const std::string& id() const { return id_; }
  Usage usage() const;
  // Fields of the request that it does not know; --strict-requests refuses them.
  const std::vector<std::string>& ignored_fields() const { return ignored_fields_; }
  // Before Submit: what would be sent to the model: the text of the prompt, its token ids, its media.
  std::string RenderJson() const;
  const std::vector<int32_t>& first_prompt() const;  // before Submit

  // Complete JSON texts, without "data: " and newlines.
  // The chunk before a choice's first delta (chat: the role; completions: the echo); "" when there is none.
  std::string FirstChunkJson(int choice) const;
  // One or two: the finish reason comes in a chunk of its own, as OpenAI sends it. None for an empty delta.
  std::vector<std::string> ChunksJson(int choice, const Delta& delta) const;
  bool wants_usage_chunk() const { return include_usage_; }
  std::string UsageChunkJson() const;
  std::string ReplyJson() const;  // the reply of a request without "stream"

 private:
  struct Choice;
  Generation(const Service& service, ApiEndpoint endpoint);
  // Up to and with "model"; text completions have one object name for both.
  std::string Head(const char* chat_object) const;
  std::string ChunkHead() const;
  void AppendLogprobs(std::string& out, const std::vector<LogprobEntry>& entries, bool present) const;
  std::vector<LogprobEntry> EchoLogprobs(const Choice& choice) const;
  void AppendToken(Choice& choice, int32_t token_id, Delta& delta);
  void AppendText(Choice& choice, std::string_view text, Delta& delta);
  void AppendAnswer(Choice& choice, ToolParser::Piece piece, Delta& delta);
  void End(Choice& choice, SequenceOutcome outcome);

  const Service* service_;
  ApiEndpoint endpoint_;
  std::string id_;
  std::string model_;
  int64_t created_unix_s_ = 0;
  bool stream_ = false;
  bool include_usage_ = false;
  bool continuous_usage_ = false;
  bool return_token_ids_ = false;
  bool echo_ = false;
  std::vector<std::string> ignored_fields_;
  std::string prompt_text_;    // of a chat
  int64_t prompt_tokens_ = 0;  // of all prompts
  int64_t image_tokens_ = 0;
  int64_t video_tokens_ = 0;
  int64_t tokens_per_chunk_ = 1;
  int32_t top_logprobs_ = -1;     // as in SamplingParams
  int32_t prompt_logprobs_ = -1;  // of the reply
  bool scores_prompt_ = false;    // for the reply or for an echo
  Clock::time_point arrived_at_;
  std::vector<std::unique_ptr<Choice>> choices_;  // by index
  int64_t unfinished_ = 0;
  bool submitted_ = false;
  Status status_;
};

}  // namespace fd
