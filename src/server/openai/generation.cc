#include "server/openai/generation.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "base/hash.h"
#include "base/log.h"
#include "base/strings.h"
#include "base/utf8.h"
#include "server/openai/errors.h"
#include "server/openai/openai_writer.h"
#include "server/openai/request.h"
#include "server/openai/request_extras.h"
#include "server/openai/request_schema.h"
#include "server/openai/sampling_fields.h"

namespace fd {
namespace {

// Unpredictable and unique: the key of KeyedHash is drawn from the kernel at start.
Hash128 Fresh() {
  const RequestId count = NextRequestId();
  return KeyedHash(StrCat("fresh id ", count));
}

std::string Hex(const Hash128& h) {
  std::string out;
  for (uint64_t word : {h.high, h.low}) {
    for (int shift = 60; shift >= 0; shift -= 4) out.push_back("0123456789abcdef"[word >> shift & 15]);
  }
  return out;
}

// FastDeploy's rule: a client's request_id is kept, with the prefix put before it if it is not there.
std::string ReplyId(const std::string& prefix, const RequestFields& fields) {
  if (!fields.request_id.empty()) {
    return fields.request_id.starts_with(prefix) ? fields.request_id : prefix + fields.request_id;
  }
  return StrCat(prefix, fields.user.empty() ? "" : fields.user + "-", Hex(Fresh()));
}

// The beginning of each: a log is no archive.
void LogPrompts(const Service& service, const std::string& id, const std::vector<Prompt>& prompts) {
  constexpr size_t kMaxLoggedIds = 2048;
  for (const Prompt& prompt : prompts) {
    std::vector<int32_t> ids = prompt.expanded.token_ids;
    const size_t count = ids.size();
    ids.resize(std::min(count, kMaxLoggedIds));
    LogInfo(id, ": prompt of ", count, " tokens: ", service.tokenizer->Decode(ids, /*skip_special=*/false));
  }
}

// FastDeploy's rule: where a request does not say, a fifth of the output is left for the answer.
int64_t DefaultThinkingTokens(int64_t max_tokens) { return std::max<int64_t>(max_tokens * 4 / 5, 1); }

Clock::time_point DeadlineOf(const RequestFields& fields, Clock::time_point arrived_at) {
  if (!fields.timeout_s) return Clock::time_point::max();
  return arrived_at +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(*fields.timeout_s));
}

}  // namespace

StatusOr<Json> ParseRequestBody(std::string_view body) {
  StatusOr<Json> json = ParseJson(body);
  if (!json.ok()) return BodyIsNoJson(json.status());
  return json;
}

struct Generation::Choice {
  GenerateRequest request;  // moved away by Submit, but for its id
  RequestId id = 0;
  ChoiceReply reply;

  std::vector<std::string> stop;
  bool include_stop = false;
  bool skip_special = true;
  std::optional<Detokenizer> detokenizer;
  ReasoningParser reasoning;
  ToolParser tools;
  int64_t reasoning_tokens = 0;
  int64_t response_tokens_left = 0;  // of response_max_tokens; 0: no limit, or done
  int num_tool_calls = 0;
  int64_t content_bytes = 0;
  // Of tokens that may be a call's; calls_before is what it was before the first of them.
  std::vector<LogprobEntry> undecided;
  int64_t logprob_offset = 0;  // characters of the tokens so far

  Delta pending;  // with max_streaming_response_tokens
  int64_t pending_tokens = 0;
  SequenceTimes times;
  bool ended = false;

  void StartText(const Tokenizer* tokenizer) {
    detokenizer.emplace(tokenizer, skip_special, stop, include_stop);
  }
};

Generation::Generation(const Service& service, ApiEndpoint endpoint) : service_(&service) {
  reply_.endpoint = endpoint;
}

Generation::~Generation() {
  if (!submitted_) return;
  for (const auto& choice : choices_) {
    if (choice->ended) continue;
    service_->engine.abort(choice->id);
    End(*choice, SequenceOutcome::kAborted);
  }
}

struct GenerationDraft::Impl {
  const Service& service;
  ApiEndpoint endpoint;
  RequestFields fields;
  std::vector<Prompt> prompts;
  std::string scope;
  Clock::time_point arrived_at;
  bool has_media = false;
  std::vector<std::string> ignored_fields;
  std::string id_prefix;
};

