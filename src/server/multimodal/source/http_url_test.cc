#include "server/multimodal/source/http_url.h"

#include <gtest/gtest.h>

#include "base/strings.h"

namespace fd {
namespace {

std::string Parse(std::string_view text) {
  StatusOr<HttpUrl> url = ParseHttpUrl(text);
  return url.ok() ? url->ToString() : "error: " + url.status().message();
}

TEST(HttpUrl, CanonicalForm) {
  EXPECT_EQ(Parse("http://example.com"), "http://example.com:80/");
  EXPECT_EQ(Parse("HTTPS://Example.COM/A%20b?q=1&r=2#part"), "https://example.com:443/A%20b?q=1&r=2");
  EXPECT_EQ(Parse("  https://example.com./a \n"), "https://example.com:443/a");
  EXPECT_EQ(Parse("https://example.com:8443?q"), "https://example.com:8443/?q");
  EXPECT_EQ(Parse("https://example.com:/a"), "https://example.com:443/a");
  EXPECT_EQ(Parse("http://example.com#@127.0.0.1/"), "http://example.com:80/");
  EXPECT_EQ(Parse("http://a_b.example.com/@x:y"), "http://a_b.example.com:80/@x:y");
  EXPECT_EQ(Parse("http://127.0.0.1:8000/x"),
            "http://127.0.0.1:8000/x");  // the address is judged when it is dialled
  EXPECT_EQ(Parse("http://[::1]:8000/x"), "http://[::1]:8000/x");
  EXPECT_EQ(Parse("http://[::FFFF:127.0.0.1]"), "http://[::ffff:127.0.0.1]:80/");
  EXPECT_EQ(Parse("https://example.com/\xe5\x9b\xbe.png"), "https://example.com:443/%E5%9B%BE.png");
  EXPECT_EQ(Parse("https://xn--fsq.example/"), "https://xn--fsq.example:443/");
}

TEST(HttpUrl, WhatTwoParsersMayReadDifferentlyIsRefused) {
  const struct {
    std::string_view url, word;
  } kCases[] = {
      {"http://2130706433/", "four decimal numbers"},
      {"http://0x7f.1/", "four decimal numbers"},
      {"http://127.1/", "four decimal numbers"},
      {"http://0177.0.0.1/", "four decimal numbers"},
      {"http://0x7f000001/", "four decimal numbers"},
      {"http://127.0.0.1.1/", "four decimal numbers"},
      {"http://256.0.0.1/", "four decimal numbers"},
      {"http://example.0x1/", "four decimal numbers"},
      {"http://0/", "four decimal numbers"},
      {"http://127.0.0.1../", "empty part"},
      {"http://.example.com/", "empty part"},
      {"https://good.example@127.0.0.1/", "user name"},
      {"https://user:pass@example.com/", "user name"},
      {"https://good.example\\@127.0.0.1/", "'\\'"},
      {"http:\\\\127.0.0.1/", "'\\'"},
      {"http://exa\tmple.com/", "byte 0x9"},
      {"http://example.com/a b", "byte 0x20"},
      {"http://example.com/a\r\nHost: x", "byte 0xd"},
      {std::string_view("http://example.com/\0", 20), "byte 0x00"},
      {"http://exa%6dple.com/", "'%'"},
      {"http://%31%32%37.0.0.1/", "'%'"},
      {"http://\xe2\x91\xa0\xe2\x91\xa1\xe2\x91\xa6.0.0.1/", "xn--"},
      {"http://ex\xc3\xa4mple.com/", "xn--"},
      {"http://127\xe3\x80\x82"
       "0.0.1/",
       "xn--"},
      {"http://example.com,127.0.0.1/", "','"},
      {"http:example.com", "no //"},
      {"http:/example.com", "no //"},
      {"http:///a", "has no host"},
      {"http://", "has no host"},
      {"http://:80/", "has no host"},
      {"http://?", "has no host"},
      {"http://[::1/", "']'"},
      {"http://[::1]x/", "between ']'"},
      {"http://[fe80::1%25eth0]/", "IPv6"},
      {"http://[127.0.0.1]/", "IPv6"},
      {"http://::1/", "has no host"},
      {"http://example.com:22/", "port 22"},
      {"http://example.com:25/", "port 25"},
      {"http://example.com:0/", "port"},
      {"http://example.com:65536/", "port"},
      {"http://example.com:80:80/", "port"},
      {"http://example.com:+80/", "port"},
      {"http://example.com:99999999999/", "port"},
      {"ftp://example.com/", "neither"},
      {"example.com", "neither"},
      {"", "neither"},
  };
  for (const auto& c : kCases) {
    const std::string result = Parse(c.url);
    EXPECT_TRUE(result.starts_with("error: the media URL ")) << c.url << " -> " << result;
    EXPECT_NE(result.find(c.word == "byte 0x9"   ? "byte 0x09"
                          : c.word == "byte 0xd" ? "byte 0x0d"
                                                 : c.word),
              std::string::npos)
        << c.url << " -> " << result;
  }
  EXPECT_TRUE(Parse("http://" + std::string(254, 'a') + "/").find("254") != std::string::npos);
  EXPECT_TRUE(Parse("http://" + std::string(64, 'a') + ".com/").find("64") != std::string::npos);
  EXPECT_TRUE(Parse("http://a.com/" + std::string(9000, 'a')).find("8192") != std::string::npos);
  EXPECT_EQ(Parse("http://secret.host\\x").find("secret"), std::string::npos);
}

TEST(HttpUrl, References) {
  const HttpUrl base = ParseHttpUrl("https://a.example:8443/x/y?q").value();
  EXPECT_EQ(ResolveReference(base, "http://b.example/z"), "http://b.example/z");
  EXPECT_EQ(ResolveReference(base, "file:///etc/hosts"), "file:///etc/hosts");
  EXPECT_EQ(ResolveReference(base, "//b.example/z"), "https://b.example/z");
  EXPECT_EQ(ResolveReference(base, "/z"), "https://a.example:8443/z");
  EXPECT_EQ(ResolveReference(base, "z?k"), "https://a.example:8443/x/z?k");
  EXPECT_EQ(ResolveReference(base, "?k"), "https://a.example:8443/x/y?k");
  EXPECT_EQ(ResolveReference(base, "z/a:b"), "https://a.example:8443/x/z/a:b");
  EXPECT_EQ(ResolveReference(base, "\\\\b.example/z"),
            "https://a.example:8443/x/\\\\b.example/z");  // then refused
  EXPECT_FALSE(ParseHttpUrl(ResolveReference(base, "\\\\b.example/z")).ok());
  const HttpUrl v6 = ParseHttpUrl("http://[2a00::1]:8000/").value();
  EXPECT_EQ(ResolveReference(v6, "/z"), "http://[2a00::1]:8000/z");
}

TEST(HttpUrl, Domains) {
  const auto allowed = [](const char* url, std::vector<std::string> patterns) {
    return DomainIsAllowed(ParseHttpUrl(url).value(), patterns);
  };
  EXPECT_TRUE(allowed("http://x.org/", {}));
  EXPECT_TRUE(allowed("http://A.com/", {"a.com", "*.b.org"}));
  EXPECT_TRUE(allowed("http://a.com./", {"a.com"}));
  EXPECT_FALSE(allowed("http://x.a.com/", {"a.com"}));
  EXPECT_FALSE(allowed("http://xa.com/", {"a.com"}));
  EXPECT_FALSE(allowed("http://a.com.evil.org/", {"a.com"}));
  EXPECT_TRUE(allowed("http://x.b.org/", {"a.com", "*.b.org"}));
  EXPECT_TRUE(allowed("http://x.y.b.org/", {"*.b.org"}));
  EXPECT_FALSE(allowed("http://b.org/", {"*.b.org"}));
  EXPECT_FALSE(allowed("http://evilb.org/", {"*.b.org"}));
  EXPECT_TRUE(allowed("http://8.8.8.8/", {"8.8.8.8"}));
  EXPECT_FALSE(allowed("http://8.8.8.8/", {"a.com"}));

  EXPECT_EQ(ParseDomainPattern(" A.com ").value(), "a.com");
  EXPECT_EQ(ParseDomainPattern("*.B.org").value(), "*.b.org");
  EXPECT_EQ(ParseDomainPattern("2a00::1").value(), "2a00::1");
  for (const char* bad : {"", "*", "*.", "a.*.com", "*a.com", "https://a.com", "a.com/x", "a.com:80",
                          "a..com", "127.1", "a b", "\xc3\xa4.com", "*.*.com"}) {
    StatusOr<std::string> pattern = ParseDomainPattern(bad);
    ASSERT_FALSE(pattern.ok()) << bad;
    EXPECT_NE(pattern.status().message().find("*.example.com"), std::string::npos);
  }
}

}  // namespace
}  // namespace fd
