// The server over real sockets, with a scripted engine behind it.
#include "server/http/http_server.h"

#include <atomic>
#include <functional>
#include <new>
#include <thread>

#include "server/http/http_client_for_tests.h"

namespace fd {
namespace {

TEST_F(HttpTest, CompletionAndKeepAlive) {
  Start({.io_threads = 2});
  Client client(server_->port());
  for (int i = 0; i < 3; ++i) {
    client.Send(Post("/v1/completions", R"({"prompt":"ab"})"));
    const auto r = client.Read();
    ASSERT_EQ(r.status, 200) << r.body;
    auto json = ParseJson(r.body);
    ASSERT_TRUE(json.ok());
    EXPECT_EQ(json->Find("choices")->as_array()[0].Find("text")->as_string(), "hello");
  }
  client.Send(Post("/v1/completions", R"({"prompt":"ab","temperature":-1})"));
  const auto r = client.Read();
  EXPECT_EQ(r.status, 400);
  EXPECT_EQ(Code(r), "invalid_value");
  client.Send(Get("/health"));
  EXPECT_EQ(client.Read().status, 200);  // the connection lives on after a 400
}

TEST_F(HttpTest, PipelinedRequestsAreAnsweredInOrder) {
  Start();
  Client client(server_->port());
  client.Send(Get("/v1/models") + Post("/v1/completions", R"({"prompt":"ab"})") +
              Post("/v1/completions", R"({"prompt":"ab","stream":true})") + Get("/nowhere"));
  auto r = client.Read();
  EXPECT_EQ(r.status, 200);
  EXPECT_NE(r.body.find("\"max_model_len\":512"), std::string::npos);
  EXPECT_NE(client.Read().body.find("text_completion"), std::string::npos);
  r = client.Read();
  EXPECT_NE(r.head.find("text/event-stream"), std::string::npos);
  ASSERT_TRUE(client.ReadUntil("\r\n0\r\n\r\n"));
  client.buffer().erase(0, client.buffer().find("\r\n0\r\n\r\n") + 7);
  EXPECT_EQ(client.Read().status, 404);
}

TEST_F(HttpTest, Stream) {
  Start();
  Client client(server_->port());
  client.Send(Post("/v1/chat/completions",
                   R"({"messages":[{"role":"user","content":"a"}],"stream":true,"n":2,
                       "stream_options":{"include_usage":true}})"));
  ASSERT_TRUE(client.ReadUntil("0\r\n\r\n"));
  std::string texts[2];
  int roles = 0, finishes = 0, usages = 0;
  bool done = false;
  for (const std::string& line : Split(client.buffer(), '\n')) {
    if (!line.starts_with("data: ")) continue;
    EXPECT_FALSE(done);
    if (line == "data: [DONE]") {
      done = true;
      continue;
    }
    auto json = ParseJson(line.substr(6));
    ASSERT_TRUE(json.ok()) << line;
    if (json->Find("usage")->is_object()) {
      ++usages;
      EXPECT_EQ(json->Find("usage")->Find("completion_tokens")->as_int(), 12);
      continue;
    }
    const Json& choice = json->Find("choices")->as_array()[0];
    const Json* delta = choice.Find("delta");
    if (delta->Find("role") != nullptr) ++roles;
    if (delta->Find("content") != nullptr) {
      texts[choice.Find("index")->as_int()] += delta->Find("content")->as_string();
    }
    if (!choice.Find("finish_reason")->is_null()) ++finishes;
  }
  EXPECT_TRUE(done);
  EXPECT_EQ(roles, 2);
  EXPECT_EQ(finishes, 2);
  EXPECT_EQ(usages, 1);
  EXPECT_EQ(texts[0], "hello");
  EXPECT_EQ(texts[1], "hello");
}

TEST_F(HttpTest, Http10StreamEndsWithTheConnection) {
  Start();
  Client client(server_->port());
  const std::string body = R"({"prompt":"ab","stream":true})";
  client.Send(StrCat("POST /v1/completions HTTP/1.0\r\nContent-Length: ", body.size(), "\r\n\r\n", body));
  const std::string all = client.ReadToEnd();
  EXPECT_EQ(all.find("chunked"), std::string::npos);
  EXPECT_TRUE(all.ends_with("data: [DONE]\n\n")) << all;
}

TEST_F(HttpTest, RoutesAndMethods) {
  Start();
  EXPECT_EQ(Ask(Get("/health")).status, 200);
  EXPECT_EQ(Ask(Get("/ping")).status, 200);
  EXPECT_EQ(Ask(Get("/v1/models/tiny")).status, 200);
  EXPECT_EQ(Code(Ask(Get("/v1/models/other"))), "model_not_found");
  EXPECT_EQ(Ask(Get("/load")).status, 200);
  EXPECT_NE(Ask(Get("/metrics")).body.find("fastdeploy:num_requests_running"), std::string::npos);
  EXPECT_EQ(Ask(Get("/health?x=1")).status, 200);
  for (const char* path : {"/", "/v1", "/v1/", "//v1/models", "/V1/models", "/v1/../health", "/v1/models/"}) {
    const auto r = Ask(Get(path));
    EXPECT_EQ(r.status, 404) << path;
    EXPECT_EQ(Code(r), "not_found") << path;
  }
  const auto r = Ask(Get("/v1/chat/completions"));
  EXPECT_EQ(r.status, 405);
  EXPECT_EQ(Code(r), "method_not_allowed");
  EXPECT_NE(r.head.find("Allow: POST"), std::string::npos);
  EXPECT_EQ(Ask(Get("/health", "", "DELETE")).status, 405);
  const auto options = Ask(Get("/v1/completions", "", "OPTIONS"));
  EXPECT_EQ(options.status, 204);
  EXPECT_NE(options.head.find("Allow: POST"), std::string::npos);
  Client head(server_->port());
  head.Send(Get("/v1/models", "", "HEAD") + Get("/health"));
  EXPECT_NE(head.Read(/*head_only=*/true).head.find("Content-Length: "), std::string::npos);
  EXPECT_EQ(head.Read().status, 200);
}

TEST_F(HttpTest, MetricsPort) {
  Start({.metrics_port = 0});
  ASSERT_NE(server_->metrics_port(), server_->port());
  EXPECT_EQ(Ask(Get("/metrics")).status, 404);
  Client client(server_->metrics_port());
  client.Send(Get("/metrics") + Get("/v1/models"));
  EXPECT_NE(client.Read().body.find("http_requests_total{"), std::string::npos);
  EXPECT_EQ(client.Read().status, 404);
}

TEST_F(HttpTest, Limits) {
  Start({.max_body_bytes = 1000, .max_header_bytes = 2000});
  auto r = Ask(Post("/v1/completions", "{\"prompt\":\"" + std::string(1000, 'x') + "\"}"));
  EXPECT_EQ(r.status, 413);
  EXPECT_NE(r.body.find("1000 bytes (--max-body-bytes)"), std::string::npos) << r.body;
  r = Ask("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n600\r\n" +
          std::string(0x600, 'x') + "\r\n");
  EXPECT_EQ(r.status, 413);
  r = Ask(Get("/health", "X-Long: " + std::string(4000, 'x') + "\r\n"));
  EXPECT_EQ(r.status, 431);
  EXPECT_NE(r.body.find("--max-header-bytes"), std::string::npos);
  EXPECT_EQ(Ask(Get("/" + std::string(5000, 'x'))).status, 431);
  std::string many;
  for (int i = 0; i < 1000; ++i) many += StrCat("H", i, ": x\r\n");
  EXPECT_EQ(Ask(Get("/health", many)).status, 431);
  EXPECT_EQ(Ask(Get("/health")).status, 200);
}

TEST_F(HttpTest, MalformedRequests) {
  Start();
  const std::string body = R"({"prompt":"ab"})";
  const std::string length = StrCat("Content-Length: ", body.size(), "\r\n");
  const std::string head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n";
  for (const std::string& request :
       {std::string("\x16\x03\x01\x02\r\n\r\n"), std::string("GET\r\n\r\n"),
        std::string("GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n"),
        std::string("GET /health HTTP/1.1\r\n\r\n"),  // no Host
        head + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        head + length + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", head + "Content-Length: -1\r\n\r\n",
        head + "Content-Length: 99999999999999999999\r\n\r\n",
        head + "Transfer-Encoding: chunked\r\n\r\n-2\r\nab\r\n0\r\n\r\n",
        head + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nab\r\n",
        std::string("GET /health HTTP/1.1\r\nHost: localhost\r\nBad\x01Name: x\r\n\r\n")}) {
    Client client(server_->port());
    client.Send(request);
    const auto r = client.Read();
    EXPECT_EQ(r.status, 400) << request << "\n" << r.body;
  }
  EXPECT_EQ(Ask(head + length + "Content-Encoding: gzip\r\n\r\n" + body).status, 415);
  EXPECT_EQ(Ask(head + length + "Expect: magic\r\n\r\n" + body).status, 417);
  EXPECT_EQ(Ask(Get("/health")).status, 200);
}

TEST_F(HttpTest, ExpectContinue) {
  Start({.max_body_bytes = 100});
  const std::string body = R"({"prompt":"ab"})";
  Client client(server_->port());
  client.Send(
      StrCat("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: ",
             body.size(), "\r\n\r\n"));
  EXPECT_EQ(client.Read().status, 100);
  client.Send(body);
  EXPECT_EQ(client.Read().status, 200);
  client.Send(
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: "
      "101\r\n\r\n");
  EXPECT_EQ(client.Read().status, 413);  // instead of 100: the body is never sent
}

TEST_F(HttpTest, SlowClientsAreCut) {
  Start({.header_timeout = milliseconds(200),
         .body_timeout = milliseconds(200),
         .keep_alive_timeout = milliseconds(300)});
  Client header(server_->port());
  header.Send("GET /health HT");
  EXPECT_EQ(header.Read().status, 408);
  Client body(server_->port());
  body.Send("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nab");
  const auto r = body.Read();
  EXPECT_EQ(r.status, 408);
  EXPECT_NE(r.body.find("--body-timeout"), std::string::npos);
  Client idle(server_->port());
  idle.Send(Get("/health"));
  EXPECT_EQ(idle.Read().status, 200);
  EXPECT_EQ(idle.ReadToEnd(), "");  // closed without a word
}

TEST_F(HttpTest, ClientLeavesAStream) {
  Start();
  Client client(server_->port());
  client.Send(Post("/v1/completions", kEndlessStream));
  ASSERT_TRUE(client.ReadUntil("data: "));
  EXPECT_EQ(engine_.running(), 1);
  client.Close();
  EXPECT_TRUE(engine_.WaitRunning(0));
}

TEST_F(HttpTest, ClientLeavesWhileNothingIsSent) {
  engine_.SetSilent(true);
  Start();
  for (const char* body : {kEndless, kEndlessStream, R"({"prompt":["a","b"],"n":3})"}) {
    const int64_t before = engine_.aborts();
    Client client(server_->port());
    client.Send(Post("/v1/completions", body));
    while (engine_.running() == 0) std::this_thread::sleep_for(milliseconds(1));
    const int64_t running = engine_.running();
    client.Close();
    EXPECT_TRUE(engine_.WaitRunning(0));
    EXPECT_GE(engine_.aborts(), before + running);
  }
  // A next request that waits in the socket must not hide the close.
  Client client(server_->port());
  client.Send(Post("/v1/completions", kEndless));
  ASSERT_TRUE(engine_.WaitRunning(1));
  client.Send(Get("/health"));
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_EQ(engine_.running(), 1);
  client.Close();
  EXPECT_TRUE(engine_.WaitRunning(0));
}

TEST_F(HttpTest, ManyStreamsHalfOfThemLeave) {
  Start({.io_threads = 2});
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 64; ++i) {
    clients.push_back(std::make_unique<Client>(server_->port()));
    clients.back()->Send(Post("/v1/completions", kEndlessStream));
  }
  for (int i = 0; i < 64; ++i) EXPECT_TRUE(clients[static_cast<size_t>(i)]->ReadUntil("data: "));
  for (int i = 0; i < 64; i += 2) clients[static_cast<size_t>(i)]->Close();
  for (int i = 1; i < 64; i += 2) EXPECT_TRUE(clients[static_cast<size_t>(i)]->ReadUntil("[DONE]"));
  EXPECT_TRUE(engine_.WaitRunning(0));
  EXPECT_TRUE(server_->WaitIdle(Clock::now() + std::chrono::seconds(5)));
}

TEST_F(HttpTest, EngineErrors) {
  Start();
  engine_.SetFailAfter(0);
  auto r = Ask(Post("/v1/completions", kEndlessStream));
  EXPECT_EQ(r.status, 500);  // nothing had been sent, so the status can say it
  EXPECT_EQ(Code(r), "internal_error");
  engine_.SetFailAfter(2);
  Client client(server_->port());
  client.Send(Post("/v1/completions", kEndlessStream));
  ASSERT_TRUE(client.ReadUntil("0\r\n\r\n"));
  EXPECT_NE(client.buffer().find("data: {\"error\":{\"message\":\"the logits held a NaN\""),
            std::string::npos)
      << client.buffer();
  engine_.SetFailAfter(-1);
  engine_.SetSubmitError(Status(StatusCode::kResourceExhausted, "the queue is full"));
  r = Ask(Post("/v1/completions", kEndless));
  EXPECT_EQ(r.status, 429);
  EXPECT_NE(r.head.find("Retry-After"), std::string::npos);
}

TEST_F(HttpTest, ConcurrencyAndConnectionLimits) {
  engine_.SetSilent(true);
  Start({.max_connections = 3, .max_concurrency = 1});
  Client first(server_->port());
  first.Send(Post("/v1/completions", kEndless));
  ASSERT_TRUE(engine_.WaitRunning(1));
  Client second(server_->port());
  second.Send(Post("/v1/completions", kEndless));
  auto r = second.Read();
  EXPECT_EQ(r.status, 429);
  EXPECT_NE(r.body.find("--max-concurrency"), std::string::npos);
  Client third(server_->port());
  third.Send(Get("/health"));
  EXPECT_EQ(third.Read().status, 200);
  Client fourth(server_->port());
  r = fourth.Read();
  EXPECT_EQ(r.status, 503);
  EXPECT_NE(r.body.find("--max-connections"), std::string::npos);
}

TEST_F(HttpTest, HealthNeedsTheEngine) {
  Start({.heartbeat_timeout = milliseconds(100)});
  EXPECT_EQ(Ask(Get("/health")).status, 200);
  engine_.SetFrozen(true);
  std::this_thread::sleep_for(milliseconds(250));
  const auto r = Ask(Get("/health"));
  EXPECT_EQ(r.status, 503);
  EXPECT_NE(r.body.find("--heartbeat-timeout"), std::string::npos);
  engine_.SetFrozen(false);
}

TEST_F(HttpTest, DrainFinishesWhatRuns) {
  Start();
  Client running(server_->port());
  running.Send(Post("/v1/completions", kEndlessStream));
  ASSERT_TRUE(running.ReadUntil("data: "));
  Client idle(server_->port());
  idle.Send(Get("/health"));
  EXPECT_EQ(idle.Read().status, 200);
  server_->BeginDrain();
  EXPECT_EQ(idle.ReadToEnd(), "");
  EXPECT_EQ(Ask(Get("/health")).status, 503);
  EXPECT_EQ(Ask(Post("/v1/completions", kEndless)).status, 503);
  EXPECT_TRUE(running.ReadUntil("[DONE]"));
  EXPECT_EQ(running.buffer().find("\"error\""), std::string::npos);
  EXPECT_TRUE(server_->WaitIdle(Clock::now() + std::chrono::seconds(5)));
}

TEST_F(HttpTest, StopSaysWhy) {
  engine_.SetSilent(true);
  Start();
  Client plain(server_->port());
  plain.Send(Post("/v1/completions", kEndless));
  ASSERT_TRUE(engine_.WaitRunning(1));
  engine_.SetSilent(false);
  Client stream(server_->port());
  stream.Send(Post("/v1/completions", kEndlessStream));
  ASSERT_TRUE(stream.ReadUntil("data: "));
  engine_.SetSilent(true);
  EXPECT_FALSE(server_->WaitIdle(Clock::now() + milliseconds(20)));
  const auto begin = Clock::now();
  server_->Stop();
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(2));
  EXPECT_TRUE(stream.ReadUntil("shutting down"));
  EXPECT_TRUE(engine_.WaitRunning(0));
  EXPECT_FALSE(Client(server_->port()).connected());
}

