#include "server/http/request_head.h"

#include <gtest/gtest.h>

#include "base/strings.h"

namespace fd {
namespace {

using Head = HeadParser::Result;
using Chunk = ChunkDecoder::Result;

// The fault's status, or 200. Cut into pieces of `step` bytes the verdict must be the same.
int Verdict(const std::string& bytes, const HeadLimits& limits = {}, std::string* message = nullptr) {
  int first = -1;
  for (const size_t step : {bytes.size(), size_t{1}, size_t{7}}) {
    HeadParser parser(limits);
    Head result = Head::kMore;
    for (size_t end = std::min(step, bytes.size()); result == Head::kMore;
         end = std::min(end + step, bytes.size())) {
      result = parser.Parse(std::string_view(bytes).substr(0, end));
      if (end == bytes.size()) break;
    }
    const int verdict = result == Head::kDone ? 200 : result == Head::kMore ? 0 : parser.fault().status;
    if (first < 0) first = verdict;
    EXPECT_EQ(verdict, first) << "in pieces of " << step << ": " << bytes.substr(0, 200);
    if (message != nullptr) *message = parser.fault().message;
  }
  return first;
}

std::string WithHeader(const std::string& header) {
  return StrCat("GET / HTTP/1.1\r\nHost: a\r\n", header, "\r\n\r\n");
}

TEST(HeadParser, ReadsLinesAndFields) {
  const std::string bytes =
      "\r\nPOST /v1/x?y=%0d%0a HTTP/1.1\r\nHost: a:80\r\nX-Empty:\r\nx-two: \t b c \t\r\nX-Two: "
      "d\r\n\r\nrest";
  HeadParser parser(HeadLimits{});
  ASSERT_EQ(parser.Parse(bytes), Head::kDone);
  const RequestHead& head = parser.head();
  EXPECT_EQ(head.method, "POST");
  EXPECT_EQ(head.target, "/v1/x?y=%0d%0a");
  EXPECT_TRUE(head.is_http11);
  EXPECT_EQ(head.Find("HOST"), "a:80");
  EXPECT_EQ(head.Find("X-Empty"), "");
  EXPECT_EQ(head.Find("x-tWo"), "b c");
  EXPECT_EQ(head.Count("x-two"), 2);
  EXPECT_EQ(head.Count("none"), 0);
  EXPECT_EQ(bytes.substr(head.size_bytes), "rest");
  EXPECT_EQ(Verdict("GET / HTTP/1.0\r\n\r\n"), 200);
  EXPECT_EQ(Verdict(WithHeader("X: \x80\xff")), 200);  // old clients send Latin-1
}

TEST(HeadParser, WaitsForTheEnd) {
  const std::string bytes = WithHeader("X: y");
  for (size_t size = 0; size < bytes.size(); ++size) EXPECT_EQ(Verdict(bytes.substr(0, size)), 0) << size;
}

TEST(HeadParser, RefusesWhatReadersDisagreeAbout) {
  for (const std::string& header :
       {std::string("X: a\n"), std::string("X: a\r"), std::string("X: a\r\n b"), std::string("X: a\r\n\tb"),
        std::string("X : a"), std::string("X\t: a"), std::string(": a"), std::string("X"),
        std::string("X Y: a"), std::string("X: a\0b", 6), std::string("X: \x01"), std::string("X: \x7f"),
        std::string("X\x80: a"), std::string("X: a\rY: b"), std::string("X: a\nY: b"), std::string("(X): a"),
        std::string("X\0: a", 5)}) {
    EXPECT_EQ(Verdict(WithHeader(header)), 400) << header;
  }
  EXPECT_EQ(Verdict("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), 400);
  for (const char* line :
       {"GET /", "GET / HTTP/1.1 ", "GET  / HTTP/1.1", " GET / HTTP/1.1", "GET / HTTP/2.0", "GET / HTTP/1.2",
        "GET / http/1.1", "GET / HTTP/1.1\r", "GET /a b HTTP/1.1", "GET /\x80 HTTP/1.1", "G(T / HTTP/1.1",
        "GET", "GET\t/ HTTP/1.1", "PRI * HTTP/2.0", "GET / HTTP/11", "GET / HTTP/1.1x"}) {
    EXPECT_EQ(Verdict(StrCat(line, "\r\nHost: a\r\n\r\n")), 400) << line;
  }
  EXPECT_EQ(Verdict("\r\n\r\nGET / HTTP/1.1\r\n\r\n"), 400);
  EXPECT_EQ(Verdict("\n"), 400);
  std::string message;
  EXPECT_EQ(Verdict("\x16\x03\x01", {}, &message), 400);
  EXPECT_NE(message.find("use http://"), std::string::npos) << message;
}

TEST(HeadParser, LimitsAreExactAndNameTheirFlag) {
  const HeadLimits limits{.max_line_bytes = 40, .max_head_bytes = 200, .max_headers = 3};
  const auto line = [](size_t bytes) {
    return StrCat("GET /", std::string(bytes - 14, 'x'), " HTTP/1.1\r\n");
  };
  std::string message;
  EXPECT_EQ(Verdict(line(40) + "\r\n", limits), 200);
  EXPECT_EQ(Verdict(line(41) + "\r\n", limits, &message), 414);
  EXPECT_EQ(message, "the request line is longer than 40 bytes (--max-request-line-bytes)");
  EXPECT_EQ(Verdict(std::string(41, 'x'), limits), 414);  // before its end has come
  EXPECT_EQ(Verdict(std::string(40, 'x'), limits), 0);
  EXPECT_EQ(Verdict(line(20) + "A: b\r\nA: b\r\nA: b\r\n\r\n", limits), 200);
  EXPECT_EQ(Verdict(line(20) + "A: b\r\nA: b\r\nA: b\r\nA: b\r\n\r\n", limits, &message), 431);
  EXPECT_NE(message.find("3 headers (--max-headers)"), std::string::npos) << message;
  const std::string rest = line(20) + "A: ";
  const auto whole = [&](size_t bytes) {
    return rest + std::string(bytes - rest.size() - 4, 'x') + "\r\n\r\n";
  };
  EXPECT_EQ(Verdict(whole(200), limits), 200);
  EXPECT_EQ(Verdict(whole(201), limits, &message), 431);
  EXPECT_NE(message.find("200 bytes (--max-header-bytes)"), std::string::npos) << message;
  EXPECT_EQ(Verdict(rest + std::string(200, 'x'), limits), 431);
}

TEST(HeadParser, WorkIsLinear) {
  // A byte at a time of a head of 1 MiB: quadratic work would be 2^39 bytes.
  const std::string bytes = "GET / HTTP/1.1\r\nX: " + std::string(1 << 20, 'y');
  HeadParser parser({.max_head_bytes = 2 << 20});
  for (size_t end = 1; end <= bytes.size(); ++end) {
    ASSERT_EQ(parser.Parse(std::string_view(bytes).substr(0, end)), Head::kMore);
  }
}

RequestFraming Framing(const std::string& headers, const char* version = "1.1") {
  const std::string bytes = StrCat("POST / HTTP/", version, "\r\n", headers, "\r\n");
  HeadParser parser(HeadLimits{});
  EXPECT_EQ(parser.Parse(bytes), Head::kDone) << parser.fault().message;
  return FramingOf(parser.head());
}

TEST(Framing, OneEndOrNone) {
  EXPECT_FALSE(Framing("").has_length);
  EXPECT_EQ(Framing("Content-Length: 12\r\n").content_length, 12);
  EXPECT_EQ(Framing("Content-Length: 9223372036854775797\r\n").fault, "");
  EXPECT_TRUE(Framing("transfer-encoding: Chunked\r\n").chunked);
  for (const char* headers : {"Content-Length: 5\r\nContent-Length: 6\r\n",
                              "Content-Length: 5\r\nContent-Length: 5\r\n",
                              "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
                              "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
                              "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                              "Transfer-Encoding: xchunked\r\n",
                              "Transfer-Encoding: gzip, chunked\r\n",
                              "Transfer-Encoding: chunked, chunked\r\n",
                              "Transfer-Encoding:\r\n",
                              "Transfer-Encoding: identity\r\n",
                              "Content-Length: -1\r\n",
                              "Content-Length: +5\r\n",
                              "Content-Length: 5, 5\r\n",
                              "Content-Length: 0x5\r\n",
                              "Content-Length: 5 5\r\n",
                              "Content-Length:\r\n",
                              "Content-Length: 9223372036854775808\r\n",
                              "Content-Length: 18446744073709551621\r\n",
                              "Host: a\r\nHost: a\r\n",
                              "Host: a b\r\n",
                              "Host: a,b\r\n",
                              "Host: a/b\r\n",
                              "Host: u@a\r\n"}) {
    EXPECT_NE(Framing(headers).fault, "") << headers;
    EXPECT_FALSE(Framing(headers).keep_alive);
  }
  EXPECT_NE(Framing("Transfer-Encoding: chunked\r\n", "1.0").fault, "");
}

TEST(Framing, Connections) {
  EXPECT_TRUE(Framing("").keep_alive);
  EXPECT_FALSE(Framing("", "1.0").keep_alive);
  EXPECT_TRUE(Framing("Connection: Keep-Alive\r\n", "1.0").keep_alive);
  EXPECT_FALSE(Framing("Connection: close\r\n").keep_alive);
  EXPECT_FALSE(Framing("Connection: te, Close\r\n").keep_alive);
  EXPECT_FALSE(Framing("Connection: te\r\nConnection: close\r\n").keep_alive);
  EXPECT_TRUE(Framing("Connection: closed\r\n").keep_alive);
}

// The body, or "status: message".
std::string Decoded(const std::string& bytes, int64_t max_body = 1000, int64_t max_overhead = 100,
                    std::string* rest = nullptr) {
  std::string first;
  for (const size_t step : {bytes.size(), size_t{1}, size_t{3}}) {
    ChunkDecoder decoder(max_body, max_overhead);
    std::string body;
    Chunk result = Chunk::kMore;
    size_t at = 0;
    while (at < bytes.size() && result == Chunk::kMore) {
      size_t taken = 0;
      const std::string_view piece = std::string_view(bytes).substr(at, step);
      result = decoder.Decode(piece, taken, body);
      if (result == Chunk::kMore) {
        EXPECT_EQ(taken, piece.size());
      }
      at += taken;
    }
    const std::string verdict = result == Chunk::kDone ? body
                                : result == Chunk::kMore
                                    ? "more"
                                    : StrCat(decoder.fault().status, ": ", decoder.fault().message);
    if (step == bytes.size()) first = verdict;
    EXPECT_EQ(verdict, first) << "in pieces of " << step;
    if (rest != nullptr) *rest = bytes.substr(at);
  }
  return first;
}

TEST(ChunkDecoder, Bodies) {
  std::string rest;
  EXPECT_EQ(Decoded("5\r\nhello\r\n01\r\n!\r\n0\r\n\r\nGET", 1000, 100, &rest), "hello!");
  EXPECT_EQ(rest, "GET");
  EXPECT_EQ(Decoded("0\r\n\r\n"), "");
  EXPECT_EQ(Decoded("a;x=\"y\"\r\n0123456789\r\n0;z\r\nTrailer: 1\r\nB: \r\n\r\n"), "0123456789");
  EXPECT_EQ(Decoded("5\r\nhello\r\n"), "more");
  EXPECT_EQ(Decoded("5\r\nhello\r\n0\r\n"), "more");
  EXPECT_EQ(Decoded("5\r\n\r\n0\r\n\r\n0\r\n\r\n"), "\r\n0\r\n");  // data may look like an end
  EXPECT_EQ(Decoded("4\r\n\r\n0\r\n\r\n0\r\n\r\n").substr(0, 3), "400");
}

TEST(ChunkDecoder, Faults) {
  for (const std::string& bytes : {std::string("-2\r\nab\r\n0\r\n\r\n"),
                                   std::string("ffffffffffffffff\r\nab\r\n"),
                                   std::string("fffffffffffffffff\r\n"),
                                   std::string("0x5\r\nabcde\r\n"),
                                   std::string(" 5\r\n"),
                                   std::string("5 \r\n"),
                                   std::string("\r\n\r\n"),
                                   std::string("zz\r\n"),
                                   std::string("5\r\nabcdeXX"),
                                   std::string("+5\r\n"),
                                   std::string("5\nabcde"),
                                   std::string("5\r\nabcde\n"),
                                   std::string("5\rx"),
                                   std::string("5\r\nabcde\rx"),
                                   std::string("5;a\nb\r\n"),
                                   std::string("5;\0\r\n", 5),
                                   std::string("0\r\n X: 1\r\n\r\n"),
                                   std::string("0\r\nX: 1\n\r\n"),
                                   std::string("0\r\n\rx"),
                                   std::string("0\r\nX: \x01\r\n\r\n"),
                                   std::string("0\r\n: x\r\n\r\n")}) {
    EXPECT_EQ(Decoded(bytes).substr(0, 5), "400: ") << bytes;
  }
  EXPECT_EQ(Decoded("3e8\r\n" + std::string(1000, 'x') + "\r\n0\r\n\r\n"), std::string(1000, 'x'));
  EXPECT_EQ(Decoded("3e9\r\n").substr(0, 5), "413: ");
  EXPECT_EQ(Decoded("3e8\r\n" + std::string(1000, 'x') + "\r\n1\r\n").substr(0, 5), "413: ");
  EXPECT_EQ(Decoded("7fffffffffffffff\r\n").substr(0, 5), "413: ");
}

TEST(ChunkDecoder, FramingIsBounded) {
  const auto chunks = [](int count, const std::string& chunk) {
    std::string out;
    for (int i = 0; i < count; ++i) out += chunk;
    return out + "0\r\n\r\n";
  };
  // Five bytes of framing for each of the data: four too many.
  EXPECT_EQ(Decoded(chunks(20, "1\r\nx\r\n")), std::string(20, 'x'));
  const std::string refused = Decoded(chunks(30, "1\r\nx\r\n"));
  EXPECT_EQ(refused.substr(0, 5), "400: ");
  EXPECT_NE(refused.find("100 bytes and the size of the body (--max-chunk-overhead-bytes)"),
            std::string::npos);
  EXPECT_EQ(Decoded(chunks(100, "6\r\nxxxxxx\r\n")), std::string(600, 'x'));
  EXPECT_EQ(Decoded("1;" + std::string(200, 'e')).substr(0, 3), "400");
  EXPECT_EQ(Decoded("0\r\nX: " + std::string(200, 'e')).substr(0, 3), "400");
  EXPECT_EQ(Decoded(std::string(200, '0')).substr(0, 3), "400");
}

}  // namespace
}  // namespace fd
