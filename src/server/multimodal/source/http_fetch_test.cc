#include "server/multimodal/source/http_fetch.h"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <netdb.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "base/clock.h"
#include "base/strings.h"
#include "server/multimodal/source/http_server_for_tests.h"

// The system's resolver, for one name as slow as a name server that is down. Found before libc's by libcurl.
extern "C" int getaddrinfo(const char* node, const char* service, const addrinfo* hints, addrinfo** result) {
  if (node != nullptr && std::strcmp(node, "slow.example") == 0) {
    std::this_thread::sleep_for(std::chrono::seconds(8));
    return EAI_AGAIN;
  }
  static const auto next = reinterpret_cast<decltype(&getaddrinfo)>(dlsym(RTLD_NEXT, "getaddrinfo"));
  return next(node, service, hints, result);
}

namespace fd {
namespace {

MediaPolicy Open() {
  MediaPolicy policy;
  policy.allow_private_addresses = true;
  return policy;
}

std::string Text(const StatusOr<MediaBytes>& media) {
  return media.ok() ? StrCat(media->media_type, "|", media->bytes) : "error: " + media.status().message();
}

std::string Fetch(const std::string& url, const MediaPolicy& policy, int64_t max_bytes = 1000,
                  const FetchHooks& hooks = {}) {
  return Text(FetchHttp(url, policy, max_bytes, "--max-image-bytes", {}, hooks));
}

HttpServerForTests::Handler Always(std::string status, std::string headers, std::string body) {
  return [=](Connection& c, const std::string&) { c.Answer(status, headers, body); };
}

const char* const kRefused = "error: the media URL's host has no public address; only those are fetched";

TEST(HttpFetch, ReadsAFileAndSaysLittleAboutItself) {
  setenv("http_proxy", "http://127.0.0.1:9", 1);
  setenv("ALL_PROXY", "http://127.0.0.1:9", 1);
  HttpServerForTests server(Always("200 OK", "Content-Type: Image/PNG; x=y\r\nSet-Cookie: a=b\r\n", "hello"));
  EXPECT_EQ(Fetch(server.url("/a?b#c"), Open()), "image/png|hello");
  EXPECT_EQ(Fetch(server.url("/a?b#c"), Open()), "image/png|hello");
  unsetenv("http_proxy");
  unsetenv("ALL_PROXY");
  ASSERT_EQ(server.requests().size(), 2u);
  const std::string request = server.requests()[1];
  EXPECT_TRUE(request.starts_with("GET /a?b HTTP/1.1\r\n")) << request;
  EXPECT_NE(request.find("Accept-Encoding: identity\r\n"), std::string::npos) << request;
  EXPECT_EQ(request.find("Cookie"), std::string::npos);
  EXPECT_EQ(request.find("Authorization"), std::string::npos);
  EXPECT_EQ(request.find("Referer"), std::string::npos);
}

TEST(HttpFetch, ChunkedAndUnlabelled) {
  HttpServerForTests server([](Connection& c, const std::string&) {
    c.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n");
  });
  EXPECT_EQ(Fetch(server.url(), Open()), "|hello");
}

// The list of classic spellings, each with its own port where the spelling allows one: nobody connects.
TEST(HttpFetch, PrivateAddressesAreNotDialled) {
  HttpServerForTests server(Always("200 OK", "", "secret"), "0.0.0.0");
  const std::string port = StrCat(server.port());
  EXPECT_EQ(Fetch("http://127.0.0.1:" + port + "/", Open()), "|secret");  // positive control
  const int before = server.connections();
  for (const char* host : {"127.0.0.1",          "127.255.255.254", "0.0.0.0",
                           "localhost",          "[::1]",           "[::]",
                           "[::ffff:127.0.0.1]", "[::127.0.0.1]",   "[64:ff9b::127.0.0.1]",
                           "169.254.169.254",    "10.0.0.1",        "192.168.1.1",
                           "172.16.0.1",         "100.64.0.1",      "[fd00:ec2::254]",
                           "[fe80::1]",          "[fec0::1]",       "[2002:7f00:1::]",
                           "224.0.0.1",          "255.255.255.255", "localhost."}) {
    EXPECT_EQ(Fetch(StrCat("http://", host, ":", port, "/"), MediaPolicy{}), kRefused) << host;
    EXPECT_EQ(Fetch(StrCat("https://", host, ":", port, "/"), MediaPolicy{}), kRefused) << host;
  }
  for (const char* url :
       {"http://2130706433:", "http://0x7f.1:", "http://127.1:", "http://0177.0.0.1:", "http://0:",
        "http://good.example@127.0.0.1:", "http://good.example\\@127.0.0.1:", "http://127.0.0.1\t:",
        "http://\xe2\x91\xa0\xe2\x91\xa1\xe2\x91\xa6.0.0.1:", "http:127.0.0.1:", "http:\\\\127.0.0.1:"}) {
    const std::string result =
        Fetch(StrCat(url, port, "/"), Open());  // refused before any address is looked at
    EXPECT_TRUE(result.starts_with("error: the media URL has ")) << result;
  }
  EXPECT_EQ(server.connections(), before);
}

TEST(HttpFetch, NamesThatLeadToPrivateAddresses) {
  HttpServerForTests server(Always("200 OK", "", "secret"));
  const std::string port = StrCat(server.port());
  const std::string url = StrCat("http://a.example:", port, "/");
  FetchHooks hooks;
  hooks.resolve = [&](int) { return std::vector<std::string>{StrCat("a.example:", port, ":127.0.0.1")}; };
  EXPECT_EQ(Fetch(url, Open(), 1000, hooks), "|secret");  // positive control
  EXPECT_EQ(Fetch(url, MediaPolicy{}, 1000, hooks), kRefused);
  // Mixed answers: the private address first ends it; the public one is not tried either.
  MediaPolicy endpoint;
  endpoint.public_endpoints_for_tests = {server.endpoint()};
  EXPECT_EQ(Fetch(url, endpoint, 1000, hooks), "|secret");
  hooks.resolve = [&](int) {
    return std::vector<std::string>{StrCat("a.example:", port, ":127.0.0.2,127.0.0.1")};
  };
  EXPECT_EQ(Fetch(url, endpoint, 1000, hooks), kRefused);
  EXPECT_EQ(server.connections(), 2);
  // A name without any address sounds the same.
  EXPECT_EQ(Fetch("http://no-such-name.invalid/", MediaPolicy{}), kRefused);
}

// The name answers with a public address first and a private one for the second hop.
TEST(HttpFetch, AnswersThatChange) {
  HttpServerForTests outside(
      [](Connection& c, const std::string&) { c.Answer("302 Found", "Location: /again\r\n", ""); });
  const std::string port = StrCat(outside.port());
  MediaPolicy policy;
  policy.public_endpoints_for_tests = {outside.endpoint()};
  FetchHooks hooks;
  hooks.resolve = [&](int hop) {
    return std::vector<std::string>{StrCat("a.example:", port, ":", hop == 0 ? "127.0.0.1" : "127.0.0.2")};
  };
  EXPECT_EQ(Fetch(StrCat("http://a.example:", port, "/"), policy, 1000, hooks),
            "error: after 1 redirect: the media URL's host has no public address; only those are fetched");
  EXPECT_EQ(outside.connections(), 1);
}

TEST(HttpFetch, RedirectsAreChecked) {
  HttpServerForTests inside(Always("200 OK", "", "secret"));
  std::string location;
  std::string status = "302 Found";
  HttpServerForTests outside([&](Connection& c, const std::string& path) {
    if (path == "/end") return c.Answer("200 OK", "Content-Type: image/png\r\n", "hello");
    c.Answer(status, StrCat("Location: ", location, "\r\n"), "some text that nobody needs");
  });
  MediaPolicy policy;
  policy.public_endpoints_for_tests = {outside.endpoint()};
  for (const char* code : {"301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"}) {
    status = code;
    location = "/end";
    EXPECT_EQ(Fetch(outside.url("/x"), policy), "image/png|hello") << code;
    location = inside.url();
    EXPECT_EQ(Fetch(outside.url("/x"), policy),
              "error: after 1 redirect: the media URL's host has no public address; only those are fetched")
        << code;
  }
  location = "end";
  EXPECT_EQ(Fetch(outside.url("/x"), policy), "image/png|hello");
  location = StrCat("//", outside.endpoint(), "/end");
  EXPECT_EQ(Fetch(outside.url("/x"), policy), "image/png|hello");
  for (const char* bad : {"file:///etc/hosts", "ftp://example.com/", "gopher://127.0.0.1/",
                          "data:image/png;base64,aGk=", "dict://127.0.0.1:11211/", "javascript:1"}) {
    location = bad;
    const std::string result = Fetch(outside.url("/x"), policy);
    EXPECT_NE(result.find("begins with neither http:// nor https://"), std::string::npos) << result;
  }
  for (const std::string& bad :
       {StrCat("http://good.example@", inside.endpoint(), "/"), StrCat("http://2130706433:", inside.port()),
        StrCat("http:\\\\", inside.endpoint()), StrCat("\\\\", inside.endpoint())}) {
    location = bad;
    EXPECT_TRUE(Fetch(outside.url("/x"), policy).starts_with("error: after 1 redirect: the media URL has "))
        << bad;
  }
  EXPECT_EQ(inside.connections(), 0);
  location.clear();
  EXPECT_EQ(Fetch(outside.url("/x"), policy),
            "error: the media URL's server answers with status 308; 200 is needed");
}

TEST(HttpFetch, RedirectsEnd) {
  HttpServerForTests server([](Connection& c, const std::string& path) {
    if (path == "/loop") return c.Answer("302 Found", "Location: /loop\r\n", "");
    const int left = path[1] - '0';
    if (left == 0) return c.Answer("200 OK", "", "hello");
    c.Answer("302 Found", StrCat("Location: /", left - 1, "\r\n"), "");
  });
  EXPECT_EQ(Fetch(server.url("/3"), Open()), "|hello");
  EXPECT_EQ(server.connections(), 4);
  EXPECT_EQ(Fetch(server.url("/4"), Open()),
            "error: the media URL redirects more than 3 times (--media-max-redirects)");
  EXPECT_EQ(Fetch(server.url("/loop"), Open()),
            "error: the media URL redirects more than 3 times (--media-max-redirects)");
  EXPECT_EQ(server.connections(), 12);
  MediaPolicy none = Open();
  none.max_redirects = 0;
  EXPECT_EQ(Fetch(server.url("/1"), none),
            "error: the media URL redirects more than 0 times (--media-max-redirects)");
}

TEST(HttpFetch, AllowedDomainsHoldOnEveryHop) {
  std::string location;
  HttpServerForTests server([&](Connection& c, const std::string& path) {
    if (path == "/end") return c.Answer("200 OK", "", "hello");
    c.Answer("302 Found", StrCat("Location: ", location, "\r\n"), "");
  });
  const std::string port = StrCat(server.port());
  MediaPolicy policy = Open();
  policy.allowed_domains = {"a.example", "*.b.example"};
  FetchHooks hooks;
  hooks.resolve = [&](int) {
    std::vector<std::string> all;
    for (const char* name : {"a.example", "x.b.example", "c.example"})
      all.push_back(StrCat(name, ":", port, ":127.0.0.1"));
    return all;
  };
  EXPECT_EQ(Fetch(StrCat("http://a.example:", port, "/end"), policy, 1000, hooks), "|hello");
  location = StrCat("http://x.b.example:", port, "/end");
  EXPECT_EQ(Fetch(StrCat("http://a.example:", port, "/"), policy, 1000, hooks), "|hello");
  location = StrCat("http://c.example:", port, "/end");
  EXPECT_EQ(Fetch(StrCat("http://a.example:", port, "/"), policy, 1000, hooks),
            "error: after 1 redirect: the media URL's host is not among those of --allowed-media-domains");
  const int before = server.connections();
  EXPECT_EQ(Fetch(StrCat("http://c.example:", port, "/end"), policy, 1000, hooks),
            "error: the media URL's host is not among those of --allowed-media-domains");
  EXPECT_EQ(Fetch(server.url("/end"), policy),
            "error: the media URL's host is not among those of --allowed-media-domains");
  EXPECT_EQ(server.connections(), before);
  // A listed name does not make a private address public.
  policy.allow_private_addresses = false;
  EXPECT_EQ(Fetch(StrCat("http://a.example:", port, "/end"), policy, 1000, hooks), kRefused);
}

TEST(HttpFetch, SizeIsCutWhileReading) {
  std::atomic<int64_t> sent{0};
  HttpServerForTests server([&](Connection& c, const std::string& path) {
    if (path == "/announced") {
      c.Send("HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n");
      c.Sleep(20000);
      return;
    }
    c.Send("HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n");
    const std::string block(65536, 'x');
    while (c.Send(block)) sent += 65536;
  });
  const auto start = Clock::now();
  StatusOr<MediaBytes> media = FetchHttp(server.url("/announced"), Open(), 1000, "--max-video-bytes", {});
  ASSERT_FALSE(media.ok());
  EXPECT_EQ(media.status().code(), StatusCode::kPayloadTooLarge);
  EXPECT_EQ(media.status().message(),
            "the media URL's file has 10737418240 bytes; the limit is 1000 (--max-video-bytes)");
  media = FetchHttp(server.url("/endless"), Open(), 1000000, "--max-image-bytes", {});
  ASSERT_FALSE(media.ok());
  EXPECT_EQ(media.status().code(), StatusCode::kPayloadTooLarge);
  EXPECT_EQ(media.status().message(),
            "the media URL's file has too many bytes; the limit is 1000000 (--max-image-bytes)");
  EXPECT_LT(SecondsSince(start), 15);
  EXPECT_LT(sent, 64 << 20);
}

// More than a string can be: the exception ends in the callback, not in libcurl (whose memory would be lost).
TEST(HttpFetch, NoMemoryIsAnError) {
  HttpServerForTests server([](Connection& c, const std::string&) {
    c.Send("HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\nx");
    c.Sleep(20000);
  });
  const StatusOr<MediaBytes> media =
      FetchHttp(server.url(), Open(), std::numeric_limits<int64_t>::max(), "--max-video-bytes", {});
  ASSERT_FALSE(media.ok());
  EXPECT_EQ(media.status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(media.status().message(), "no memory is left to fetch media with");
}

TEST(HttpFetch, ExactlyTheLimitPasses) {
  HttpServerForTests server(Always("200 OK", "", std::string(1000, 'x')));
  EXPECT_EQ(Fetch(server.url(), Open(), 1000).size(), 1001u);
  EXPECT_NE(Fetch(server.url(), Open(), 999).find("1000 bytes; the limit is 999"), std::string::npos);
}

TEST(HttpFetch, SlowServersAreCut) {
  HttpServerForTests server([](Connection& c, const std::string& path) {
    if (path == "/silent") {
      c.Sleep(60000);
    } else if (path == "/headers") {
      c.Send("HTTP/1.1 200 OK\r\n");
      while (c.Send("X: y\r\n") && c.Sleep(100)) {
      }
    } else {
      c.Send("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n");
      while (c.Send("x") && c.Sleep(100)) {
      }
    }
  });
  MediaPolicy policy = Open();
  policy.total_timeout_s = 0.6;
  for (const char* path : {"/silent", "/headers", "/body"}) {
    const auto start = Clock::now();
    EXPECT_EQ(Fetch(server.url(path), policy),
              "error: the media URL's file did not arrive within 0.60 s (--media-fetch-timeout)")
        << path;
    EXPECT_LT(SecondsSince(start), 10) << path;
  }
}

TEST(HttpFetch, OneByteASecondIsGivenUpBeforeTheTotalTime) {
  HttpServerForTests server([](Connection& c, const std::string&) {
    c.Send("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n");
    while (c.Send("x") && c.Sleep(1000)) {
    }
  });
  MediaPolicy policy = Open();
  policy.total_timeout_s = 300;
  const auto start = Clock::now();
  EXPECT_EQ(Fetch(server.url(), policy),
            "error: the media URL's server sent less than 1000 bytes a second for 10 s");
  EXPECT_LT(SecondsSince(start), 120);
}

// A listener whose queue is full takes no more connections.
TEST(HttpFetch, SlowConnect) {
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in where{};
  where.sin_family = AF_INET;
  inet_pton(AF_INET, "127.0.0.1", &where.sin_addr);
  socklen_t size = sizeof(where);
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&where), size), 0);
  ASSERT_EQ(listen(listener, 0), 0);
  getsockname(listener, reinterpret_cast<sockaddr*>(&where), &size);
  std::vector<int> fillers;
  for (int i = 0; i < 4; ++i) {
    fillers.push_back(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    (void)connect(fillers.back(), reinterpret_cast<sockaddr*>(&where), size);
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  MediaPolicy policy = Open();
  policy.connect_timeout_s = 0.4;
  const auto start = Clock::now();
  EXPECT_EQ(Fetch(StrCat("http://127.0.0.1:", ntohs(where.sin_port), "/"), policy),
            "error: the media URL's host took no connection within 0.40 s (--media-connect-timeout)");
  EXPECT_LT(SecondsSince(start), 10);
  for (int fd : fillers) close(fd);
  close(listener);
}

TEST(HttpFetch, SlowResolver) {
  MediaPolicy policy = Open();
  policy.connect_timeout_s = 0.3;
  auto start = Clock::now();
  EXPECT_EQ(Fetch("http://slow.example/", policy),
            "error: the media URL's host took no connection within 0.30 s (--media-connect-timeout)");
  EXPECT_LT(SecondsSince(start), 5);
  std::stop_source source;
  std::jthread stopper([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    source.request_stop();
  });
  start = Clock::now();
  EXPECT_EQ(FetchHttp("http://slow.example/", Open(), 10, "", source.get_token()).status().code(),
            StatusCode::kUnavailable);
  EXPECT_LT(SecondsSince(start), 4);
}

TEST(HttpFetch, StopEndsATransferAtOnce) {
  HttpServerForTests server([](Connection& c, const std::string& path) {
    if (path == "/body") {
      c.Send("HTTP/1.1 200 OK\r\nContent-Length: 500000000\r\n\r\nabc");
    } else if (path == "/busy") {
      return c.Answer("503 Busy", "", "");
    }
    c.Sleep(60000);
  });
  for (const char* path : {"/silent", "/body", "/busy"}) {
    std::stop_source source;
    std::atomic<double> stopped_at{0};
    const auto start = Clock::now();
    std::jthread stopper([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      stopped_at = SecondsSince(start);
      source.request_stop();
    });
    StatusOr<MediaBytes> media =
        FetchHttp(server.url(path), Open(), int64_t{1} << 30, "--max-video-bytes", source.get_token());
    const double ended = SecondsSince(start);
    ASSERT_FALSE(media.ok());
    EXPECT_EQ(media.status().code(), StatusCode::kUnavailable) << media.status().message();
    EXPECT_LT(ended - stopped_at, 1.0) << path;  // 0.1 s where the machine has nothing else to do
  }
  std::stop_source before;
  before.request_stop();
  const int connections = server.connections();
  EXPECT_FALSE(FetchHttp(server.url(), Open(), 10, "--max-image-bytes", before.get_token()).ok());
  EXPECT_EQ(server.connections(), connections);
}

TEST(HttpFetch, WrongLengths) {
  HttpServerForTests server([](Connection& c, const std::string& path) {
    if (path == "/short") c.Send("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello");
    if (path == "/long") c.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhello");
    if (path == "/negative") c.Send("HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nhello");
    if (path == "/chunk")
      c.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nhello");
    if (path == "/cut") c.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel");
    if (path == "/empty") c.Send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    if (path == "/old") c.Send("hello, this is no HTTP");
    if (path == "/reset") {
      c.Send("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello");
      c.Reset();
    }
  });
  EXPECT_EQ(Fetch(server.url("/short"), Open()),
            "error: the media URL's server closed the connection after 5 bytes of 500");
  EXPECT_EQ(server.connections(), 3);  // attempts
  EXPECT_EQ(Fetch(server.url("/long"), Open()), "|he");
  EXPECT_EQ(Fetch(server.url("/empty"), Open()), "error: the media URL's file is empty");
  for (const char* path : {"/negative", "/chunk", "/cut", "/old", "/reset", "/nothing"}) {
    const std::string result = Fetch(server.url(path), Open());
    EXPECT_TRUE(result.starts_with("error: the media URL")) << path << ": " << result;
    EXPECT_EQ(result.find("127.0.0.1"), std::string::npos) << result;
  }
}

TEST(HttpFetch, ConnectionFailuresAndServerErrorsAreTriedThreeTimes) {
  std::atomic<int> fail{0};
  std::string status;
  HttpServerForTests server([&](Connection& c, const std::string&) {
    if (fail-- > 0) {
      if (status.empty()) return;  // closed without an answer
      return c.Answer(status, "", "sorry");
    }
    c.Answer("200 OK", "", "hello");
  });
  for (const char* s : {"", "500 Oops", "502 Bad", "503 Busy", "504 Late"}) {
    status = s;
    fail = 2;
    EXPECT_EQ(Fetch(server.url(), Open()), "|hello") << s;
  }
  fail = 3;
  EXPECT_EQ(Fetch(server.url(), Open()),
            "error: the media URL's server answers with status 504; 200 is needed");
  EXPECT_EQ(server.connections(), 18);
  // What will not get better is asked once.
  for (const char* s : {"404 Gone", "403 No", "429 Slow", "204 Nothing", "206 Part", "501 What"}) {
    status = s;
    fail = 1;
    const int before = server.connections();
    EXPECT_EQ(Fetch(server.url(), Open()), StrCat("error: the media URL's server answers with status ",
                                                  std::string(s, 3), "; 200 is needed"));
    EXPECT_EQ(server.connections(), before + 1) << s;
  }
  // No attempt begins that the total time does not allow.
  status = "503 Busy";
  fail = 10;
  MediaPolicy policy = Open();
  policy.total_timeout_s = 0.1;
  const int before = server.connections();
  EXPECT_NE(Fetch(server.url(), policy), "|hello");
  EXPECT_LE(server.connections(), before + 1);
}

TEST(HttpFetch, NobodyListens) {
  int port = 0;
  {
    HttpServerForTests server(Always("200 OK", "", "x"));
    port = server.port();
  }
  EXPECT_EQ(Fetch(StrCat("http://127.0.0.1:", port, "/"), Open()),
            "error: the media URL's host takes no connection");
}

TEST(HttpFetch, TypesAndCodings) {
  std::string headers;
  HttpServerForTests server(
      [&](Connection& c, const std::string&) { c.Answer("200 OK", headers, "<html>"); });
  for (const char* type :
       {"text/html", "TEXT/HTML; charset=utf-8", "application/json", "image/svg+xml", "application/xhtml+xml",
        "text/plain", "application/vnd.apple.mpegurl", "audio/x-mpegurl", "application/dash+xml",
        "application/pdf", "multipart/x-mixed-replace", "audio/mpeg"}) {
    headers = StrCat("Content-Type: ", type, "\r\n");
    StatusOr<MediaBytes> media = FetchHttp(server.url(), Open(), 1000, "--max-image-bytes", {});
    ASSERT_FALSE(media.ok()) << type;
    EXPECT_EQ(media.status().code(), StatusCode::kUnsupportedMedia);
    EXPECT_TRUE(media.status().message().starts_with("the media URL holds ")) << media.status().message();
  }
  for (const char* type : {"image/png", "image/x-strange", "video/mp4", "video/quicktime",
                           "application/octet-stream", "binary/octet-stream", "application/mp4", ""}) {
    headers = *type == '\0' ? "" : StrCat("Content-Type: ", type, "\r\n");
    EXPECT_EQ(Fetch(server.url(), Open()), StrCat(type, "|<html>"));
  }
  for (const char* coding : {"Content-Encoding: gzip", "content-encoding: br",
                             "Content-Encoding: identity, gzip", "Transfer-Encoding: gzip, chunked"}) {
    headers = StrCat("Content-Type: image/png\r\n", coding, "\r\n");
    EXPECT_NE(Fetch(server.url(), Open()).find("which was not asked for"), std::string::npos) << coding;
  }
  headers = "Content-Encoding: identity\r\nContent-Type: image/png\r\n";
  EXPECT_EQ(Fetch(server.url(), Open()), "image/png|<html>");
}

TEST(HttpFetch, EndlessHeaders) {
  HttpServerForTests server([](Connection& c, const std::string& path) {
    c.Send(path == "/interim" ? "" : "HTTP/1.1 200 OK\r\n");
    const std::string line =
        path == "/interim" ? "HTTP/1.1 100 Continue\r\n\r\n" : StrCat("X: ", std::string(500, 'y'), "\r\n");
    while (c.Send(line)) {
    }
  });
  EXPECT_EQ(Fetch(server.url("/one"), Open()),
            "error: the media URL's server sends more than 65536 bytes of headers");
  EXPECT_EQ(Fetch(server.url("/interim"), Open()),
            "error: the media URL's server sends more than 65536 bytes of headers");
}

TEST(HttpFetch, ManyAtOnce) {
  HttpServerForTests server(Always("200 OK", "Content-Type: image/png\r\n", "hello"));
  std::atomic<int> good{0};
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&] {
        for (int k = 0; k < 10; ++k) good += Fetch(server.url(), Open()) == "image/png|hello";
      });
    }
  }
  EXPECT_EQ(good, 80);
}

