// One request for embeddings from JSON to vectors, as Generation is one for text: Parse checks and tokenises
// it, the caller loads its media, Finish makes the inputs, Submit starts them, Push takes their vectors,
// ReplyJson writes them. Knows no sockets.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "engine/plan/request.h"
#include "server/openai/request_schema.h"
#include "server/openai/service.h"

namespace fd {

// Checked and tokenised; media may still have to be loaded.
class EmbeddingDraft {
 public:
  ~EmbeddingDraft();
  bool has_media() const;
  // Once. The service must outlive the request.
  MediaRequest TakeMedia();

 private:
  friend class Embedding;
  struct Impl;
  explicit EmbeddingDraft(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

class Embedding {
 public:
  // kind: kEmbeddings or kPooling; the service has embeddings and outlives both. Worker threads. scope and
  // arrived_at as of Generation.
  static StatusOr<std::unique_ptr<EmbeddingDraft>> Parse(const Service& service, RequestKind kind,
                                                         std::string_view body, std::string scope,
                                                         Clock::time_point arrived_at);
  static StatusOr<std::unique_ptr<Embedding>> Finish(std::unique_ptr<EmbeddingDraft> draft,
                                                     LoadedMedia media);
  ~Embedding();  // aborts what still runs
  Embedding(const Embedding&) = delete;
  Embedding& operator=(const Embedding&) = delete;

  // Called on the engine thread, once for each input; must not block.
  using Sink = std::function<void(int input, TokenEvent&&)>;
  // Starts as many inputs as go at once: twice what runs together, so that one request neither fills the
  // queue nor leaves the engine idle. Push starts the next ones. An error: none has been started.
  Status Submit(Sink sink);
  // Any thread, after Submit: what runs leaves the engine within one step, and nothing more is started.
  void Abort();

  // All below: one thread. An input that fails makes status() an error; the caller ends the whole reply.
  void Push(int input, TokenEvent&& event);
  bool finished() const { return unfinished_ == 0; }
  const Status& status() const { return status_; }

  const std::string& id() const { return id_; }
  const std::vector<std::string>& ignored_fields() const { return ignored_fields_; }
  int64_t prompt_tokens() const { return prompt_tokens_; }  // of all inputs
  // Once finished.
  std::string ReplyJson() const;

 private:
  struct Input;
  Embedding(const Service& service, RequestKind kind);
  Status SubmitMore();
  void End(Input& input, SequenceOutcome outcome);

  const Service* service_;
  const RequestKind kind_;
  std::string id_;
  std::string model_;
  int64_t created_unix_s_ = 0;
  bool base64_ = false;
  bool normalize_ = true;
  int64_t dimensions_ = 0;  // values of a vector in the reply
  std::vector<std::string> ignored_fields_;
  int64_t prompt_tokens_ = 0;
  std::vector<std::unique_ptr<Input>> inputs_;
  Sink sink_;
  size_t next_ = 0;  // the first input that has not been started
  int64_t running_ = 0;
  int64_t unfinished_ = 0;
  std::atomic<bool> aborted_{false};
  Status status_;
};

// The first `dimensions` values of an embedding, divided by their length where `normalize` says so (a vector
// of zeros stays one). Length and quotients in double precision.
std::vector<float> CutAndNormalize(const std::vector<float>& embedding, int64_t dimensions, bool normalize);

}  // namespace fd
