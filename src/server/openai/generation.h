// One request from JSON to finished choices: Prepare checks and tokenises it, Submit starts its sequences,
// Push turns their events into text. What a client reads is made from it by a ReplyWriter. Knows no sockets:
// the HTTP server and `fastdeploy run` use it alike. Who must not wait while pictures are fetched and decoded
// calls Parse, gives the media to Service::media_loader, and then Finish, instead of Prepare.
//
//   auto generation = Generation::Prepare(service, ApiEndpoint::kChat, json_text);  // slow: waits for media
//   generation->Submit([&](int choice, TokenEvent&& event) { queue.Add(choice, std::move(event)); });
//   while (!generation->finished()) {  // one thread
//     auto [choice, event] = queue.Take();
//     Delta delta = generation->Push(choice, std::move(event));
//     ... print delta.content, or give the delta to a ReplyWriter (reply_writer.h)
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
  int index = 0;               // within the choice
  int64_t content_offset = 0;  // bytes of the choice's content that stand before it
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

// What a request said of the form of its reply.
struct ReplyOptions {
  ApiEndpoint endpoint = ApiEndpoint::kChat;
  std::string id;
  std::string model;
  std::string system_fingerprint;  // Service's; empty: none
  int64_t created_unix_s = 0;
  bool stream = false;
  bool include_usage = false;     // of a stream: in a last chunk
  bool continuous_usage = false;  // in every chunk
  bool return_token_ids = false;
  bool echo = false;
  int32_t top_logprobs = -1;     // as in SamplingParams
  int32_t prompt_logprobs = -1;  // the same, of the prompt
};

// One choice as far as it is generated. Of a stream, whose text is gone with its deltas, only what the
// request fixed, finish_reason and stop_string.
struct ChoiceReply {
  std::vector<int32_t> prompt_token_ids;  // with return_token_ids
  std::string echo;
  int32_t first_prompt_id = -1;
  std::vector<PromptLogprob> prompt_logprobs;  // of the prompt's other tokens, also of a stream
  bool has_reasoning = false;                  // also of a stream: there is or was a thought
  std::string reasoning_content;
  std::string content;
  std::vector<ToolCallDelta> tool_calls;
  std::vector<int32_t> token_ids;
  std::vector<LogprobEntry> logprobs;
  std::string finish_reason;  // "" while it runs
  std::string stop_string;    // the one that ended it; "" otherwise
};

struct Usage {
  int64_t prompt_tokens = 0;  // each prompt once, however many choices it has
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t image_tokens = 0;
  int64_t video_tokens = 0;
  int64_t reasoning_tokens = 0;
};

// The error names the place.
StatusOr<Json> ParseRequestBody(std::string_view body);

// A request that is checked and tokenised, and whose media may still have to be loaded.
class GenerationDraft {
 public:
  ~GenerationDraft();
  bool has_media() const;
  // Once. The service must outlive the request.
  MediaRequest TakeMedia();
  // When the request's own time is over (its field timeout); max() without one.
  Clock::time_point deadline() const;
  // The error for media that were not there by then.
  Status TimedOut() const;

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
  // was read, for the metrics. id_prefix: of the reply's id; null: the endpoint's.
  static StatusOr<std::unique_ptr<GenerationDraft>> Parse(const Service& service, ApiEndpoint endpoint,
                                                          Json body, std::string scope,
                                                          Clock::time_point arrived_at,
                                                          const char* id_prefix = nullptr);
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

  const ReplyOptions& reply() const { return reply_; }
  const Tokenizer& tokenizer() const { return *service_->tokenizer; }
  // Writing the reply takes long enough to do it on a worker.
  bool has_long_reply() const { return scores_prompt_; }
  int num_choices() const { return static_cast<int>(choices_.size()); }
  const ChoiceReply& choice(int index) const;
  Usage usage() const;
  // Fields of the request that it does not know; --strict-requests refuses them.
  const std::vector<std::string>& ignored_fields() const { return ignored_fields_; }
  // Before Submit: what would be sent to the model: the text of the prompt, its token ids, its media.
  std::string RenderJson() const;
  const std::vector<int32_t>& first_prompt() const;  // before Submit

 private:
  struct Choice;
  Generation(const Service& service, ApiEndpoint endpoint);
  void AppendToken(Choice& choice, int32_t token_id, Delta& delta);
  void AppendText(Choice& choice, std::string_view text, Delta& delta);
  void AppendAnswer(Choice& choice, ToolParser::Piece piece, Delta& delta);
  void ReleaseLogprobs(Choice& choice, Delta& delta);
  void End(Choice& choice, SequenceOutcome outcome);

  const Service* service_;
  ReplyOptions reply_;
  std::vector<std::string> ignored_fields_;
  std::string prompt_text_;    // of a chat
  int64_t prompt_tokens_ = 0;  // of all prompts
  int64_t image_tokens_ = 0;
  int64_t video_tokens_ = 0;
  int64_t tokens_per_chunk_ = 1;
  bool tokens_as_ids_ = false;
  bool scores_prompt_ = false;  // for the reply or for an echo
  Clock::time_point arrived_at_;
  std::vector<std::unique_ptr<Choice>> choices_;  // by index
  int64_t choices_per_prompt_ = 1;
  int64_t unfinished_ = 0;
  bool submitted_ = false;
  Status status_;
};

}  // namespace fd