// Needs the program openssl, which ca-certificates brings.
TEST(HttpFetch, CertificatesAreChecked) {
  if (std::system("openssl version > /dev/null 2>&1") != 0) GTEST_SKIP() << "no openssl program";
  const std::string folder = StrCat(testing::TempDir(), "fd_tls_", getpid());
  ASSERT_EQ(std::system(("mkdir -p " + folder).c_str()), 0);
  ASSERT_EQ(
      std::system(
          StrCat("cd ", folder,
                 " && openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj "
                 "/CN=a.example -addext subjectAltName=DNS:a.example > /dev/null 2>&1 && printf 'HTTP/1.1 "
                 "200 OK\\r\\nContent-Type: image/png\\r\\nContent-Length: 5\\r\\n\\r\\nhello' > a.png")
              .c_str()),
      0);
  int port = 0;
  {
    HttpServerForTests probe(Always("200 OK", "", "x"));
    port = probe.port();
  }
  ASSERT_EQ(std::system(StrCat("cd ", folder, " && (exec timeout 300 openssl s_server -accept 127.0.0.1:",
                               port, " -cert cert.pem -key key.pem -HTTP > /dev/null 2>&1 & echo $! > pid)")
                            .c_str()),
            0);
  FetchHooks hooks;
  hooks.resolve = [&](int) {
    return std::vector<std::string>{StrCat("a.example:", port, ":127.0.0.1"),
                                    StrCat("b.example:", port, ":127.0.0.1")};
  };
  const auto get = [&](const char* host) {
    return Fetch(StrCat("https://", host, ":", port, "/a.png"), Open(), 1000, hooks);
  };
  const char* kNoCertificate = "error: the media URL's server has no certificate that is valid for its name";
  std::string first;
  for (int i = 0; i < 100; ++i) {  // until it listens
    first = get("a.example");
    if (first.find("takes no connection") == std::string::npos) break;
  }
  EXPECT_EQ(first, kNoCertificate);  // signed by nobody
  hooks.ca_file = folder + "/cert.pem";
  EXPECT_EQ(get("a.example"), "image/png|hello");
  EXPECT_EQ(get("b.example"), kNoCertificate);  // another name
  EXPECT_EQ(std::system(StrCat("kill $(cat ", folder, "/pid); rm -r ", folder).c_str()), 0);
}

}  // namespace
}  // namespace fd
