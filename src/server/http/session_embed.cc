// One request for embeddings: its inputs and media are prepared, then their vectors become one reply, while
// the client is watched.
#include <boost/asio/post.hpp>

#include "base/log.h"
#include "base/strings.h"
#include "server/http/endpoints.h"
#include "server/http/session.h"
#include "server/http/session_worker.h"
#include "server/openai/embeddings.h"
#include "server/openai/errors.h"
#include "server/openai/request_schema.h"

namespace fd {

namespace asio = boost::asio;
using asio::awaitable;

namespace {

constexpr auto kToken = asio::as_tuple(asio::use_awaitable);

}  // namespace

awaitable<StatusOr<std::unique_ptr<Embedding>>> Session::PrepareEmbedding(HttpRequest& request,
                                                                          const Route& route) {
  using Draft = std::unique_ptr<EmbeddingDraft>;
  using Ready = std::unique_ptr<Embedding>;
  const RequestKind kind =
      route.kind == RouteKind::kPooling ? RequestKind::kPooling : RequestKind::kEmbeddings;
  peer_gone_ = false;
  std::function<StatusOr<Draft>()> parse = [&] {
    return Embedding::Parse(*state_.service, kind, request.body, state_.gate.Scope(request),
                            request.arrived_at);
  };
  StatusOr<Draft> draft = co_await OnWorker<Draft>(parse);
  request.body = std::string();
  CountBody(0);
  if (!draft.ok()) co_return draft.status();
  LoadedMedia media;
  if ((*draft)->has_media()) {
    MediaRequest wanted = (*draft)->TakeMedia();
    std::optional<StatusOr<LoadedMedia>> loaded = co_await LoadMedia(wanted, Clock::time_point::max());
    if (peer_gone_) co_return Ready();
    if (!loaded->ok()) co_return loaded->status();
    media = std::move(*loaded).value();
  }
  std::function<StatusOr<Ready>()> finish = [&] {
    return Embedding::Finish(std::move(*draft), std::move(media));
  };
  StatusOr<Ready> ready = co_await OnWorker<Ready>(finish);
  co_return ready;
}

awaitable<bool> Session::Embed(HttpRequest& request, const Route& route) {
  ++state_.generating;
  generating_ = true;
  const int key = state_.gate.KeyIndex(request);
  if (key >= 0) ++state_.generating_by_key[static_cast<size_t>(key)];
  struct Counted {
    Session& session;
    const int key;
    ~Counted() {
      session.generating_ = false;
      --session.state_.generating;
      if (key >= 0) --session.state_.generating_by_key[static_cast<size_t>(key)];
    }
  } counted{*this, key};

  StatusOr<std::unique_ptr<Embedding>> prepared = co_await PrepareEmbedding(request, route);
  if (prepared.ok() && *prepared == nullptr) {
    StopWatching();
    Account(request, route.path, 499);
    co_return false;
  }
  if (!prepared.ok()) {
    StopWatching();
    const HttpResponse response = ErrorResponse(prepared.status());
    co_return co_await Reply(request, route.path, response);
  }
  const std::unique_ptr<Embedding> embedding = std::move(prepared).value();
  reply_id_ = embedding->id();
  if (!embedding->ignored_fields().empty()) {
    request.reply_headers.push_back({"x-fastdeploy-ignored", IgnoredHeader(embedding->ignored_fields())});
  }
  const auto inbox = std::make_shared<StreamInbox>(
      [weak = weak_from_this(), &context = loop_.context] {
        asio::post(context, [weak] {
          if (const auto self = weak.lock()) self->Wake();
        });
      },
      state_.options.max_stream_lag_tokens);
  inbox_ = inbox;
  const Status submitted =
      embedding->Submit([inbox](int input, TokenEvent&& event) { inbox->Add(input, std::move(event)); });
  if (!submitted.ok()) {
    StopWatching();
    CloseInbox();
    const HttpResponse response = ErrorResponse(submitted);
    co_return co_await Reply(request, route.path, response);
  }

  const LiveRequests::Entry live(state_.live, request.id, embedding->id(),
                                 [&work = *embedding] { work.Abort(); });
  if (!watching_) WatchPeer();
  Status failure;
  while (failure.ok() && !embedding->finished()) {
    while (inbox->empty() && !peer_gone_ && !state_.stopping) {
      wake_timer_.expires_at(Clock::time_point::max());
      co_await wake_timer_.async_wait(kToken);
    }
    if (peer_gone_) break;
    if (state_.stopping) {
      failure = Unavailable("the server is shutting down");
      break;
    }
    for (auto& [input, event] : inbox->Take()) embedding->Push(input, std::move(event));
    failure = embedding->status();
  }
  StopWatching();
  CloseInbox();
  if (peer_gone_ && failure.ok() && !embedding->finished()) {
    Account(request, route.path, 499);  // the embedding's end aborts what runs
    co_return false;
  }
  HttpResponse response;
  if (!failure.ok()) {
    response = live.aborted()
                   ? ErrorResponse(400, "request_aborted",
                                   "the request was ended by the server's admin (/v1/abort_requests)")
                   : ErrorResponse(failure);
    co_return co_await Reply(request, route.path, response);
  }
  // Megabytes of digits: not on the thread that serves the other connections.
  std::function<StatusOr<std::string>()> write = [&]() -> StatusOr<std::string> {
    return embedding->ReplyJson();
  };
  StatusOr<std::string> body = co_await OnWorker<std::string>(write);
  if (body.ok()) {
    response.body = std::move(body).value();
  } else {
    response = ErrorResponse(body.status());
  }
  co_return co_await Reply(request, route.path, response);
}

}  // namespace fd