TEST_F(HttpTest, ApiKeysAndHosts) {
  Start({.api_keys = {"secret", "other"}});
  EXPECT_EQ(Ask(Get("/health")).status, 200);
  EXPECT_EQ(Ask(Get("/metrics")).status, 200);
  for (const char* path : {"/v1/models", "/load", "/v1/nowhere", "/nowhere"}) {
    EXPECT_EQ(Ask(Get(path)).status, 401) << path;
    EXPECT_EQ(Ask(Get(path, "Authorization: Bearer secre\r\n")).status, 401) << path;
    EXPECT_EQ(Ask(Get(path, "Authorization: Bearer \r\n")).status, 401) << path;
  }
  EXPECT_EQ(Ask(Get("/v1/models", "Authorization: Bearer secret\r\n")).status, 200);
  EXPECT_EQ(Ask(Get("/v1/models", "authorization: bearer other\r\n")).status, 200);
  server_.reset();
  Start();
  EXPECT_EQ(Ask("GET /v1/models HTTP/1.1\r\nHost: evil.example:80\r\n\r\n").status, 403);
  EXPECT_EQ(Ask("GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n").status, 403);
  EXPECT_EQ(Ask(Get("/v1/models", "Origin: http://127.evil.example\r\n")).status, 403);
  EXPECT_EQ(Ask("GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n").status, 200);
  EXPECT_EQ(Ask(Get("/v1/models", "Origin: http://evil.example\r\n")).status, 403);
  EXPECT_EQ(Ask(Get("/v1/models", "Origin: http://localhost:3000\r\n")).status, 200);
}

