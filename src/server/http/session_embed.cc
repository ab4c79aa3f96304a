// One request for embeddings: its inputs and media are prepared, then their vectors become one reply, while
// the client is watched.
#include "server/http/endpoints.h"
#include "server/http/session.h"
#include "server/http/session_worker.h"
#include "server/openai/embeddings.h"
#include "server/openai/errors.h"
#include "server/openai/request_schema.h"

namespace fd {

using boost::asio::awaitable;

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
  const AtWork at_work(*this, request);

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
  const std::shared_ptr<StreamInbox> inbox = OpenInbox();
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
    co_await AwaitEvents();
    if (peer_gone_) break;
    if (state_.stopping) {
      failure = Ending();
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
    response = live.aborted() ? ErrorResponse(AbortedByAdmin()) : ErrorResponse(failure);
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