GenerationDraft::GenerationDraft(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GenerationDraft::~GenerationDraft() = default;

bool GenerationDraft::has_media() const { return impl_->has_media; }

Clock::time_point GenerationDraft::deadline() const { return DeadlineOf(impl_->fields, impl_->arrived_at); }

Status GenerationDraft::TimedOut() const {
  return {StatusCode::kDeadlineExceeded,
          StrCat("the pictures and videos of the request were not there in its timeout of ",
                 impl_->fields.timeout_s.value_or(0), " seconds; raise timeout"),
          "timeout"};
}

MediaRequest GenerationDraft::TakeMedia() {
  Prompt& prompt = impl_->prompts.front();
  MediaRequest request;
  request.items = std::move(prompt.media);
  request.scope = impl_->scope;
  request.check_tokens = [text_tokens = prompt.sections.text_tokens,
                          max_model_len = impl_->service.max_model_len](int64_t media_tokens) -> Status {
    const int64_t tokens = text_tokens + media_tokens;
    return tokens < max_model_len ? OkStatus() : ContextLengthExceeded(tokens, max_model_len, "messages");
  };
  return request;
}

StatusOr<std::unique_ptr<GenerationDraft>> Generation::Parse(const Service& service, ApiEndpoint endpoint,
                                                             Json body, std::string scope,
                                                             Clock::time_point arrived_at,
                                                             const char* id_prefix) {
  if (!body.is_object()) {
    return InvalidArgument(StrCat("the request body must be a JSON object; got ", body.TypeName()));
  }
  const RequestKind kind = endpoint == ApiEndpoint::kChat ? RequestKind::kChat : RequestKind::kCompletions;
  FD_RETURN_IF_ERROR(MergeExtraPlaces(kind, body.as_object()));
  std::vector<std::string> ignored = UnknownFields(kind, body.as_object());
  if (service.strict_requests) FD_RETURN_IF_ERROR(RefuseUnknownFields(kind, ignored));
  FD_ASSIGN_OR_RETURN(RequestFields fields, ReadFields(service, endpoint, body.as_object()));
  std::vector<Prompt> prompts;
  if (endpoint == ApiEndpoint::kChat) {
    FD_ASSIGN_OR_RETURN(Prompt prompt, ReadChatPrompt(service, body.as_object()));
    prompts.push_back(std::move(prompt));
  } else {
    FD_ASSIGN_OR_RETURN(prompts, ReadCompletionPrompts(service, body.as_object(), fields.echo));
  }
  const int64_t num_choices = static_cast<int64_t>(prompts.size()) * fields.n;
  if (num_choices > service.limits.max_choices) {
    return InvalidArgument(
        StrCat(prompts.size(), " prompts x n = ", fields.n, " are ", num_choices, " choices; at most ",
               service.limits.max_choices, " are allowed (--max-choices)"),
        "n");
  }
  const bool has_media = !prompts.front().media.empty();
  if (id_prefix == nullptr) id_prefix = endpoint == ApiEndpoint::kChat ? "chatcmpl-" : "cmpl-";
  auto impl = std::unique_ptr<GenerationDraft::Impl>(
      new GenerationDraft::Impl{service, endpoint, std::move(fields), std::move(prompts), std::move(scope),
                                arrived_at, has_media, std::move(ignored), id_prefix});
  return std::unique_ptr<GenerationDraft>(new GenerationDraft(std::move(impl)));
}

StatusOr<std::unique_ptr<Generation>> Generation::Prepare(const Service& service, ApiEndpoint endpoint,
                                                          std::string_view body,
                                                          Clock::time_point arrived_at) {
  FD_ASSIGN_OR_RETURN(Json json, ParseRequestBody(body));
  return Prepare(service, endpoint, std::move(json), arrived_at);
}

StatusOr<std::unique_ptr<Generation>> Generation::Prepare(const Service& service, ApiEndpoint endpoint,
                                                          Json body, Clock::time_point arrived_at) {
  FD_ASSIGN_OR_RETURN(auto draft, Parse(service, endpoint, std::move(body), /*scope=*/"", arrived_at));
  LoadedMedia media;
  if (draft->has_media()) {
    FD_ASSIGN_OR_RETURN(media, service.media_loader->LoadAndWait(draft->TakeMedia()));
  }
  return Finish(std::move(draft), std::move(media));
}

StatusOr<std::unique_ptr<Generation>> Generation::Finish(std::unique_ptr<GenerationDraft> draft,
                                                         LoadedMedia media) {
  GenerationDraft::Impl& d = *draft->impl_;
  const Service& service = d.service;
  const ApiEndpoint endpoint = d.endpoint;
  const RequestFields& fields = d.fields;
  const Clock::time_point arrived_at = d.arrived_at;
  std::vector<Prompt>& prompts = d.prompts;
  if (d.has_media) {
    Prompt& prompt = prompts.front();
    prompt.expanded = FillPrompt(prompt.sections, *service.media, media.images, media.videos);
    const int64_t tokens = std::ssize(prompt.expanded.token_ids);
    if (tokens >= service.max_model_len)
      return ContextLengthExceeded(tokens, service.max_model_len, "messages");
  }
  for (Prompt& prompt : prompts) FD_RETURN_IF_ERROR(AppendBegunAnswer(service, prompt.begun_answer, &prompt));
  // A chat has one prompt, whose log-probabilities stand once in the reply.
  const int64_t scored_choices = endpoint == ApiEndpoint::kChat ? 1 : fields.n;
  int64_t scored_tokens = 0;
  for (const Prompt& prompt : prompts)
    scored_tokens += scored_choices * std::ssize(prompt.expanded.token_ids);
  FD_RETURN_IF_ERROR(CheckPromptLogprobs(service, fields, scored_tokens));
  std::unique_ptr<Generation> g(new Generation(service, endpoint));
  g->reply_.id = ReplyId(d.id_prefix, fields);
  g->reply_.model = fields.model;
  g->reply_.system_fingerprint = service.system_fingerprint;
  g->reply_.created_unix_s =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
  g->reply_.stream = fields.stream;
  g->reply_.include_usage = fields.include_usage;
  g->reply_.continuous_usage = fields.continuous_usage;
  g->reply_.return_token_ids = fields.return_token_ids;
  g->reply_.echo = fields.echo;
  g->reply_.top_logprobs = fields.sampling.top_logprobs;
  g->reply_.prompt_logprobs = fields.prompt_logprobs;
  g->scores_prompt_ = fields.sampling.prompt_logprobs >= 0;
  g->tokens_as_ids_ = fields.tokens_as_ids;
  g->tokens_per_chunk_ = fields.stream ? fields.tokens_per_chunk : 1;
  g->arrived_at_ = arrived_at;
  g->ignored_fields_ = std::move(d.ignored_fields);
  g->prompt_text_ = prompts.front().text;
  if (service.log_prompts) LogPrompts(service, g->reply_.id, prompts);
  const auto submitted_at = Clock::now();
  for (Prompt& prompt : prompts) {
    const auto prompt_tokens = static_cast<int64_t>(prompt.expanded.token_ids.size());
    g->prompt_tokens_ += prompt_tokens;
    g->image_tokens_ += prompt.expanded.image_tokens;
    g->video_tokens_ += prompt.expanded.video_tokens;
    for (int64_t k = 0; k < fields.n; ++k) {
      auto choice = std::make_unique<Choice>();
      GenerateRequest& r = choice->request;
      r.id = choice->id = NextRequestId();
      r.token_ids = prompt.expanded.token_ids;
      r.positions = prompt.expanded.positions;
      r.position_delta = prompt.expanded.position_delta;
      r.vision_expert = prompt.expanded.vision_expert;
      r.media = prompt.expanded.media;
      r.sampling = fields.sampling;
      // Choices of one request must differ, and one seed must give the same choices again.
      r.sampling.seed = fields.seed ? *fields.seed + static_cast<uint64_t>(k) : Fresh().low;
      const int64_t room = service.max_model_len - prompt_tokens;
      r.sampling.max_tokens = std::min(fields.max_tokens.value_or(room), room);
      if (k >= scored_choices) r.sampling.prompt_logprobs = -1;
      r.arrived_at = arrived_at;
      r.priority = fields.priority;
      r.cache_salt = fields.cache_salt;
      r.timeout_s = fields.timeout_s.value_or(0);
      r.deadline = DeadlineOf(fields, arrived_at);

      if (fields.return_token_ids) choice->reply.prompt_token_ids = prompt.expanded.token_ids;
      if (fields.echo) choice->reply.echo = prompt.text;
      choice->logprob_offset = CountUtf8Chars(choice->reply.echo);
      choice->reply.first_prompt_id = r.token_ids.front();
      choice->stop = fields.stop;
      choice->include_stop = fields.include_stop;
      choice->skip_special = fields.skip_special_tokens;
      if (endpoint == ApiEndpoint::kChat) {
        choice->reasoning = ReasoningParser(service.reasoning_format, prompt.reasoning);
      }
      choice->reply.has_reasoning = choice->reasoning.in_reasoning();
      if (fields.response_max_tokens) {
        choice->response_tokens_left = *fields.response_max_tokens;
        if (prompt.reasoning == ReasoningStart::kAnswer) {  // all that comes is the answer
          r.sampling.max_tokens = std::min(r.sampling.max_tokens, *fields.response_max_tokens);
        }
      }
      if (prompt.parse_tools) choice->tools = ToolParser(service.tool_format);
      if (choice->reply.has_reasoning) {
        ThinkingBudget& budget = r.sampling.thinking;
        budget.max_tokens =
            fields.reasoning_max_tokens.value_or(DefaultThinkingTokens(r.sampling.max_tokens));
        budget.end_token_id = service.think_end_id;
        budget.forced_ids = service.think_end_ids;
      }
      choice->StartText(service.tokenizer.get());
      choice->times.arrived_at = arrived_at;
      choice->times.submitted_at = submitted_at;
      choice->times.prompt_tokens = prompt_tokens;
      choice->times.max_tokens = r.sampling.max_tokens;
      g->choices_.push_back(std::move(choice));
    }
  }
  g->choices_per_prompt_ = fields.n;
  g->unfinished_ = static_cast<int64_t>(g->choices_.size());
  return g;
}

Status Generation::Submit(Sink sink) {
  FD_CHECK(!submitted_, "Submit is called once");
  service_->metrics->RequestReceived(std::ssize(choices_));
  for (size_t i = 0; i < choices_.size(); ++i) {
    choices_[i]->request.sink = [sink, index = static_cast<int>(i)](TokenEvent&& event) {
      sink(index, std::move(event));
    };
    if (Status s = service_->engine.submit(std::move(choices_[i]->request)); !s.ok()) {
      for (size_t k = 0; k < i; ++k) service_->engine.abort(choices_[k]->id);
      for (const auto& choice : choices_) choice->ended = true;
      unfinished_ = 0;
      status_ = s;
      return s;
    }
  }
  submitted_ = true;
  return OkStatus();
}

void Generation::Abort() {
  for (const auto& choice : choices_) service_->engine.abort(choice->id);
}

void Generation::AppendToken(Choice& choice, int32_t token_id, Delta& delta) {
  if (choice.reasoning.in_reasoning()) {
    ++choice.reasoning_tokens;
    if (token_id == service_->think_end_id) {  // the answer is a text of its own
      AppendText(choice, choice.detokenizer->Flush() + service_->marker_tokens.at(token_id), delta);
      choice.StartText(service_->tokenizer.get());
      return;
    }
  }
  const auto marker = service_->marker_tokens.find(token_id);
  const bool plain = marker == service_->marker_tokens.end() || reply_.endpoint == ApiEndpoint::kCompletions;
  AppendText(choice,
             plain ? choice.detokenizer->Push(token_id) : choice.detokenizer->PushText(marker->second),
             delta);
}

void Generation::AppendText(Choice& choice, std::string_view text, Delta& delta) {
  ReasoningParser::Piece piece = choice.reasoning.Push(text);
  delta.reasoning_content += piece.reasoning;
  AppendAnswer(choice, choice.tools.Push(piece.answer), delta);
}

void Generation::AppendAnswer(Choice& choice, ToolParser::Piece piece, Delta& delta) {
  delta.content += piece.content;
  for (ToolCall& call : piece.calls) {
    const int64_t offset = choice.content_bytes + static_cast<int64_t>(call.content_offset);
    delta.tool_calls.push_back(
        {choice.num_tool_calls++, offset, StrCat("chatcmpl-tool-", Hex(Fresh())), std::move(call)});
  }
  choice.content_bytes += std::ssize(piece.content);
}

// Once it is clear whether the undecided tokens were a call.
void Generation::ReleaseLogprobs(Choice& choice, Delta& delta) {
  for (LogprobEntry& entry : choice.undecided) {
    if (entry.calls_before < choice.num_tool_calls) entry.calls_before = LogprobEntry::kOutsideText;
    delta.logprobs.push_back(std::move(entry));
  }
  choice.undecided.clear();
}

Delta Generation::Push(int index, TokenEvent&& event) {
  Choice& choice = *choices_[static_cast<size_t>(index)];
  if (choice.ended) return {};
  if (event.finish_reason == FinishReason::kError || event.finish_reason == FinishReason::kAborted) {
    const bool failed = event.finish_reason == FinishReason::kError;
    status_ = !failed            ? Unavailable("the request was ended because the server is shutting down")
              : event.error.ok() ? Internal("the engine failed on this request")
                                 : event.error;
    End(choice, failed ? SequenceOutcome::kFailed : SequenceOutcome::kAborted);
    return {};
  }

  Delta& delta = choice.pending;
  SequenceTimes& times = choice.times;
  times.scheduled_at = event.scheduled_at;
  std::move(event.prompt_logprobs.begin(), event.prompt_logprobs.end(),
            std::back_inserter(choice.reply.prompt_logprobs));
  const auto now = Clock::now();
  if (!event.token_ids.empty()) {
    const auto count = static_cast<int64_t>(event.token_ids.size());
    if (times.generated_tokens == 0) {
      times.first_token_at = now;
      times.cached_tokens = event.cached_tokens;
      times.cached_host_tokens = event.cached_host_tokens;
      service_->metrics->FirstToken(std::chrono::duration<double>(now - times.arrived_at).count(),
                                    times.prompt_tokens, times.cached_tokens, times.cached_host_tokens);
      service_->metrics->NextTokens(0, count - 1);
    } else {
      service_->metrics->NextTokens(std::chrono::duration<double>(now - times.last_token_at).count(), count);
    }
    times.last_token_at = now;
  }

  for (size_t i = 0; i < event.token_ids.size(); ++i) {
    const int32_t token_id = event.token_ids[i];
    ++times.generated_tokens;
    ++choice.pending_tokens;
    if (reply_.return_token_ids) delta.token_ids.push_back(token_id);
    if (event.stopped_by_end_token && i + 1 == event.token_ids.size()) break;
    if (reply_.top_logprobs >= 0 && i < event.logprobs.size()) {
      static const std::vector<TokenLogprob> kNone;
      const auto& top = i < event.top_logprobs.size() ? event.top_logprobs[i] : kNone;
      LogprobEntry entry = MakeLogprobEntry(*service_->tokenizer, token_id, event.logprobs[i], top,
                                            choice.skip_special, &choice.logprob_offset);
      if (tokens_as_ids_) SpellAsTokenIds(token_id, top, &entry);
      entry.calls_before =
          choice.reasoning.in_reasoning() ? LogprobEntry::kOutsideText : choice.num_tool_calls;
      choice.undecided.push_back(std::move(entry));
    }
    const bool of_answer = !choice.reasoning.in_reasoning();
    AppendToken(choice, token_id, delta);
    if (!choice.tools.may_be_call()) ReleaseLogprobs(choice, delta);
    if (choice.detokenizer->stopped()) {
      delta.finish_reason = "stop";
      if (!event.finish_reason) service_->engine.abort(choice.id);
      break;
    }
    if (of_answer && choice.response_tokens_left > 0 && --choice.response_tokens_left == 0) {
      AppendText(choice, choice.detokenizer->Flush(), delta);
      delta.finish_reason = "length";
      if (!event.finish_reason) service_->engine.abort(choice.id);
      break;
    }
  }
  if (!delta.finish_reason && event.finish_reason) {
    AppendText(choice, choice.detokenizer->Flush(), delta);
    delta.finish_reason = event.finish_reason == FinishReason::kLength ? "length" : "stop";
  }
  if (delta.finish_reason) {
    const ReasoningParser::Piece rest = choice.reasoning.Finish();
    delta.reasoning_content += rest.reasoning;
    AppendAnswer(choice, choice.tools.Push(rest.answer), delta);
    AppendAnswer(choice, choice.tools.Finish(), delta);
    ReleaseLogprobs(choice, delta);
    if (choice.tools.found_call() && *delta.finish_reason == "stop") delta.finish_reason = "tool_calls";
    choice.reply.finish_reason = *delta.finish_reason;
    choice.reply.stop_string = choice.detokenizer->stop_found();
    End(choice, *delta.finish_reason == "length" ? SequenceOutcome::kLength : SequenceOutcome::kSuccess);
  } else if (choice.pending_tokens < tokens_per_chunk_) {
    return {};
  }
  choice.pending_tokens = 0;
  Delta out = std::exchange(delta, {});
  choice.reply.has_reasoning |= !out.reasoning_content.empty();
  if (!reply_.stream) {
    choice.reply.reasoning_content += out.reasoning_content;
    choice.reply.content += out.content;
    choice.reply.tool_calls.insert(choice.reply.tool_calls.end(), out.tool_calls.begin(),
                                   out.tool_calls.end());
    choice.reply.token_ids.insert(choice.reply.token_ids.end(), out.token_ids.begin(), out.token_ids.end());
    choice.reply.logprobs.insert(choice.reply.logprobs.end(), out.logprobs.begin(), out.logprobs.end());
  }
  return out;
}

void Generation::End(Choice& choice, SequenceOutcome outcome) {
  choice.ended = true;
  --unfinished_;
  service_->metrics->SequenceFinished(choice.times, outcome);
  if (unfinished_ > 0) return;
  int64_t longest = 0;
  for (const auto& each : choices_) longest = std::max(longest, each->times.generated_tokens);
  service_->metrics->RequestFinished(longest);
}

const ChoiceReply& Generation::choice(int index) const { return choices_[static_cast<size_t>(index)]->reply; }

Usage Generation::usage() const {
  Usage u;
  u.prompt_tokens = prompt_tokens_;
  u.image_tokens = image_tokens_;
  u.video_tokens = video_tokens_;
  for (size_t i = 0; i < choices_.size(); ++i) {
    const Choice& choice = *choices_[i];
    u.completion_tokens += choice.times.generated_tokens;
    u.reasoning_tokens += choice.reasoning_tokens;
    // Each prompt once: its other choices find what the first one has computed.
    if (static_cast<int64_t>(i) % choices_per_prompt_ == 0) u.cached_tokens += choice.times.cached_tokens;
  }
  return u;
}

const std::vector<int32_t>& Generation::first_prompt() const {
  FD_CHECK(!submitted_, "the prompt has gone to the engine");
  return choices_.front()->request.token_ids;
}

std::string Generation::RenderJson() const {
  FD_CHECK(!submitted_, "the prompt has gone to the engine");
  const GenerateRequest& request = choices_.front()->request;
  JsonArray media;
  for (const auto& item : request.media) {
    media.push_back(
        JsonObject{{"first_token", item->first_token},
                   {"num_tokens", item->num_tokens},
                   {"grid", JsonArray{int64_t{item->grid_t}, int64_t{item->grid_h}, int64_t{item->grid_w}}}});
  }
  std::string out = "{\"id\":";
  AppendJsonString(out, reply_.id);
  out += ",\"object\":\"chat.completion.render\",\"model\":";
  AppendJsonString(out, reply_.model);
  out += ",\"prompt\":";
  AppendJsonString(
      out, prompt_text_.empty() ? service_->tokenizer->Decode(request.token_ids, false) : prompt_text_);
  out += ",\"token_ids\":";
  AppendIds(out, request.token_ids);
  out +=
      StrCat(",\"prompt_tokens\":", request.token_ids.size(), ",\"max_tokens\":", request.sampling.max_tokens,
             ",\"image_tokens\":", image_tokens_, ",\"video_tokens\":", video_tokens_,
             ",\"media\":", WriteJson(std::move(media)), ",\"max_model_len\":", service_->max_model_len, "}");
  return out;
}

}  // namespace fd