TEST_F(HttpTest, AdminAbortsAndPauses) {
  engine_.SetSilent(true);
  Start({.admin_keys = {"boss"}});
  const std::string key = "X-Api-Key: boss\r\n";
  Client plain(server_->port());
  plain.Send(Post("/v1/completions", kEndless, "X-Request-Id: one\r\n"));
  Client stream(server_->port());
  stream.Send(Post("/v1/completions", R"({"prompt":"ab","stream":true,"request_id":"two"})"));
  ASSERT_TRUE(engine_.WaitRunning(2));
  EXPECT_EQ(Ask(Post("/v1/abort_requests", R"({"abort_all":true})")).status, 401);
  auto r = Ask(Post("/v1/abort_requests", R"({"req_ids":["one","cmpl-two","three"]})", key));
  EXPECT_EQ(r.body, R"({"aborted":2,"req_ids":["one","cmpl-two"],"not_found":["three"]})");
  r = plain.Read();
  EXPECT_EQ(r.status, 400);
  EXPECT_EQ(Code(r), "request_aborted");
  EXPECT_NE(r.head.find("x-request-id: one\r\n"), std::string::npos) << r.head;
  EXPECT_EQ(Code(stream.Read()), "request_aborted");  // nothing had been sent
  engine_.SetSilent(false);
  EXPECT_EQ(Ask(Post("/v1/pause", "", key)).status, 200);
  r = Ask(Post("/v1/completions", R"({"prompt":"ab"})"));
  EXPECT_EQ(r.status, 503);
  EXPECT_NE(r.head.find("Retry-After: "), std::string::npos);
  EXPECT_EQ(Ask(Get("/health")).status, 200);
  EXPECT_EQ(Ask(Post("/v1/resume", "", key)).status, 200);
  EXPECT_EQ(Ask(Post("/v1/completions", R"({"prompt":"ab"})")).status, 200);
}

