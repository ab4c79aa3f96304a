// What hostile, slow and many clients do to the server: limits, framing, memory of idle connections.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "server/http/http_client_for_tests.h"

namespace fd {
namespace {

constexpr char kAsk[] = R"({"prompt":"ab"})";
constexpr char kChunkedHead[] =
    "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";

// Under a sanitizer memory says nothing.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kMemoryCounts = false;
#elif defined(__has_feature)
constexpr bool kMemoryCounts = !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer);
#else
constexpr bool kMemoryCounts = true;
#endif

int64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t pages = 0;
  statm >> pages >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

TEST_F(HttpTest, EveryHeadLimitNamesItsFlag) {
  Start({.max_request_line_bytes = 100, .max_header_bytes = 400, .max_headers = 5});
  auto r = Ask(Get("/" + std::string(100, 'x')));
  EXPECT_EQ(r.status, 414);
  EXPECT_NE(r.head.find("414 URI Too Long"), std::string::npos);
  EXPECT_NE(r.body.find("100 bytes (--max-request-line-bytes)"), std::string::npos) << r.body;
  EXPECT_NE(r.head.find("Connection: close"), std::string::npos);
  r = Ask(Get("/health", "A: b\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\n"));
  EXPECT_EQ(r.status, 431);
  EXPECT_NE(r.body.find("5 headers (--max-headers)"), std::string::npos) << r.body;
  r = Ask(Get("/health", "A: " + std::string(400, 'x') + "\r\n"));
  EXPECT_EQ(r.status, 431);
  EXPECT_NE(r.body.find("400 bytes (--max-header-bytes)"), std::string::npos) << r.body;
  EXPECT_EQ(Ask(Get("/health", "A: b\r\nA: b\r\nA: b\r\nA: b\r\n")).status, 200);
}

TEST_F(HttpTest, FramingFaultsAreRefusedAndNothingIsSmuggled) {
  Start();
  const std::string head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n";
  const std::string next = Get("/health");
  for (const std::string& request :
       {std::string("GET /health HTTP/1.1\nHost: localhost\n\n"), head + "X: a\r\n b\r\n\r\n",
        head + "X : a\r\n\r\n", head + std::string("X: a\0b\r\n\r\n", 10), head + "X: a\rY: b\r\n\r\n",
        head + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
        head + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        kChunkedHead + std::string("5\nabcde\n0\n\n"),
        kChunkedHead + std::string("ffffffffffffffff\r\nab\r\n"), head + "Host: other\r\n\r\n",
        std::string("GET / HTTP/1.1\r\nHost: a b\r\n\r\n")}) {
    Client client(server_->port());
    client.Send(request + next);
    const std::string all = client.ReadToEnd();
    EXPECT_EQ(all.substr(0, 13), "HTTP/1.1 400 ") << request;
    EXPECT_EQ(all.find("HTTP/1.1 200"), std::string::npos) << request << "\n" << all;
  }
}

TEST_F(HttpTest, ChunkedBodies) {
  Start({.max_chunk_overhead_bytes = 1000});
  Client client(server_->port());
  const std::string body = kAsk;
  const std::string cut = StrCat(kChunkedHead, "5;a=b\r\n", body.substr(0, 5), "\r\n", "a\r\n",
                                 body.substr(5), "\r\n0\r\nTrailer: x\r\n\r\n");
  ASSERT_EQ(body.size(), 15u);
  client.Send(cut + cut + Get("/health"));
  EXPECT_EQ(client.Read().status, 200);
  EXPECT_EQ(client.Read().status, 200);
  EXPECT_EQ(client.Read().status, 200);
  // A byte at a time.
  for (const char c : cut) client.Send(std::string_view(&c, 1));
  EXPECT_EQ(client.Read().status, 200);
  std::string small = kChunkedHead;
  for (int i = 0; i < 1000; ++i) small += "1\r\n \r\n";
  const auto r = Ask(small);
  EXPECT_EQ(r.status, 400);
  EXPECT_NE(r.body.find("--max-chunk-overhead-bytes"), std::string::npos) << r.body;
}

TEST_F(HttpTest, LengthAndTypeOfBodies) {
  Start({.admin_keys = {"boss"}});
  const std::string line = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n";
  const std::string length = StrCat("Content-Length: ", sizeof(kAsk) - 1, "\r\n");
  auto r = Ask(line + "\r\n");
  EXPECT_EQ(r.status, 411);
  EXPECT_EQ(Code(r), "length_required");
  EXPECT_EQ(Ask(line + "Content-Length: 0\r\n\r\n").status, 400);  // an empty body is no JSON
  EXPECT_EQ(Ask(StrCat("POST /v1/pause HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: boss\r\n\r\n")).status, 200);
  EXPECT_EQ(Ask(StrCat("POST /v1/resume HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: boss\r\n\r\n")).status,
            200);
  for (const char* type :
       {"", "Content-Type: application/json\r\n", "Content-Type: APPLICATION/JSON; charset=utf-8\r\n",
        "Content-Type: application/vnd.x+json\r\n"}) {
    EXPECT_EQ(Ask(StrCat(line, length, type, "\r\n", kAsk)).status, 200) << type;
  }
  for (const char* type :
       {"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json"}) {
    r = Ask(StrCat(line, length, "Content-Type: ", type, "\r\n\r\n", kAsk));
    EXPECT_EQ(r.status, 415) << type;
    EXPECT_NE(r.body.find("Content-Type: application/json"), std::string::npos) << r.body;
  }
}

TEST_F(HttpTest, ARefusalKeepsTheConnectionWhenTheBodyIsHere) {
  engine_.SetSilent(true);
  Start({.max_concurrency = 1});
  Client first(server_->port());
  first.Send(Post("/v1/completions", kEndless));
  ASSERT_TRUE(engine_.WaitRunning(1));
  Client second(server_->port());
  for (int i = 0; i < 3; ++i) {
    second.Send(Post("/v1/completions", kAsk));
    const auto r = second.Read();
    EXPECT_EQ(r.status, 429);
    EXPECT_NE(r.head.find("Retry-After: "), std::string::npos);
    EXPECT_NE(r.head.find("keep-alive"), std::string::npos);
  }
  // A body that is still to come is not waited for.
  second.Send("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{");
  EXPECT_NE(second.Read().head.find("Connection: close"), std::string::npos);
}

TEST_F(HttpTest, BodiesOfAllRequestsAreBounded) {
  Start({.max_bodies_bytes = 100'000});
  const std::string head =
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\n";
  {
    Client first(server_->port());
    first.Send(head + std::string(60'000, ' '));
    std::this_thread::sleep_for(milliseconds(200));
    const auto r = Ask(head + std::string(60'000, ' '));
    EXPECT_EQ(r.status, 503);
    EXPECT_NE(r.body.find("100000 bytes (--max-bodies-bytes)"), std::string::npos) << r.body;
    EXPECT_EQ(Ask(Post("/v1/completions", kAsk)).status, 200);
  }
  // What a client that left, and what answered requests had sent, is counted no more.
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(Ask(Post("/v1/completions", std::string(60'000, ' ') + kAsk)).status, 200);
  }
}

TEST_F(HttpTest, AbsoluteTargetsNameTheHost) {
  Start();
  EXPECT_EQ(Ask("GET http://localhost/health HTTP/1.1\r\nHost: ignored.example\r\n\r\n").status, 200);
  EXPECT_EQ(Ask("GET http://evil.example/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 403);
  EXPECT_EQ(Ask("GET http://localhost HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 404);
}

TEST_F(HttpTest, ConnectionsBeyondTheLimitAreToldSo) {
  Start({.max_connections = 2});
  Client a(server_->port()), b(server_->port());
  a.Send(Get("/health"));
  b.Send(Get("/health"));
  EXPECT_EQ(a.Read().status, 200);
  EXPECT_EQ(b.Read().status, 200);
  for (int i = 0; i < 20; ++i) {
    Client c(server_->port());
    c.Send(Post("/v1/completions", kAsk));  // unread at the close, it must not take the reply away
    const auto r = c.Read();
    EXPECT_EQ(r.status, 503);
    EXPECT_NE(r.head.find("Retry-After: "), std::string::npos);
  }
  a.Close();
  for (int i = 0; i < 1000; ++i) {
    if (Ask(Get("/health")).status == 200) return;
    std::this_thread::sleep_for(milliseconds(5));
  }
  FAIL() << "the place of a closed connection is not free again";
}

// Clients and server share the process and its descriptors: the clients take the last ones.
TEST_F(HttpTest, RunsOutOfDescriptorsAndRecovers) {
  Start();
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  Client canary(server_->port());
  canary.Send(Post("/v1/completions", kEndlessStream));
  ASSERT_TRUE(canary.ReadUntil("data: "));
  const int next_fd = ::open("/dev/null", O_RDONLY);
  ::close(next_fd);
  rlimit low = before;
  low.rlim_cur = static_cast<rlim_t>(next_fd) + 8;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 20; ++i) clients.push_back(std::make_unique<Client>(server_->port()));
  const auto connected =
      std::count_if(clients.begin(), clients.end(), [](const auto& c) { return c->connected(); });
  EXPECT_LT(connected, 20);
  std::this_thread::sleep_for(milliseconds(200));
  EXPECT_TRUE(canary.ReadUntil("[DONE]"));
  clients.clear();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(Ask(Get("/health")).status, 200);
}

// Closing while something of the client's is unread resets the connection; what of the reply is still on its
// way would be lost.
TEST_F(HttpTest, TheLastReplyReachesAClientThatGoesOnSending) {
  Start();
  Client client(server_->port());
  const int few_bytes = 4096;
  ASSERT_EQ(setsockopt(client.fd(), SOL_SOCKET, SO_RCVBUF, &few_bytes, sizeof(few_bytes)), 0);
  ASSERT_TRUE(client.Send("GET /openapi.json HTTP/1.0\r\nHost: localhost\r\n\r\n"));
  ASSERT_TRUE(client.ReadUntil("\r\n\r\n"));
  ASSERT_TRUE(client.Send(Get("/ping") + std::string(32'768, 'x')));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const Client::Response reply = client.Read();
  EXPECT_EQ(reply.status, 200);
  EXPECT_GT(reply.body.size(), 20'000u);
}

TEST_F(HttpTest, IdleConnectionsHoldNoBuffers) {
  constexpr int kClients = 2000;
  constexpr int64_t kMaxBytesEach =
      8000;  // about 3,000 on x86-64, the client's own object and deadline included
  rlimit files{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  if (files.rlim_cur < 2 * kClients + 300)
    GTEST_SKIP() << "only " << files.rlim_cur << " open files are allowed";
  Start();
  // What the first requests allocate for good is not counted.
  for (int i = 0; i < 50; ++i) EXPECT_EQ(Ask(Post("/v1/completions", kAsk)).status, 200);
  const int64_t before = ResidentBytes();
  std::vector<std::unique_ptr<Client>> clients;
  const std::string large =
      Post("/v1/completions", StrCat(R"({"prompt":"ab","user":")", std::string(50'000, 'x'), "\"}"));
  for (int i = 0; i < kClients; ++i) {
    clients.push_back(std::make_unique<Client>(server_->port()));
    // All of them have served a request, some of them a large one.
    ASSERT_TRUE(clients.back()->Send(i % 20 == 0 ? large : Get("/health")));
    ASSERT_NE(clients.back()->Read().status, 0) << i;
    clients.back()->buffer() = std::string();
  }
  const int64_t each = (ResidentBytes() - before) / kClients;
  RecordProperty("bytes_per_connection", std::to_string(each));
  if (kMemoryCounts) {
    EXPECT_LT(each, kMaxBytesEach);
  }
  for (int i = 0; i < kClients; i += 97) {
    clients[static_cast<size_t>(i)]->Send(Get("/health"));
    EXPECT_EQ(clients[static_cast<size_t>(i)]->Read().status, 200);
  }
}

TEST_F(HttpTest, APipeliningClientDoesNotKeepOthersWaiting) {
  Start();
  Client greedy(server_->port());
  std::string many;
  for (int i = 0; i < 2000; ++i) many += Get("/ping");
  std::thread sender([&] {
    for (int i = 0; i < 10 && greedy.Send(many); ++i) {
    }
  });
  std::thread reader([&] { greedy.ReadToEnd(); });
  const auto begin = Clock::now();
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Ask(Get("/v1/models")).status, 200);
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(10));
  ::shutdown(greedy.fd(), SHUT_RDWR);
  sender.join();
  reader.join();
}

}  // namespace
}  // namespace fd
