// Everything a request needs, loaded once. Immutable after start, shared by all threads.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "server/chat/chat_template.h"
#include "server/chat/reasoning_parser.h"
#include "server/chat/tool_parser.h"
#include "server/metrics/metrics.h"
#include "server/multimodal/media_loader.h"
#include "server/multimodal/processor.h"
#include "server/multimodal/source/media_source.h"
#include "server/text/tokenizer.h"

namespace fd {

// The engine as the server sees it: Engine in service, a fake in tests. Every function may be called from any
// thread.
struct EngineDoor {
  std::function<Status(GenerateRequest)> submit;
  std::function<void(RequestId)> abort;
  std::function<EngineStats()> stats;
  std::function<Clock::time_point()> last_heartbeat;
  std::function<void()> wake;  // an idle loop turns at once, so that last_heartbeat says whether it lives
  std::function<Status()> lost = [] { return OkStatus(); };  // not ok: why it can do nothing more
};
// The engine must outlive the door.
inline EngineDoor DoorOf(Engine& engine) {
  return {[&engine](GenerateRequest r) { return engine.Submit(std::move(r)); },
          [&engine](RequestId id) { engine.Abort(id); },
          [&engine] { return engine.Stats(); },
          [&engine] { return engine.last_heartbeat(); },
          [&engine] { engine.Wake(); },
          [&engine] { return engine.DeviceStatus(); }};
}

// What a request may ask for at most. Each refusal names its flag.
struct RequestLimits {
  int64_t max_choices = 128;             // --max-choices: prompts x n of one request
  int64_t max_messages = 4096;           // --max-messages
  int64_t max_stop_strings = 16;         // --max-stop-strings (OpenAI: 4, FastDeploy: 5)
  int64_t max_stop_bytes = 1024;         // --max-stop-bytes: each string
  int64_t max_stop_token_ids = 128;      // --max-stop-token-ids
  int64_t max_logit_bias = 1024;         // --max-logit-bias: tokens with a bias
  int64_t max_banned_tokens = 1024;      // --max-banned-tokens: tokens of bad words
  int64_t max_allowed_token_ids = 1024;  // --max-allowed-token-ids
  int64_t max_logprobs = 20;             // --max-logprobs: likeliest tokens at each place
  // --max-prompt-logprobs: log-probabilities of a request's prompts, prompt tokens x (prompt_logprobs + 1)
  int64_t max_prompt_logprobs = 262144;
  int64_t max_tools = 128;                  // --max-tools
  int64_t max_documents = 128;              // --max-documents
  int64_t max_chat_template_bytes = 65536;  // --max-chat-template-bytes: a template of the request's own
  int64_t max_embedding_inputs = 2048;      // --max-embedding-inputs (OpenAI: 2048)
  int64_t images_per_prompt = 1;            // --limit-mm-per-prompt '{"image": 1}'
  int64_t videos_per_prompt = 1;            // --limit-mm-per-prompt '{"video": 1}'
};

// Used where a request does not say: generation_config.json's values, else FastDeploy's.
struct GenerationDefaults {
  float temperature = 1.0f;
  float top_p = 0.7f;
  int32_t top_k = 0;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
};
GenerationDefaults DefaultsOf(const ModelConfig& config);

// A server whose requests become vectors (--runner pooling).
struct EmbeddingService {
  bool normalize = true;              // where a request does not say: to length 1
  std::optional<int64_t> dimensions;  // the same; absent: all of hidden_size
  int64_t hidden_size = 0;
  // Whether the first values alone are an embedding too, and which numbers of them; empty: any.
  bool is_matryoshka = false;
  std::vector<int64_t> matryoshka_dimensions;
};
// Whether embeddings of this model may have so many values; the error says why not and stands at `param`.
Status CheckDimensions(const EmbeddingService& embeddings, int64_t dimensions, const std::string& model,
                       const std::string& param);

struct Service {
  // The first one stands in replies. Requests may name any of them, or "default"; with check_model_name false
  // (no --served-model-name) every name is taken.
  std::vector<std::string> model_names;
  bool check_model_name = false;
  int64_t created_unix_s = 0;  // of /v1/models
  // Of chats, completions and /v1/models: the same string, the same tokens of the same request with a seed,
  // as far as `deterministic` says. Empty: replies have none.
  std::string system_fingerprint;
  bool deterministic = false;  // whatever runs besides

  std::shared_ptr<const Tokenizer> tokenizer;
  std::optional<ChatTemplate> chat_template;  // absent: /v1/chat/completions refuses
  std::string chat_template_error;            // why it is absent
  JsonObject template_tokens;                 // bos_token and so on, for templates of requests
  JsonObject default_template_kwargs;         // --default-chat-template-kwargs
  bool trust_request_chat_template = false;   // --trust-request-chat-template
  std::optional<MediaConfig> media;           // absent: the model takes no pictures
  std::shared_ptr<MediaLoader> media_loader;  // there whenever `media` is

  // --reasoning-parser: what is reasoning_content when thinking is on. SetReasoningParser fills these.
  ReasoningFormat reasoning_format = ReasoningFormat::kNone;
  int32_t think_end_id = -1;  // </think>; -1: no parser
  // What ends a thought that has used up its budget; </think> is among them.
  std::vector<int32_t> think_end_ids;
  // --tool-call-parser: how calls become tool_calls. SetToolParser fills it.
  ToolFormat tool_format = ToolFormat::kNone;
  // Markers of the two parsers that are single tokens: they count also where special tokens are not shown.
  std::map<int32_t, std::string> marker_tokens;
  // enable_thinking where a request does not say; FastDeploy: true for ERNIE-4.5-VL. Absent: the variable is
  // not set, and the template decides.
  std::optional<bool> thinking_by_default;

  std::optional<EmbeddingService> embeddings;  // absent: the server generates

  int64_t max_model_len = 2048;  // prompt and output, in tokens
  int64_t max_num_seqs = 8;      // for the metrics
  int64_t vocab_size = 0;        // of the model's logits: ids in requests must lie below it
  GenerationDefaults defaults;
  RequestLimits limits;
  MediaPolicy media_policy;
  bool strict_requests = false;  // --strict-requests: unknown fields are refused
  bool log_prompts = false;      // --log-prompts: prompts stand in the log
  EngineDoor engine;
  std::shared_ptr<Metrics> metrics;  // never null
};

// Makes media_loader from media; what it does is counted in metrics, which must be there.
void StartMediaLoader(Service& service, const MediaPolicy& policy, const MediaLoaderOptions& options);

// name: "" (none) or one of ReasoningFormatNamed. Unknown names and a vocabulary without </think> are errors
// that name the flag. FD_LIMIT_THINKING_CONTENT_TRUNCATE_STR in the environment says what ends a thought that
// has used up its budget; default "</think>", "\\n" stands for a newline.
Status SetReasoningParser(Service& service, const std::string& name);
// name: "" (none) or one of ToolFormatNamed.
Status SetToolParser(Service& service, const std::string& name);

// Ids are unique in this process.
RequestId NextRequestId();

}  // namespace fd