TEST_F(HttpTest, HealthIsARoundTrip) {
  Start({.heartbeat_timeout = milliseconds(60'000), .health_timeout = milliseconds(200)});
  EXPECT_EQ(Ask(Get("/health")).status, 200);
  engine_.SetFrozen(true);  // a long step: alive, but the question waits for the turn as long as it may
  auto begin = Clock::now();
  EXPECT_EQ(Ask(Get("/health")).status, 200);
  EXPECT_GE(Clock::now() - begin, milliseconds(200));
  engine_.SetFrozen(false);
}

TEST_F(HttpTest, IgnoredFieldsAndRequestIds) {
  Start();
  const auto r = Ask(Post("/v1/completions", R"({"prompt":"ab","promt":1,"a b":2})"));
  EXPECT_NE(r.head.find("x-fastdeploy-ignored: promt, a?b\r\n"), std::string::npos) << r.head;
  EXPECT_EQ(Ask(Post("/v1/completions", R"({"prompt":"ab"})")).head.find("x-fastdeploy-ignored"),
            std::string::npos);
  const auto forged = Ask(Get("/health", "X-Request-Id: a b\r\n"));
  EXPECT_EQ(forged.head.find("a b"), std::string::npos);
  EXPECT_NE(forged.head.find("x-request-id: req-"), std::string::npos);
  EXPECT_NE(Ask("nonsense\r\n\r\n").head.find("x-request-id: req-"), std::string::npos);
  const auto tokens = Ask(Post("/tokenize", R"({"messages":[{"role":"user","content":"a"}]})"));
  EXPECT_EQ(tokens.status, 200) << tokens.body;
  const auto rendered =
      Ask(Post("/v1/chat/completions/render", R"({"messages":[{"role":"user","content":"a"}]})"));
  EXPECT_NE(rendered.body.find(R"("prompt":"user: a\nbot: )"), std::string::npos) << rendered.body;
}

TEST_F(HttpTest, PortInUse) {
  Start();
  HttpOptions options;
  options.port = server_->port();
  const auto second = HttpServer::Start(service_, options);
  ASSERT_FALSE(second.ok());
  EXPECT_NE(second.status().message().find(StrCat(server_->port(), " (--port)")), std::string::npos)
      << second.status().message();
  options.host = "not-an-address";
  EXPECT_FALSE(HttpServer::Start(service_, options).ok());
}

// A reader that stops reading must cost bounded memory and its own sequences, nothing else.
TEST_F(HttpTest, ClientThatNeverReads) {
  service_->max_model_len = 4'000'000;
  engine_.script().assign(1, 'x');
  Start({.max_stream_lag_tokens = 200, .write_timeout = milliseconds(60'000)});
  Client client(server_->port());
  client.Send(Post("/v1/completions",
                   R"({"prompt":"ab","ignore_eos":true,"stream":true,"n":64,"max_tokens":3000000})"));
  ASSERT_TRUE(engine_.WaitRunning(64));
  EXPECT_EQ(Ask(Get("/health")).status, 200);
  bool ended = false;
  for (int i = 0; i < 30'000 && !ended; ++i) {
    std::this_thread::sleep_for(milliseconds(1));
    ended = engine_.running() == 0;
  }
  EXPECT_TRUE(ended);
}

// Whose time is over: 408 before the first token, an error in a stream that has begun.
TEST_F(HttpTest, ATimeThatIsOver) {
  Start();
  const Status over(StatusCode::kDeadlineExceeded, "not done in its timeout of 2 seconds", "timeout");
  for (const char* body : {R"({"prompt":"ab"})", kEndlessStream}) {
    engine_.SetFailAfter(0, over);
    const auto reply = Ask(Post("/v1/completions", body));
    EXPECT_EQ(reply.status, 408);
    EXPECT_EQ(Code(reply), "timeout");
    EXPECT_NE(reply.body.find("\"param\":\"timeout\""), std::string::npos) << reply.body;
  }
  engine_.SetFailAfter(2, over);
  EXPECT_EQ(Ask(Post("/v1/completions", R"({"prompt":"ab"})")).status, 408);
  Client client(server_->port());
  client.Send(Post("/v1/completions", kEndlessStream));
  ASSERT_TRUE(client.ReadUntil("0\r\n\r\n"));
  EXPECT_NE(client.buffer().find("HTTP/1.1 200"), std::string::npos);
  EXPECT_NE(client.buffer().find("data: {\"error\":{\"message\":\"not done in its timeout of 2 seconds\""),
            std::string::npos)
      << client.buffer();
  EXPECT_NE(client.buffer().find("data: [DONE]"), std::string::npos);
}

// Pictures that never arrive until the test lets them, or until nobody wants them any more.
class HttpMediaTest : public HttpTest {
 protected:
  void SetUp() override {
    MediaConfig config;
    config.image_placeholder_id = 'I';
    config.video_placeholder_id = 'V';
    service_->media = config;
    auto chat_template = ChatTemplate::FromSource(
        "{% for m in messages %}{% for part in m.content %}"
        "{{ '<|image@placeholder|>' if part.type == 'image_url' else '<|video@placeholder|>' if part.type == "
        "'video_url' else part.text }}{% endfor %}{% endfor %}",
        JsonObject{});
    FD_CHECK(chat_template.ok(), chat_template.status().message());
    service_->chat_template = std::move(chat_template).value();
    MediaReaders readers;
    readers.read_media = [this](std::string_view url, int64_t, std::string_view,
                                std::stop_token stop) -> StatusOr<MediaBytes> {
      ++started_;
      while (!released_ && !stop.stop_requested()) std::this_thread::sleep_for(milliseconds(1));
      ++ended_;
      if (url == "http://bad") return InvalidArgument("it is bad");
      return MediaBytes{"", std::string(url)};
    };
    readers.image_size = [](std::string_view) { return StatusOr<ImageSize>(ImageSize{56, 56}); };
    readers.check_sampling = [](const VideoSampling&) -> Status { throw std::bad_alloc(); };
    readers.make_image = [](std::string_view, const MediaOptions&) {
      auto item = std::make_shared<MediaItem>();
      item->grid_h = item->grid_w = 4;
      item->num_tokens = 4;
      item->patch_rows = std::vector<uint8_t>(16 * 588);
      return StatusOr<std::shared_ptr<MediaItem>>(item);
    };
    service_->media_loader = std::make_shared<MediaLoader>(
        config, readers, MediaLoaderOptions{.fetch_threads = 4, .prepare_threads = 1}, MediaEvents{});
  }
  void TearDown() override {  // the readers use this object
    server_.reset();
    service_->media_loader.reset();
  }
  static std::string Picture(const std::string& url) {
    return Post(
        "/v1/chat/completions",
        R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":")" + url + R"("}]}]})");
  }
  bool WaitFor(const std::function<bool()>& condition) {
    for (int i = 0; i < kPatienceMs && !condition(); ++i) std::this_thread::sleep_for(milliseconds(1));
    return condition();
  }
  std::atomic<int> started_{0}, ended_{0};
  std::atomic<bool> released_{false};
};

TEST_F(HttpMediaTest, NoWorkerWaitsForPictures) {
  Start({.io_threads = 1, .worker_threads = 1});
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 4; ++i) {
    clients.push_back(std::make_unique<Client>(server_->port()));
    clients.back()->Send(Picture(i == 3 ? "http://bad" : "http://a"));
  }
  ASSERT_TRUE(WaitFor([&] { return started_ == 4; }));
  EXPECT_EQ(Ask(Post("/v1/completions", R"({"prompt":"ab"})")).status, 200);
  EXPECT_EQ(Ask(Get("/health")).status, 200);
  EXPECT_NE(Ask(Get("/metrics")).body.find("fastdeploy:mm_jobs_in_flight 4"), std::string::npos);
  released_ = true;
  for (int i = 0; i < 4; ++i) {
    const auto r = clients[static_cast<size_t>(i)]->Read();
    EXPECT_EQ(r.status, i == 3 ? 400 : 200) << r.body;
    if (i == 3) {
      EXPECT_NE(r.body.find("messages[0].content[0].image_url: it is bad"), std::string::npos) << r.body;
    } else {
      EXPECT_NE(r.body.find("\"image_tokens\":4"), std::string::npos) << r.body;
    }
    // The connection carries another request.
    clients[static_cast<size_t>(i)]->Send(Get("/health"));
    EXPECT_EQ(clients[static_cast<size_t>(i)]->Read().status, 200);
  }
}

TEST_F(HttpMediaTest, AClientThatLeavesEndsItsLoading) {
  Start();
  Client client(server_->port());
  client.Send(Picture("http://a"));
  ASSERT_TRUE(WaitFor([&] { return started_ == 1; }));
  const auto left = Clock::now();
  client.Close();
  ASSERT_TRUE(WaitFor([&] { return ended_ == 1; }));
  EXPECT_LT(Clock::now() - left, milliseconds(5000));  // about 1 ms on an idle machine
  ASSERT_TRUE(WaitFor([&] { return service_->media_loader->jobs_in_flight() == 0; }));
  EXPECT_EQ(service_->media_loader->bytes_in_flight(), 0);
  EXPECT_TRUE(engine_.seen().empty());
  ASSERT_TRUE(
      WaitFor([&] { return Ask(Get("/metrics")).body.find("status_code=\"499\"") != std::string::npos; }));
}

TEST_F(HttpMediaTest, AnExceptionIsAnErrorOfItsRequestAlone) {
  Start();
  const std::string video =
      Post("/v1/chat/completions",
           R"({"messages":[{"role":"user","content":[{"type":"video_url","video_url":"http://a"}]}]})");
  Client client(server_->port());
  for (int i = 0; i < 2; ++i) {
    client.Send(video);
    const auto reply = client.Read();
    EXPECT_EQ(reply.status, 503) << reply.body;
    EXPECT_NE(reply.body.find("no memory left"), std::string::npos) << reply.body;
  }
  client.Send(Get("/health"));
  EXPECT_EQ(client.Read().status, 200);
}

TEST_F(HttpMediaTest, StopEndsLoading) {
  Start();
  Client client(server_->port());
  client.Send(Picture("http://a"));
  ASSERT_TRUE(WaitFor([&] { return started_ == 1; }));
  server_->Stop();
  EXPECT_EQ(client.Read().status, 503);
  EXPECT_TRUE(WaitFor([&] { return ended_ == 1; }));
}

// The timeout of a request holds while its pictures are on their way.
TEST_F(HttpMediaTest, PicturesThatAreNotThereInTime) {
  Start();
  const auto begin = Clock::now();
  const auto reply = Ask(Post(
      "/v1/chat/completions",
      R"({"timeout":0.2,"messages":[{"role":"user","content":[{"type":"image_url","image_url":"http://a"}]}]})"));
  EXPECT_EQ(reply.status, 408) << reply.body;
  EXPECT_GE(Clock::now() - begin, milliseconds(200));
  for (const char* part : {"\"param\":\"timeout\"", "timeout_error", "0.2 seconds"})
    EXPECT_NE(reply.body.find(part), std::string::npos) << reply.body;
  EXPECT_TRUE(WaitFor([&] { return ended_ == 1; }));
  EXPECT_TRUE(engine_.seen().empty());
}

}  // namespace
}  // namespace fd
