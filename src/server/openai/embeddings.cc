#include "server/openai/embeddings.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/strings.h"
#include "server/openai/embedding_request.h"
#include "server/openai/vector_json.h"

namespace fd {
namespace {

// Unpredictable and unique in this process.
std::string FreshSuffix() {
  const Hash128 hash = KeyedHash(StrCat("embedding ", NextRequestId()));
  std::string out;
  for (uint64_t word : {hash.high, hash.low}) {
    for (int shift = 60; shift >= 0; shift -= 4) out.push_back("0123456789abcdef"[word >> shift & 15]);
  }
  return out;
}

// As of generations: a client's request_id is kept, with the prefix put before it if it is not there.
std::string ReplyId(RequestKind kind, const RequestFields& names) {
  const std::string prefix = kind == RequestKind::kPooling ? "pool-" : "embd-";
  if (!names.request_id.empty()) {
    return names.request_id.starts_with(prefix) ? names.request_id : prefix + names.request_id;
  }
  return StrCat(prefix, names.user.empty() ? "" : names.user + "-", FreshSuffix());
}

}  // namespace

Status CheckDimensions(const EmbeddingService& embeddings, int64_t dimensions, const std::string& model,
                       const std::string& param) {
  const auto& allowed = embeddings.matryoshka_dimensions;
  if (!embeddings.is_matryoshka) {
    return InvalidArgument(
        StrCat(param, " is ", dimensions, ", but the model ", model,
               " was not made for shorter embeddings (no is_matryoshka or matryoshka_dimensions in its "
               "config.json), and cut ones would lead to poor results; leave it out: its embeddings have ",
               embeddings.hidden_size, " values"),
        param);
  }
  if (!allowed.empty() && std::find(allowed.begin(), allowed.end(), dimensions) == allowed.end()) {
    std::vector<std::string> names;
    for (int64_t d : allowed) names.push_back(StrCat(d));
    return InvalidArgument(
        StrCat(param, " is ", dimensions, ", but embeddings of the model ", model, " have ",
               Join(names, ", "), " values (matryoshka_dimensions in its config.json)"),
        param);
  }
  if (dimensions < 1 || dimensions > embeddings.hidden_size) {
    return InvalidArgument(StrCat(param, " must be from 1 to ", embeddings.hidden_size,
                                  ", the length of the model's embeddings; got ", dimensions),
                           param);
  }
  return OkStatus();
}

std::vector<float> CutAndNormalize(const std::vector<float>& embedding, int64_t dimensions, bool normalize) {
  std::vector<float> out(embedding.begin(), embedding.begin() + dimensions);
  if (!normalize) return out;
  double squares = 0;
  for (float v : out) squares += static_cast<double>(v) * static_cast<double>(v);
  const double length = std::sqrt(squares);
  if (length == 0) return out;
  for (float& v : out) v = static_cast<float>(static_cast<double>(v) / length);
  return out;
}

struct Embedding::Input {
  GenerateRequest request;  // its sink is set by SubmitMore
  RequestId id = 0;
  SequenceTimes times;
  bool started = false;
  bool ended = false;
  std::vector<float> vector;  // as the reply has it
};

struct EmbeddingDraft::Impl {
  const Service& service;
  RequestKind kind;
  EmbeddingFields fields;
  std::string scope;
  Clock::time_point arrived_at;
  bool has_media = false;
  std::vector<std::string> ignored_fields;
};

EmbeddingDraft::EmbeddingDraft(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
EmbeddingDraft::~EmbeddingDraft() = default;

bool EmbeddingDraft::has_media() const { return impl_->has_media; }

MediaRequest EmbeddingDraft::TakeMedia() {
  Prompt& prompt = impl_->fields.inputs.front();
  MediaRequest request;
  request.items = std::move(prompt.media);
  request.scope = impl_->scope;
  request.check_tokens = [text_tokens = prompt.sections.text_tokens,
                          max_model_len = impl_->service.max_model_len](int64_t media_tokens) -> Status {
    const int64_t tokens = text_tokens + media_tokens;
    return tokens <= max_model_len ? OkStatus() : InputTooLong(tokens, max_model_len, "messages", "messages");
  };
  return request;
}

Embedding::Embedding(const Service& service, RequestKind kind) : service_(&service), kind_(kind) {}

Embedding::~Embedding() {
  for (const auto& input : inputs_) {
    if (!input->started || input->ended) continue;
    service_->engine.abort(input->id);
    End(*input, SequenceOutcome::kAborted);
  }
}

StatusOr<std::unique_ptr<EmbeddingDraft>> Embedding::Parse(const Service& service, RequestKind kind,
                                                           std::string_view text, std::string scope,
                                                           Clock::time_point arrived_at) {
  FD_CHECK(service.embeddings.has_value(), "a server that generates");
  StatusOr<Json> json = ParseJson(text);
  if (!json.ok()) return InvalidArgument(StrCat("the request body is no JSON: ", json.status().message()));
  if (!json->is_object()) {
    return InvalidArgument(StrCat("the request body must be a JSON object; got ", json->TypeName()));
  }
  JsonObject& body = json->as_object();
  std::vector<std::string> ignored = UnknownFields(kind, body);
  if (service.strict_requests) FD_RETURN_IF_ERROR(RefuseUnknownFields(kind, ignored));
  for (const std::string& name : ignored) body.Erase(name);
  FD_ASSIGN_OR_RETURN(EmbeddingFields fields, ReadEmbeddingFields(service, kind, body));
  const bool has_media = !fields.inputs.front().media.empty();
  auto impl = std::unique_ptr<EmbeddingDraft::Impl>(new EmbeddingDraft::Impl{
      service, kind, std::move(fields), std::move(scope), arrived_at, has_media, std::move(ignored)});
  return std::unique_ptr<EmbeddingDraft>(new EmbeddingDraft(std::move(impl)));
}

StatusOr<std::unique_ptr<Embedding>> Embedding::Finish(std::unique_ptr<EmbeddingDraft> draft,
                                                       LoadedMedia media) {
  EmbeddingDraft::Impl& d = *draft->impl_;
  const Service& service = d.service;
  EmbeddingFields& fields = d.fields;
  if (d.has_media) {
    Prompt& prompt = fields.inputs.front();
    prompt.expanded = FillPrompt(prompt.sections, *service.media, media.images, media.videos);
    const int64_t tokens = std::ssize(prompt.expanded.token_ids);
    if (tokens > service.max_model_len)
      return InputTooLong(tokens, service.max_model_len, "messages", "messages");
  }
  std::unique_ptr<Embedding> e(new Embedding(service, d.kind));
  e->id_ = ReplyId(d.kind, fields.names);
  e->model_ = fields.names.model;
  e->created_unix_s_ =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
  e->base64_ = fields.base64;
  e->normalize_ = fields.normalize;
  e->dimensions_ = fields.dimensions.value_or(service.embeddings->hidden_size);
  e->ignored_fields_ = std::move(d.ignored_fields);
  const auto submitted_at = Clock::now();
  for (Prompt& prompt : fields.inputs) {
    auto input = std::make_unique<Input>();
    GenerateRequest& r = input->request;
    r.id = input->id = NextRequestId();
    r.token_ids = std::move(prompt.expanded.token_ids);
    r.positions = std::move(prompt.expanded.positions);
    r.position_delta = prompt.expanded.position_delta;
    r.vision_expert = std::move(prompt.expanded.vision_expert);
    r.media = std::move(prompt.expanded.media);
    r.arrived_at = d.arrived_at;
    input->times.arrived_at = d.arrived_at;
    input->times.submitted_at = submitted_at;
    input->times.prompt_tokens = std::ssize(r.token_ids);
    e->prompt_tokens_ += input->times.prompt_tokens;
    if (service.log_prompts) {
      constexpr size_t kMaxLoggedIds = 2048;
      std::vector<int32_t> ids(
          r.token_ids.begin(),
          r.token_ids.begin() + std::min<int64_t>(std::ssize(r.token_ids), kMaxLoggedIds));
      LogInfo(e->id_, ": input of ", r.token_ids.size(),
              " tokens: ", service.tokenizer->Decode(ids, /*skip_special=*/false));
    }
    e->inputs_.push_back(std::move(input));
  }
  e->unfinished_ = std::ssize(e->inputs_);
  return e;
}

Status Embedding::SubmitMore() {
  const int64_t most = 2 * std::max<int64_t>(service_->max_num_seqs, 1);
  while (next_ < inputs_.size() && running_ < most && !aborted_) {
    Input& input = *inputs_[next_];
    GenerateRequest request = input.request;  // kept: a full queue is tried again
    request.sink = [sink = sink_, index = static_cast<int>(next_)](TokenEvent&& event) {
      sink(index, std::move(event));
    };
    const Status status = service_->engine.submit(std::move(request));
    // A full queue is full of others; what runs here goes on, and its end tries again.
    if (status.code() == StatusCode::kResourceExhausted && running_ > 0) return OkStatus();
    if (!status.ok()) return status;
    input.request = {};
    input.started = true;
    ++running_;
    ++next_;
  }
  return OkStatus();
}

Status Embedding::Submit(Sink sink) {
  FD_CHECK(sink_ == nullptr, "Submit is called once");
  service_->metrics->RequestReceived();
  sink_ = std::move(sink);
  status_ = SubmitMore();
  if (status_.ok()) return status_;
  for (const auto& input : inputs_) {
    if (input->started) service_->engine.abort(input->id);
    input->ended = true;
  }
  unfinished_ = 0;
  return status_;
}

void Embedding::Abort() {
  aborted_ = true;
  for (const auto& input : inputs_) service_->engine.abort(input->id);
}

void Embedding::Push(int index, TokenEvent&& event) {
  Input& input = *inputs_[static_cast<size_t>(index)];
  if (input.ended || !event.finish_reason) return;
  --running_;
  if (event.finish_reason == FinishReason::kError || event.finish_reason == FinishReason::kAborted) {
    const bool failed = event.finish_reason == FinishReason::kError;
    status_ = !failed            ? Unavailable("the request was ended because the server is shutting down")
              : event.error.ok() ? Internal("the engine failed on this request")
                                 : event.error;
    return End(input, failed ? SequenceOutcome::kFailed : SequenceOutcome::kAborted);
  }
  if (std::ssize(event.embedding) < dimensions_) {
    status_ = Internal(StrCat("the engine gave ", event.embedding.size(), " values of an embedding"));
    return End(input, SequenceOutcome::kFailed);
  }
  input.vector = CutAndNormalize(event.embedding, dimensions_, normalize_);
  input.times.scheduled_at = event.scheduled_at;
  input.times.first_token_at = input.times.last_token_at = Clock::now();
  End(input, SequenceOutcome::kSuccess);
  if (Status more = SubmitMore(); !more.ok()) status_ = std::move(more);
}

void Embedding::End(Input& input, SequenceOutcome outcome) {
  input.ended = true;
  --unfinished_;
  service_->metrics->SequenceFinished(input.times, outcome);
}

std::string Embedding::ReplyJson() const {
  FD_CHECK(finished() && status_.ok(), "vectors are missing");
  const bool pooling = kind_ == RequestKind::kPooling;
  std::string out = "{\"id\":";
  out.reserve(inputs_.size() * static_cast<size_t>(dimensions_) * (base64_ ? 6 : 14) + 1024);
  AppendJsonString(out, id_);
  out += StrCat(",\"object\":\"list\",\"created\":", created_unix_s_, ",\"model\":");
  AppendJsonString(out, model_);
  out += ",\"data\":[";
  for (size_t i = 0; i < inputs_.size(); ++i) {
    if (i > 0) out += ',';
    out += StrCat("{\"index\":", i, ",\"object\":\"", pooling ? "pooling" : "embedding", "\",\"",
                  pooling ? "data" : "embedding", "\":");
    if (base64_) {
      AppendBase64(out, inputs_[i]->vector);
    } else {
      AppendFloatArray(out, inputs_[i]->vector);
    }
    out += '}';
  }
  out +=
      StrCat("],\"usage\":{\"prompt_tokens\":", prompt_tokens_, ",\"total_tokens\":", prompt_tokens_, "}}");
  return out;
}

}  // namespace fd
