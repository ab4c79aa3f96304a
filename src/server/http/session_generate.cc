// One request to the model: its text and its media are prepared, then its tokens become a reply or a stream,
// while the client is watched.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>

#include "base/log.h"
#include "base/strings.h"
#include "server/http/endpoints.h"
#include "server/http/request_body.h"
#include "server/http/session.h"
#include "server/http/session_worker.h"
#include "server/openai/errors.h"
#include "server/openai/openai_writer.h"
#include "server/openai/request_schema.h"
#include "server/openai/tokenize.h"

namespace fd {

namespace asio = boost::asio;
using asio::awaitable;
using boost::system::error_code;

namespace {

constexpr auto kToken = asio::as_tuple(asio::use_awaitable);
constexpr std::chrono::milliseconds kPeerPoll{200};

}  // namespace

// Sees the client leave while nothing is written: readable with nothing to read means closed.
void Session::WatchPeer() {
  watching_ = true;
  peer_gone_ = false;
  socket_.async_wait(asio::ip::tcp::socket::wait_read, [self = shared_from_this()](error_code ec) {
    if (!self->watching_) return;
    if (ec) return self->PeerGone();
    char byte;
    const ssize_t n = ::recv(self->socket_.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return self->PeerGone();
    // A next request is waiting already, so the socket stays readable; its state tells the rest.
    self->PollPeer();
  });
}

void Session::PollPeer() {
  peer_poll_.expires_after(kPeerPoll);
  peer_poll_.async_wait([self = shared_from_this()](error_code ec) {
    if (ec || !self->watching_) return;
    tcp_info info{};
    socklen_t size = sizeof(info);
    if (::getsockopt(self->socket_.native_handle(), IPPROTO_TCP, TCP_INFO, &info, &size) != 0 ||
        info.tcpi_state != TCP_ESTABLISHED) {
      return self->PeerGone();
    }
    self->PollPeer();
  });
}

// Waits on the loop, not on a worker: pictures hold up nobody's text.
awaitable<std::optional<StatusOr<LoadedMedia>>> Session::LoadMedia(MediaRequest& request,
                                                                   Clock::time_point deadline) {
  const auto result = std::make_shared<std::optional<StatusOr<LoadedMedia>>>();
  media_load_ = state_.service->media_loader->Start(
      std::move(request),
      [weak = weak_from_this(), &context = loop_.context, result](StatusOr<LoadedMedia> loaded) {
        const auto moved = std::make_shared<StatusOr<LoadedMedia>>(std::move(loaded));
        asio::post(context, [weak, result, moved] {
          result->emplace(std::move(*moved));
          if (const auto self = weak.lock()) self->Wake();
        });
      });
  WatchPeer();
  while (!*result && !peer_gone_ && !state_.stopping && Clock::now() < deadline) {
    wake_timer_.expires_at(deadline);
    co_await wake_timer_.async_wait(kToken);
  }
  if (media_load_) std::exchange(media_load_, nullptr)->Cancel();
  if (*result) co_return std::move(*result);
  if (!peer_gone_ && !state_.stopping) co_return std::nullopt;
  co_return Ending();
}

awaitable<StatusOr<std::unique_ptr<Generation>>> Session::PrepareGeneration(const Service& service,
                                                                            HttpRequest& request,
                                                                            TranslateBody translate) {
  using Draft = std::unique_ptr<GenerationDraft>;
  using Ready = std::unique_ptr<Generation>;
  peer_gone_ = false;
  writer_ = nullptr;
  const auto restated = [this](const Status& status) { return writer_ ? writer_->Restate(status) : status; };
  // JSON, template, tokens: not on the thread that serves the other connections.
  std::function<StatusOr<Draft>()> parse = [&]() -> StatusOr<Draft> {
    FD_ASSIGN_OR_RETURN(TranslatedRequest translated, translate());
    writer_ = std::move(translated.writer);
    request.reply_ignores = std::move(translated.ignored_fields);
    return Generation::Parse(service, translated.endpoint, std::move(translated.body),
                             state_.gate.Scope(request), request.arrived_at, translated.id_prefix);
  };
  StatusOr<Draft> draft = co_await OnWorker<Draft>(parse);
  request.body = std::string();
  CountBody(0);
  if (!draft.ok()) co_return restated(draft.status());
  LoadedMedia media;
  if ((*draft)->has_media()) {
    MediaRequest wanted = (*draft)->TakeMedia();
    std::optional<StatusOr<LoadedMedia>> loaded = co_await LoadMedia(wanted, (*draft)->deadline());
    if (peer_gone_) co_return Ready();
    if (!loaded) co_return (*draft)->TimedOut();
    if (!loaded->ok()) co_return restated(loaded->status());
    media = std::move(*loaded).value();
  }
  std::function<StatusOr<Ready>()> finish = [&]() -> StatusOr<Ready> {
    return Generation::Finish(std::move(*draft), std::move(media));
  };
  StatusOr<Ready> ready = co_await OnWorker<Ready>(finish);
  if (!ready.ok()) co_return restated(ready.status());
  co_return ready;
}

// What is answered from a prompt alone, pictures included.
awaitable<bool> Session::AnswerFromPrompt(const Service& service, HttpRequest& request, const Route& route,
                                          TranslateBody translate, PromptAnswer answer) {
  generating_ = true;  // Stop wakes it instead of cutting it
  StatusOr<std::unique_ptr<Generation>> ready =
      co_await PrepareGeneration(service, request, std::move(translate));
  generating_ = false;
  StopWatching();
  if (ready.ok() && *ready == nullptr) {
    Account(request, route.path, 499);
    co_return false;
  }
  const HttpResponse response = ready.ok() ? answer(**ready) : ErrorResponse(ready.status());
  co_return co_await Reply(request, route.path, response);
}

// /tokenize, /detokenize and /v1/messages/count_tokens. A conversation is rendered as for an answer.
awaitable<bool> Session::AnswerTokens(HttpRequest& request, const Route& route) {
  const Service& service = *state_.service;
  HttpResponse response;
  if (route.kind == RouteKind::kDetokenize) {
    std::function<StatusOr<DetokenizeReply>()> work = [&] { return Detokenize(service, request.body); };
    const StatusOr<DetokenizeReply> reply = co_await OnWorker<DetokenizeReply>(work);
    response =
        reply.ok() ? TokensResponse(reply->json, reply->ignored_fields) : ErrorResponse(reply.status());
    co_return co_await Reply(request, route.path, response);
  }
  if (route.kind == RouteKind::kCountMessagesTokens) {
    const Service& counting = state_.unbounded;
    TranslateBody translate = [&] { return ReadRequestBody(counting, route.kind, request.body); };
    PromptAnswer answer = [&](const Generation& g) {
      return TokensResponse(StrCat("{\"input_tokens\":", g.first_prompt().size(), "}"),
                            request.reply_ignores);
    };
    co_return co_await AnswerFromPrompt(counting, request, route, std::move(translate), std::move(answer));
  }
  std::function<StatusOr<TokenizeWork>()> read = [&] { return Tokenize(service, request.body); };
  StatusOr<TokenizeWork> work = co_await OnWorker<TokenizeWork>(read);
  if (work.ok() && work->chat) {
    TranslateBody translate = [&]() -> StatusOr<TranslatedRequest> {
      return TranslatedRequest{.body = std::move(*work->chat), .writer = MakeOpenAiWriter()};
    };
    PromptAnswer answer = [&](const Generation& g) {
      return TokensResponse(TokensJson(service, g.first_prompt(), work->token_strings), work->ignored_fields);
    };
    co_return co_await AnswerFromPrompt(service, request, route, std::move(translate), std::move(answer));
  }
  response = work.ok() ? TokensResponse(work->reply, work->ignored_fields) : ErrorResponse(work.status());
  co_return co_await Reply(request, route.path, response);
}

Session::AtWork::AtWork(Session& session, const HttpRequest& request)
    : session_(session), key_(session.state_.gate.KeyIndex(request)) {
  session_.generating_ = true;
  ++session_.state_.generating;
  if (key_ >= 0) ++session_.state_.generating_by_key[static_cast<size_t>(key_)];
}

Session::AtWork::~AtWork() {
  session_.generating_ = false;
  --session_.state_.generating;
  if (key_ >= 0) --session_.state_.generating_by_key[static_cast<size_t>(key_)];
}

std::shared_ptr<StreamInbox> Session::OpenInbox() {
  inbox_ = std::make_shared<StreamInbox>([weak = weak_from_this(), &loop = loop_] { loop.WakeSoon(weak); },
                                         state_.options.max_stream_lag_tokens);
  return inbox_;
}

awaitable<void> Session::AwaitEvents() {
  const std::shared_ptr<StreamInbox> inbox = inbox_;
  while (inbox->empty() && !peer_gone_ && !state_.stopping) {
    wake_timer_.expires_at(Clock::time_point::max());
    co_await wake_timer_.async_wait(kToken);
  }
}

awaitable<bool> Session::Generate(HttpRequest& request, const Route& route) {
  const AtWork at_work(*this, request);

  TranslateBody translate = [&] { return ReadRequestBody(*state_.service, route.kind, request.body); };
  StatusOr<std::unique_ptr<Generation>> prepared =
      co_await PrepareGeneration(*state_.service, request, std::move(translate));
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
  const std::unique_ptr<Generation> generation = std::move(prepared).value();
  reply_id_ = generation->reply().id;
  std::vector<std::string> ignored = std::move(request.reply_ignores);
  ignored.insert(ignored.end(), generation->ignored_fields().begin(), generation->ignored_fields().end());
  if (!ignored.empty()) request.reply_headers.push_back({"x-fastdeploy-ignored", IgnoredHeader(ignored)});
  if (route.kind == RouteKind::kRender) {
    StopWatching();
    const HttpResponse response{.body = generation->RenderJson()};
    co_return co_await Reply(request, route.path, response);
  }

  const std::shared_ptr<StreamInbox> inbox = OpenInbox();
  const Status submitted =
      generation->Submit([inbox](int choice, TokenEvent&& event) { inbox->Add(choice, std::move(event)); });
  if (!submitted.ok()) {
    StopWatching();
    CloseInbox();
    const HttpResponse response = ErrorResponse(submitted);
    co_return co_await Reply(request, route.path, response);
  }

  const LiveRequests::Entry live(state_.live, request.id, *generation);
  const bool chunked = request.is_http11;
  const bool stream = generation->reply().stream;
  bool head_sent = false;
  bool alive = true;
  Status failure;
  std::string sse, out;
  if (!watching_) WatchPeer();
  while (alive && failure.ok() && !generation->finished()) {
    co_await AwaitEvents();
    if (peer_gone_) {
      alive = false;
      break;
    }
    if (state_.stopping) {
      failure = Ending();
      break;
    }
    if (inbox->overflowed()) {
      alive = false;
      break;
    }
    sse.clear();
    for (auto& [choice, event] : inbox->Take()) {
      const Delta delta = generation->Push(choice, std::move(event));
      if (stream && !delta.empty()) writer_->Push(*generation, choice, delta, sse);
    }
    failure = generation->status();
    if (!sse.empty()) {
      out = std::exchange(head_sent, true) ? "" : StreamHead(request);
      AppendChunk(out, sse, chunked);
      alive = co_await Write(out);
    }
  }
  StopWatching();
  CloseInbox();
  if (!alive) {
    if (inbox->overflowed()) {
      LogWarning(generation->reply().id, ": the client reads too slowly; more than ",
                 state_.options.max_stream_lag_tokens, " tokens were waiting (--max-stream-lag-tokens)");
    }
    // 499 as nginx counts it; the generation's end aborts its sequences.
    Account(request, route.path, 499);
    co_return false;
  }
  const ApiError error = live.aborted() ? AbortedByAdmin() : ToApiError(failure);
  if (!failure.ok() && !head_sent) {
    const HttpResponse response = ErrorResponse(error);
    co_return co_await Reply(request, route.path, response);
  }
  if (!stream) {
    HttpResponse response;
    if (generation->has_long_reply()) {
      std::function<StatusOr<std::string>()> write = [&]() -> StatusOr<std::string> {
        return writer_->ReplyJson(*generation);
      };
      StatusOr<std::string> body = co_await OnWorker<std::string>(write);
      if (!body.ok()) {
        response = ErrorResponse(body.status());
        co_return co_await Reply(request, route.path, response);
      }
      response.body = std::move(body).value();
    } else {
      response.body = writer_->ReplyJson(*generation);
    }
    co_return co_await Reply(request, route.path, response);
  }

  sse.clear();
  if (failure.ok()) {
    writer_->Finish(*generation, sse);
  } else {
    writer_->Fail(*generation, error, sse);
  }
  out = std::exchange(head_sent, true) ? "" : StreamHead(request);
  AppendChunk(out, sse, chunked);
  if (chunked) out += kLastChunk;
  const bool written = co_await Write(out);
  Account(request, route.path, 200);
  co_return written&& chunked&& request.keep_alive && !state_.draining;
}

}  // namespace fd
